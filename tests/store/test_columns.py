"""Columns files: round trips, equal bytes, damage found, opened by the plain safetensors package."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.store.helpers import rows_of
from wbtui.errors import StoreError
from wbtui.store.columns import Columns, read_verified, verify_columns, write_columns
from wbtui.store.refusals import Damaged
from wbtui.store.writer import DTYPES, writing
from wbtui.tensorfile import read_header

ANY_DTYPE = st.sampled_from([np.dtype(d) for d in DTYPES.values()])
ANY_ARRAY = ANY_DTYPE.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")


@settings(deadline=None, max_examples=60)
@given(
    arrays=st.dictionaries(NAMES, ANY_ARRAY, max_size=6), text=st.dictionaries(NAMES, st.text(max_size=8), max_size=3)
)
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, arrays, text):
    path = tmp_path_factory.mktemp("c") / "x.safetensors"
    text = {k: v for k, v in text.items() if k not in ("sha256", "header_sha256")}
    write_columns(path, arrays, text)
    with Columns(path) as columns:
        assert columns.names == sorted(arrays)
        for name, array in arrays.items():
            view = columns[name]
            assert view.shape == array.shape
            assert view.dtype == array.dtype
            assert view.tobytes() == array.tobytes()
            assert not view.flags.writeable
            assert view.flags.aligned
        assert {k: v for k, v in columns.metadata.items() if k in text} == text
    verify_columns(path)
    assert read_header(path).data_start % 8 == 0


def test_any_researcher_can_open_the_file_without_wbtui(tmp_path):
    path = tmp_path / "x.safetensors"
    write_columns(path, rows_of(0, 9), {"key": "k"})
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, rows_of(0, 9)[name])
    with safe_open(path, "numpy") as file:
        assert file.metadata()["key"] == "k"
        assert set(file.keys()) == set(rows_of(0, 1))


def test_equal_arrays_give_equal_bytes_whatever_their_order_and_layout(tmp_path):
    arrays = rows_of(3, 11)
    write_columns(tmp_path / "a", arrays, {"x": "1", "y": "2"})
    other = {name: np.asfortranarray(arrays[name]) for name in reversed(list(arrays))}
    other["big"] = other["big"].astype(">i8")
    write_columns(tmp_path / "b", other, {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_blocks_in_any_order_give_the_bytes_of_the_whole(tmp_path):
    arrays = rows_of(0, 10)
    write_columns(tmp_path / "a", arrays, {})
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    with writing(tmp_path / "b", layout, {}) as writer:
        for first, last in ((6, 10), (0, 6)):
            for name in arrays:
                writer.put(name, first, arrays[name][first:last])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_unfinished_file_is_never_given_its_name(tmp_path):
    layout = {"a": (np.dtype("<f4"), (4,))}
    with pytest.raises(ValueError, match="8 of 16 bytes"), writing(tmp_path / "x", layout, {}) as writer:
        writer.put("a", 0, np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="rows 3"), writing(tmp_path / "x", layout, {}) as writer:
        writer.put("a", 3, np.zeros(2, np.float32))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("array", [np.zeros(2, complex), np.array(["a"]), np.array([object()]), np.zeros(2, "M8[s]")])
def test_a_dtype_that_the_format_has_not_is_refused(tmp_path, array):
    with pytest.raises(StoreError, match="column 'a' has dtype"):
        write_columns(tmp_path / "x", {"a": array}, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.faults)])  # 7: every byte and every bit of it
def test_every_flipped_bit_of_the_file_is_found(tmp_path, every):
    path = tmp_path / "x.safetensors"
    write_columns(path, {"a": np.arange(5, dtype=np.int16), "b": np.array([True, False])}, {"key": "k"})
    good = path.read_bytes()
    start = read_header(path).data_start
    before = load_file(path)
    for bit in range(0, len(good) * 8, every):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        try:
            verify_columns(path)
        except Damaged:
            continue
        # only a change of white space that means nothing may pass
        assert 8 <= bit // 8 < start
        assert bad[bit // 8 : bit // 8 + 1].isspace()
        assert all((load_file(path)[name] == array).all() for name, array in before.items())


def test_shorter_and_longer_files_are_refused_before_they_are_mapped(tmp_path):
    path = tmp_path / "x.safetensors"
    write_columns(path, {"a": np.arange(5, dtype=np.int16)}, {})
    good = path.read_bytes()
    for size in (*range(0, len(good), 5), len(good) - 1):
        path.write_bytes(good[:size])
        with pytest.raises(Damaged, match=r"x\.safetensors"):
            Columns(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(Damaged, match="bytes by its header"):
        Columns(path)


def test_a_foreign_safetensors_file_is_not_taken_for_ours(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "x")
    with pytest.raises(Damaged, match="no checksum"):
        Columns(tmp_path / "x")


def test_absent_links_and_folders_are_refused_with_their_names(tmp_path):
    with pytest.raises(StoreError, match="is not there") as absent:
        Columns(tmp_path / "x")
    assert not isinstance(absent.value, Damaged)
    write_columns(tmp_path / "real", {"a": np.zeros(1)}, {})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("link", "."):
        with pytest.raises(StoreError) as refused:
            Columns(tmp_path / name)
        assert not isinstance(refused.value, Damaged)


def test_views_outlive_closing_and_replacing(tmp_path):
    path = tmp_path / "x"
    write_columns(path, {"a": np.arange(4)}, {})
    columns = Columns(path)
    view = columns["a"]
    write_columns(path, {"a": np.arange(4) + 9}, {})
    columns.close()
    os.unlink(path)
    assert view.tolist() == [0, 1, 2, 3]
    with pytest.raises(StoreError, match="closed"):
        columns["a"]
    with pytest.raises(KeyError):
        columns["b"]


def test_read_verified_gives_the_bytes_that_were_hashed(tmp_path):
    path = tmp_path / "x"
    write_columns(path, {"a": np.arange(4)}, {})
    header, data = read_verified(path)
    assert data == np.arange(4).tobytes()
    raw = bytearray(path.read_bytes())
    raw[header.data_start] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Damaged, match="SHA-256"):
        read_verified(path)
    assert Columns(path)["a"][0] == 1  # an open checks the header alone; verify and assembly check the data


def test_a_lying_header_is_found_though_sizes_fit(tmp_path):
    path = tmp_path / "x"
    write_columns(path, {"a": np.arange(4, dtype=np.float32)}, {})
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    table = json.loads(raw[8 : 8 + length])
    table["a"]["dtype"] = "I32"
    body = json.dumps(table, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(raw[:8] + body + raw[8 + length :])
    with pytest.raises(Damaged, match="damaged header"):
        Columns(path)
