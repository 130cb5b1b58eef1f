"""The whole cache: lists, sizes, verification and repair, collection, and names that come from outside."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.store.helpers import columns_bytes, faults, files_below, make_spec, read_only, rows_of, run_all
from wbtui.errors import StoreError, UsageError
from wbtui.store import io, places
from wbtui.store.cache import disk_usage, gc, list_products, pin, remove, safe_product_path, verify
from wbtui.store.products import Product

HOUR = 3600.0


def kinds(problems):
    return [(p.kind, p.repaired) for p in problems]


def dead_pid() -> int:
    """A process that has ended."""
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    child.wait()
    return child.pid


def age(path, seconds):
    when = time.time() - seconds
    os.utime(path, (when, when))


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


@pytest.fixture
def three(tmp_path):
    """A complete product, a partial one and a vocabulary, of two models."""
    done, half = make_spec(), make_spec(name="other")
    vocab = make_spec(rows=0, shard_rows=0, analysis="vocab")
    run_all(tmp_path, done)
    Product(tmp_path, half).begin()
    Product(tmp_path, half).write_shard(8, 16, rows_of(8, 16))
    Product(tmp_path, vocab).write_whole({"text": np.zeros(5, np.uint8)})
    return tmp_path, done, half, vocab


def test_an_absent_cache_is_empty(tmp_path):
    cache = tmp_path / "none"
    assert list_products(cache) == []
    assert verify(cache) == []
    assert gc(cache, max_bytes=0).removed == []
    assert disk_usage(cache).total == 0
    assert not cache.exists()


def test_the_list_says_what_there_is(three):
    cache, done, half, vocab = three
    entries = {entry.relative: entry for entry in list_products(cache)}
    assert set(entries) == {done.relative, half.relative, vocab.relative}
    assert json.loads(json.dumps([entry.to_json() for entry in entries.values()]))
    entry = entries[done.relative]
    assert (entry.state, entry.rows, entry.rows_done, entry.model, entry.sae) == ("complete", 20, 20, "demo", "L3")
    assert (entry.analysis, entry.key, entry.device, entry.seconds) == ("null", done.key, "cpu", 1.5)
    assert entry.bytes == sum((cache / done.relative / f).stat().st_size for f in files_below(cache / done.relative))
    assert (entries[half.relative].state, entries[half.relative].rows_done) == ("partial", 8)
    assert entries[vocab.relative].state == "complete"


def test_the_list_survives_anything_in_the_folder(three):
    cache, done, half, vocab = three
    (cache / done.relative / "manifest.json").write_text("{")
    path = cache / vocab.relative / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "wbtui.product/7"}))
    (cache / "products" / "stray").write_bytes(b"")
    (cache / "products" / done.model_slug / "link").symlink_to("/")
    os.makedirs(cache / "products" / "m" / "s" / "tokens-zz")
    os.makedirs(cache / "products" / "m" / "s" / "tokens-0123456789abcdef")
    states = {entry.relative: entry.state for entry in list_products(cache)}
    assert states == {done.relative: "damaged", half.relative: "partial", vocab.relative: "newer"}


def test_sizes_by_model_sae_and_analysis_each_sum_to_all(three):
    cache, _, half, vocab = three
    usage = disk_usage(cache)
    assert usage.products == sum(e.bytes for e in list_products(cache)) == usage.total
    for group in (usage.by_model, usage.by_sae, usage.by_analysis):
        assert sum(group.values()) == usage.products
    assert set(usage.by_model) == {"demo-00000000", "other-00000000"}
    assert set(usage.by_sae) == {"demo-00000000/L3-11111111", "other-00000000/L3-11111111"}
    assert usage.by_analysis["vocab"] == next(e.bytes for e in list_products(cache) if e.relative == vocab.relative)
    assert usage.free > 0
    io.own_name(cache / half.relative / "shards" / "x").write_bytes(b"12345")
    assert disk_usage(cache).temporaries == 5
    assert json.loads(json.dumps(usage.to_json()))


# --- verify -----------------------------------------------------------------------------------------------------------


def test_a_sound_cache_has_no_problems_and_progress_is_told(three):
    cache = three[0]
    told = []
    assert verify(cache, lambda *a: told.append(a)) == []
    assert [(done, total) for done, total, _ in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_bad_columns_are_found_and_repair_makes_the_product_absent(three):
    cache, done, _, _ = three
    path = cache / done.relative / "columns.safetensors"
    want = path.read_bytes()
    flip(path)
    assert kinds(verify(cache)) == [("bad-columns", False)]
    assert Product(cache, done).state == "complete"  # only reading all of it can tell
    (problem,) = verify(cache, repair=True)
    assert (problem.kind, problem.repaired, problem.path) == (
        "bad-columns",
        True,
        f"{done.relative}/columns.safetensors",
    )
    assert "SHA-256" in problem.detail
    assert json.loads(json.dumps(problem.to_json()))
    assert Product(cache, done).state == "absent"
    assert verify(cache) == []
    run_all(cache, done)
    assert path.read_bytes() == want


@pytest.mark.parametrize("harm", ["short", "gone", "other"])
def test_columns_that_are_short_gone_or_of_another_product_are_found(three, harm):
    cache, done, _, _ = three
    path = cache / done.relative / "columns.safetensors"
    if harm == "gone":
        path.unlink()
    elif harm == "short":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        run_all(cache / "b", make_spec(other=1))
        path.write_bytes(columns_bytes(cache / "b", make_spec(other=1)))
    assert kinds(verify(cache)) == [("bad-columns", False)]
    assert kinds(verify(cache, repair=True)) == [("bad-columns", True)]
    assert verify(cache) == []
    assert Product(cache, done).state == "absent"


def test_a_bad_shard_is_found_and_only_it_is_removed(three):
    cache, _, half, _ = three
    product = Product(cache, half)
    product.write_shard(0, 8, rows_of(0, 8))
    flip(product.shard_path(0, 8))
    assert kinds(verify(cache)) == [("bad-shard", False)]
    assert kinds(verify(cache, repair=True)) == [("bad-shard", True)]
    assert product.missing() == [(0, 8), (16, 20)]
    assert verify(cache) == []


def test_manifests_are_checked(three):
    cache, done, half, vocab = three
    path = cache / done.relative / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "sha256": "0" * 64}))
    assert kinds(verify(cache)) == [("bad-manifest", False)]
    assert kinds(verify(cache, repair=True)) == [("bad-manifest", True)]
    assert json.loads(path.read_text()) == data
    path.write_text("{")
    (cache / half.relative / "manifest.json").write_text(json.dumps({**data, "schema": "wbtui.product/2"}))
    os.rename(cache / vocab.relative, (cache / vocab.relative).with_name("vocab-0123456789abcdef"))
    found = verify(cache, repair=True)
    assert sorted(kinds(found)) == [("bad-manifest", False), ("misplaced", False), ("newer", False)]
    assert path.read_text() == "{"  # what cannot be mended is left alone
    assert Product(cache, done).missing() == []


def test_strays_links_and_leftovers_are_named(three):
    cache, done, half, _ = three
    (cache / done.relative / "notes.txt").write_text("mine")
    (cache / half.relative / "shards" / "00000000-00000009.safetensors").write_bytes(b"")
    (cache / "products" / "file").write_bytes(b"")
    (cache / "products" / done.model_slug / "link").symlink_to("/etc")
    os.makedirs(cache / done.relative / "shards")
    (cache / half.relative / "shards" / f".tmp-{io.host_tag()}-{dead_pid()}-0-x").write_bytes(b"1")
    found = verify(cache)
    assert sorted(p.kind for p in found) == ["leftover-shards", "link", "stray", "stray", "stray", "temporary"]
    repaired = {p.kind for p in verify(cache, repair=True) if p.repaired}
    assert repaired == {"leftover-shards", "temporary"}
    assert (cache / done.relative / "notes.txt").read_text() == "mine"
    assert sorted(p.kind for p in verify(cache)) == ["link", "stray", "stray", "stray"]


def test_an_unreadable_file_is_named_and_never_removed(three):
    cache, done, _, _ = three

    def denied(op, path):
        if (op, path.name) == ("open", "columns.safetensors"):
            raise PermissionError(errno.EACCES, "denied", str(path))

    with faults(denied):
        found = verify(cache, repair=True)
    assert {p.kind for p in found} == {"unreadable"}
    assert Product(cache, done).state == "complete"


def test_repair_of_a_read_only_cache_is_a_clear_error(three):
    cache, done, _, _ = three
    flip(cache / done.relative / "columns.safetensors")
    with faults(read_only):
        assert kinds(verify(cache)) == [("bad-columns", False)]
        with pytest.raises(StoreError, match="read-only"):
            verify(cache, repair=True)
        with pytest.raises(StoreError, match="read-only"):
            gc(cache, max_bytes=0)


# --- gc ---------------------------------------------------------------------------------------------------------------


def test_gc_without_a_limit_evicts_nothing(three):
    cache = three[0]
    before = files_below(cache)
    assert gc(cache).removed == []
    assert files_below(cache) == before


def test_the_least_recently_used_goes_first_until_it_fits(tmp_path):
    specs = [make_spec(n=n) for n in range(4)]
    for n, spec in enumerate(specs):
        run_all(tmp_path, spec)
        age(tmp_path / spec.relative / "manifest.json", (10 - n) * HOUR)
    Product(tmp_path, specs[0]).columns()  # used just now
    sizes = {e.relative: e.bytes for e in list_products(tmp_path)}
    limit = sum(sizes.values()) - sizes[specs[1].relative] - 1
    dry = gc(tmp_path, limit, dry_run=True)
    assert len(list_products(tmp_path)) == 4
    report = gc(tmp_path, limit)
    assert report.removed == dry.removed == [specs[1].relative, specs[2].relative]
    assert report.removed_bytes == dry.removed_bytes == sizes[specs[1].relative] + sizes[specs[2].relative]
    assert report.kept_bytes == sum(e.bytes for e in list_products(tmp_path)) <= limit
    assert (report.over, dry.over) == (0, 0)
    assert {e.relative for e in list_products(tmp_path)} == {specs[0].relative, specs[3].relative}
    assert json.loads(json.dumps(report.to_json()))


def test_pinned_open_newer_and_busy_products_stay(tmp_path):
    pinned, held, newer, busy, idle, plain = (make_spec(n=n) for n in range(6))
    for spec in (pinned, held, newer, plain):
        run_all(tmp_path, spec)
    for spec in (busy, idle):
        Product(tmp_path, spec).write_shard(0, 8, rows_of(0, 8))
    age(Product(tmp_path, idle).shard_path(0, 8), 2 * HOUR)
    pin(tmp_path, pinned.relative)
    path = tmp_path / newer.relative / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "wbtui.product/2"}))
    with Product(tmp_path, held).hold():
        report = gc(tmp_path, 0)
        assert set(report.removed) == {idle.relative, plain.relative}
        assert report.kept == {
            pinned.relative: "pinned",
            held.relative: "open",
            newer.relative: "made by a newer wbtui",
            busy.relative: "being computed",
        }
        assert report.over == sum(e.bytes for e in list_products(tmp_path)) > 0
        assert {e.relative for e in list_products(tmp_path) if e.open} == {held.relative}
    pin(tmp_path, pinned.relative, pinned=False)
    assert set(gc(tmp_path, 0).removed) == {pinned.relative, held.relative}


def test_empty_folders_go_with_their_last_product(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    gc(tmp_path, 0)
    assert os.listdir(tmp_path / "products") == []


def test_marks_of_dead_readers_do_not_hold(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    folder = tmp_path / spec.relative
    (folder / f"open-{io.host_tag()}-{dead_pid()}-00").write_bytes(b"")
    other = folder / "open-elsewhere.000000-7-00"
    other.write_bytes(b"")
    assert gc(tmp_path, 0).removed == []  # another host's reader may live
    assert sorted(os.listdir(folder)) == sorted(["columns.safetensors", "manifest.json", other.name])
    age(other, 25 * HOUR)
    assert gc(tmp_path, 0).removed == [spec.relative]


def test_temporary_files_go_when_stale_only(tmp_path):
    spec = make_spec()
    product = Product(tmp_path, spec)
    product.write_shard(0, 8, rows_of(0, 8))
    shards = product.path / "shards"
    mine = io.own_name(shards / "x")
    foreign = shards / ".tmp-elsewhere.000000-1-0-x"
    dead = [folder / f".tmp-{io.host_tag()}-{dead_pid()}-0-x" for folder in (shards, product.path, product.path.parent)]
    memo = tmp_path / "fingerprints" / f".tmp-{io.host_tag()}-{dead_pid()}-0-x"
    memo.parent.mkdir()
    gone = product.path.parent / f".gone-{io.host_tag()}-{dead_pid()}-0-null"
    gone.mkdir()
    (gone / "big").write_bytes(b"12345678")
    for path in (mine, foreign, *dead, memo):
        path.write_bytes(b"1")
    assert gc(tmp_path, dry_run=True).temporaries == 5
    report = gc(tmp_path)
    assert (report.temporaries, report.temporary_bytes) == (5, 12)
    assert sorted(name for name in os.listdir(shards) if io.is_temporary(name)) == sorted([mine.name, foreign.name])
    assert gc(tmp_path, now=time.time() + 2 * HOUR).temporaries == 2
    assert product.missing() == [(8, 16), (16, 20)]


def test_a_reader_keeps_what_it_mapped_though_the_product_is_evicted(tmp_path):
    spec = make_spec()
    run_all(tmp_path, spec)
    columns = Product(tmp_path, spec).columns()
    assert gc(tmp_path, 0).removed == [spec.relative]
    assert columns["big"].tolist() == rows_of(0, 20)["big"].tolist()


def test_removing_one_product(three):
    cache, done, half, _ = three
    size = next(e.bytes for e in list_products(cache) if e.relative == done.relative)
    pin(cache, done.relative)
    with pytest.raises(StoreError, match="pinned"):
        remove(cache, done.relative)
    pin(cache, done.relative, pinned=False)
    assert remove(cache, done.relative) == size
    with pytest.raises(StoreError, match="no such product"):
        remove(cache, done.relative)
    assert Product(cache, half).state == "partial"


@pytest.mark.parametrize("complete", [True, False])
def test_nothing_follows_a_link_out_of_the_cache(tmp_path, complete):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f".tmp-{io.host_tag()}-{dead_pid()}-0-x").write_bytes(b"mine")
    (outside / "00000000-00000008.safetensors").write_bytes(b"mine")
    before = files_below(outside)
    spec = make_spec()
    cache = tmp_path / "cache"
    product = Product(cache, spec)
    product.begin()
    if complete:
        run_all(cache, spec)
    (cache / spec.relative / "shards").symlink_to(outside)
    (cache / "products" / "model").symlink_to(outside)
    (cache / "fingerprints").symlink_to(outside)
    assert product.shards() == {}
    if not complete:
        with pytest.raises(StoreError, match="a link"):
            product.write_shard(0, 8, rows_of(0, 8))
        assert [p.kind for p in verify(cache)] == ["link", "link"]
    for housekeeping in (
        lambda: verify(cache, repair=True),
        lambda: gc(cache, now=time.time() + 9 * HOUR),
        lambda: product.assemble() if complete else None,
        lambda: gc(cache, 0, now=time.time() + 9 * HOUR),
    ):
        housekeeping()
        assert files_below(outside) == before
        if complete and (cache / spec.relative).is_dir() and not (cache / spec.relative / "shards").is_symlink():
            (cache / spec.relative / "shards").symlink_to(outside)
    assert list_products(cache) == []


# --- names from outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "relative",
    [
        "", "/etc/passwd", "products", "products/a/b", "products/a/b/c", "products/../b/null-0123456789abcdef",
        "products/a/../null-0123456789abcdef", "products/./b/null-0123456789abcdef", "../a/b/null-0123456789abcdef",
        "products/a/b/null-0123456789abcdef/", "products/a/b/null-0123456789abcdef/..",
        "products//b/null-0123456789abcdef",
        "products/a/b/null-0123456789abcdeF", "products/a/b/null-0123", "products/a\0/b/null-0123456789abcdef",
        "products/a/b/null-0123456789abcdef\n", "products/.a/b/null-0123456789abcdef", "~/a/b/null-0123456789abcdef",
        f"products/{'a' * 200}/b/null-0123456789abcdef",
    ],
)  # fmt: skip
def test_a_path_that_is_no_product_is_refused(tmp_path, relative):
    for use in (safe_product_path, remove, pin):
        with pytest.raises(UsageError, match="product path"):
            use(tmp_path, relative)


def test_a_products_path_is_accepted_whether_it_is_there_or_not(tmp_path):
    relative = make_spec().relative
    assert safe_product_path(tmp_path, relative) == tmp_path / relative
    with pytest.raises(StoreError, match="no such product"):
        pin(tmp_path, relative)


def test_shard_names_and_ranges_are_inverses():
    for span in ((0, 256), (99_999_744, 100_000_000), (123_456_789, 123_457_045)):
        assert places.shard_range(places.shard_name(*span)) == span
    for name in ("0-256.safetensors", "000000000-00000256.safetensors", "00000000-00000256.safetensors.x", "x"):
        assert places.shard_range(name) is None


def test_what_a_process_holds_until_its_end_is_not_evicted_and_can_go_afterwards(tmp_path):
    """The app marks what it shows; a mark lives no longer than its process."""
    spec = make_spec(rows=12, shard_rows=8)
    run_all(tmp_path, spec)
    code = (
        "import sys; from pathlib import Path; from wbtui.store import places\n"
        "for _ in range(3): places.hold_until_exit(Path(sys.argv[1]))\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    folder = tmp_path / spec.relative
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert len(list(folder.glob("open-*"))) == 1
    assert gc(tmp_path, 0).kept == {spec.relative: "open"}
    child.communicate("\n", timeout=60)
    assert not list(folder.glob("open-*"))
    assert gc(tmp_path, 0).removed == [spec.relative]
