"""Whole rows of the ``tokens`` and ``null`` products: both sides, the columns they share, flags (methods 1.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui import schema
from wbtui.analysis.directions import output_directions
from wbtui.analysis.pool import spread
from wbtui.analysis.reduce import Rows, Want
from wbtui.analysis.rows import absent, finish, lone_row, side_rows, whole, widths
from wbtui.analysis.side import TokenTable
from wbtui.analysis.streaming import TILE, Stop, TileBuffer, own_buffer
from wbtui.analysis.tokens import Progress, reduce_tile, score_tile, token_rows

PASSES = 10
"""Times that reducing a row reads its scores, about."""


def feature_rows(
    d: Tensor,
    e: Tensor | None,
    writes: TokenTable,
    reads: TokenTable | None,
    *,
    gain: Tensor | None,
    centre: bool,
    tile: int = TILE,
    stop: Stop | None = None,
    progress: Progress | None = None,
    buffer: TileBuffer | None = None,
) -> Rows:
    """Every column of a ``tokens`` product for the features given.

    Args:
        d: ``[n, D]`` decoder rows in the residual stream.
        e: ``[n, D]`` encoder columns on the raw residual stream, or None where they are not on it.
        writes, reads: the sides' token tables; ``reads`` may be None only with ``e``.
        gain, centre: the final norm (see :func:`~wbtui.analysis.tokens.output_directions`).
        tile, stop, buffer: see :func:`~wbtui.analysis.tokens.token_rows`.
        progress: called with (sides' rows done, sides' rows in all).

    Returns:
        ``schema.tokens_columns()`` by name. A decoder row that is not finite or zero (or constant under a LayerNorm)
        leaves writes absent, an encoder column reads; ``flags`` says which.

    Raises:
        Cancelled: the stop flag went up.
    """
    n = d.shape[0]
    sides = 1 if e is None or reads is None else 2
    directions, lengths = output_directions(d, gain, centre, writes.definition.unembed)
    buffer = buffer if buffer is not None else TileBuffer(writes.rows.device)
    step = None if progress is None else lambda done, _: progress(done, sides * n)
    wrote = token_rows(
        directions, writes, lengths=lengths, want="both", tile=tile, stop=stop, progress=step, buffer=buffer
    )
    read = None
    if e is not None and reads is not None:
        step = None if progress is None else lambda done, _: progress(n + done, sides * n)
        read = token_rows(e, reads, want="pos", top_cos=True, tile=tile, stop=stop, progress=step, buffer=buffer)
    return whole(d, e if read is not None else None, directions, wrote, read, centre, writes)


def null_rows(
    writes_directions: Tensor,
    reads_directions: Tensor | None,
    writes: TokenTable,
    reads: TokenTable | None,
    *,
    gain: Tensor | None,
    centre: bool,
    tile: int = TILE,
    stop: Stop | None = None,
    progress: Progress | None = None,
    buffer: TileBuffer | None = None,
) -> Rows:
    """Every column of a ``null`` product: random directions through the features' own code.

    Args:
        writes_directions, reads_directions: ``[n, D]`` from :func:`wbtui.analysis.nulls.directions`; reads None where
            the SAE's encoder is not on the residual stream.

    Returns:
        ``schema.null_columns()`` by name.
    """
    n = writes_directions.shape[0]
    sides = 1 if reads_directions is None or reads is None else 2
    buffer = buffer if buffer is not None else TileBuffer(writes.rows.device)
    directions, lengths = output_directions(writes_directions, gain, centre, writes.definition.unembed)
    step = None if progress is None else lambda done, _: progress(done, sides * n)
    wrote = token_rows(
        directions, writes, lengths=lengths, want="pos", tile=tile, stop=stop, progress=step, buffer=buffer
    )
    read = None
    if reads_directions is not None and reads is not None:
        step = None if progress is None else lambda done, _: progress(n + done, sides * n)
        read = token_rows(
            reads_directions, reads, want="pos", top_cos=True, tile=tile, stop=stop, progress=step, buffer=buffer
        )
    return finish(schema.null_columns(), side_rows(wrote, read), n, widths(writes))


def instant_row(
    d: Tensor,
    e: Tensor | None,
    writes: TokenTable,
    reads: TokenTable | None,
    *,
    gain: Tensor | None,
    centre: bool,
    stop: Stop | None = None,
    buffer: TileBuffer | None = None,
) -> Rows:
    """One lone feature, provisional: what :func:`feature_rows` gives for it, to the last few digits.

    With lazy tables nothing is converted beforehand: bf16 rows are promoted slice by slice, and in a tied model the
    decoder and encoder row share one pass over the token matrix, which is what bounds the time. Rows are not padded to
    8 (twice as fast), so this row is never stored.

    Args:
        d: ``[D]``; e: ``[D]`` or None; the rest as in :func:`feature_rows`.

    Returns:
        ``schema.tokens_columns()`` with one row.

    Raises:
        Cancelled: the stop flag went up.
    """
    device = writes.rows.device
    buffer = buffer if buffer is not None else TileBuffer(device)

    def score(block: Tensor, group: Any, over: np.ndarray) -> list[Rows]:
        scores, norm, exponent = score_tile(block, group[0][0], buffer, stop=stop, pad=False)

        def reduce(i: int) -> Rows:
            side, is_reads = group[i]
            row = slice(i, i + 1)
            want: Want = "pos" if is_reads else "both"
            tile = (scores[row], norm[row], exponent[row], side, own_buffer() if device.type == "cpu" else buffer)
            lengths = None if is_reads else torch.from_numpy(over)
            rows = reduce_tile(*tile, lengths=lengths, want=want, top_cos=is_reads, stop=stop)
            return rows if bool(torch.isfinite(norm[i]) and norm[i] > 0) else absent(rows, is_reads, side)

        members = range(len(group))
        if device.type == "cpu":
            return spread(reduce, members, PASSES * scores.numel())
        return [reduce(i) for i in members]

    return lone_row(d, e, writes, reads, gain=gain, centre=centre, score=score, stop=stop)
