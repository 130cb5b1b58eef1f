"""One tile of scores in a core's own cache: sums and maxima of both sides, and a softmax whose peak is still unknown.

A chunk is multiplied, measured and exponentiated before the next one is begun, so that it is never fetched again. Row
maxima are known only at the end; each chunk therefore goes below the largest score so far, and its sums are brought to
the final peak afterwards by a factor per row (the running rescaling of Milakov and Gimelshein, arXiv 1805.02867).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wbtui.analysis.piece import plain_piece
from wbtui.analysis.power import BY_E, DEEPEST, UNIT, power
from wbtui.analysis.streaming import CHUNK_DEVICE, TileBuffer, padded, slices

GROUP = 128
"""Rows whose column sums are one fp32 sum: tiles are whole groups high, so that their height changes no digit."""
WIDTH = 768
"""Columns of a chunk on a CPU: of 128 rows 400 kB, so that chunk and scratch stay in a core's own cache."""
REACH = 100.0
"""Powers of two that fp32 holds, with room for sums over a hundred thousand keys."""
LINE, WAY = 16, 16_384
"""fp32 numbers in a cache line, and in one way of a core's own cache (64 kB): rows that many apart would compete for
the same few places of it. Long rows therefore lie a chunk more than a multiple of it apart, so that the rows of a
chunk follow one another there; short ones an odd number of lines."""


@dataclass(frozen=True)
class Softmax:
    """What stands between scores and the softmax: the cap, and the biases' terms where they count.

    Attributes:
        softcap: c of ``c tanh(S / c)``, or None.
        biased: whether query and key terms join the scores.
        sink: a logit that joins each query's softmax beside the keys, or None. It takes its share of the attention, so
            a row's masses sum below 1; how concentrated the rest is (``conc``) is told of the keys alone.
    """

    softcap: float | None
    biased: bool
    sink: float | None = None

    @property
    def scale(self) -> float:
        """What queries are multiplied by before the product, which spares a pass over the scores: the exponent's base
        where nothing stands between, or the cap. 1 where biases join, which come in natural units."""
        if self.biased:
            return 1.0
        return 1 / UNIT if self.softcap is None else 1 / self.softcap

    @property
    def natural(self) -> float:
        """What turns the numbers that are exponentiated back into logits."""
        return 1.0 if self.biased else UNIT if self.softcap is None else self.softcap

    def with_sink(self, log_z: Tensor) -> Tensor:
        """Log partition sums over keys with the sink joined."""
        return log_z if self.sink is None else torch.logaddexp(log_z, torch.full_like(log_z, self.sink))

    def left_by_sink(self, log_z: Tensor) -> Tensor:
        """The share of the attention that goes to keys, from the log partition sums over keys."""
        return (log_z - self.with_sink(log_z)).exp()

    def logits_(self, scores: Tensor, row_terms: Tensor, column_terms: Tensor, keys_in_rows: bool) -> Tensor:
        """Scores ``[t, m]`` to logits, in place. A query's own term cancels in its softmax unless a cap follows, or a
        sink, which has no such term, stands beside the keys."""
        if self.biased:
            query, key = (column_terms, row_terms[:, None]) if keys_in_rows else (row_terms[:, None], column_terms)
            scores += key
            if self.softcap is not None or self.sink is not None:
                scores += query
        if self.softcap is not None:
            scores.mul_(1 / self.softcap).tanh_().mul_(self.softcap)
        return scores


