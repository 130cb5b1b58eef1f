"""What a thread does with one piece of a dictionary, or of a tile of scores, as one call: many small operations, each
on what fits a core's cache, none of which waits for the interpreter.

Operations of a fraction of a millisecond, called from two Python threads, spend as long waiting for each other's turn
as working. Functions here are compiled by TorchScript where this torch has it: such a call leaves the interpreter
alone from its first operation to its last. Elsewhere they run as they stand, to the same numbers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def compiled(function: Callable[P, None]) -> Callable[P, None]:
    """A function that is one call of TorchScript, or as it stands (``__wrapped__``)."""
    try:
        source = inspect.getsource(function)
        # not torch.jit.script, which warns its callers; the source is the same
        unit = torch.jit.CompilationUnit(source[source.index("def ") :])
        call: Callable[P, None] = getattr(unit, function.__name__)
    except (AttributeError, OSError, RuntimeError):  # no TorchScript, no source
        call = function

    @functools.wraps(function)
    def run(*args: P.args, **more: P.kwargs) -> None:
        with torch.jit.optimized_execution(False):  # optimising costs 60 ms, gains none
            call(*args, **more)

    return run


@compiled
def rows_piece(stored: Tensor, q: Tensor, dot: Tensor, length: Tensor, total: Tensor, near: int) -> None:
    """Products of some rows with the queries, their lengths and their sums.

    Args:
        stored: ``[n, D]`` in any floating dtype and place.
        q: ``[K, D]`` fp32.
        dot: ``[K, n]`` fp32, written.
        length, total: ``[n]`` fp32, written; empty ones: not wanted.
        near: rows gone through together: few enough to stay in a core's cache.
    """
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


@compiled
def columns_piece(stored: Tensor, q: Tensor, dot: Tensor, square: Tensor, total: Tensor, near: int) -> None:
    """The same for rows that are kept as the columns of a matrix; square lengths.

    Args:
        stored: ``[D, n]``.
        dot, square, total: as above, but added to.
        near: of its D numbers a column, how many are gone through together.
    """
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


@compiled
def plain_piece(
    by_e: bool,
    rows: Tensor,
    keys: list[Tensor],
    made: list[Tensor],
    scratch: list[Tensor],
    chunks: list[Tensor],
    tops: list[Tensor],
    sums: list[Tensor],
    sizes: list[Tensor],
    column_tops: list[Tensor],
    groups: list[Tensor],
    group_sums: list[Tensor],
    rest: list[Tensor],
    rest_sums: list[Tensor],
) -> None:
    """Attention scores of some queries, chunk of keys by chunk, reduced on both sides; one entry a chunk throughout.

    Args:
        by_e: powers are of e, else of 2 (:data:`~wbtui.analysis.power.BY_E`).
        rows: ``[p, d]``, the t queries padded.
        keys: ``[d, w]``.
        made, scratch: ``[p, w]``, memory of the scores, and its first t rows; afterwards their sizes.
        chunks: ``[t, w]``, written: :data:`~wbtui.analysis.power.power` of the scores.
        tops, sums, sizes: ``[t]``, written: largest score, sum of the powers, sum of |scores| of each row.
        column_tops: ``[w]``, written; empty: not wanted.
        groups, group_sums: ``[g, h, w]``, scratch seen as groups of h rows, and the sums within each, ``[g, w]``;
            empty: no group is whole.
        rest, rest_sums: ``[r, w]`` and ``[1, w]``: the same of the rows behind the last whole group.
    """
    for j in range(len(keys)):
        torch.mm(rows, keys[j], out=made[j])
        x = scratch[j]
        torch.amax(x, [1], out=tops[j])
        if len(column_tops) > 0:
            torch.amax(x, [0], out=column_tops[j])
        if by_e:
            torch.exp(x, out=chunks[j])
        else:
            torch.exp2(x, out=chunks[j])
        torch.sum(chunks[j], [1], out=sums[j])
        x.abs_()
        torch.sum(x, [1], out=sizes[j])
        if len(groups) > 0:
            torch.sum(groups[j], [1], out=group_sums[j])
        if len(rest) > 0:
            torch.sum(rest[j], [0], True, out=rest_sums[j])
