"""Tensors mapped out of their files in numpy: nothing is read before it is used, no other tensor is mapped.

Mappings are private (copy on write): a caller that writes into one changes its own copy, never the file.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np

from wbtui.errors import WeightsError
from wbtui.floats import RAW
from wbtui.tensorfile import TensorEntry


def memory(path: Path, entry: TensorEntry) -> tuple[mmap.mmap | None, int]:
    """The pages that hold a tensor, and where it begins in them; none for an empty tensor.

    Raises:
        WeightsError: not a floating-point tensor, or the file has shrunk or gone since its header was read.
    """
    if entry.dtype not in RAW:
        raise WeightsError(
            f"{path}: tensor {entry.name} has dtype {entry.dtype}",
            "one of " + ", ".join(RAW),
            "quantised weights are not supported; use the original checkpoint",
        )
    if math.prod(entry.shape) == 0:
        return None, 0
    base = entry.begin - entry.begin % mmap.ALLOCATIONGRANULARITY
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        with open(path, "rb") as file:
            pages = mmap.mmap(
                file.fileno(), entry.end - base, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=base
            )
    except (OSError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{path}: cannot map tensor {entry.name} ({error})", "the complete file whose header was read"
        ) from None
    return pages, entry.begin - base


def view(path: Path, entry: TensorEntry) -> np.ndarray:
    """A tensor's raw numbers (:data:`wbtui.floats.RAW`) in their place, of the entry's shape and strides; not for
    packed entries.

    Raises:
        WeightsError: as :func:`memory`.
    """
    pages, start = memory(path, entry)
    raw = np.dtype(RAW[entry.dtype])
    if pages is None:
        return np.empty(entry.shape, raw)
    strides = None if entry.strides is None else [raw.itemsize * n for n in entry.strides]
    found: np.ndarray = np.ndarray(entry.shape, raw, pages, start, strides)
    return found


def part(path: Path, entry: TensorEntry, index: tuple[slice | int, ...]) -> np.ndarray:
    """A slice of a tensor's raw numbers as a copy of its own, C order; only the pages that hold it are read.

    Args:
        path, entry: a checked header entry, not packed.
        index: one slice or whole number for each of the first dimensions.
    """
    return np.array(view(path, entry)[index], order="C", copy=True)
