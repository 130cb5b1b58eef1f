"""E1: what each direction writes to and reads from the vocabulary (methods 1.2), as the columns of ``wbtui.schema``.

A row of scores is a direction times the token matrix. Every statistic of the row is over the kept tokens V'. Values are
those of centred tokens where the side says so: the centre is the mean row of the kept tokens, so centring subtracts the
row's own mean score, and ``mean`` is then 0.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wbtui import schema
from wbtui.analysis import coherence, streaming
from wbtui.analysis.pool import one_thread, spread
from wbtui.analysis.rounded import RoundedTile, rounded_product
from wbtui.analysis.side import TokenTable, prepare_side
from wbtui.analysis.streaming import TILE, Stop, TileBuffer, poll

__all__ = ["TokenTable", "output_directions", "prepare_side", "score_tile", "token_rows"]

Progress = Callable[[int, int], None]
Want = Literal["pos", "both"]
Rows = dict[str, np.ndarray]

SPARE = 28
"""Candidates beyond ``k_words``: spellings of words already seen. Rows that need more get more, exactly."""
REDUCED = 32
"""Rows that one thread reduces at a time on a CPU."""
FLAT = 4 * float(np.finfo(np.float32).eps)
"""A row whose spread is below this share of its largest score has no spread but rounding."""
VANISHED = 1e-6
"""A decoder row of which centring leaves less than this share writes nothing."""


def output_directions(d: Tensor, gain: Tensor | None, centre: bool, unembed: str) -> tuple[Tensor, Tensor]:
    """Decoder rows as directions in front of the plain unembedding: ``unit(d) P diag(gain)`` (methods 0, 3.1).

    The division by the row's norm is left to the values at the end: its rounding would break true ties between tokens.

    Args:
        d: ``[n, D]`` decoder rows in the residual stream.
        gain: ``[D]`` effective gain of the final norm (``1 + w`` where the model adds one); None is ones.
        centre: the final norm is a LayerNorm, so ``P`` subtracts the row's mean.
        unembed: ``folded``, or ``raw`` for the unit row alone.

    Returns:
        directions ``[n, D]`` fp32 of ``d P diag(gain)``, each row scaled by a power of two (exact), and the lengths
        ``[n]`` fp64 to divide scores by, those of ``d`` on the same scale. Non-finite rows are NaN; zero rows, and rows
        that centring takes away, are zero.
    """
    if unembed not in ("folded", "raw"):
        raise ValueError(unembed)
    out = torch.empty(d.shape, dtype=torch.float32, device=d.device)
    lengths = torch.ones(d.shape[0], dtype=torch.float64, device=d.device)
    for a in range(0, d.shape[0], 512):
        x = d[a : a + 512].double()
        norm, exponent = _exponents(x)
        x = torch.where(torch.isfinite(norm)[:, None], torch.ldexp(x, -exponent[:, None]), float("nan"))
        length = torch.linalg.vector_norm(x, dim=1)
        lengths[a : a + 512] = torch.where(length > 0, length, 1.0)
        if unembed == "folded":
            if centre:
                x = x - x.mean(1, keepdim=True)
                left = torch.linalg.vector_norm(x, dim=1)
                x = torch.where((left < VANISHED * length)[:, None], 0.0, x)
            if gain is not None:
                x = x * gain.to(x.device).double()
        out[a : a + 512] = x
    return out, lengths


def _exponents(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (fp64) and the exact power of two that brings each row's norm into [0.5, 1)."""
    norm = torch.linalg.vector_norm(directions.double(), dim=1)
    return norm, torch.frexp(torch.where(torch.isfinite(norm), norm, 0.0))[1]


