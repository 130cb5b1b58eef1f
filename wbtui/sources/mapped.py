"""Tensors mapped out of safetensors files: nothing is read before it is used, no other tensor is mapped.

Mappings are private (copy on write): a caller that writes into one changes its own copy, never the file.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import torch

from wbtui.errors import WeightsError
from wbtui.tensorfile import ITEM_BYTES, TensorEntry

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
    if entry.dtype not in DTYPES:
        raise WeightsError(
            f"{path}: tensor {entry.name} has dtype {entry.dtype}",
            "one of " + ", ".join(DTYPES),
            "quantised weights are not supported; use the original checkpoint",
        )
    dtype, count = DTYPES[entry.dtype], math.prod(entry.shape)
    if count == 0:
        return torch.empty(entry.shape, dtype=dtype)
    base = entry.begin - entry.begin % mmap.ALLOCATIONGRANULARITY
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        with open(path, "rb") as file:
            memory = mmap.mmap(
                file.fileno(), entry.end - base, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=base
            )
    except (OSError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{path}: cannot map tensor {entry.name} ({error})", "the complete file whose header was read"
        ) from None
    if entry.begin % ITEM_BYTES[entry.dtype] == 0:
        return torch.frombuffer(memory, dtype=dtype, count=count, offset=entry.begin - base).view(entry.shape)
    # A writer that does not pad its header leaves the data unaligned: read it instead.
    start = entry.begin - base
    return torch.frombuffer(bytearray(memory[start : start + entry.end - entry.begin]), dtype=dtype).view(entry.shape)
