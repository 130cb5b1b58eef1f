"""The big product in fewer bits (bf16, fp16, TF32), with lists, counts, means and spreads that are those of fp32.

Rounding a direction ``d`` to ``d^`` and tokens ``t`` to ``t^`` moves a score by at most (Cauchy and Schwarz, twice)::

    |d t - d^ t^|  <=  |d - d^| |t| + |d^| |t - t^|

where every length is known exactly; sums in fp32 add at most ``g |d^| |t^|``, an output in few bits a share ``u`` of
the score. So a score from the rounded product is an interval that holds the fp32 score for certain. The ``k``-th
largest lower end is a bar that ``k`` tokens reach; only tokens whose upper end reaches it can be among the ``k`` best
or tie with the last of them. Those are computed again by the fp32 product itself, from the fp32 direction and the
unrounded tokens, and written over the rounded scores: whoever then selects from the row finds the lists, values and
ties of fp32. Rows whose bar excludes too few, and rows whose own spread the rounding could move, are computed in fp32
whole. Nothing is assumed about the weights: where they make the bound loose, more is computed again.

Mean and spread come from the kept tokens' mean and second moment (a matrix ``[D, D]``, once per table), not from
rounded scores. What is left in fewer bits are skewness, kurtosis and the softmax sums of entropy and mass over the
tokens that are not in the lists; ``NOISE`` bounds the random part of their error.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wbtui.analysis import streaming
from wbtui.analysis.pool import spread
from wbtui.analysis.streaming import Moments, Stop, TileBuffer, poll
from wbtui.definitions import TILE_STEP

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32}
ROUNDOFF = {"bf16": 2.0**-8, "fp16": 2.0**-11, "tf32": 2.0**-11}
"""Largest relative error of rounding to nearest."""
TRUNCATED = 2.0**-10
"""Largest relative error of TF32 inputs that the hardware shortens itself, by whichever rule."""
FP32_SUM, NARROW_SUM = 2.0**-24, 2.0**-22
"""Error of one addition as a share of the sum's terms: IEEE fp32; tensor cores, which cut off instead of rounding."""
ABSOLUTE = {"bf16": 1e-30, "fp16": 1e-7, "tf32": 1e-30}
"""What underflow can lose of a score, for directions of length about one."""
OVER = 1 + 2.0**-20
"""Factor on lengths, so that rounding them to fp32 never makes them too short."""
NOISE = 0.01
"""A row whose rounding error has a standard deviation above this share of the row's own is computed in fp32."""
SHARE = 0.125
"""A row of which more than this share would be computed again is computed whole."""
WHOLE = 32
"""Whole rows computed together."""
GROUP_DEVICE = 128
"""Rows whose candidates are computed again together; on a CPU ``TILE_STEP``."""
STRIP = 256
"""Rows of the second moment that one thread sums."""
_ROWS = 2048


def round_tf32(x: Tensor) -> Tensor:
    """fp32 values rounded to TF32's ten bits behind the point, ties to even."""
    bits = x.view(torch.int32)
    bits = bits + 0x0FFF + ((bits >> 13) & 1)
    return (bits & ~0x1FFF).view(torch.float32)