def wide(buffer: TileBuffer, rows: int, columns: int) -> Tensor:
    """The tile ``[rows, columns]``, its rows apart by what the cache likes (see :data:`WAY`)."""
    apart = (-(-columns // LINE) | 1) * LINE if columns < WAY // 2 else -(-columns // WAY) * WAY + WIDTH
    return buffer.get("scores", rows, apart)[:, :columns]


def bounds_of(k: Tensor) -> list[tuple[int, int]]:
    """The keys of each chunk."""
    return slices(len(k), WIDTH if k.device.type == "cpu" else CHUNK_DEVICE)


def in_chunks(k: Tensor) -> list[Tensor]:
    """Keys ``[m, d]`` as the chunks' right-hand sides ``[d, width]``, copied into the order in which a product reads
    them: every tile multiplies by the same ones, and bringing them into order each time costs a quarter of it."""
    return [k[a:b].T.contiguous() for a, b in bounds_of(k)]


class Tile:
    """A tile of ``t`` queries against all keys: memory and views made once, used for tile after tile.

    Attributes:
        rows: t.
        scores: ``[t, m]``; after :meth:`exponentiate` what the softmax sums. Not there in a ``plain`` tile.
        sums, tops: ``[chunks, t]`` fp32: row sums of |scores| and row maxima.
        column_sums: ``[ceil(t / 128), m]`` fp32 within groups of 128 rows; column_tops: ``[m]``. With ``columns``.
    """

    def __init__(
        self,
        t: int,
        k: Tensor,
        keys: list[Tensor],
        softmax: Softmax,
        buffer: TileBuffer,
        *,
        columns: bool,
        entropy: bool,
        safe: bool,
    ) -> None:
        """
        Args:
            k: ``[m, d]``, and the same as :func:`in_chunks`.
            entropy: also sum what the entropy needs.
            safe: no logit is beyond :data:`REACH` in powers of two, so none needs to be brought below a peak first.
        """
        m = len(k)
        self._softmax, self._columns, self._entropy, self._safe = softmax, columns, entropy, safe
        self._unit = softmax.natural / UNIT
        bounds = self.bounds = bounds_of(k)
        self.plain = safe and not entropy and not softmax.biased and softmax.softcap is None
        """Nothing stands between scores and exponents, and nothing is sought in the scores: :meth:`at_once` does."""
        self.rows = t
        self._keys = keys
        if self.plain:  # no row is read as a whole, and a chunk that lies in one piece is written and read faster
            flat = buffer.get("scores", 1, padded(t) * m)[0]
            self._chunks = [flat[padded(t) * a : padded(t) * b].view(padded(t), b - a)[:t] for a, b in bounds]
        else:
            held = wide(buffer, padded(t), m)
            self.scores = held[:t]
            self._held = [held[:, a:b] for a, b in bounds]
            self._chunks = [self.scores[:, a:b] for a, b in bounds]
        self._made = [buffer.get("scratch", padded(t), b - a) for a, b in bounds]
        self._scratch = [x[:t] for x in self._made]
        self.sums, self.tops, self._below, self._z, self._weighted = torch.zeros((5, len(bounds), t), device=k.device)
        self._behind, self._factor = self._below.double(), torch.ones_like(self._below, dtype=torch.float64)
        self._sum_rows, self._top_rows, self._z_rows = list(self.sums), list(self.tops), list(self._z)
        if columns:
            self.column_sums = buffer.get("column sums", -(-t // GROUP), m)
            self.column_tops = buffer.get("column tops", 1, m)[0]
            self._column_tops = [self.column_tops[a:b] for a, b in bounds]
            whole = t // GROUP
            self._scratch_groups = [x[: whole * GROUP].unflatten(0, (whole, GROUP)) for x in self._scratch]
            self._group_sums = [self.column_sums[:whole, a:b] for a, b in bounds]
            self._rest_sums = [self.column_sums[whole:, a:b] for a, b in bounds]
            self._whole = whole * GROUP

    def multiply(self, j: int, rows: Tensor) -> None:
        """Scores of chunk ``j`` and their sizes; ``rows`` are the queries, padded, the softmax's scale in them."""
        torch.mm(rows, self._keys[j], out=self._held[j])
        self._tops(j, self._chunks[j])
        torch.abs(self._chunks[j], out=self._scratch[j])
        self._sizes(j)

    def at_once(self, first: int, last: int, rows: Tensor) -> None:
        """:meth:`multiply` and :meth:`exponentiate` of chunks ``[first, last)`` where the tile is ``plain``: scores
        stay in the scratch, and only what the softmax sums is written to the tile."""
        mine = slice(first, last)
        each = (self._keys, self._made, self._scratch, self._chunks, self._top_rows, self._z_rows, self._sum_rows)
        groups: tuple[list[Tensor], ...] = ([], [], [], [], [])
        if self._columns:
            rest = [x[self._whole :] for x in self._scratch[mine]] if self._whole < self.rows else []
            whole = self._scratch_groups[mine] if self._whole else []
            groups = (self._column_tops[mine], whole, self._group_sums[mine], rest, self._rest_sums[mine])
        plain_piece(BY_E, rows, *(x[mine] for x in each), *groups)

    def _tops(self, j: int, scores: Tensor) -> None:
        torch.amax(scores, dim=1, out=self._top_rows[j])
        if self._columns:
            torch.amax(scores, dim=0, out=self._column_tops[j])

    def _sizes(self, j: int) -> None:
        """Sums of the |scores| that are in the scratch."""
        y = self._scratch[j]
        torch.sum(y, dim=1, out=self._sum_rows[j])
        if self._columns:
            if self._whole:
                torch.sum(self._scratch_groups[j], dim=1, out=self._group_sums[j])
            if self._whole < len(y):
                torch.sum(y[self._whole :], dim=0, keepdim=True, out=self._rest_sums[j])

    def biased(self, j: int, q_terms: Tensor, k_terms: Tensor) -> Tensor:
        """Let the biases of all keys ``[m]`` and the cap join chunk ``j``; returns the chunk."""
        a, b = self.bounds[j]
        return self._softmax.logits_(self._chunks[j], q_terms, k_terms[a:b], False)

    def exponentiate(self, j: int) -> None:
        """Exponentiate chunk ``j`` in place and sum it by rows."""
        chunk = self._chunks[j]
        if self._softmax.softcap is not None and not self._softmax.biased:
            chunk.tanh_()
        if not self._safe:
            # The peak goes first, so that the largest logits keep their digits however large the scores are.
            self._find_peak(j)
            chunk.sub_(self._below[j][:, None])
        if not self._entropy:
            y = chunk if self._unit == 1 else chunk.mul_(self._unit)
            torch.sum(power(self._held_up(y), out=chunk), dim=1, out=self._z_rows[j])
            return
        y = self._held_up(torch.mul(chunk, self._unit, out=self._scratch[j]))
        torch.sum(power(y, out=chunk), dim=1, out=self._z_rows[j])
        torch.sum(y.mul_(chunk), dim=1, out=self._weighted[j])

    def _held_up(self, exponents: Tensor) -> Tensor:
        """Raise, in place, what would cost a hundred times the time of others (flushed or not) to
        :data:`~wbtui.analysis.power.DEEPEST`: 1e-38 beside the 1 of the peak."""
        return exponents if self._safe else exponents.clamp_min_(DEEPEST)

    def _find_peak(self, j: int) -> None:
        below = self._below[j]
        if self._softmax.biased:
            torch.amax(self._chunks[j], dim=1, out=below)
        elif self._softmax.softcap is not None:
            torch.tanh(self.tops[j], out=below)  # it keeps the order: the largest score is the largest logit
        else:
            below.copy_(self.tops[j])
        if j:
            torch.maximum(below, self._below[j - 1], out=below)

    def finish(self) -> tuple[Tensor, Tensor]:
        """Bring all chunks to one level: the sums of ``exp(logit - level)`` and the levels, ``[t]`` fp64 each."""
        if not self._safe:  # else all are at one
            self._behind = (self._below - self._below[-1]).double() * self._unit
            self._factor = (self._behind * UNIT).exp()
        return (self._factor * self._z.double()).sum(0), self._below[-1].double() * self._softmax.natural

    def entropy(self, z: Tensor) -> Tensor:
        """In nats, ``[t]`` fp64; ``z`` from :meth:`finish`."""
        weighted = self._factor * (self._weighted.double() + self._behind * self._z.double())
        return z.log() - UNIT * weighted.sum(0) / z

    def received(self, weights: Tensor) -> Tensor:
        """The attention that each key gets, ``[groups, m]`` fp32, of rows that weigh ``weights [t]`` fp64: the share
        that goes to keys over ``z``."""
        each = (self._factor * weights).float()
        for j in reversed(range(len(self.bounds))):  # the last ones are still in the core's cache
            chunk, (a, b) = self._chunks[j], self.bounds[j]
            for group, first in enumerate(range(0, len(chunk), GROUP)):
                rows = slice(first, first + GROUP)
                torch.mv(chunk[rows].T, each[j, rows], out=self.column_sums[group, a:b])
        return self.column_sums
