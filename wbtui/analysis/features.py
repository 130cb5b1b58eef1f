"""Whole rows of the ``tokens`` and ``null`` products: both sides, the columns they share, flags (methods 1.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui import schema
from wbtui.analysis.pool import spread
from wbtui.analysis.side import TokenTable
from wbtui.analysis.streaming import TILE, Stop, TileBuffer, own_buffer, poll
from wbtui.analysis.tokens import Progress, Rows, Want, output_directions, reduce_tile, score_tile, token_rows

PASSES = 10
"""Times that reducing a row reads its scores, about."""
OVERLAP = 10
"""The lists whose shared tokens ``overlap`` counts, as long as ``k_sem`` in every named definition."""


def _common(d: Tensor, e: Tensor | None, centre: bool) -> Rows:
    """Norms, encoder-decoder cosine (of the centred pair for a LayerNorm model) and flags, in fp64."""
    n = d.shape[0]
    out = {name: np.full(n, np.nan) for name in ("d_norm", "e_norm", "selfcos")}
    flags = np.zeros(n, dtype=np.uint8)
    for a in range(0, n, 512):
        b = min(n, a + 512)
        x = d[a:b].double()
        norm = torch.linalg.vector_norm(x, dim=1).cpu().numpy()
        out["d_norm"][a:b] = np.where(np.isfinite(norm), norm, np.nan)
        flags[a:b] |= np.where(np.isfinite(norm), 0, schema.FLAG_BAD_DECODER).astype(np.uint8)
        flags[a:b] |= np.where(norm == 0, schema.FLAG_ZERO_DECODER, 0).astype(np.uint8)
        if e is None:
            continue
        y = e[a:b].to(d.device).double()
        norm = torch.linalg.vector_norm(y, dim=1).cpu().numpy()
        out["e_norm"][a:b] = np.where(np.isfinite(norm), norm, np.nan)
        flags[a:b] |= np.where(np.isfinite(norm), 0, schema.FLAG_BAD_ENCODER).astype(np.uint8)
        flags[a:b] |= np.where(norm == 0, schema.FLAG_ZERO_ENCODER, 0).astype(np.uint8)
        if centre:
            x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
        cosine = (x * y).sum(1) / lengths
        out["selfcos"][a:b] = torch.where(torch.isfinite(cosine), cosine, float("nan")).cpu().numpy()
    if e is None:
        flags |= schema.FLAG_NO_READS
    return {**out, "flags": flags}


def _finish(columns: dict[str, schema.Column], rows: Rows, n: int, definition: dict[str, object]) -> Rows:
    """Every column of the schema in its dtype; what was not computed is absent."""
    out = {name: schema.empty(column, n, definition) for name, column in columns.items()}
    for name, values in rows.items():
        out[name][...] = values
    return out


def _widths(side: TokenTable) -> dict[str, object]:
    return {"k_show": side.definition.k_show, "k_words": side.definition.k_words}


def _overlap(rows: Rows, k: int) -> np.ndarray:
    """How many tokens the top ``k`` of both sides share; -1 where a side is absent."""
    writes, reads = rows["writes.top_ids"][:, :k], rows["reads.top_ids"][:, :k]
    shared = ((writes[:, :, None] == reads[:, None, :]) & (writes[:, :, None] >= 0)).any(2).sum(1)
    absent = (writes[:, 0] < 0) | (reads[:, 0] < 0)
    return np.where(absent, -1, shared)


def _side_rows(writes: Rows, reads: Rows | None) -> Rows:
    out = {name if "." in name else f"writes.{name}": values for name, values in writes.items()}
    if reads is not None:
        out |= {f"reads.{name}": values for name, values in reads.items()}
    return out


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
    return _whole(d, e if read is not None else None, directions, wrote, read, centre, writes)


def _whole(
    d: Tensor, e: Tensor | None, directions: Tensor, wrote: Rows, read: Rows | None, centre: bool, writes: TokenTable
) -> Rows:
    rows = _side_rows(wrote, read)
    common = _common(d, e, centre)
    gone = ~(torch.linalg.vector_norm(directions, dim=1) > 0).cpu().numpy()
    bad = (common["flags"] & schema.FLAG_BAD_DECODER) > 0
    common["flags"] |= np.where(gone & ~bad, schema.FLAG_ZERO_DECODER, 0).astype(np.uint8)
    rows |= common
    if read is not None:
        rows["overlap"] = _overlap(rows, min(OVERLAP, writes.definition.k_show))
    return _finish(schema.tokens_columns(), rows, d.shape[0], _widths(writes))


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
    return _finish(schema.null_columns(), _side_rows(wrote, read), n, _widths(writes))


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
    poll(stop)
    device = writes.rows.device
    buffer = buffer if buffer is not None else TileBuffer(device)
    directions, lengths = output_directions(d[None], gain, centre, writes.definition.unembed)
    members, blocks = [(writes, False)], [directions.to(device)]
    if e is not None and reads is not None:
        members.append((reads, True))
        blocks.append(e[None].to(device=device, dtype=torch.float32))
    tied = len(members) == 2 and members[1][0].rows is writes.rows and members[1][0].ids is writes.ids
    passes = [(torch.cat(blocks), members)] if tied else [(blocks[i], [members[i]]) for i in range(len(members))]
    found: list[Rows] = []
    for block, group in passes:
        scores, norm, exponent = score_tile(block, group[0][0], buffer, stop=stop, pad=False)

        def reduce(
            i: int, scores: Tensor = scores, norm: Tensor = norm, exponent: Tensor = exponent, group: Any = group
        ) -> Rows:
            side, is_reads = group[i]
            row = slice(i, i + 1)
            want: Want = "pos" if is_reads else "both"
            tile = (scores[row], norm[row], exponent[row], side, own_buffer() if device.type == "cpu" else buffer)
            over = None if is_reads else lengths
            rows = reduce_tile(*tile, lengths=over, want=want, top_cos=is_reads, stop=stop)
            return rows if bool(torch.isfinite(norm[i]) and norm[i] > 0) else _absent(rows, is_reads, side)

        members_here = range(len(group))
        found += (
            spread(reduce, members_here, 8 * scores.numel())
            if device.type == "cpu"
            else [reduce(i) for i in members_here]
        )
    read = found[1] if len(found) == 2 else None
    return _whole(
        d[None], e[None] if e is not None and read is not None else None, directions, found[0], read, centre, writes
    )


def _absent(rows: Rows, is_reads: bool, side: TokenTable) -> Rows:
    """The columns of ``rows`` as one absent row."""
    columns = {c.name: c for c in schema.side_columns("reads" if is_reads else "writes")}
    columns |= {f"against.{c.name}": c for c in schema.side_columns("against")}
    return {name: schema.empty(columns[name], 1, _widths(side)) for name in rows}
