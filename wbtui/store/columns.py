"""Columns on disk: named numpy arrays in one safetensors file, written whole or not at all, mapped for reading.

The bytes depend on the arrays and the metadata alone. Two hashes stand in the metadata: ``sha256`` of the data section
(checked before assembly and by ``verify``) and ``header_sha256`` of everything else in the header (checked at each
open), so a flipped bit anywhere is found. Any reader of safetensors can open the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wbtui.errors import StoreError, WeightsError
from wbtui.store import io
from wbtui.store.refusals import Damaged, reading, refused
from wbtui.store.writer import DTYPES, hash_range, header_hash, write_columns
from wbtui.tensorfile import Header, read_header

_HEX = re.compile(r"[0-9a-f]{64}")
__all__ = ["Columns", "check_header", "check_sha", "read_verified", "verify_columns", "write_columns"]

_AGAIN = "remove it with `wbtui cache verify --repair`; it will be computed again"


class Columns:
    """Arrays of one file, mapped read-only.

    The file is held to its header's size before it is mapped: a short one would end the process (SIGBUS).

    Args:
        path: a safetensors file in the cache.

    Raises:
        StoreError: not there, short, damaged, or with a dtype that numpy has not.

    Example:
        >>> columns = Columns(path)  # doctest: +SKIP
        >>> columns["writes.z_max"][7]  # doctest: +SKIP
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        handle, header = _open_checked(self.path)
        try:
            with reading(self.path, "map it"):
                self._map: mmap.mmap | None = io.map_whole(handle, self.path, header.size)
        finally:
            os.close(handle)
        self.metadata: dict[str, str] = header.metadata
        self._header = header
        self._views: dict[str, np.ndarray] = {}

    @property
    def names(self) -> list[str]:
        """Names of the columns, sorted."""
        return sorted(self._header.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._header.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self._header.tensors)

    def __getitem__(self, name: str) -> np.ndarray:
        """One column: a read-only view of the mapping, no copy.

        Raises:
            KeyError: no such column.
            StoreError: closed.
        """
        view = self._views.get(name)
        if view is None:
            entry = self._header.tensors[name]
            if self._map is None:
                raise StoreError(f"{self.path}: closed", "an open file")
            dtype = np.dtype(DTYPES[entry.dtype])
            if entry.begin == entry.end:
                view = np.empty(entry.shape, dtype)
                view.flags.writeable = False
            else:
                view = np.frombuffer(self._map, dtype, math.prod(entry.shape), entry.begin).reshape(entry.shape)
            self._views[name] = view
        return view

    def close(self) -> None:
        """Let go of the mapping; views that others still hold stay valid and keep it until they go."""
        self._views.clear()
        held, self._map = self._map, None
        if held is not None:
            with contextlib.suppress(BufferError):
                held.close()

    def __enter__(self) -> Columns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def verify_columns(path: Path | str) -> Header:
    """Read a whole file and compare both its hashes.

    Returns:
        Header: the checked header.

    Raises:
        Damaged: short, or the hashes differ.
        StoreError: it cannot be opened.
    """
    path = Path(path)
    handle, header = _open_checked(path)
    try:
        with reading(path):
            found = hash_range(handle, path, header.data_start, header.size - header.data_start)
    finally:
        os.close(handle)
    check_sha(path, header, found)
    return header


def check_sha(path: Path, header: Header, found: str) -> None:
    """Compare a data section's hash with the one that the header promises.

    Raises:
        Damaged: they differ.
    """
    want = header.metadata.get("sha256", "")
    if found != want:
        raise Damaged(f"{path}: data with SHA-256 {found[:16]}…", f"{want[:16]}… (its header's)", _AGAIN)


def check_header(path: Path | str) -> Header:
    """Header, size and header hash, without the data: what a shard is trusted after.

    Raises:
        Damaged: short, too long, or a damaged header.
        StoreError: it cannot be opened.
    """
    path = Path(path)
    with reading(path):
        io.note("read", path)
    try:
        header = read_header(path)
    except WeightsError as error:
        if isinstance(error.__context__, OSError):  # it could not be opened: no word about its bytes
            raise refused(path, "read it", error.__context__) from None
        raise Damaged(error.found, error.expected, _AGAIN) from None
    metadata = header.metadata
    entries = {
        e.name: {
            "dtype": e.dtype,
            "shape": list(e.shape),
            "data_offsets": [e.begin - header.data_start, e.end - header.data_start],
        }
        for e in header.tensors.values()
    }
    if not _HEX.fullmatch(metadata.get("sha256", "")) or "header_sha256" not in metadata:
        raise Damaged(f"{path}: no checksum in its header", "a file that wbtui wrote", _AGAIN)
    if metadata["header_sha256"] != header_hash(metadata, entries):
        raise Damaged(f"{path}: a damaged header", "the header that its checksum belongs to", _AGAIN)
    want = header.data_start + sum(e.end - e.begin for e in header.tensors.values())
    if header.size != want:
        raise Damaged(f"{path}: {header.size} bytes", f"{want} bytes by its header", _AGAIN)
    unknown = sorted({e.dtype for e in header.tensors.values()} - set(DTYPES))
    if unknown:
        raise Damaged(f"{path}: dtype {', '.join(unknown)}", "one of " + ", ".join(DTYPES))
    return header


def array_from(header: Header, data: bytes, name: str) -> np.ndarray:
    """One array out of the whole data section held in memory."""
    entry = header.tensors[name]
    dtype = np.dtype(DTYPES[entry.dtype])
    if entry.begin == entry.end:
        return np.empty(entry.shape, dtype)
    first = entry.begin - header.data_start
    return np.frombuffer(data, dtype, math.prod(entry.shape), first).reshape(entry.shape)


def read_verified(path: Path) -> tuple[Header, bytes]:
    """Header and data section of a file, the very bytes returned having passed the checksum. For shards: small.

    Plain reads, no mapping: a shard that another host removes meanwhile gives an error here, not a dead process.

    Raises:
        Damaged: short, or the hashes differ.
        StoreError: it cannot be opened.
    """
    handle, header = _open_checked(path)
    try:
        with reading(path):
            data = io.read_at(handle, path, header.data_start, header.size - header.data_start)
    finally:
        os.close(handle)
    check_sha(path, header, hashlib.sha256(data).hexdigest())
    return header, data


# --- inside -----------------------------------------------------------------------------------------------------------


def _open_checked(path: Path) -> tuple[int, Header]:
    """A descriptor and the checked header of the very same file, though others may replace the name meanwhile."""
    for _ in range(5):
        with reading(path, "open it"):
            handle = io.open_read(path)
        try:
            header = check_header(path)
            mine, now = os.fstat(handle), io.stat(path)
        except BaseException:
            os.close(handle)
            raise
        if now is not None and (mine.st_ino, mine.st_dev, mine.st_size) == (now.st_ino, now.st_dev, header.size):
            return handle, header
        os.close(handle)
    raise StoreError(f"{path}: replaced again and again while it is opened", "a file at rest", "try again")
