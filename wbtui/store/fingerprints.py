"""Fingerprints of weights: SHA-256 of the bytes of the tensors used, remembered by (path, size, mtime, inode).

A fingerprint never depends on where a file lies or on how tensors are spread over files. The memory is only a memory:
it may be absent, damaged or not writable, and then the bytes are read again. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wbtui.errors import WeightsError
from wbtui.store import io
from wbtui.store.keys import digest
from wbtui.tensorfile import TensorEntry, read_header

_CHUNK = 1 << 20
_THREADS = 4
SETTLED_NS = 2_000_000_000
"""A file changed this recently is not remembered: a second change within one tick of its clock would go unseen."""
_remembering = threading.Lock()


def tensors_fingerprint(files: Mapping[Path, Sequence[str]], memo_dir: Path | None) -> str:
    """SHA-256 over the sorted (name, dtype, shape, SHA-256 of the bytes) of the named tensors.

    Args:
        files: tensor file -> names of the tensors in it that are used.
        memo_dir: folder in which digests are remembered (``<cache>/fingerprints``); None remembers nothing. A folder
            that cannot be written is no error.

    Returns:
        str: 64 hex digits.

    Raises:
        WeightsError: a file that cannot be read or is no tensor file, a tensor that is not in its file, a file that
            changes while it is read.
    """
    parts: list[list[Any]] = []
    for path, names in files.items():
        found = _file_tensors(Path(path), sorted(set(names)), memo_dir)
        parts.extend([name, *found[name]] for name in found)
    return digest(sorted(parts))


def stand_in(paths: Iterable[Path | str]) -> str:
    """What tells files as they stand from all others here and now, without reading them: no fingerprint.

    Raises:
        WeightsError: one is not there.
    """
    real = sorted({os.path.realpath(path) for path in paths})
    return digest(["unread", [[path, _identity(Path(path))] for path in real]])


def is_remembered(path: Path, memo_dir: Path) -> bool:
    """Whether the digests of a file as it stands are remembered, so that its fingerprint costs no reading."""
    real = Path(os.path.realpath(path))
    try:
        return bool(_remembered(real, _identity(real), memo_dir))
    except WeightsError:
        return False


def bytes_fingerprint(path: Path | str) -> str:
    """SHA-256 of a whole small file (a tokenizer, a config), read every time.

    Raises:
        WeightsError: the file cannot be read.
    """
    return file_digest(Path(path))


def file_digest(path: Path, begin: int = 0, end: int | None = None) -> str:
    """SHA-256 of bytes [begin, end) of a file, of the whole file by default, read in pieces.

    Raises:
        WeightsError: the file cannot be read, or ends before ``end``.
    """
    hashed = hashlib.sha256()
    piece = memoryview(bytearray(_CHUNK))  # one buffer: a fresh one each time costs as much as the reading
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(begin)
            left = end - begin if end is not None else None
            while left is None or left > 0:
                count = file.readinto(piece if left is None else piece[: min(_CHUNK, left)])
                if not count:
                    break
                hashed.update(piece[:count])
                left = left - count if left is not None else None
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable file") from None
    if left:
        raise WeightsError(f"{path}: ends {left} bytes too early", "a complete file", "copy or download the file again")
    return hashed.hexdigest()


def _file_tensors(path: Path, names: list[str], memo_dir: Path | None) -> dict[str, list[Any]]:
    """name -> [dtype, shape, sha256] of the named tensors of one file."""
    real = Path(os.path.realpath(path))
    for _ in range(3):
        before = _identity(real)
        known = _remembered(real, before, memo_dir)
        wanted = [name for name in names if name not in known]
        if not wanted:
            return {name: known[name] for name in names}
        header = read_header(real)
        absent = [name for name in wanted if name not in header.tensors]
        if absent:
            raise WeightsError(
                f"{path}: no tensor {', '.join(absent[:3])}", "the tensors that its config or index promises",
                "copy or download the file again",
            )  # fmt: skip
        fresh = _digests(real, [header.tensors[name] for name in wanted])
        if _identity(real) == before:
            with _remembering:  # other tensors of the same file may have been hashed beside these
                known = {**known, **_remembered(real, before, memo_dir), **fresh}
                _remember(real, before, known, memo_dir)
            return {name: known[name] for name in names}
    raise WeightsError(f"{path}: changes while it is read", "a file at rest", "wait until it is written and try again")


def _digests(path: Path, entries: Iterable[TensorEntry]) -> dict[str, list[Any]]:
    """Hash tensors, a few at a time (hashing lets other threads run)."""
    entries = list(entries)
    with ThreadPoolExecutor(max_workers=max(1, min(_THREADS, os.cpu_count() or 1, len(entries)))) as pool:
        hashes = list(pool.map(lambda e: file_digest(path, e.begin, e.end), entries))
    return {e.name: [e.kind, list(e.shape), sha] for e, sha in zip(entries, hashes, strict=True)}


def _identity(path: Path) -> dict[str, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}", "a readable safetensors file") from None
    return {"size": info.st_size, "mtime_ns": info.st_mtime_ns, "inode": info.st_ino}


def _memo_path(path: Path, memo_dir: Path) -> Path:
    return memo_dir / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _remembered(path: Path, identity: dict[str, int], memo_dir: Path | None) -> dict[str, list[Any]]:
    """Digests remembered for this state of the file; none when the memory is absent, damaged or of another state."""
    if memo_dir is None:
        return {}
    try:
        memo = json.loads(io.read_bytes(_memo_path(path, memo_dir)))
        if memo["path"] != str(path) or memo["identity"] != identity:
            return {}
        tensors = {
            str(name): [str(dtype), [int(n) for n in shape], str(sha)]
            for name, (dtype, shape, sha) in memo["tensors"].items()
        }
        return tensors if all(len(item[2]) == 64 for item in tensors.values()) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _remember(path: Path, identity: dict[str, int], tensors: dict[str, list[Any]], memo_dir: Path | None) -> None:
    if memo_dir is None or time.time_ns() - identity["mtime_ns"] < SETTLED_NS:
        return
    memo = {"path": str(path), "identity": identity, "tensors": tensors}
    try:
        io.make_folders(memo_dir)
        io.write_bytes(_memo_path(path, memo_dir), json.dumps(memo, sort_keys=True).encode())
    except OSError:  # a cache that cannot be written only costs time
        pass
