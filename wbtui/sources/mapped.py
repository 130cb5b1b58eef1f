"""Tensors mapped out of their files: nothing is read before it is used, no other tensor is mapped.

A compressed array of an ``.npz`` cannot be mapped: it is unpacked, up to the size that its header declares and no
further.

Mappings are private (copy on write): a caller that writes into one changes its own copy, never the file.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch

from wbtui.errors import WeightsError
from wbtui.sources import raw
from wbtui.tensorfile import ITEM_BYTES, TensorEntry

_PIECE = 1 << 20

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def mapped(path: Path, entry: TensorEntry) -> torch.Tensor:
    """The tensor of a checked header entry, mapped from its file in its own dtype.

    Args:
        path: the safetensors file.
        entry: from :func:`wbtui.tensorfile.read_header` of that file.

    Returns:
        Tensor: of ``entry.shape``; float64, float32, float16 or bfloat16.

    Raises:
        WeightsError: not a floating-point tensor, or the file has shrunk or gone since its header was read.
    """
    pages, start = raw.memory(path, entry)
    dtype = DTYPES[entry.dtype]
    if pages is None:
        return torch.empty(entry.shape, dtype=dtype)
    if entry.packed:
        return _unpacked(path, entry, dtype, math.prod(entry.shape))
    items = (entry.end - entry.begin) // ITEM_BYTES[entry.dtype]
    if entry.begin % ITEM_BYTES[entry.dtype] == 0:
        flat = torch.frombuffer(pages, dtype=dtype, count=items, offset=start)
    else:  # a writer that does not pad its header leaves the data unaligned: read it instead
        flat = torch.frombuffer(bytearray(pages[start : start + entry.end - entry.begin]), dtype=dtype)
    return _shaped(flat, entry)


def part(path: Path, entry: TensorEntry, index: tuple[slice | int, ...]) -> torch.Tensor:
    """A slice of a tensor as a copy of its own; only the pages that hold it are read.

    Unlike a slice of :func:`mapped`, this is lazy for data at odd offsets too, as they are in ``.npz`` files.

    Args:
        path, entry: as for :func:`mapped`; the entry must not be packed.
        index: one slice or whole number for each of the first dimensions.

    Returns:
        Tensor: contiguous, in the file's dtype.

    Raises:
        WeightsError: as :func:`mapped`.
    """
    if math.prod(entry.shape) == 0 or entry.packed:
        return mapped(path, entry)[index].clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(raw.part(path, entry, index)).view(DTYPES[entry.dtype])


def _shaped(flat: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    return flat.view(entry.shape) if entry.strides is None else flat.as_strided(entry.shape, entry.strides)


def _unpacked(path: Path, entry: TensorEntry, dtype: torch.dtype, count: int) -> torch.Tensor:
    """A deflated array, in pieces, never more than its declared size."""
    want = entry.skip + count * ITEM_BYTES[entry.dtype]
    out = bytearray()
    stream = zlib.decompressobj(-15)
    try:
        with open(path, "rb") as file:
            file.seek(entry.begin)
            left = entry.end - entry.begin
            while left > 0 and len(out) <= want and not stream.eof:
                piece = file.read(min(left, _PIECE))
                if not piece:
                    break
                left -= len(piece)
                while piece and len(out) <= want:
                    out += stream.decompress(piece, _PIECE)
                    piece = stream.unconsumed_tail
            if len(out) <= want and not stream.unconsumed_tail:  # flushing would unpack the whole tail at once
                out += stream.flush()
    except (OSError, zlib.error) as error:
        raise WeightsError(f"{path}: cannot unpack {entry.name} ({error})", "a whole .npz file") from None
    if len(out) != want:
        raise WeightsError(f"{path}: {entry.name} unpacks to {len(out)} bytes or more", f"{want}, as its header says")
    return _shaped(torch.frombuffer(out, dtype=dtype, count=count, offset=entry.skip), entry)
