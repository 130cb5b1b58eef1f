"""Headers of tensor files, read with the standard library and checked before anything is mapped.

Three containers give the same :class:`Header`: safetensors (here), NumPy's ``.npz`` (:mod:`wbtui.npzfile`) and
PyTorch's zipped ``.pt`` (:mod:`wbtui.torchfile`). The safetensors format: 8 bytes little-endian header length, that
many bytes of JSON ``{name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {str: str}}``, then the data.
A file that is shorter than its header promises would kill a process that maps it (SIGBUS), so sizes are checked here.
"""

from __future__ import annotations

import itertools
import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui import jsontext
from wbtui.errors import WeightsError

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
}  # fmt: skip
MAX_HEADER_BYTES = 25_000_000
"""A quarter of what the reference implementation allows: parsed, a header takes many times its size. Shards with a
hundred thousand tensors stay below."""
MAX_RANK = 64
MAX_NUMBER = 2**62
SHOWN_NAME = 200


@dataclass(frozen=True)
class TensorEntry:
    """One tensor's place in a file; ``begin`` and ``end`` count from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    strides: tuple[int, ...] | None = None
    """In elements, where the bytes do not lie in C order (a saved transpose); None: C order."""
    skip: int = -1
    """-1: the bytes are the tensor. Otherwise they are a deflate stream, with ``skip`` bytes in front of the
    tensor's."""

    @property
    def packed(self) -> bool:
        """Whether the bytes are compressed, so that the tensor cannot be mapped."""
        return self.skip >= 0

    @property
    def kind(self) -> str:
        """The dtype, and what else decides what the bytes mean: part of a fingerprint."""
        strided = "" if self.strides is None else "/" + ",".join(map(str, self.strides))
        return self.dtype + strided + (f"/deflate+{self.skip}" if self.packed else "")


@dataclass(frozen=True)
class Header:
    """A checked header."""

    path: Path
    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]
    data_start: int
    size: int


def read_header(path: Path | str) -> Header:
    """Read and check the header of a tensor file: safetensors, ``.npz``, or a zipped ``.pt``.

    Args:
        path: the file.

    Returns:
        Header: entries with absolute byte offsets.

    Raises:
        WeightsError: not there, truncated, not of its format, overlapping or out-of-file tensors, pickled objects.
    """
    path = Path(path)
    kind = _container(path)
    if kind == "npz":
        from wbtui.npzfile import read_npz_header

        return read_npz_header(path)
    if kind == "torch":
        from wbtui.torchfile import read_torch_header

        return read_torch_header(path)
    again = "copy or download the file again"
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its other end
            raise WeightsError(f"{path}: not a regular file", "a safetensors file", "save it as a file of its own")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise WeightsError(
                    f"{path}: {size} bytes", "a safetensors file (8 bytes of header length first)", again
                )
            (length,) = struct.unpack("<Q", prefix)
            if 8 + length > size:
                raise WeightsError(
                    f"{path}: header length {length} in a file of {size} bytes", "a complete safetensors file", again
                )
            if length > MAX_HEADER_BYTES:
                raise WeightsError(
                    f"{path}: header length {length}", f"at most {MAX_HEADER_BYTES} bytes of header", again
                )
            raw = file.read(length)
    except OSError as error:
        raise WeightsError(
            f"{path}: {error.strerror or error}", "a readable safetensors file", "look at its permissions"
        ) from None
    try:
        table = jsontext.loads(raw)
        if not isinstance(table, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: header is not JSON ({error})", "a safetensors file", again) from None
    metadata = table.pop("__metadata__", None) or {}
    start = 8 + length
    tensors: dict[str, TensorEntry] = {}
    for name, item in table.items():
        tensors[name] = _entry(path, name, item, start, size)
    spans = sorted((t.begin, t.end, t.name) for t in tensors.values())
    for (_, end, name), (begin, _, other) in itertools.pairwise(spans):
        if begin < end:
            both = f"{_shown(name)} and {_shown(other)}"
            raise WeightsError(f"{path}: tensors {both} overlap", "disjoint tensors", again)
    if not isinstance(metadata, dict):
        metadata = {}
    return Header(path, tensors, {str(k): str(v) for k, v in metadata.items()}, start, size)


def _container(path: Path) -> str:
    """``safetensors``, ``npz`` or ``torch``: by the name's ending, and of a blob of the Hub cache, which has none, by
    what is in it.

    Raises:
        WeightsError: a zip file that is damaged.
    """
    known = {".npz": "npz", ".pt": "torch", ".pth": "torch", ".safetensors": "safetensors"}.get(path.suffix)
    if known is not None:
        return known
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return "safetensors"
    except OSError:
        return "safetensors"  # whose reader says why
    from wbtui.zipplaces import read_places

    return "torch" if any(name.rpartition("/")[2] == "data.pkl" for name in read_places(path)) else "npz"


def _entry(path: Path, name: str, item: object, start: int, size: int) -> TensorEntry:
    """One checked entry of the header."""
    again = "copy or download the file again"
    shown = _shown(name)
    parts: list[Any] = [item.get(key) for key in ("shape", "data_offsets")] if isinstance(item, dict) else []
    dtype = item.get("dtype") if isinstance(item, dict) else None
    lists = all(isinstance(part, list) and len(part) <= MAX_RANK for part in parts)
    # numbers without end would make a product that takes for ever
    numbers = lists and all(type(n) is int and 0 <= n <= MAX_NUMBER for part in parts for n in part)
    if not isinstance(dtype, str) or not numbers or len(parts[1]) != 2:
        raise WeightsError(f"{path}: malformed entry for tensor {shown}", "dtype, shape, data_offsets", again)
    shape, (begin, end) = tuple(parts[0]), parts[1]
    if dtype not in ITEM_BYTES:
        raise WeightsError(
            f"{path}: tensor {shown} has dtype {dtype[:40]!r}", "one of " + ", ".join(ITEM_BYTES), "save it as float32"
        )
    want = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != want:
        raise WeightsError(
            f"{path}: tensor {shown} spans {end - begin} bytes", f"{want} bytes for {dtype} {list(shape)}", again
        )
    if start + end > size:
        raise WeightsError(
            f"{path}: {size} bytes, but tensor {shown} ends at byte {start + end}", "a complete file", again
        )
    return TensorEntry(name, dtype, shape, start + begin, start + end)


def _shown(name: str) -> str:
    """A tensor's name for an error: quoted, and cut where it is absurdly long."""
    return repr(name if len(name) <= SHOWN_NAME else name[:SHOWN_NAME] + "…")
