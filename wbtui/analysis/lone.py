"""A lone feature with numpy alone: importing torch takes four times as long as the row.

The product streams the token matrix as its file has it. bfloat16 is the upper half of a float32: two of them, read as
one 32-bit word, become two float32 by one mask and one shift, in a block that stays in the core's own cache, where the
products of all directions and the sum for the mean token read it. Threads each take whole blocks; numpy lets the others
run meanwhile. The formulas are those of every other row (:mod:`wbtui.analysis.reduce`, :mod:`wbtui.analysis.rows`);
here is only what reads every number. Sums over the vocabulary are in float64.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wbtui.analysis import coherence
from wbtui.analysis.directions import scaled
from wbtui.analysis.either import Array, Stop, poll
from wbtui.analysis.reduce import Rows, Want, moments_of, reduce
from wbtui.analysis.rows import absent, lone_row
from wbtui.analysis.share import shared
from wbtui.definitions import TokensDefinition
from wbtui.errors import WeightsError, WorkError
from wbtui.floats import widened

BLOCK_BYTES = 1 << 21
"""Of promoted numbers at once: they stay in a cache until the products have read them. Smaller blocks would stay in a
core's own, and threads would hand each other the interpreter more often, which costs more."""
BLOCK_BYTES_ALONE = 1 << 19
"""The same where one thread does everything."""
TASK_ROWS = 4096
"""Token rows that one thread takes at a time."""
_HIGH = np.uint32(0xFFFF0000)
_SIXTEEN = np.uint32(16)


class Matrix:
    """A matrix of floats as a file has it, promoted to float32 where it is looked at.

    Args:
        raw: ``[V, D]``, C order: float32, float16, or the bits of bfloat16 as uint16.
    """

    def __init__(self, raw: np.ndarray) -> None:
        if raw.dtype not in (np.float32, np.float16, np.uint16):
            raise TypeError(f"a matrix of {raw.dtype}")
        self.raw = raw
        self.shape = raw.shape

    def __getitem__(self, positions: Any) -> np.ndarray:
        """Rows in float32: exact."""
        return widened(self.raw[positions])

    def products(
        self, directions: np.ndarray, out: np.ndarray, weights: np.ndarray | None = None, stop: Stop | None = None
    ) -> np.ndarray | None:
        """``out[i, v] = directions[i] @ self[v]``.

        Args:
            directions: ``[m, D]`` fp32.
            out: ``[m, V]`` fp32, written.
            weights: ``[V]`` fp32; None leaves the sum out.
            stop: polled before each block.

        Returns:
            ``weights @ self`` in fp64 ``[D]``, or None. What is NaN or infinite in a row of any weight makes it so.

        Raises:
            Cancelled: the stop flag went up.
        """
        n, width = self.shape
        paired = self.raw.dtype == np.uint16 and width % 2 == 0 and self.raw.flags.c_contiguous
        paired = paired and self.raw.ctypes.data % 4 == 0 and sys.byteorder == "little"
        work: _Paired | _Plain = _Paired(self.raw, directions) if paired else _Plain(self.raw, directions)
        tasks = [(a, min(n, a + TASK_ROWS)) for a in range(0, n, TASK_ROWS)]
        sums = spread(lambda task: work.run(task[0], task[1], out, weights, stop), tasks)
        return None if weights is None else work.whole(np.sum(sums, axis=0))


