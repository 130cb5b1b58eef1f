"""E1: what each direction writes to and reads from the vocabulary (methods 1.2), as the columns of ``wbtui.schema``.

A row of scores is a direction times the token matrix. Every statistic of the row is over the kept tokens V'. Values are
those of centred tokens where the side says so: the centre is the mean row of the kept tokens, so centring subtracts the
row's own mean score, and ``mean`` is then 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from wbtui import schema
from wbtui.analysis import streaming
from wbtui.analysis.directions import output_directions
from wbtui.analysis.directions import scaled as scaled_rows
from wbtui.analysis.either import host
from wbtui.analysis.pool import one_thread, spread
from wbtui.analysis.reduce import Rows, Want, longest
from wbtui.analysis.reduce import reduce as reduced
from wbtui.analysis.rounded import RoundedTile, rounded_product
from wbtui.analysis.side import TokenTable, prepare_side
from wbtui.analysis.streaming import TILE, Stop, TileBuffer, poll
from wbtui.analysis.sweep import Sweep, Taken

__all__ = ["TokenTable", "output_directions", "prepare_side", "score_tile", "token_rows"]

Progress = Callable[[int, int], None]
REDUCED = 32
"""Rows that one thread reduces at a time on a CPU."""


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
    on_cpu = side.rows.device.type == "cpu"
    sweep = None
    if side.rounded is not None:
        scores = buffer.get("scores", len(scaled), side.n_tokens)
        rounded_product(scaled, side.rounded, scores, stop=stop)
    elif on_cpu and side.in_order and side.has_centre:
        scores = buffer.get("scores", len(scaled), side.n_tokens)
        about, wanted = _means(scaled, side, stop), longest(side.definition) + 1
        sweep = Sweep(scores, side.n_kept, streaming.slices_of(scores), about, wanted)
        streaming.product(scaled, side.rows, scores, buffer, stop=stop, after=sweep.take)
    else:
        scores = _scores(scaled, side, buffer, stop)
    height = REDUCED if on_cpu else len(scores)
    means = _means(scaled, side, stop)

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
        tile = TorchTile(scores[padded], last - first, side, own, stop)
        tile.means, tile.rounded = means[padded], rounded
        tile.taken = None if sweep is None else sweep.rows(padded)
        sizes = host(norm[real]), host(exponent[real]), None if over is None else host(over)
        return reduced(tile, side, *sizes, want=want, top_cos=top_cos, stop=stop)

    firsts = range(0, rows, height)
    parts = spread(reduce, firsts, scores.numel()) if on_cpu else [reduce(first) for first in firsts]
    good = np.flatnonzero((torch.isfinite(norm) & (norm > 0)).cpu().numpy())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, good


def _means(scaled: Tensor, side: TokenTable, stop: Stop | None) -> Tensor:
    """The mean score is the score of the mean token: known without a pass over the tile, but for rounding."""
    return (scaled.double() @ side.centre(stop)).float()


def _scaled(block: Tensor, side: TokenTable, *, pad: bool) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`wbtui.analysis.directions.scaled` of a tile, padded with rows of zeros: ``[t, D]``."""
    found, norm, exponent = scaled_rows(block)
    if not pad or len(found) % streaming.TILE_STEP == 0:
        return found, norm, exponent
    whole = torch.zeros((streaming.padded(len(found)), side.width), dtype=torch.float32, device=block.device)
    whole[: len(found)] = found
    return whole, norm, exponent


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


