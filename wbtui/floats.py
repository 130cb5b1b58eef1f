"""Floating-point numbers as files have them, in numpy, which has no bfloat16: its bits stand in uint16."""

from __future__ import annotations

import numpy as np

RAW = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
"""A tensor file's dtype -> numpy's for its raw numbers."""


def widened(raw: np.ndarray) -> np.ndarray:
    """A copy in float32, C order, of float64, float32, float16 or (uint16) the bits of bfloat16."""
    if raw.dtype == np.uint16:
        return (raw.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)
    return raw.astype(np.float32, order="C")