class _Paired:
    """Two bfloat16 of a row at a time, as one word: the even ones and the odd ones apart."""

    def __init__(self, raw: np.ndarray, directions: np.ndarray) -> None:
        self.words = raw.view(np.uint32)
        self.halves = [np.ascontiguousarray(directions[:, i::2]) for i in (0, 1)]
        self.width = raw.shape[1]
        self.rows = _block_rows(self.width)

    def run(
        self, start: int, end: int, out: np.ndarray, weights: np.ndarray | None, stop: Stop | None
    ) -> np.ndarray | None:
        """The block of rows ``[start, end)``; the weighted sum of its halves ``[2, D / 2]``."""
        scratch = np.empty((2, self.rows, self.width // 2), np.uint32)
        parts = np.empty(self.rows, np.float32)
        total = None if weights is None else np.zeros((2, self.width // 2))
        for a in range(start, end, self.rows):
            poll(stop)
            b = min(end, a + self.rows)
            even, odd = scratch[0, : b - a], scratch[1, : b - a]
            np.left_shift(self.words[a:b], _SIXTEEN, out=even)
            np.bitwise_and(self.words[a:b], _HIGH, out=odd)
            floats = (even.view(np.float32), odd.view(np.float32))
            for i in range(len(out)):
                into, part = out[i, a:b], parts[: b - a]
                np.dot(floats[0], self.halves[0][i], out=into)
                np.dot(floats[1], self.halves[1][i], out=part)
                into += part
            if total is not None and weights is not None:
                for half, numbers in enumerate(floats):
                    total[half] += np.dot(weights[a:b], numbers)
        return total

    def whole(self, total: np.ndarray) -> np.ndarray:
        """The sum of both halves as ``[D]``."""
        return total.T.reshape(-1)


def _block_rows(width: int) -> int:
    """Token rows promoted at once."""
    size = BLOCK_BYTES if threads() > 1 else BLOCK_BYTES_ALONE
    return max(16, size // (4 * width) // 16 * 16)


class _Plain:
    """A block of rows at a time, promoted where it is not float32."""

    def __init__(self, raw: np.ndarray, directions: np.ndarray) -> None:
        self.raw, self.directions = raw, np.ascontiguousarray(directions)
        self.width = raw.shape[1]
        self.rows = _block_rows(self.width)

    def run(
        self, start: int, end: int, out: np.ndarray, weights: np.ndarray | None, stop: Stop | None
    ) -> np.ndarray | None:
        """The block of rows ``[start, end)``; its weighted sum ``[D]``."""
        scratch = np.empty((self.rows, self.width), np.float32)
        total = None if weights is None else np.zeros(self.width)
        for a in range(start, end, self.rows):
            poll(stop)
            b = min(end, a + self.rows)
            piece = self.raw[a:b]
            if piece.dtype == np.uint16:
                bits = scratch[: b - a].view(np.uint32)
                np.copyto(bits, piece)
                np.left_shift(bits, _SIXTEEN, out=bits)
                piece = scratch[: b - a]
            elif piece.dtype != np.float32 or not piece.flags.aligned:
                np.copyto(scratch[: b - a], piece)
                piece = scratch[: b - a]
            for i in range(len(out)):
                np.dot(piece, self.directions[i], out=out[i, a:b])
            if total is not None and weights is not None:
                total += np.dot(weights[a:b], piece)
        return total

    def whole(self, total: np.ndarray) -> np.ndarray:
        """``[D]``."""
        return total


_pool: dict[int, ThreadPoolExecutor] = {}
_one_at_a_time = threading.Lock()


def threads() -> int:
    """Threads that the arithmetic may use."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    """``[work(task) for task in tasks]``, shared out among threads. The first error ends it."""
    count = min(threads(), len(tasks))
    if count <= 1:
        return [work(task) for task in tasks]
    with _one_at_a_time:
        pool = _pool.setdefault(count, ThreadPoolExecutor(count, "wbtui-lone"))
        return shared(pool, work, tasks)


@dataclass
class Centre:
    """The mean row of a matrix's kept tokens, fp64 ``[D]``, once a pass has gathered it."""

    value: np.ndarray | None = None


@dataclass(frozen=True)
class LoneTable:
    """One side's tokens, as :class:`wbtui.analysis.side.TokenTable` of the torch rows; see its attributes.

    ``ids`` is ``token_ids``; columns are put in its order after the product.
    """

    rows: Matrix
    token_ids: np.ndarray
    n_kept: int
    scale: float
    centre_values: bool
    word: Any
    whole_word: Any
    norms: Any
    definition: TokensDefinition
    flatten: bool = False
    mean: Centre = field(default_factory=Centre)

    @property
    def ids(self) -> np.ndarray:
        """See above."""
        return self.token_ids


def token_order(keep: np.ndarray) -> np.ndarray:
    """``[V]``: ids of the tokens that are kept, then of the others.

    Raises:
        WorkError: none is kept.
    """
    if not keep.any():
        raise WorkError("the token mask drops every token", "at least one kept token", "raise the mask's cut or count")
    return np.concatenate([np.flatnonzero(keep), np.flatnonzero(~keep)])


class LoneTile:
    """One row of scores, as :func:`wbtui.analysis.reduce.reduce` takes it."""

    rows = 1

    def __init__(self, scores: np.ndarray, side: LoneTable) -> None:
        self.side = side
        self._kept, self._masked = scores[: side.n_kept], scores[side.n_kept :]
        self.n_masked = len(self._masked)
        self._wide = self._kept.astype(np.float64)

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        about = self._wide.mean()
        y = self._wide - about
        y2 = y * y
        sums = [y.mean(), y2.mean(), (y * y2).mean(), (y2 * y2).mean()]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = moments_of(np.array([about]), [np.array([each]) for each in sums])
        mean, std, skew, kurt = found
        return mean, std, skew, kurt

    def settle(self, high: int, low: int, bar: int) -> None:
        """All scores are as exact as they get."""

    def best(self, k: int, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        return _best(self._kept, k, largest)

    def more(self, row: int, k: int, *, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        return _best(self._kept, k, largest)

    def entropies(
        self, signs: Sequence[tuple[np.ndarray, np.ndarray]], span: np.ndarray
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        del span  # fp64 holds what lies that far down
        return [self._entropy(float(peak[0]), float(rate[0])) for peak, rate in signs]

    def _entropy(self, peak: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
        y = (self._wide - peak) * rate
        e = np.exp(y)
        total = e.sum()
        return np.array([np.log(total) - (e @ y) / total]), np.array([total])

    def above(self, bar: np.ndarray, bar_id: np.ndarray) -> np.ndarray:
        ids = self.side.token_ids[self.side.n_kept :]
        value = np.float32(bar[0])
        found = (self._masked > value) | ((self._masked == value) & (ids < bar_id[0]))
        return np.array([np.count_nonzero(found)])

    def best_masked(self) -> tuple[np.ndarray, np.ndarray]:
        values, columns = _best(self._masked, 1, True)
        return values[:, 0], self.side.token_ids[self.side.n_kept + columns[:, 0]]

    def mean_cosine(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(coherence.mean_cosine(self.side.rows, ids, self.side.mean.value, self.side.flatten))

    def centred_norms(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(coherence.centred_norms(self.side.rows, ids, self.side.mean.value, self.side.flatten))


def _best(x: np.ndarray, k: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """The ``min(k, len(x))`` best of ``x``, best first, equal values by smaller place: ``[1, k]`` values and places."""
    k = min(k, len(x))
    y = x if largest else -x
    bar = np.partition(y, len(y) - k)[len(y) - k]
    over = np.flatnonzero(y > bar)
    places = np.concatenate([over, np.flatnonzero(y == bar)[: k - len(over)]])
    places.sort()
    places = places[np.argsort(-y[places], kind="stable")]
    return x[places].astype(np.float64)[None], places[None]


def lone_feature(
    d: np.ndarray,
    e: np.ndarray | None,
    writes: LoneTable,
    reads: LoneTable | None,
    *,
    gain: np.ndarray | None,
    centre: bool,
    stop: Stop | None = None,
) -> Rows:
    """What :func:`wbtui.analysis.features.instant_row` gives, to the last few digits.

    Args:
        d: ``[D]`` fp32; e: ``[D]`` fp32 or None.
        writes, reads: one and the same matrix and order in a tied model.
        gain, centre: the final norm.

    Returns:
        ``schema.tokens_columns()`` with one row.

    Raises:
        WeightsError: the token matrix holds a value that is not finite.
        Cancelled: the stop flag went up.
    """

    def score(block: Array, group: Sequence[tuple[LoneTable, bool]], over: np.ndarray) -> list[Rows]:
        first = group[0][0]
        directions, norm, exponent = scaled(block)
        scores = np.empty((len(block), len(first.token_ids)), np.float32)
        kept = None
        if any(side.mean.value is None for side, _ in group):
            kept = np.zeros(scores.shape[1], np.float32)
            kept[first.token_ids[: first.n_kept]] = 1.0
        total = first.rows.products(directions, scores, kept, stop)
        if total is not None:
            if not np.isfinite(total).all():
                raise WeightsError("the token matrix holds NaN or infinite values", "finite weights")
            for side, _ in group:
                side.mean.value = total / first.n_kept

        def reduced(i: int) -> Rows:
            side, is_reads = group[i]
            row = scores[i] if side.n_kept == scores.shape[1] else scores[i][side.token_ids]
            want: Want = "pos" if is_reads else "both"
            lengths = None if is_reads else over
            one = slice(i, i + 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                rows = reduce(
                    LoneTile(row, side), side, norm[one], exponent[one], lengths, want=want, top_cos=is_reads, stop=stop
                )
            return rows if np.isfinite(norm[i]) and norm[i] > 0 else absent(rows, is_reads, side)

        return spread(reduced, range(len(group)))

    return lone_row(d, e, writes, reads, gain=gain, centre=centre, score=score, stop=stop)
