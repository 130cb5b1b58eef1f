"""What a tile's reductions take from each slice of scores while it is still in the core's cache.

A tile of scores against a whole vocabulary is a hundred times larger than the cache of the core that makes it. Power
sums about the mean (known beforehand: the score of the mean token) and the peaks of blocks of columns, from which the
lists are chosen afterwards, need each score once, in any order: they are taken as the product goes, before the scores
have left for the memory. What is read again is the softmax, whose rate is known only with the whole row's spread.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wbtui.analysis.streaming import Moments, TileBuffer, block_for, chosen

ROWS = 32
"""Rows reduced at a time: of a slice half a megabyte."""


class Sweep:
    """Sums and peaks of the kept part of one tile ``[t, V]``, slice by slice; slices may come in any order and from
    several threads.

    Args:
        scores: ``[t, V]`` fp32, being written; kept columns first.
        n_kept: columns that count.
        slices: ranges of columns in which the product is taken, ascending, cut at multiples of 64.
        about: ``[t]`` fp32, the rows' means but for rounding.
        wanted: the length of the longest list.
    """

    def __init__(self, scores: Tensor, n_kept: int, slices: list[tuple[int, int]], about: Tensor, wanted: int) -> None:
        self.scores, self.about, self.n_kept = scores, about[:, None], n_kept
        self._pieces = [(a, min(b, n_kept)) for a, b in slices if a < n_kept]
        self._index = {a: j for j, (a, _) in enumerate(self._pieces)}
        t, device = len(scores), scores.device
        self.sums = torch.empty((4, len(self._pieces), t), dtype=torch.float32, device=device)
        # Views by rows and piece, made at once: one by one they would cost as much as some of the sums.
        self._sums = [part.flatten(0, 1).unbind(0) for part in self.sums.split(ROWS, dim=2)]
        self._abouts = self.about.split(ROWS)
        # Blocks are contiguous: reducing strided ones is faster at some widths of a slice and ten times slower at most.
        self.block = block_for(n_kept, wanted)
        self.highs, self.lows = torch.empty((2, t, n_kept // self.block), dtype=torch.float32, device=device)
        self.rest = torch.arange(n_kept // self.block * self.block, n_kept, device=device)

    def take(self, first: int, buffer: TileBuffer) -> None:
        """Take the slice that begins at column ``first``; ``buffer`` is the calling thread's."""
        j = self._index.get(first)
        if j is None:
            return
        a, b = self._pieces[j]
        low, high = a // self.block, b // self.block
        count = len(self._pieces)
        rows = self.scores[:, a:b].split(ROWS)
        highs, lows = self.highs[:, low:high].split(ROWS), self.lows[:, low:high].split(ROWS)
        tall = [buffer.get(name, min(ROWS, len(self.scores)), b - a) for name in ("scratch", "scratch2")]
        for x, about, high_s, low_s, sums in zip(rows, self._abouts, highs, lows, self._sums, strict=True):
            y, y2 = tall if len(x) == len(tall[0]) else [each[: len(x)] for each in tall]
            torch.sum(torch.sub(x, about, out=y), dim=1, out=sums[j])
            torch.sum(torch.mul(y, y, out=y2), dim=1, out=sums[count + j])
            torch.sum(y.mul_(y2), dim=1, out=sums[2 * count + j])
            torch.sum(y2.mul_(y2), dim=1, out=sums[3 * count + j])
            if high > low:
                blocks = x[:, : (high - low) * self.block].unflatten(1, (high - low, self.block))
                torch.amax(blocks, 2, out=high_s)
                torch.amin(blocks, 2, out=low_s)

    def rows(self, rows: slice) -> Taken:
        """What was taken from some of the rows, once all slices are."""
        return Taken(self, rows)


class Taken:
    """Moments and lists of some rows of a tile."""

    def __init__(self, sweep: Sweep, rows: slice) -> None:
        self._sweep, self._rows = sweep, rows

    def moments(self) -> Moments:
        """Of all of the rows."""
        sweep = self._sweep
        return Moments.of(sweep.about[self._rows, 0], sweep.sums[:, :, self._rows], sweep.n_kept)

    def best(self, rows: int, *, largest: bool) -> Callable[[int], tuple[Tensor, Tensor]]:
        """:func:`~wbtui.analysis.streaming.best` of the kept part of the first ``rows`` rows, for a length."""
        sweep = self._sweep
        mine = slice(self._rows.start, self._rows.start + rows)
        peaks = (sweep.highs if largest else sweep.lows)[mine]

        def best(k: int) -> tuple[Tensor, Tensor]:
            want = min(k, sweep.n_kept)
            which = peaks.topk(min(want, peaks.shape[1]), dim=1, largest=largest, sorted=False).indices
            found = which[:, :, None] * sweep.block + torch.arange(sweep.block, device=which.device)
            candidates = torch.cat([found.flatten(1), sweep.rest.expand(len(which), -1)], dim=1)
            return chosen(sweep.scores[mine], candidates, want, largest)

        return best