class TorchTile:
    """A tile of scores in torch's memory, as :func:`wbtui.analysis.reduce.reduce` takes it.

    Attributes:
        means: ``[t]`` fp32, the rows' means but for rounding (see :func:`wbtui.analysis.streaming.moments`).
        rounded: the scores are rounded ones, and this computes again in fp32 what the lists need.
        taken: what was taken from these rows while they were made.
    """

    means: Tensor | None = None
    rounded: RoundedTile | None = None
    taken: Taken | None = None

    def __init__(self, scores: Tensor, rows: int, side: TokenTable, buffer: TileBuffer, stop: Stop | None) -> None:
        self.rows = rows
        self.side = side
        self._scores, self._buffer, self._stop = scores, buffer, stop
        self._kept, self._masked = scores[:, : side.n_kept], scores[:, side.n_kept :]
        self.n_masked = self._masked.shape[1]

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if self.taken is not None:
            found = self.taken.moments()
        else:
            found = streaming.moments(self._kept, self._buffer, about=self.means, stop=self._stop)
        if self.rounded is not None:
            found = self.rounded.better(found)
        mean, std, skew, kurt = (host(x[: self.rows]) for x in (found.mean, found.std, found.skew, found.kurt))
        return mean, std, skew, kurt

    def settle(self, high: int, low: int, bar: int) -> None:
        if self.rounded is not None:
            bars = self.rounded.settle(high)
            self.rounded.settle(low, largest=False)
            self.rounded.settle_masked(bars[:, bar])

    def best(self, k: int, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        found = None if self.taken is None else self.taken.best(self.rows, largest=largest)
        return _on_host(streaming.top_k(self._kept[: self.rows], k, largest=largest, found=found))

    def more(self, row: int, k: int, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        if self.rounded is not None:
            self.rounded.settle(k, largest=largest, row=row)
        return _on_host(streaming.top_k(self._kept[row][None], k, largest=largest))

    def entropies(
        self, signs: Sequence[tuple[np.ndarray, np.ndarray]], span: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        found = streaming.softmax_entropies(
            self._kept,
            [(self._column(peak, torch.float32), self._column(rate, torch.float64)) for peak, rate in signs],
            self._buffer,
            span=self._column(span, torch.float64),
            stop=self._stop,
        )
        return [(host(entropy[: self.rows]), host(partition[: self.rows])) for entropy, partition in found]

    def _column(self, values: np.ndarray, dtype: torch.dtype) -> Tensor:
        """``[t]``, zero in padding rows: with a rate of 0 they cost the same and raise nothing."""
        column = torch.zeros(self._kept.shape[0], dtype=dtype, device=self._kept.device)
        column[: self.rows] = torch.from_numpy(values).to(column.device)
        return column

    def above(self, bar: np.ndarray, bar_id: np.ndarray) -> np.ndarray:
        masked, device = self._masked[: self.rows], self._masked.device
        bars = torch.from_numpy(bar).float().to(device)[:, None]
        found = (masked > bars).sum(1)
        level = masked == bars
        if bool(level.any()):
            ids = self.side.ids[self.side.n_kept :]
            found += (level & (ids[None, :] < torch.from_numpy(bar_id).to(device)[:, None])).sum(1)
        return host(found)

    def best_masked(self) -> tuple[np.ndarray, np.ndarray]:
        values, columns = _on_host(streaming.top_k(self._masked[: self.rows], 1))
        return values[:, 0], self.side.token_ids[self.side.n_kept + columns[:, 0]]

    def mean_cosine(self, ids: np.ndarray) -> np.ndarray:
        return host(self.side.mean_cosine(self._positions(ids)))

    def centred_norms(self, ids: np.ndarray) -> np.ndarray:
        return host(self.side.centred_norms(self._positions(ids)))

    def _positions(self, ids: np.ndarray) -> Tensor:
        return self.side.positions(torch.from_numpy(ids).to(self.side.rows.device))


def _on_host(found: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return host(found[0].double()), host(found[1])


def reduce_tile(
    scores: Tensor,
    norm: Tensor,
    exponent: Tensor,
    side: TokenTable,
    buffer: TileBuffer,
    *,
    lengths: Tensor | None = None,
    want: Want,
    top_cos: bool,
    stop: Stop | None = None,
) -> Rows:
    """All columns of one tile of scores (see :func:`score_tile`); rows that are absent hold numbers of no meaning."""
    tile = TorchTile(scores, len(norm), side, buffer, stop)
    over = None if lengths is None else host(lengths)
    return reduced(tile, side, host(norm), host(exponent), over, want=want, top_cos=top_cos, stop=stop)