def token_rows(
    directions: Tensor,
    side: TokenTable,
    *,
    lengths: Tensor | None = None,
    want: Want = "both",
    top_cos: bool = False,
    tile: int = TILE,
    stop: Stop | None = None,
    progress: Progress | None = None,
    buffer: TileBuffer | None = None,
) -> Rows:
    """The token statistics of each direction.

    Args:
        directions: ``[n, D]``: output directions (writes) or encoder columns (reads). Their length matters for the
            values only. Rows that are not finite, or zero, give absent rows and do not touch the others.
        side: the token matrix.
        lengths: ``[n]`` to divide the values by, from :func:`output_directions`; None divides by nothing.
        want: ``both`` adds the shape columns of ``-z`` under ``against.<name>``.
        top_cos: add the cosine of the direction with the centred row of each top token.
        tile: directions per tile.
        stop: polled between vocabulary slices of at most 4,096 tokens and between chunks of the reductions.
        progress: called with (rows done, n) after each tile.
        buffer: memory to reuse; one per thread.

    Returns:
        Columns of ``schema.side_columns`` without a prefix, ``[n]`` or ``[n, k]``.

    Raises:
        Cancelled: the stop flag went up.
    """
    n = directions.shape[0]
    device = side.rows.device
    buffer = buffer if buffer is not None else TileBuffer(device)
    columns = {c.name: c for c in schema.side_columns("reads" if top_cos else "writes")}
    if want == "both":
        columns |= {f"against.{c.name}": c for c in schema.side_columns("against")}
    data = _definition_data(side)
    out = {name: schema.empty(column, n, data) for name, column in columns.items()}
    with one_thread() if device.type == "cpu" else contextlib.nullcontext():
        for start in range(0, n, tile):
            poll(stop)
            block = directions[start : start + tile].to(device=device, dtype=torch.float32)
            over = None if lengths is None else lengths[start : start + tile]
            rows, good = _tile_rows(block, side, buffer, over, want, top_cos, stop)
            for name, values in rows.items():
                out[name][start + good] = values[good]
            if progress is not None:
                progress(min(n, start + tile), n)
    return out


def _definition_data(side: TokenTable) -> dict[str, object]:
    return {"k_show": side.definition.k_show, "k_words": side.definition.k_words}


def _tile_rows(
    block: Tensor,
    side: TokenTable,
    buffer: TileBuffer,
    lengths: Tensor | None,
    want: Want,
    top_cos: bool,
    stop: Stop | None,
) -> tuple[Rows, np.ndarray]:
    """The columns of one tile, and which of its rows are not absent. On a CPU threads reduce blocks of rows."""
    rows = len(block)
    scaled, norm, exponent = _scaled(block, side, pad=True)
    if side.rounded is None:
        scores = _scores(scaled, side, buffer, stop)
    else:
        scores = buffer.get("scores", len(scaled), side.n_tokens)
        rounded_product(scaled, side.rounded, scores, stop=stop)
    on_cpu = scores.device.type == "cpu"
    height = REDUCED if on_cpu else len(scores)
    # The mean score is the score of the mean token: known without a pass over the tile.
    means = (scaled.double() @ side.centre(stop)).float()

    def reduce(first: int) -> Rows:
        last = min(rows, first + height)
        own = streaming.own_buffer() if on_cpu else buffer
        padded = slice(first, first + streaming.padded(last - first))
        rounded = None
        if side.rounded is not None:
            low = (side.rounded, side.rows, side.n_kept, scaled[padded], last - first, scores[padded], own, stop)
            rounded = RoundedTile(*low)
        real = slice(first, last)
        over = None if lengths is None else lengths[real]
        tile = (scores[padded], norm[real], exponent[real], side, own)
        return reduce_tile(
            *tile, means=means[padded], lengths=over, want=want, top_cos=top_cos, stop=stop, rounded=rounded
        )

    firsts = range(0, rows, height)
    parts = spread(reduce, firsts, scores.numel()) if on_cpu else [reduce(first) for first in firsts]
    good = np.flatnonzero((torch.isfinite(norm) & (norm > 0)).cpu().numpy())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, good


