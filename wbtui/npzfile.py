"""The header of a NumPy ``.npz``: names, dtypes and places of its arrays, without unpacking any.

Members are usually stored, so that an array can be mapped in place. A compressed one is unpacked by
:func:`wbtui.sources.mapped.mapped` only up to the size that its own header declares. Pickled arrays (dtype ``O``) are
refused. Layout: ``numpy.lib.format``.
"""

from __future__ import annotations

import ast
import math
import struct
import warnings
import zlib
from pathlib import Path

from wbtui.errors import WeightsError
from wbtui.tensorfile import ITEM_BYTES, Header, TensorEntry
from wbtui.zipplaces import DEFLATED, Member, read_places

MAX_NPY_HEADER = 10_000
"""Bytes; NumPy's own limit for files that are not trusted."""
MAX_RATIO = 1_100
"""Deflate cannot do better than 1,032 : 1; more is a lie about the size."""
BOMB_RATIO, BOMB_BYTES = 100, 64 << 20
"""A larger array that shrank to less than a hundredth is nothing but zeros: no weights, and memory for nothing."""
DTYPES = {
    "<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8", "<u8": "U64",
    "<u4": "U32", "<u2": "U16", "|u1": "U8", "|b1": "BOOL",
}  # fmt: skip
_AGAIN = "copy or download the file again"


def read_npz_header(path: Path) -> Header:
    """Read and check what an ``.npz`` says of its arrays.

    Returns:
        Header: stored arrays with their byte offsets; compressed ones are marked ``packed``.

    Raises:
        WeightsError: not a zip file, a damaged or absurd array header, a pickled or big-endian array, sizes that
            contradict each other.
    """
    path = Path(path)
    members = read_places(path)
    tensors: dict[str, TensorEntry] = {}
    for name, member in members.items():
        if name.endswith(".npy"):
            entry = _entry(path, name.removesuffix(".npy"), member)
            tensors[entry.name] = entry
    if not tensors:
        raise WeightsError(f"{path}: no arrays among {len(members)} members", "a NumPy .npz file")
    return Header(path, tensors, {}, 0, path.stat().st_size)


def _entry(path: Path, name: str, member: Member) -> TensorEntry:
    head = _head(path, member)
    if head[:6] != b"\x93NUMPY" or len(head) < 12:
        raise WeightsError(f"{path}: {member.name} is no NumPy array", "an array as numpy.savez writes it", _AGAIN)
    if head[6] == 1:
        (length,), fixed = struct.unpack_from("<8xH", head), 10
    elif head[6] in (2, 3):
        (length,), fixed = struct.unpack_from("<8xI", head), 12
    else:
        raise WeightsError(f"{path}: {member.name} has NumPy format version {head[6]}", "version 1, 2 or 3")
    if length > MAX_NPY_HEADER or fixed + length > len(head):
        raise WeightsError(
            f"{path}: {member.name} has an array header of {length} bytes", f"at most {MAX_NPY_HEADER}, all of it there"
        )
    dtype, shape, fortran = _described(path, member.name, head[fixed : fixed + length])
    size = math.prod(shape) * ITEM_BYTES[dtype]
    start = fixed + length
    if start + size != member.size:
        raise WeightsError(
            f"{path}: {member.name} says {dtype} {list(shape)} but has {member.size - start} bytes",
            f"{size} bytes",
            _AGAIN,
        )
    strides = tuple(math.prod(shape[:i]) for i in range(len(shape))) if fortran and len(shape) > 1 else None
    if member.method == DEFLATED:
        packed = member.end - member.begin
        if member.size > MAX_RATIO * packed + MAX_NPY_HEADER or member.size > max(BOMB_RATIO * packed, BOMB_BYTES):
            raise WeightsError(
                f"{path}: {member.name} says that {packed} bytes unpack to {member.size}",
                "a size that weights have: this is a zip bomb or damage",
            )
        return TensorEntry(name, dtype, shape, member.begin, member.end, strides, start)
    return TensorEntry(name, dtype, shape, member.begin + start, member.end, strides)


def _head(path: Path, member: Member) -> bytes:
    """The first bytes of a member, unpacked."""
    want = MAX_NPY_HEADER + 12
    try:
        with open(path, "rb") as file:
            file.seek(member.begin)
            raw = file.read(min(want, member.end - member.begin))
        return zlib.decompressobj(-15).decompress(raw, want) if member.method == DEFLATED else raw
    except (OSError, zlib.error) as error:
        raise WeightsError(f"{path}: cannot read {member.name} ({error})", "a readable .npz file", _AGAIN) from None


def _described(path: Path, name: str, text: bytes) -> tuple[str, tuple[int, ...], bool]:
    """dtype, shape and order out of the array header, a Python literal (``ast.literal_eval`` runs no code)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = ast.literal_eval(text.decode("latin-1").strip())
        assert isinstance(data, dict) and set(data) == {"descr", "fortran_order", "shape"}
        shape, fortran = data["shape"], data["fortran_order"]
        assert isinstance(shape, tuple) and isinstance(fortran, bool) and len(shape) <= 8
        assert all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 48 for n in shape)
    except (AssertionError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise WeightsError(f"{path}: malformed array header of {name}", "descr, fortran_order, shape", _AGAIN) from None
    descr = data["descr"]
    if isinstance(descr, str) and descr.lstrip("|<>=").startswith("O"):
        raise WeightsError(f"{path}: {name} is an array of pickled objects", "numbers", "wbtui never unpickles")
    if not isinstance(descr, str) or descr not in DTYPES:
        raise WeightsError(f"{path}: {name} has dtype {str(descr)[:60]!r}", "one of " + ", ".join(DTYPES))
    return DTYPES[descr], shape, fortran
