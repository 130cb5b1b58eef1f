"""Nearest features by cosine: tiles of one dictionary's rows against blocks of another's, nothing dense kept.

The cosine of two directions of the residual stream, each without its mean where every reader of the stream is a
LayerNorm (methods 3.2: what lies along the all-ones direction reaches no reader). Rows are normalised once, in fp64,
then multiplied in fp32; of each tile only the largest entries of a row are kept (methods 2.2; speed d.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from wbtui.analysis.streaming import TILE, Stop, TileBuffer, padded, poll, product, top_k

NOTHING_LEFT = 1e-6
"""Share of a row's length below which, once centred, it counts as zero: rounding is all that is left of it."""


def unit_rows(rows: Tensor, *, centre: bool, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of length one.

    Args:
        rows: ``[n, D]`` directions in the residual stream.
        centre: take the mean over the width out first (LayerNorm models).
        out: where to write them, ``[n, D]`` fp32.

    Returns:
        ``[n, D]`` fp32, zero where a row has no direction; and bool ``[n]``, where it has none: not finite, zero, or
        (centred) all mean.
    """
    if not centre and rows.dtype == torch.float32:
        # the length in fp64, the rest in fp32: within one rounding of the way below, in a third of the time
        length = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        plain = (length > 1e-30) & (length < 1e30)
        if bool(plain.all()):
            return torch.mul(rows, (1.0 / length).float()[:, None], out=out), ~plain
    x = rows.double()
    before = torch.linalg.vector_norm(x, dim=1)
    if centre:
        x = x - x.mean(dim=1, keepdim=True)
    length = torch.linalg.vector_norm(x, dim=1)
    good = torch.isfinite(length) & (length > before * NOTHING_LEFT)
    unit = torch.where(good[:, None], x / length[:, None], 0.0)
    return unit.float() if out is None else out.copy_(unit), ~good


def nearest(
    rows: Tensor,
    absent: Tensor,
    others: Iterable[tuple[Tensor, Tensor]],
    k: int,
    *,
    itself: int | None = None,
    tile: int = TILE,
    buffer: TileBuffer | None = None,
    stop: Stop | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` largest cosines of each row with the rows of another dictionary.

    Args:
        rows: ``[t, D]`` unit rows, fp32.
        absent: bool ``[t]``: rows without a direction.
        others: ``(unit rows [m, D], absent [m])`` in blocks, in order.
        k: how many.
        itself: number of the first of ``rows`` in the other dictionary, where that is the same one: a row is then not
            compared with itself.
        tile: rows multiplied at once.
        buffer: scratch.
        stop: polled between slices of a product.
        progress: told how many of the other's rows are done.

    Returns:
        cosines ``[t, k]`` fp32, largest first, NaN where there is none; numbers ``[t, k]`` int64, -1 there. Equal
        cosines stand by number.

    Raises:
        Cancelled: the stop flag went up.
    """
    t, dim = rows.shape
    buffer = buffer or TileBuffer(rows.device)
    best = torch.full((t, k), -torch.inf, device=rows.device)
    ids = torch.full((t, k), -1, dtype=torch.int64, device=rows.device)
    first = 0
    for block, gone in others:
        m = len(block)
        for a in range(0, t, tile):
            poll(stop)
            b = min(t, a + tile)
            high = padded(b - a)
            part = buffer.get("rows", high, dim)
            part[: b - a] = rows[a:b]
            part[b - a :] = 0.0
            found = product(part, block, buffer.get("cosines", high, m), buffer, stop=stop)[: b - a]
            if bool(gone.any()):
                found[:, gone] = -torch.inf
            if itself is not None:
                own = torch.arange(itself + a - first, itself + b - first, device=rows.device)
                here = (own >= 0) & (own < m)
                found[here.nonzero().flatten(), own[here]] = -torch.inf
            values, columns = top_k(found, k)
            # earlier blocks stand first, so that a stable sort leaves equal cosines in the order of their numbers
            values = torch.cat([best[a:b], values], dim=1)
            columns = torch.cat([ids[a:b], columns + first], dim=1)
            order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
            best[a:b], ids[a:b] = values.gather(1, order), columns.gather(1, order)
        first += m
        if progress is not None:
            progress(first)
    none = torch.isneginf(best) | absent[:, None]
    return torch.where(none, torch.nan, best.clamp(-1.0, 1.0)), torch.where(none, -1, ids)