def _scaled(block: Tensor, side: TokenTable, *, pad: bool) -> tuple[Tensor, Tensor, Tensor]:
    """A tile's directions, each scaled by a power of two (exact), so that the reductions' fp32 powers neither over- nor
    underflow: ``[t, D]`` (padding and absent rows zero), norms ``[rows]`` fp64, the powers taken out ``[rows]``."""
    rows = block.shape[0]
    norm, exponent = _exponents(block)
    good = torch.isfinite(norm) & (norm > 0)
    scaled = torch.zeros(
        (streaming.padded(rows) if pad else rows, side.width), dtype=torch.float32, device=block.device
    )
    scaled[:rows] = torch.where(good[:, None], torch.ldexp(block.double(), -exponent[:, None]).float(), 0.0)
    return scaled, norm, exponent


def score_tile(
    block: Tensor, side: TokenTable, buffer: TileBuffer, *, stop: Stop | None = None, pad: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """fp32 scores of up to one tile of directions against the whole vocabulary, in the column order of ``side.ids``.

    ``pad=False`` is for provisional rows: the last digits then depend on how many rows there are.

    Returns:
        scores ``[t, V]`` (padding rows are zero), norms ``[rows]`` fp64 and the powers of two taken out of the
        directions ``[rows]``.
    """
    scaled, norm, exponent = _scaled(block, side, pad=pad)
    return _scores(scaled, side, buffer, stop), norm, exponent


def _scores(scaled: Tensor, side: TokenTable, buffer: TileBuffer, stop: Stop | None) -> Tensor:
    """The product of :func:`score_tile`."""
    t = len(scaled)
    scores = buffer.get("scores", t, side.n_tokens)
    gather_centre = side.lazy and not side.has_centre
    total = torch.zeros(side.width, dtype=torch.float64, device=scaled.device)
    column_sum = (side.kept_weights(), total) if gather_centre else None
    streaming.product(scaled, side.rows, scores, buffer, stop=stop, column_sum=column_sum)
    if gather_centre:
        side.set_centre(total)
    if not side.in_order:
        ordered = buffer.get("ordered", t, side.n_tokens)
        scores = torch.index_select(scores, 1, side.ids, out=ordered)
    return scores


def reduce_tile(
    scores: Tensor,
    norm: Tensor,
    exponent: Tensor,
    side: TokenTable,
    buffer: TileBuffer,
    *,
    means: Tensor | None = None,
    lengths: Tensor | None = None,
    want: Want,
    top_cos: bool,
    stop: Stop | None = None,
    rounded: RoundedTile | None = None,
) -> Rows:
    """All columns of one tile of scores (see :func:`score_tile`); rows that are absent hold numbers of no meaning.

    ``means``: ``[t]`` fp32, the rows' means but for rounding (see :func:`wbtui.analysis.streaming.moments`).
    ``rounded``: the scores are rounded ones, and this computes again in fp32 what the lists need.
    """
    definition = side.definition
    rows = len(norm)
    kept, masked = scores[:, : side.n_kept], scores[:, side.n_kept :]
    moments = streaming.moments(kept, buffer, about=means, stop=stop)
    wanted = max(definition.k_show, definition.k_sem, definition.k_words + SPARE)
    low = wanted if want == "both" else definition.k_show
    if rounded is not None:
        moments = rounded.better(moments)
        bars = rounded.settle(wanted)
        rounded.settle(low, largest=False)
        rounded.settle_masked(bars[:, min(definition.k_sem, side.n_kept) - 1])
    top = streaming.top_k(kept[:rows], wanted)
    bottom = streaming.top_k(kept[:rows], low, largest=False)
    mean, std = moments.mean[:rows].cpu().numpy(), moments.std[:rows].cpu().numpy()
    highest, lowest = top[0][:, 0].double().cpu().numpy(), bottom[0][:, 0].double().cpu().numpy()
    flat = ~(std > FLAT * np.maximum(abs(highest), abs(lowest)))
    spread = np.where(flat, np.nan, std)
    unit = np.ldexp(1.0, exponent.cpu().numpy()) * side.scale
    if lengths is not None:
        unit = unit / lengths.cpu().numpy()
    offset = mean if side.centre_values else np.zeros(rows)

    out: Rows = {}
    show = definition.k_show
    for name, (values, columns) in (("top", top), ("bottom", bottom)):
        ids, real = _padded_ids(side.ids[columns[:, :show]], show)
        out[f"{name}_ids"] = ids
        shown = _padded_values(values[:, :show], show)
        out[f"{name}_values"] = np.where(real, (shown - offset[:, None]) * unit[:, None], np.nan)
    out["mean"] = (mean - offset) * unit
    out["std"] = np.where(flat, 0.0, std) * unit
    out["skew"] = np.where(flat, np.nan, moments.skew[:rows].cpu().numpy())
    out["kurt"] = np.where(flat, np.nan, moments.kurt[:rows].cpu().numpy())
    out["z_min"] = (lowest - mean) / spread
    poll(stop)
    out |= _shape(kept, top, mean, spread, side, buffer, +1.0, stop, rounded)
    if want == "both":
        against = _shape(kept, bottom, mean, spread, side, buffer, -1.0, stop, rounded)
        out |= {f"against.{name}": values for name, values in against.items()}
    out |= _masked(masked[:rows], top, side, offset, unit)
    if top_cos:
        values, columns = top[0][:, :show], top[1][:, :show]
        lengths = coherence.centred_norms(side.rows, side.positions(side.ids[columns]), side.centre(), side.flatten)
        lengths = lengths.cpu().numpy()
        inside = values.double().cpu().numpy() - mean[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = inside / (lengths * np.ldexp(norm.cpu().numpy(), -exponent.cpu().numpy())[:, None])
        out["top_cos"] = _pad(np.where(lengths > 0, cosine, 0.0), show, np.nan)
    return out


def _pad(values: np.ndarray, width: int, fill: float) -> np.ndarray:
    """Columns filled up to ``width``: a vocabulary smaller than the list."""
    missing = width - values.shape[1]
    return values if missing <= 0 else np.pad(values, ((0, 0), (0, missing)), constant_values=fill)


def _padded_ids(ids: Tensor, width: int) -> tuple[np.ndarray, np.ndarray]:
    array = _pad(ids.cpu().numpy(), width, -1)
    return array, array >= 0


def _padded_values(values: Tensor, width: int) -> np.ndarray:
    return _pad(values.double().cpu().numpy(), width, np.nan)


def _shape(
    kept: Tensor,
    best: tuple[Tensor, Tensor],
    mean: np.ndarray,
    spread: np.ndarray,
    side: TokenTable,
    buffer: TileBuffer,
    sign: float,
    stop: Stop | None,
    rounded: RoundedTile | None,
) -> Rows:
    """The shape columns of ``sign * z``. ``best`` is the list of that sign, best first."""
    definition = side.definition
    values, columns = best
    rows = len(mean)
    k = min(definition.k_sem, side.n_kept)
    flat = np.isnan(spread)
    z = sign * (values.double().cpu().numpy() - mean[:, None]) / spread[:, None]
    # Padding rows are given a rate of 0: they cost the same and raise nothing.
    rate = torch.zeros(kept.shape[0], dtype=torch.float64, device=kept.device)
    rate[:rows] = torch.from_numpy(sign * definition.kappa / np.where(flat, np.inf, spread)).to(kept.device)
    peak = torch.zeros(kept.shape[0], dtype=torch.float32, device=kept.device)
    peak[:rows] = values[:, 0]
    entropy, partition = streaming.softmax_entropy(kept, peak, rate, buffer, stop=stop)
    h = np.where(flat, np.nan, entropy[:rows].cpu().numpy())
    total = partition[:rows].cpu().numpy()
    weights = np.exp(definition.kappa * (z[:, :k] - z[:, :1])) / total[:, None]
    ids = side.ids[columns[:, :k]]
    names = ids.cpu().numpy()
    cosine = coherence.mean_cosine(side.rows, side.positions(ids), side.centre(), side.flatten).cpu().numpy()
    out: Rows = {
        "z_max": z[:, 0],
        "z_10": z[:, definition.k_sem - 1] if definition.k_sem <= side.n_kept else np.full(rows, np.nan),
        "h_kappa": h,
        "delta_h": (math.log(side.n_kept) - definition.kappa**2 / 2) - h,
        "mass_1": weights[:, 0],
        "mass_10": weights.sum(1),
        "lev": np.where(flat, np.nan, coherence.levenshtein(names, side.norms)),
        "cos_tok": np.where(flat, np.nan, cosine),
        "word_share": np.where(flat, np.nan, side.whole_word[names].mean(1)),
    }
    poll(stop)
    out |= _words(kept, z, columns, mean, spread, side, sign, stop, rounded)
    return out


def _words(
    kept: Tensor,
    z: np.ndarray,
    columns: Tensor,
    mean: np.ndarray,
    spread: np.ndarray,
    side: TokenTable,
    sign: float,
    stop: Stop | None,
    rounded: RoundedTile | None,
) -> Rows:
    """z and token of the k-th best distinct word. Rows whose candidates run out are searched with more, exactly."""
    k = side.definition.k_words
    ids = side.ids[columns].cpu().numpy()
    word_z, word_ids = np.full((len(mean), k), np.nan), np.full((len(mean), k), -1, dtype=np.int64)
    rows, candidates = np.arange(len(mean)), ids.shape[1]
    while True:
        places, count = coherence.distinct_words(ids, side.word, k)
        found = places >= 0
        word_z[rows] = np.where(found, np.take_along_axis(z, np.maximum(places, 0), axis=1), np.nan)
        word_ids[rows] = np.where(found, np.take_along_axis(ids, np.maximum(places, 0), axis=1), -1)
        short = rows[count < min(k, side.n_words)]
        if not len(short):
            break
        poll(stop)
        rows, candidates = short, candidates * 4
        if rounded is not None:
            for row in rows:
                rounded.settle(candidates, largest=sign > 0, row=int(row))
        parts = [streaming.top_k(kept[int(row)][None], candidates, largest=sign > 0) for row in rows]
        ids = np.concatenate([side.ids[found_columns].cpu().numpy() for _, found_columns in parts])
        values = np.concatenate([found_values.double().cpu().numpy() for found_values, _ in parts])
        z = sign * (values - mean[rows, None]) / spread[rows, None]
    flat = np.isnan(spread)
    word_ids[flat] = -1
    return {"word_z": word_z, "word_ids": word_ids}


def _masked(masked: Tensor, top: tuple[Tensor, Tensor], side: TokenTable, offset: np.ndarray, unit: np.ndarray) -> Rows:
    """The best masked token and how many stand above the tenth kept one (the last one where fewer are kept)."""
    rows = len(unit)
    if masked.shape[1] == 0:
        return {
            "n_masked_above": np.zeros(rows, dtype=np.int32),
            "masked_best_id": np.full(rows, -1, dtype=np.int32),
            "masked_best_value": np.full(rows, np.nan),
        }
    ids = side.ids[side.n_kept :]
    last = min(side.definition.k_sem, side.n_kept) - 1
    bar, bar_id = top[0][:, last, None], side.ids[top[1][:, last, None]]
    above = (masked > bar).sum(1)
    level = masked == bar
    above += (level & (ids[None, :] < bar_id)).sum(1) if bool(level.any()) else 0
    values, columns = streaming.top_k(masked, 1)
    return {
        "n_masked_above": above.cpu().numpy(),
        "masked_best_id": ids[columns[:, 0]].cpu().numpy(),
        "masked_best_value": (values[:, 0].double().cpu().numpy() - offset) * unit,
    }
