"""What a thread does with one piece of a dictionary, as one call: many small operations, each on what fits a core's
cache, none of which waits for the interpreter.

Operations of a fraction of a millisecond, called from two Python threads, spend as long waiting for each other's turn
as working. Functions here are compiled by TorchScript where this torch has it: such a call leaves the interpreter
alone from its first operation to its last. Elsewhere they run as they stand, to the same numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _rows(stored: Tensor, q: Tensor, dot: Tensor, length: Tensor, total: Tensor, near: int) -> None:
    for r in range(0, stored.size(0), near):
        part = stored[r : r + near].to(q.device, torch.float32)
        end = r + part.size(0)
        if q.size(0) == 1:
            torch.mv(part, q[0], out=dot[0, r:end])
        else:
            torch.mm(q, part.t(), out=dot[:, r:end])
        if length.size(0) > 0:
            torch.norm(part, 2, [1], False, out=length[r:end])
        if total.size(0) > 0:
            torch.sum(part, [1], out=total[r:end])


def _columns(stored: Tensor, q: Tensor, dot: Tensor, square: Tensor, total: Tensor, near: int) -> None:
    wide = square.size(0)
    squares = torch.zeros([near if wide > 0 else 0, wide], dtype=torch.float32, device=q.device)
    ones = torch.ones([near if total.size(0) > 0 else 0], dtype=torch.float32, device=q.device)
    for r in range(0, stored.size(0), near):
        part = stored[r : r + near].to(q.device, torch.float32)
        n = part.size(0)
        if q.size(0) == 1:
            dot[0].addmv_(part.t(), q[0, r : r + n])
        else:
            dot.addmm_(q[:, r : r + n], part)
        if wide > 0:
            squares[:n].addcmul_(part, part)
        if total.size(0) > 0:
            total.addmv_(part.t(), ones[:n])
    if wide > 0:
        square.add_(squares.sum(0))


def _compiled(function: Callable[..., None]) -> Callable[..., Any]:
    try:
        # not torch.jit.script, which warns its callers; the source is the same
        unit = torch.jit.CompilationUnit(inspect.getsource(function))
        return getattr(unit, function.__name__)
    except (AttributeError, OSError, RuntimeError):  # no TorchScript, no source
        return function


_ROWS, _COLUMNS = _compiled(_rows), _compiled(_columns)


def rows_piece(stored: Tensor, q: Tensor, dot: Tensor, length: Tensor, total: Tensor, near: int) -> None:
    """Products of some rows with the queries, their lengths and their sums.

    Args:
        stored: ``[n, D]`` in any floating dtype and place.
        q: ``[K, D]`` fp32.
        dot: ``[K, n]`` fp32, written.
        length, total: ``[n]`` fp32, written; empty ones: not wanted.
        near: rows gone through together: few enough to stay in a core's cache.
    """
    with torch.jit.optimized_execution(False):  # optimising costs 60 ms, gains none
        _ROWS(stored, q, dot, length, total, near)


def columns_piece(stored: Tensor, q: Tensor, dot: Tensor, square: Tensor, total: Tensor, near: int) -> None:
    """The same for rows that are kept as the columns of a matrix; square lengths.

    Args:
        stored: ``[D, n]``.
        dot, square, total: as above, but added to.
        near: of its D numbers a column, how many are gone through together.
    """
    with torch.jit.optimized_execution(False):
        _COLUMNS(stored, q, dot, square, total, near)
