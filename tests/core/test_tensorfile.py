"""The safetensors header reader: right on good files, a WeightsError on every bad one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from wbtui.errors import WeightsError
from wbtui.tensorfile import read_header


def good(path: Path) -> Path:
    save_file({"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.zeros(0, "int64")}, path, {"k": "v"})
    return path


def raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_reads_what_safetensors_writes(tmp_path: Path) -> None:
    path = good(tmp_path / "x.safetensors")
    header = read_header(path)
    assert header.metadata == {"k": "v"}
    entry = header.tensors["a"]
    assert (entry.dtype, entry.shape) == ("F32", (2, 3))
    assert np.frombuffer(path.read_bytes()[entry.begin : entry.end], "<f4").tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [0, 5, 8, 40, -1])
def test_truncated(tmp_path: Path, cut: int) -> None:
    path = good(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError) as caught:
        read_header(path)
    assert str(path) in caught.value.line()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        read_header(tmp_path / "none")


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
        },
        {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    ],
)
def test_bad_headers(tmp_path: Path, header: object) -> None:
    with pytest.raises(WeightsError):
        read_header(raw(tmp_path / "x", header, b"\0" * 8))


def test_absurd_header_length_reads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(WeightsError, match="header length"):
        read_header(path)


@given(data=st.binary(max_size=200), flips=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_fuzz(tmp_path: Path, data: bytes, flips: list[tuple[int, int]]) -> None:
    path = good(tmp_path / "x.safetensors")
    content = bytearray(path.read_bytes() + data)
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        header = read_header(path)
    except WeightsError:
        return
    assert all(t.end <= len(content) for t in header.tensors.values())
