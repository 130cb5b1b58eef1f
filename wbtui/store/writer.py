"""Writing columns files: a fixed layout, equal bytes for equal arrays, whole or not at all (see :mod:`.columns`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wbtui.errors import StoreError
from wbtui.store import io
from wbtui.store.keys import canonical_json

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(value): key for key, value in DTYPES.items()}
_BLOCK = 8 << 20
OWN_METADATA = ("sha256", "header_sha256")
"""Metadata that the writer adds."""

Layout = Mapping[str, "tuple[np.dtype, tuple[int, ...]]"]


class ColumnsWriter:
    """Writes one columns file block by block; the caller drives it inside :func:`writing`."""

    def __init__(self, handle: int, path: Path, layout: Layout, metadata: Mapping[str, str]) -> None:
        self._handle, self._path = handle, path
        self._metadata = {str(k): str(v) for k, v in metadata.items() if k not in OWN_METADATA}
        self._entries, self._size = _place(layout)
        self._layout = layout
        self._start = len(self._head("0" * 64))
        self._hash = hashlib.sha256()
        self._hashed = 0  # data bytes that were put in file order and are hashed already; -1 once out of order
        self._put = dict.fromkeys(layout, 0)

    @property
    def order(self) -> list[str]:
        """Names in file order; blocks put in it are hashed on the way."""
        return list(self._entries)

    def put(self, name: str, first: int, block: np.ndarray) -> None:
        """Write rows ``first``… of a column (for a 0-d array: ``first`` 0)."""
        dtype, shape = self._layout[name]
        if block.dtype != dtype or block.shape[1:] != shape[1:]:
            raise ValueError(f"{name}: block {block.dtype}{block.shape} does not fit {dtype}{shape}")
        begin, end = self._entries[name]["data_offsets"]
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        at = begin + first * row_bytes
        data = _bytes_of(block)
        if at + len(data) > end:
            raise ValueError(f"{name}: rows {first}…{first + len(block)} of {shape[0]}")
        io.write_at(self._handle, self._path, self._start + at, data)
        self._put[name] += len(data)
        if self._hashed == at:
            self._hash.update(data)
            self._hashed += len(data)
        elif len(data):
            self._hashed = -1

    def finish(self) -> str:
        """Write the header, now that the hash is known; returns the data section's SHA-256."""
        for name, (begin, end) in ((n, e["data_offsets"]) for n, e in self._entries.items()):
            if self._put[name] != end - begin:
                raise ValueError(f"{name}: {self._put[name]} of {end - begin} bytes written")
        if self._hashed == self._size:
            sha = self._hash.hexdigest()
        else:
            sha = hash_range(self._handle, self._path, self._start, self._size)
        io.write_at(self._handle, self._path, 0, self._head(sha))
        return sha

    def _head(self, sha: str) -> bytes:
        """Length and header, padded so that the data begin at a multiple of 8."""
        metadata = {**self._metadata, "sha256": sha}
        metadata["header_sha256"] = header_hash(metadata, self._entries)
        table = {"__metadata__": dict(sorted(metadata.items())), **self._entries}
        raw = json.dumps(table, separators=(",", ":"), ensure_ascii=True).encode()
        raw += b" " * (-len(raw) % 8)
        return struct.pack("<Q", len(raw)) + raw


@contextlib.contextmanager
def writing(path: Path, layout: Layout, metadata: Mapping[str, str]) -> Iterator[ColumnsWriter]:
    """Write a columns file whole or not at all; the caller puts all blocks inside.

    Args:
        path: the final name; its folder exists.
        layout: name -> (dtype, shape).
        metadata: text; ``sha256`` and ``header_sha256`` are added.

    Raises:
        OSError: as the system says.
        StoreError: a dtype that the format or numpy has not.
    """
    with io.replacing(path) as (handle, temporary):
        writer = ColumnsWriter(handle, temporary, layout, metadata)
        yield writer
        writer.finish()


def write_columns(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays as one file, whole or not at all: temporary name, sync, rename, sync of the folder.

    Equal arrays and metadata give equal bytes, whatever the order or memory layout they come in.

    Args:
        path: the final name; its folder exists.
        arrays: name -> array of bool, integer or float of 2, 4, 8 bytes.
        metadata: text.

    Raises:
        OSError: the disk refuses (see :func:`wbtui.store.refusals.reported`).
        StoreError: a dtype that the format has not.
    """
    ready = {name: _little(name, array) for name, array in arrays.items()}
    with writing(path, layout_of(ready), metadata) as writer:
        for name in writer.order:
            writer.put(name, 0, ready[name])


def layout_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """name -> (dtype as stored, shape)."""
    return {name: (_stored(name, array.dtype), array.shape) for name, array in arrays.items()}


def _place(layout: Layout) -> tuple[dict[str, dict[str, Any]], int]:
    """Header entries in file order and the size of the data section.

    Wide items come first, so that every array begins at a multiple of its item size: the format knows no gaps.
    """
    entries: dict[str, dict[str, Any]] = {}
    at = 0
    for name in sorted(layout, key=lambda name: (-layout[name][0].itemsize, name)):
        if name == "__metadata__":
            raise StoreError("a column called __metadata__", "another name")
        dtype, shape = layout[name]
        end = at + math.prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": _NAMES[_stored(name, dtype)],
            "shape": [int(n) for n in shape],
            "data_offsets": [at, end],
        }
        at = end
    return entries, at


def _stored(name: str, dtype: np.dtype) -> np.dtype:
    stored = dtype.newbyteorder("<")
    if stored not in _NAMES:
        raise StoreError(f"column {name!r} has dtype {dtype}", "bool, integers or floats of up to 8 bytes")
    return stored


def _little(name: str, array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=_stored(name, array.dtype), order="C")


def _bytes_of(array: np.ndarray) -> memoryview:
    if array.size == 0:
        return memoryview(b"")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def header_hash(metadata: Mapping[str, str], entries: Mapping[str, object]) -> str:
    """SHA-256 of all of a header but this hash itself."""
    shown = {key: value for key, value in metadata.items() if key != "header_sha256"}
    return hashlib.sha256(canonical_json([shown, entries]).encode()).hexdigest()


def hash_range(handle: int, path: Path, begin: int, size: int) -> str:
    """SHA-256 of a range of an open file, of what is there if it ends early."""
    hashed = hashlib.sha256()
    while size > 0:
        piece = io.read_at(handle, path, begin, min(_BLOCK, size))
        if not piece:
            break
        hashed.update(piece)
        begin += len(piece)
        size -= len(piece)
    return hashed.hexdigest()
