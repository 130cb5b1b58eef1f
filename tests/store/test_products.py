"""Products: the way from absent to complete, and everything that may be found on it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.store.helpers import FACTS, columns_bytes, faults, files_below, make_spec, read_only, rows_of, run_all
from wbtui.errors import StoreError, UsageError
from wbtui.store import io
from wbtui.store.products import Product
from wbtui.store.refusals import Damaged, ShardsMissing


def test_from_absent_to_complete(tmp_path):
    spec = make_spec()
    product = Product(tmp_path, spec)
    assert (product.state, product.missing()) == ("absent", [(0, 8), (8, 16), (16, 20)])
    assert product.manifest() == {}
    assert files_below(tmp_path) == []  # asking writes nothing
    product.begin()
    begun = product.manifest()
    assert (product.state, begun["status"], begun["key"]) == ("partial", "computing", spec.key)
    product.write_shard(8, 16, rows_of(8, 16))
    assert product.missing() == [(0, 8), (16, 20)]
    assert list(product.shards()) == [(8, 16)]
    with product.read_shard(8, 16) as shard:
        assert shard["big"].tolist() == rows_of(8, 16)["big"].tolist()
    product.write_shard(0, 8, rows_of(0, 8))
    product.write_shard(16, 20, rows_of(16, 20))
    assert product.missing() == []
    product.assemble(FACTS)
    assert product.state == "complete"
    assert product.missing() == []
    assert files_below(product.path) == ["columns.safetensors", "manifest.json"]
    for name, array in load_file(product.path / "columns.safetensors").items():
        np.testing.assert_array_equal(array, rows_of(0, 20)[name])
    done = product.manifest()
    assert done["status"] == "complete"
    assert done["created"] == begun["created"]
    assert done["bytes"] == len(columns_bytes(tmp_path, spec))
    assert done["sha256"] == product.columns().metadata["sha256"]
    assert {name: done[name] for name in FACTS} == FACTS
    assert (done["dtype"], done["n_nonfinite"], done["nonfinite_rows"]) == ("float32", 0, [])
    assert done["spec"] == spec.to_json()


def test_bytes_do_not_depend_on_order_process_or_time(tmp_path):
    spec = make_spec()
    run_all(tmp_path / "a", spec)
    product = Product(tmp_path / "b", spec)
    for start, stop in reversed(product.ranges()):
        Product(tmp_path / "b", spec).write_shard(start, stop, rows_of(start, stop))
    for path in product.shards().values():
        os.utime(path, (1, 1))
    product.assemble({"device": "other", "seconds": 9.0})
    assert columns_bytes(tmp_path / "a", spec) == columns_bytes(tmp_path / "b", spec)


def test_every_step_may_be_repeated(tmp_path):
    spec = make_spec()
    product = Product(tmp_path, spec)
    product.begin()
    first = (product.path / "manifest.json").read_bytes()
    product.begin()
    assert (product.path / "manifest.json").read_bytes() == first
    path = product.write_shard(0, 8, rows_of(0, 8))
    bytes_of = path.read_bytes()
    assert product.write_shard(0, 8, rows_of(0, 8)).read_bytes() == bytes_of
    run_all(tmp_path, spec)
    done = (product.path / "manifest.json").read_bytes()
    product.assemble({"device": "other"})
    product.begin()
    assert (product.path / "manifest.json").read_bytes() == done
    assert product.write_shard(0, 8, rows_of(0, 8)).name == "columns.safetensors"  # too late is no harm
    assert files_below(product.path) == ["columns.safetensors", "manifest.json"]


def test_a_whole_product_is_complete_at_once(tmp_path):
    spec = make_spec(rows=0, shard_rows=0, analysis="vocab")
    product = Product(tmp_path, spec)
    assert product.missing() == [(0, 0)]
    arrays = {"text": np.frombuffer(b"abc", np.uint8), "offsets": np.array([0, 1, 3])}
    product.write_whole(arrays, {"device": "cpu", "odd": object, "nan": float("nan")})
    assert (product.state, product.missing()) == ("complete", [])
    assert bytes(product.columns()["text"]) == b"abc"
    assert product.manifest()["facts"]["nan"] is None
    first = columns_bytes(tmp_path, spec)
    product.write_whole(arrays)
    product.assemble()
    assert columns_bytes(tmp_path, spec) == first
    with pytest.raises(StoreError, match="rows"):
        Product(tmp_path, make_spec()).write_whole(arrays)


def test_assembly_names_what_is_missing(tmp_path):
    product = Product(tmp_path, make_spec())
    product.write_shard(0, 8, rows_of(0, 8))
    with pytest.raises(ShardsMissing, match="2 of 3 shards") as missing:
        product.assemble()
    assert missing.value.ranges == [(8, 16), (16, 20)]
    assert product.state == "partial"
    with pytest.raises(StoreError, match=r"partial; expected a complete product; compute it"):
        product.columns()


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (1, 8), (4, 12), (16, 24), (20, 28), (-8, 0), (8, 8)])
def test_a_range_that_is_no_shard_is_refused(tmp_path, start, stop):
    with pytest.raises(StoreError, match="a shard of 8 rows"):
        Product(tmp_path, make_spec()).write_shard(start, stop, rows_of(0, max(0, stop - start)))
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros(7)}, {"a": np.float32(3)}, {"a": np.zeros((7, 8))}])
def test_arrays_that_do_not_fit_the_range_are_refused(tmp_path, arrays):
    with pytest.raises(StoreError):
        Product(tmp_path, make_spec()).write_shard(0, 8, {k: np.asarray(v) for k, v in arrays.items()})
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("harm", ["short", "empty", "header", "other product", "other rows", "junk"])
def test_a_bad_shard_is_removed_and_counts_as_missing(tmp_path, harm):
    spec = make_spec()
    product = Product(tmp_path, spec)
    for start, stop in product.ranges():
        product.write_shard(start, stop, rows_of(start, stop))
    path = product.shard_path(8, 16)
    raw = path.read_bytes()
    if harm == "other product":
        raw = Product(tmp_path / "b", make_spec(other=1)).write_shard(8, 16, rows_of(8, 16)).read_bytes()
    elif harm == "other rows":
        raw = product.shard_path(0, 8).read_bytes()
    else:
        raw = {"short": raw[:-1], "empty": b"", "header": raw.replace(b"half", b"harf"), "junk": b"\xff" * 900}[harm]
    path.write_bytes(raw)
    with pytest.raises(Damaged):
        product.read_shard(8, 16)
    assert Product(tmp_path, spec).missing() == [(8, 16)]
    assert not path.exists()
    assert run_all(tmp_path, spec) == [(8, 16)]


def test_flipped_data_are_found_at_assembly_before_they_are_copied(tmp_path):
    spec = make_spec()
    run_all(tmp_path / "good", spec)
    product = Product(tmp_path, spec)
    for start, stop in product.ranges():
        raw = bytearray(product.write_shard(start, stop, rows_of(start, stop)).read_bytes())
        if start in (0, 16):
            raw[-1] ^= 4
            product.shard_path(start, stop).write_bytes(raw)
    assert product.missing() == []  # header and size are in order
    with pytest.raises(ShardsMissing) as missing:
        product.assemble()
    assert missing.value.ranges == [(0, 8), (16, 20)] == product.missing()
    assert sorted(os.listdir(product.path)) == ["manifest.json", "shards"]
    assert run_all(tmp_path, spec) == [(0, 8), (16, 20)]
    assert columns_bytes(tmp_path, spec) == columns_bytes(tmp_path / "good", spec)


def test_shards_of_another_program_give_way_to_the_newest(tmp_path):
    spec = make_spec()
    product = Product(tmp_path, spec)
    old = product.write_shard(0, 8, {"old": np.zeros(8)})
    os.utime(old, (1, 1))
    product.write_shard(8, 16, rows_of(8, 16))
    product.write_shard(16, 20, rows_of(16, 20))
    with pytest.raises(ShardsMissing) as missing:
        product.assemble()
    assert missing.value.ranges == [(0, 8)]
    assert run_all(tmp_path, spec) == [(0, 8)]


def test_metadata_that_all_shards_share_stand_in_the_columns(tmp_path):
    product = Product(tmp_path, make_spec())
    for start, stop in product.ranges():
        product.write_shard(start, stop, rows_of(start, stop), {"kernel": "sdpa", "first": str(start)})
    product.assemble()
    metadata = product.columns().metadata
    assert metadata["kernel"] == "sdpa"
    assert "first" not in metadata
    assert "range" not in metadata


def test_columns_without_a_manifest_are_taken_up_again(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    product = Product(tmp_path, spec)
    first = columns_bytes(tmp_path, spec)
    for content in (None, b"", b"{", b"[1]", b'{"schema": "wbtui.product/1"}', b"\xff\xfe"):
        (product.path / "manifest.json").unlink()
        if content is not None:
            (product.path / "manifest.json").write_bytes(content)
        assert product.state == "partial"
        assert product.missing() == []
        product.begin()
        assert product.state == "complete"
        assert columns_bytes(tmp_path, spec) == first
        assert files_below(product.path) == ["columns.safetensors", "manifest.json"]


def test_a_corrupt_manifest_of_a_partial_product_is_rewritten_and_shards_stay(tmp_path):
    spec = make_spec()
    product = Product(tmp_path, spec)
    product.begin()
    product.write_shard(0, 8, rows_of(0, 8))
    (product.path / "manifest.json").write_bytes(b"\0\0\0")
    assert product.state == "partial"
    assert run_all(tmp_path, spec) == [(8, 16), (16, 20)]


def test_a_newer_manifest_is_refused_and_never_overwritten(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    product = Product(tmp_path, spec)
    path = product.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "wbtui.product/2"}))
    before = path.read_bytes()
    for step in (
        product.begin,
        product.assemble,
        product.columns,
        product.missing,
        product.manifest,
        lambda: product.state,
        lambda: product.write_shard(0, 8, rows_of(0, 8)),
    ):
        with pytest.raises(StoreError, match="made by a newer wbtui"):
            step()
    assert path.read_bytes() == before
    assert files_below(product.path) == ["columns.safetensors", "manifest.json"]


def test_a_folder_that_was_renamed_is_refused(tmp_path):
    spec, other = make_spec(), make_spec(other=1)
    run_all(tmp_path, spec)
    os.rename(tmp_path / spec.relative, tmp_path / other.relative)
    with pytest.raises(StoreError, match="do not rename"):
        Product(tmp_path, other).columns()


@pytest.mark.parametrize("harm", ["short", "gone", "long"])
def test_a_complete_product_whose_file_has_another_size_is_not_complete(tmp_path, harm):
    spec = make_spec()
    run_all(tmp_path, spec)
    product = Product(tmp_path, spec)
    first = columns_bytes(tmp_path, spec)
    path = product.path / "columns.safetensors"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(first[:-1] if harm == "short" else first + b"\0")
    assert product.state == ("absent" if harm == "gone" else "partial")
    with pytest.raises(StoreError):
        product.columns()
    assert run_all(tmp_path, spec) == product.ranges()
    assert columns_bytes(tmp_path, spec) == first


def test_nonfinite_rows_are_counted_and_listed(tmp_path):
    spec = make_spec(rows=300, shard_rows=300)
    product = Product(tmp_path, spec)
    wide, narrow = np.zeros((300, 2), np.float32), np.zeros(300, np.float32)
    wide[::2], narrow[::2] = np.nan, np.inf
    wide[3, 0] = narrow[5] = np.nan  # rows that still hold a finite number
    product.write_shard(0, 300, {"wide": wide, "narrow": narrow, "ids": np.zeros(300, np.int32)})
    product.assemble()
    assert product.manifest()["n_nonfinite"] == 150
    assert product.manifest()["nonfinite_rows"] == list(range(0, 200, 2))


def test_flags_name_the_nonfinite_rows_of_a_tokens_product(tmp_path):
    product = Product(tmp_path, make_spec(rows=8, analysis="tokens"))
    flags = np.array([0, 1, 2, 4, 8, 16, 5, 0], np.uint8)
    product.write_shard(0, 8, {"flags": flags, "writes.z_max": np.full(8, np.nan, np.float32)})
    product.assemble()
    assert product.manifest()["nonfinite_rows"] == [1, 3, 6]


def test_a_finished_product_needs_no_write_permission(tmp_path):
    spec, partial = make_spec(), make_spec(other=1)
    run_all(tmp_path, spec)
    Product(tmp_path, partial).write_shard(0, 8, rows_of(0, 8))
    os.utime(
        tmp_path / spec.relative / "manifest.json", (1, 1)
    )  # old enough for its use to be noted, if that were allowed
    with faults(read_only):
        product = Product(tmp_path, spec)
        assert product.state == "complete"
        assert product.missing() == []
        with product.hold():
            assert product.columns()["odd"][7] == 7
        product.begin()
        product.assemble()
        half = Product(tmp_path, partial)
        assert (half.state, half.missing()) == ("partial", [(8, 16), (16, 20)])
        assert half.read_shard(0, 8)["odd"][7] == 7
        half.shard_path(0, 8).write_bytes(b"")
        assert half.missing() == half.ranges()  # it cannot be removed, and is still not trusted
        with pytest.raises(StoreError, match="read-only") as refused:
            half.write_shard(8, 16, rows_of(8, 16))
        assert "WBTUI_CACHE_DIR" in refused.value.do
        with pytest.raises(StoreError, match="read-only"):
            Product(tmp_path, make_spec(other=2)).begin()


def test_use_is_noted_at_most_once_an_hour(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    path = tmp_path / spec.relative / "manifest.json"
    os.utime(path, (1, 1))
    Product(tmp_path, spec).columns()
    assert path.stat().st_mtime > 1e9
    touched: list[str] = []
    with faults(lambda op, where: touched.append(op)):
        Product(tmp_path, spec).columns()
    assert "utime" not in touched


@pytest.mark.parametrize("slug", ["..", "a/b", "", ".hidden", "a\0b", "a\nb", "-x"])
def test_a_spec_cannot_lead_out_of_the_cache(tmp_path, slug):
    spec = make_spec()
    for bad in (
        type(spec)(**{**spec.to_json(), "model_slug": slug}),
        type(spec)(**{**spec.to_json(), "analysis": slug}),
    ):
        with pytest.raises(UsageError, match="product path"):
            Product(tmp_path, bad)


def test_a_link_cannot_lead_out_of_the_cache(tmp_path):
    spec = make_spec()
    (tmp_path / "cache" / "products").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache" / "products" / spec.model_slug).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="by a link"):
        Product(tmp_path / "cache", spec)
    (tmp_path / "moved").symlink_to(tmp_path / "elsewhere")  # the cache itself may be a link
    run_all(tmp_path / "moved", spec)
    assert Product(tmp_path / "moved", spec).state == "complete"


def test_names_beside_the_shards_are_not_shards(tmp_path):
    spec = make_spec()
    product = Product(tmp_path, spec)
    product.write_shard(0, 8, rows_of(0, 8))
    good = product.shard_path(0, 8).read_bytes()
    for name in ("00000000-00000007.safetensors", "0-8.safetensors", "00000004-00000012.safetensors", "x"):
        (product.path / "shards" / name).write_bytes(good)
    (product.path / "shards" / io.own_name(product.shard_path(8, 16)).name).write_bytes(good[:50])
    assert list(product.shards()) == [(0, 8)]
    assert run_all(tmp_path, spec) == [(8, 16), (16, 20)]
    assert files_below(product.path) == ["columns.safetensors", "manifest.json"]


def test_rows_that_another_process_made_meanwhile_are_found(tmp_path):
    spec = make_spec(rows=12, shard_rows=8)
    product = Product(tmp_path, spec)
    assert not product.has(0, 8)
    other = Product(tmp_path, spec)
    other.begin()
    other.write_shard(0, 8, rows_of(0, 8))
    assert product.has(0, 8) and not product.has(8, 12) and not product.has(0, 4)
    product.shard_path(0, 8).write_bytes(b"short")
    assert not product.has(0, 8)
    run_all(tmp_path, spec)
    assert product.has(0, 8) and product.has(8, 12)