@contextlib.contextmanager
def fast_matmul(kind: str) -> Iterator[None]:
    """CUDA's switches for one product: TF32 inputs for ``tf32``; sums never in fewer bits than fp32."""
    settings: Any = torch.backends.cuda.matmul
    names = ["allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction"]
    wanted: dict[str, Any] = dict.fromkeys(names, False)
    if kind == "tf32":
        wanted |= {"fp32_precision": "tf32"} if hasattr(settings, "fp32_precision") else {"allow_tf32": True}
    before = {name: getattr(settings, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(settings, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)


def narrow_product(directions: Tensor, rows: Tensor, out: Tensor) -> Tensor:
    """``out = directions @ rows.T`` in the inputs' dtype, in fp32 sums; the output in fp32 where the device can.

    Args:
        directions: ``[t, D]``; rows: ``[n, D]`` of one dtype.
        out: ``[t, n]`` fp32.
    """
    if directions.dtype == torch.float32:
        return torch.mm(directions, rows.T, out=out)
    if writes_fp32(rows.device):
        return out.copy_(torch.mm(directions, rows.T, out_dtype=torch.float32))
    return out.copy_(torch.mm(directions, rows.T))


_WRITES_FP32: dict[str, bool] = {}


def writes_fp32(device: torch.device) -> bool:
    """Whether products of bf16 or fp16 can be had in fp32 here (CUDA with a torch that offers it)."""
    name = str(device)
    if name not in _WRITES_FP32:
        one = torch.ones((16, 16), dtype=torch.bfloat16, device=device)
        try:
            _WRITES_FP32[name] = torch.mm(one, one, out_dtype=torch.float32).dtype == torch.float32
        except (RuntimeError, TypeError, NotImplementedError):
            _WRITES_FP32[name] = False
    return _WRITES_FP32[name]


@dataclass(frozen=True)
class Rounded:
    """What a token table keeps for products in fewer bits.

    Attributes:
        kind: ``bf16``, ``fp16`` or ``tf32``.
        rows: ``[V, D]``, what is multiplied, in the table's order.
        lengths: ``[V]`` fp64, not less than ``|t|``.
        lost: ``[V]`` fp64, not less than ``|t - t^|``.
        mean: ``[D]`` fp64, the kept rows' mean; second: ``[D, D]`` fp64, the second moment around it.
    """

    kind: str
    rows: Tensor
    lengths: Tensor
    lost: Tensor
    mean: Tensor
    second: Tensor

    def shorten(self, directions: Tensor) -> Tensor:
        """fp32 directions with the values that the product takes them for."""
        return round_tf32(directions) if self.kind == "tf32" else directions.to(DTYPES[self.kind]).float()


def prepare_rounded(rows: Tensor, kind: str, n_kept: int, mean: Tensor, *, stop: Stop | None = None) -> Rounded | None:
    """A table's rows in fewer bits, what rounding lost of each, and the second moment of the kept ones.

    Args:
        rows: ``[V, D]`` in the table's order, kept ones first; fp32, or already of ``kind`` (nothing is copied then).
        mean: ``[D]`` fp64, the kept rows' mean.

    Returns:
        None where the rows are too large for ``kind``: the product stays in fp32.

    Raises:
        Cancelled: the stop flag went up.
    """
    dtype = DTYPES[kind]
    n, dim = rows.shape
    low = rows if rows.dtype == dtype else torch.empty((n, dim), dtype=dtype, device=rows.device)
    lengths, lost = (torch.zeros(n, dtype=torch.float64, device=rows.device) for _ in range(2))
    second = torch.zeros((dim, dim), dtype=torch.float64, device=rows.device)
    for a in range(0, n, _ROWS):
        poll(stop)
        part = rows[a : a + _ROWS].float()
        here = slice(a, a + len(part))
        lengths[here] = torch.linalg.vector_norm(part.double(), dim=1) * OVER
        if low is not rows:
            low[here] = part
        if kind == "tf32":
            changed = (round_tf32(part) != part).any(1)
            lost[here] = torch.where(changed, TRUNCATED * lengths[here], 0.0)
        else:
            lost[here] = torch.linalg.vector_norm(part.double() - low[here].double(), dim=1) * OVER
    _second(rows[:n_kept], mean.float(), second, stop)
    if not float(lengths.max()) < torch.finfo(dtype).max / 4:
        return None
    return Rounded(kind, low, lengths, lost, mean, second / n_kept)


def _second(rows: Tensor, mean: Tensor, out: Tensor, stop: Stop | None) -> None:
    """Sum of the outer products of rows less their mean, into ``out [D, D]`` fp64: fp32 within a block, fp64 across. On
    a CPU threads take strips of it, so that the sums do not depend on how many there are."""
    dim = rows.shape[1]
    on_cpu = rows.device.type == "cpu"

    def strip(first: int) -> None:
        columns = slice(first, first + (STRIP if on_cpu else dim))
        for part in rows.split(_ROWS):
            poll(stop)
            part = part.float() - mean
            out[columns] += (part[:, columns].T @ part).double()

    if on_cpu:
        spread(strip, range(0, dim, STRIP), rows.numel())
    else:
        strip(0)


def rounded_product(directions: Tensor, low: Rounded, out: Tensor, *, stop: Stop | None = None) -> Tensor:
    """``out [t, V]`` fp32: the directions ``[t, D]`` times all tokens, both in few bits.

    Raises:
        Cancelled: the stop flag went up.
    """
    narrow = low.shorten(directions).to(low.rows.dtype)

    def one(bounds: tuple[int, int]) -> None:
        poll(stop)
        narrow_product(narrow, low.rows[bounds[0] : bounds[1]], out[:, bounds[0] : bounds[1]])

    bounds = streaming.slices_of(out)
    if out.device.type == "cpu":
        spread(one, bounds, low.rows.numel())
    else:
        with fast_matmul(low.kind):
            for each in bounds:
                one(each)
    return out


class RoundedTile:
    """Rows of rounded scores, and the right to compute any of them again.

    Args:
        low: the table's rounded side.
        tokens: ``[V, D]``, the table's own rows.
        n_kept: how many of them, the first, are kept.
        directions: ``[t, D]`` fp32 of length at most one, ``t`` a multiple of ``TILE_STEP``; rows beyond ``rows`` zero.
        scores: ``[t, V]`` fp32, from :func:`rounded_product`; better ones are written over them.

    Attributes:
        mean, variance: ``[t]`` fp64, of the exact scores over the kept tokens, from their moments.
        whole: bool ``[t]``, rows that are in fp32 whole.
        again: scores computed again in fp32, those of whole rows not counted.
    """

    def __init__(
        self,
        low: Rounded,
        tokens: Tensor,
        n_kept: int,
        directions: Tensor,
        rows: int,
        scores: Tensor,
        buffer: TileBuffer,
        stop: Stop | None = None,
    ) -> None:
        self.low, self.tokens, self.n_kept, self.rows = low, tokens, n_kept, rows
        self.directions, self.scores, self.buffer, self.stop = directions, scores, buffer, stop
        self.again = 0
        exact, short = directions.double(), low.shorten(directions).double()
        rest = exact - short
        length, kept, lost = (torch.linalg.vector_norm(x, dim=1) for x in (exact, short, rest))
        dim = directions.shape[1]
        self._of_length = (lost + dim * (NARROW_SUM * kept + FP32_SUM * length)) * OVER
        self._of_lost = kept * (1 + dim * NARROW_SUM) * OVER
        u = 0.0 if low.kind == "tf32" or writes_fp32(scores.device) else ROUNDOFF[low.kind]
        self._of_score = u / (1 - u) * OVER
        self.mean = exact @ low.mean
        self.variance = ((exact @ low.second) * exact).sum(1).clamp_min(0.0)
        noise = ((rest @ low.second) * rest).sum(1)
        loud = noise >= NOISE**2 * self.variance
        loud[rows:] = False
        self.whole = torch.zeros(len(directions), dtype=torch.bool, device=scores.device)
        self._compute_whole(loud.nonzero().flatten())

    def _compute_whole(self, rows: Tensor) -> None:
        """Whole rows in fp32, a few at a time: a tile of them would need the tile's memory again."""
        for part in rows.split(WHOLE):
            padded = torch.zeros((streaming.padded(len(part)), self.directions.shape[1]), device=self.scores.device)
            padded[: len(part)] = self.directions[part]
            out = self.buffer.get("whole", len(padded), len(self.tokens))
            streaming.product(padded, self.tokens, out, self.buffer, stop=self.stop)
            self.scores[part] = out[: len(part)]
            self.whole[part] = True

    def better(self, moments: Moments) -> Moments:
        """Moments of the rounded scores with the mean and spread of the exact ones, but for rows in fp32 whole."""
        return Moments(
            torch.where(self.whole, moments.mean, self.mean),
            torch.where(self.whole, moments.std, self.variance.sqrt()),
            moments.skew,
            moments.kurt,
        )

    def _slack(self, scores: Tensor, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        """How far scores (fp64) may be from those of fp32."""
        length = self._of_length[rows, None] * self.low.lengths[columns]
        lost = self._of_lost[rows, None] * self.low.lost[columns]
        return self._of_score * scores.abs() + length + lost + ABSOLUTE[self.low.kind]

    def settle(self, k: int, *, largest: bool = True, row: int | None = None) -> Tensor:
        """Give the kept tokens that may be among the ``k`` best (or tie with the last) their fp32 scores.

        Args:
            k: list length; at most all kept tokens.
            largest: best are the largest, or the smallest.
            row: only this one.

        Returns:
            ``[rows, k]`` fp64, falling: the i-th is a bar that the i-th best score reaches (signs turned for the
            smallest).
        """
        rows = slice(0, self.rows) if row is None else slice(row, row + 1)
        x = self.scores[rows, : self.n_kept]
        sign = 1.0 if largest else -1.0
        k = min(k, self.n_kept)
        m = min(self.n_kept, 3 * k + 16)
        values, columns = streaming.best(x, m, largest=largest)
        signed = sign * values.double()
        slack = self._slack(signed, rows, columns)
        bars = (signed - slack).topk(k, dim=1).values
        bar = bars[:, -1:]
        need = signed + slack >= bar
        need &= ~self.whole[rows, None]
        at = need.nonzero()
        pairs = [(at[:, 0] + rows.start, columns[need])]
        if m < self.n_kept:
            kept = slice(0, self.n_kept)
            worst = (
                self._of_length[rows] * self.low.lengths[kept].max() + self._of_lost[rows] * self.low.lost[kept].max()
            )
            reach = bar[:, 0] - worst - ABSOLUTE[self.low.kind]
            cut = reach / torch.where(reach >= 0, 1 + self._of_score, 1 - self._of_score)
            open_rows = (~(signed[:, -1] < cut) & ~self.whole[rows]).nonzero().flatten()
            pairs += self._wide(open_rows, rows.start, sign, bar[:, 0])
        self._compute(pairs)
        return bars

    def _wide(self, open_rows: Tensor, start: int, sign: float, bar: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Candidates of rows whose short list did not hold all of them: the whole row is looked through."""
        pairs, whole = [], []
        for i in open_rows.tolist():
            poll(self.stop)
            signed = sign * self.scores[start + i, : self.n_kept].double()
            there = slice(start + i, start + i + 1)
            reach = signed + self._slack(signed[None], there, slice(0, self.n_kept))[0]
            columns = (reach >= bar[i]).nonzero().flatten()
            if len(columns) > SHARE * self.n_kept:
                whole.append(start + i)
            else:
                pairs.append((torch.full_like(columns, start + i), columns))
        self._compute_whole(torch.tensor(whole, dtype=torch.int64, device=self.scores.device))
        return pairs

    def settle_masked(self, bar: Tensor) -> None:
        """Give the masked tokens that may reach ``bar [rows]``, or be the best masked one, their fp32 scores."""
        if self.n_kept == len(self.tokens):
            return
        masked = slice(self.n_kept, None)
        pairs = []
        for a in range(0, self.rows, WHOLE):
            rows = slice(a, min(self.rows, a + WHOLE))
            scores = self.scores[rows, masked].double()
            slack = self._slack(scores, rows, masked)
            least = torch.minimum((scores - slack).amax(1), bar[rows])
            at = ((scores + slack >= least[:, None]) & ~self.whole[rows, None]).nonzero()
            pairs.append((at[:, 0] + a, at[:, 1] + self.n_kept))
        self._compute(pairs)

    def _compute(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """fp32 scores of (row, column) pairs, by the product that computes whole tiles: as many rows as a tile may
        have, no sliver of columns, so that each has the bits that a whole product would give it."""
        rows, columns = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        keep = ~self.whole[rows]
        rows, columns = rows[keep], columns[keep]
        order = rows.argsort(stable=True)
        rows, columns = rows[order], columns[order]
        self.again += len(rows)
        group = TILE_STEP if self.scores.device.type == "cpu" else GROUP_DEVICE
        edges = torch.arange(0, len(self.directions) + group, group, device=rows.device)
        bounds = torch.searchsorted(rows, edges).tolist()
        for g, (a, b) in enumerate(itertools.pairwise(bounds)):
            if a == b:
                continue
            poll(self.stop)
            union, place = torch.unique(columns[a:b], return_inverse=True)
            width = -(-len(union) // 64) * 64
            union = torch.cat([union, union[-1:].expand(width - len(union))])
            block = self.directions[g * group : (g + 1) * group]
            out = self.buffer.get("again", len(block), width)
            for c, d in streaming.slices(width):
                torch.mm(block, self.tokens[union[c:d]].float().T, out=out[:, c:d])
            self.scores[rows[a:b], columns[a:b]] = out[rows[a:b] - g * group, place]
