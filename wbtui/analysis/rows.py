"""Whole rows of the ``tokens`` and ``null`` products: the columns that both sides share, flags, and a lone feature's
(methods 1.2). Arrays are numpy's or torch's alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wbtui import schema
from wbtui.analysis.directions import output_directions
from wbtui.analysis.either import Array, Stop, double, host, lengths, like, namespace, poll, single
from wbtui.analysis.reduce import Rows

OVERLAP = 10
"""The lists whose shared tokens ``overlap`` counts, as long as ``k_sem`` in every named definition."""


def common(d: Array, e: Array | None, centre: bool) -> Rows:
    """Norms, encoder-decoder cosine (of the centred pair for a LayerNorm model) and flags, in fp64."""
    n = d.shape[0]
    out = {name: np.full(n, np.nan) for name in ("d_norm", "e_norm", "selfcos")}
    flags = np.zeros(n, dtype=np.uint8)
    for a in range(0, n, 512):
        b = min(n, a + 512)
        x = double(d[a:b])
        norm = host(lengths(x))
        out["d_norm"][a:b] = np.where(np.isfinite(norm), norm, np.nan)
        flags[a:b] |= np.where(np.isfinite(norm), 0, schema.FLAG_BAD_DECODER).astype(np.uint8)
        flags[a:b] |= np.where(norm == 0, schema.FLAG_ZERO_DECODER, 0).astype(np.uint8)
        if e is None:
            continue
        y = double(like(e[a:b], d))
        norm = host(lengths(y))
        out["e_norm"][a:b] = np.where(np.isfinite(norm), norm, np.nan)
        flags[a:b] |= np.where(np.isfinite(norm), 0, schema.FLAG_BAD_ENCODER).astype(np.uint8)
        flags[a:b] |= np.where(norm == 0, schema.FLAG_ZERO_ENCODER, 0).astype(np.uint8)
        with np.errstate(all="ignore"):
            if centre:
                x, y = x - x.mean(1)[:, None], y - y.mean(1)[:, None]
            cosine = host((x * y).sum(1) / (lengths(x) * lengths(y)))
        out["selfcos"][a:b] = np.where(np.isfinite(cosine), cosine, np.nan)
    if e is None:
        flags |= schema.FLAG_NO_READS
    return {**out, "flags": flags}


def finish(columns: dict[str, schema.Column], rows: Rows, n: int, definition: dict[str, object]) -> Rows:
    """Every column of the schema in its dtype; what was not computed is absent."""
    out = {name: schema.empty(column, n, definition) for name, column in columns.items()}
    for name, values in rows.items():
        out[name][...] = values
    return out


def widths(side: Any) -> dict[str, object]:
    """What decides how many numbers the list columns have."""
    return {"k_show": side.definition.k_show, "k_words": side.definition.k_words}


def overlap(rows: Rows, k: int) -> np.ndarray:
    """How many tokens the top ``k`` of both sides share; -1 where a side is absent."""
    writes, reads = rows["writes.top_ids"][:, :k], rows["reads.top_ids"][:, :k]
    shared = ((writes[:, :, None] == reads[:, None, :]) & (writes[:, :, None] >= 0)).any(2).sum(1)
    absent = (writes[:, 0] < 0) | (reads[:, 0] < 0)
    return np.where(absent, -1, shared)


def side_rows(writes: Rows, reads: Rows | None) -> Rows:
    """The sides' columns under their own names."""
    out = {name if "." in name else f"writes.{name}": values for name, values in writes.items()}
    if reads is not None:
        out |= {f"reads.{name}": values for name, values in reads.items()}
    return out


def whole(
    d: Array, e: Array | None, directions: Array, wrote: Rows, read: Rows | None, centre: bool, writes: Any
) -> Rows:
    """The columns of the ``tokens`` product from those of the sides: ``d``, ``e`` ``[n, D]`` as they are,
    ``directions`` those of ``d`` in front of the unembedding."""
    rows = side_rows(wrote, read)
    shared = common(d, e, centre)
    gone = ~(host(lengths(directions)) > 0)
    bad = (shared["flags"] & schema.FLAG_BAD_DECODER) > 0
    shared["flags"] |= np.where(gone & ~bad, schema.FLAG_ZERO_DECODER, 0).astype(np.uint8)
    rows |= shared
    if read is not None:
        rows["overlap"] = overlap(rows, min(OVERLAP, writes.definition.k_show))
    return finish(schema.tokens_columns(), rows, d.shape[0], widths(writes))


Score = Callable[[Array, Sequence[tuple[Any, bool]], "np.ndarray"], list[Rows]]
"""(directions ``[m, D]``, for each its token table and whether it is the reads side, lengths ``[1]`` of the writes) ->
the side columns of each; one pass over the tokens, which all the tables share."""


def lone_row(
    d: Array,
    e: Array | None,
    writes: Any,
    reads: Any | None,
    *,
    gain: Array | None,
    centre: bool,
    score: Score,
    stop: Stop | None = None,
) -> Rows:
    """One lone feature: in a tied model the decoder and encoder row share one pass over the token matrix.

    Args:
        d: ``[D]``; e: ``[D]`` or None; both of one library.
        writes, reads: token tables of that library.
        gain, centre: the final norm (see :func:`~wbtui.analysis.directions.output_directions`).
        score: does the pass.

    Returns:
        ``schema.tokens_columns()`` with one row.
    """
    poll(stop)
    xp = namespace(d)
    directions, over = output_directions(d[None], gain, centre, writes.definition.unembed)
    members, blocks = [(writes, False)], [like(directions, writes.rows)]
    if e is not None and reads is not None:
        members.append((reads, True))
        blocks.append(single(like(e[None], writes.rows)))
    tied = len(members) == 2 and members[1][0].rows is writes.rows and members[1][0].ids is writes.ids
    passes = [(xp.concatenate(blocks), members)] if tied else [(blocks[i], [members[i]]) for i in range(len(members))]
    found = [rows for block, group in passes for rows in score(block, group, host(over))]
    read = found[1] if len(found) == 2 else None
    return whole(
        d[None], e[None] if e is not None and read is not None else None, directions, found[0], read, centre, writes
    )


def absent(rows: Rows, is_reads: bool, side: Any) -> Rows:
    """The columns of ``rows`` as one absent row."""
    columns = {c.name: c for c in schema.side_columns("reads" if is_reads else "writes")}
    columns |= {f"against.{c.name}": c for c in schema.side_columns("against")}
    return {name: schema.empty(columns[name], 1, widths(side)) for name in rows}
