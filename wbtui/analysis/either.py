"""Arrays of numpy or of torch: what a formula needs of either, so that there is one formula for both.

A shard's tiles are torch's, on whichever device; a lone feature is computed with numpy (:mod:`wbtui.analysis.lone`) in
a process that has not imported torch, which takes longer than the row does. Torch is never imported here: whoever holds
a tensor has done so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from wbtui.errors import Cancelled

Array = Any
"""A ``numpy.ndarray`` or a ``torch.Tensor``."""
Stop = Callable[[], bool]


def poll(stop: Stop | None) -> None:
    """Raise :class:`~wbtui.errors.Cancelled` when the stop flag is up."""
    if stop is not None and stop():
        raise Cancelled("the computation was stopped")


def namespace(x: Array) -> Any:
    """The module whose functions take ``x``: of those that both have under one name."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


def double(x: Array) -> Array:
    """``x`` in float64."""
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


def single(x: Array) -> Array:
    """``x`` in float32."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) else x.float()


def host(x: Array) -> np.ndarray:
    """``x`` as numpy's, in this process's memory."""
    return x if isinstance(x, np.ndarray) else np.asarray(x.cpu().numpy())


def like(x: Array, other: Array) -> Array:
    """``x`` where ``other`` is: on its device."""
    return x if isinstance(x, np.ndarray) else x.to(other.device)


def rows_at(x: Array, positions: Array) -> Array:
    """Rows ``[n, D]`` of a matrix at ``positions [n]``, copied: torch's indexing takes element by element what its
    ``index_select`` takes row by row, at twice the time."""
    return x.index_select(0, positions) if hasattr(x, "index_select") else x[positions]


def lengths(x: Array, axis: int = 1, keep: bool = False) -> Array:
    """Euclidean norms along an axis."""
    if isinstance(x, np.ndarray):
        return np.linalg.norm(x, axis=axis, keepdims=keep)
    return sys.modules["torch"].linalg.vector_norm(x, dim=axis, keepdim=keep)
