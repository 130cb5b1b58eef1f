"""One pass over a dictionary's rows for :class:`~wbtui.analysis.scores.Scores`: each byte is read once, a quarter of
them a second time for the law of random directions.

Pieces are shared out among threads that run one-thread operations (:mod:`wbtui.analysis.pool`), so the numbers do not
depend on how many there are; the flag to stop is looked at before each piece of a few MB.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.nulls import NoRows
from wbtui.analysis.pool import one_thread, spread
from wbtui.analysis.scores import Lengths, Scores
from wbtui.analysis.streaming import Stop, poll
from wbtui.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")
Blocks = Callable[[], Iterable[Tensor]]
"""All rows of one side, ``[n, D]`` blocks of any floating dtype and strides, each time it is called."""

WAVE = 16
"""Blocks of rows that are there at once, to be shared out among threads."""
NEAR = 128
"""Rows that are gone through more than once, while they are in a core's cache."""
CHUNK = 64
"""Rows of a column-major dictionary's matrix read at once where they are gone through twice."""
LONG = 256
"""The same where they are gone through once, for one query: many queries want a piece in a core's cache."""
PIECE = 4096
"""Its columns that one thread takes."""
COLUMNS = 512
"""Its columns taken together for the sample."""
BACK = 4096
"""Rows that ``C q`` is taken from at most: all of a dictionary up to this width."""
SAMPLE = 256
"""Rows whose mutual products estimate ``tr C^2``."""


def score_rows(
    blocks: Blocks,
    queries: Tensor,
    *,
    centre: bool = False,
    n: int = SAMPLE,
    lengths: Lengths | None = None,
    stop: Stop | None = None,
) -> Scores:
    """Every row's product with each query, and what their tails need, in one pass.

    Args:
        blocks: the rows.
        queries: ``[K, D]``.
        centre: take rows without their mean over the width: the readers' view in a LayerNorm model. The queries must
            then be centred too.
        lengths: what an earlier pass over the same rows, centred alike, found: half of the work is then saved.
        n: rows in all; evenly spaced ones among them are kept for the parts of the law that come from a sample.
        stop: polled at each block.

    Raises:
        Cancelled: ``stop`` said so.
        NoRows: no usable row.
    """
    q = queries.float().T.contiguous()  # [D, K]
    sample = _Sample(n)
    found: list[tuple[Tensor, Tensor | None, _Part | None]] = []

    def work(item: tuple[Tensor, int | None]) -> tuple[Tensor, Tensor | None, _Part | None]:
        poll(stop)
        x = item[0].to(device=q.device, dtype=torch.float32)
        square = None
        if lengths is None:
            dot, square = _with_squares(x, q, centre)
        else:
            dot = _dots(x, q)
        return dot, square, None if item[1] is None else sample.part(x, dot, item[1])

    source = iter(blocks())
    while wave := list(itertools.islice(source, WAVE)):
        found += _share(work, [(block, sample.next(len(block))) for block in wave], wave[0].numel() * len(wave), q)
    if not found:
        raise UsageError("a dictionary without rows", "at least one feature")
    squares = None if lengths is not None else torch.cat([square for _, square, _ in found if square is not None])
    parts = [part for _, _, part in found if part is not None]
    return _finish(torch.cat([dot for dot, _, _ in found]), squares, parts, centre, lengths)


def score_columns(
    matrix: Tensor,
    queries: Tensor,
    *,
    centre: bool = False,
    lengths: Lengths | None = None,
    stop: Stop | None = None,
) -> Scores:
    """:func:`score_rows` for rows that are kept as the columns of a matrix ``[D, F]``, as ``W_enc`` mostly is: read in
    the order in which it is stored, since to gather columns costs several times the pass.

    Args:
        matrix: ``[D, F]`` in any floating dtype; its columns are the rows. The rest as in :func:`score_rows`.
    """
    q = queries.float().contiguous()  # [K, D]
    width, n = matrix.shape
    if not n:
        raise UsageError("a dictionary without rows", "at least one feature")
    dots = torch.zeros((len(q), n), dtype=torch.float32, device=q.device)
    squares = torch.zeros(n, dtype=torch.float32, device=q.device) if lengths is None else None
    chunk = LONG if lengths is not None and len(q) == 1 else CHUNK

    def work(columns: tuple[int, int]) -> None:
        a, b = columns
        dot, square = dots[:, a:b], None if squares is None else squares[a:b]
        total = torch.zeros(b - a, dtype=torch.float32, device=q.device)
        ones = torch.ones(chunk, dtype=torch.float32, device=q.device)
        squares_of = torch.zeros((chunk, b - a if square is not None else 0), dtype=torch.float32, device=q.device)
        for stored, some in zip(matrix[:, a:b].split(chunk), q.split(chunk, dim=1), strict=True):
            poll(stop)
            part = stored.to(device=q.device, dtype=torch.float32)
            if len(q) == 1:
                dot[0].addmv_(part.T, some[0])
            else:
                dot.addmm_(some, part)
            if square is not None:
                squares_of[: len(part)].addcmul_(part, part)
                if centre:
                    total.addmv_(part.T, ones[: len(part)])
        if square is not None:
            torch.sum(squares_of, dim=0, out=square)
            if centre:
                square -= total.square() / width

    sample = _Sample(n)

    def sampled(item: tuple[int, int]) -> _Part:
        poll(stop)
        some = matrix[:, item[0] : item[0] + COLUMNS].to(device=q.device, dtype=torch.float32)
        return sample.part(some.T, dots.T[item[0] : item[0] + COLUMNS], item[1])

    wide = PIECE if q.device.type == "cpu" else n
    with one_thread():
        _share(work, [(a, min(n, a + wide)) for a in range(0, n, wide)], matrix.numel(), q)
        starts = [(a, first) for a in range(0, n, COLUMNS) if (first := sample.next(min(COLUMNS, n - a))) is not None]
        parts = _share(sampled, starts, len(starts) * COLUMNS * width, q)
    return _finish(dots.T.contiguous(), squares, parts, centre, lengths)


def _share(work: Callable[[T], R], items: list[T], elements: int, q: Tensor) -> list[R]:
    """The pieces shared out among threads; on a GPU one after another."""
    return spread(work, items, elements) if q.device.type == "cpu" else [work(item) for item in items]


@dataclass(frozen=True)
class _Part:
    """Of some rows: ``W^T W q`` ``[D, K]``, a few of them, and how many had a product."""

    back: Tensor
    rows: Tensor
    taken: int


class _Sample:
    """What the law of random directions takes from some of the rows: ``C q`` from up to ``BACK`` of them, and a few
    themselves. The rows are taken in whole blocks, evenly spaced."""

    def __init__(self, n: int) -> None:
        self._every = max(1, n // BACK)
        self._step = max(1, n // SAMPLE // self._every)
        self._blocks = 0
        self._rows = 0

    def next(self, size: int) -> int | None:
        """Rows of the sample before the next block, if it belongs to it."""
        wanted, before = self._blocks % self._every == 0, self._rows
        self._blocks += 1
        self._rows += size if wanted else 0
        return before if wanted else None

    def part(self, x: Tensor, dot: Tensor, before: int) -> _Part:
        """What a block of rows gives, with its products with the queries."""
        few = slice(-before % self._step, None, self._step)
        rows, fine = x[few], torch.isfinite(dot).all(1)
        if not bool(fine.all()):
            rows, x, dot = rows[fine[few]], x[fine], dot[fine]
        back = torch.mv(x.T, dot[:, 0])[:, None] if dot.shape[1] == 1 else x.T @ dot
        return _Part(back.double(), rows.clone(), int((dot != 0).any(1).sum()))


def _finish(dots: Tensor, squares: Tensor | None, sample: list[_Part], centre: bool, lengths: Lengths | None) -> Scores:
    products = dots.double().cpu().numpy()
    rows = torch.cat([part.rows for part in sample])
    if centre:
        rows = rows - rows.mean(1, keepdim=True)
    if lengths is None:
        assert squares is not None
        square = squares.double().cpu().numpy().clip(min=0.0)
        usable = np.isfinite(square) & (square > 0) & np.isfinite(products).all(1)
        if not usable.any():
            raise NoRows("a dictionary without a finite, non-zero row", "rows to score")
        trace = float(square[usable].mean())
        lengths = Lengths(np.sqrt(square), usable, trace, _trace_of_square(rows, trace))
    usable, count = lengths.usable, int(lengths.usable.sum())
    taken = max(sum(part.taken for part in sample), 1)
    back = torch.stack([part.back for part in sample]).sum(0) / taken
    if centre:
        back -= back.mean(0, keepdim=True)
    a = (products[usable] ** 2).mean(0)
    p = back.cpu().numpy() / np.sqrt(np.where(a > 0, a, 1.0))
    b = (p**2).sum(0)
    if taken < count:  # what drawing some of the rows adds to |p|^2 on average
        b = np.maximum(b - (lengths.trace - b) * (1 / taken - 1 / count), b / 2)
    along = (rows @ torch.from_numpy(p).to(rows)).double().square().mean(0).cpu().numpy()
    return Scores(products, lengths, a, b, along)


def _dots(x: Tensor, q: Tensor) -> Tensor:
    """``x q``. A matrix times one vector is read at the speed of memory; times a one-column matrix it may not be."""
    return torch.mv(x, q[:, 0])[:, None] if q.shape[1] == 1 else x @ q


def _with_squares(x: Tensor, q: Tensor, centre: bool) -> tuple[Tensor, Tensor]:
    """``x q`` and the square lengths of rows, with the rows read from memory once.

    Few calls for each piece: two threads share one interpreter.
    """
    if x.stride(1) != 1 and len(x) > 1:  # columns of a row-major matrix: a reduction along them is slow
        y = x.T
        dot, square = _dots(x, q), torch.mv((y * y).T, torch.ones(len(y), dtype=y.dtype, device=y.device))
        return dot, square - y.sum(0).square_() / len(y) if centre else square
    dot, length = torch.empty((len(x), q.shape[1]), device=q.device), torch.empty(len(x), device=q.device)
    one = q[:, 0] if q.shape[1] == 1 else None
    pieces = x.split(NEAR)
    for near, to, long in zip(pieces, (dot if one is None else dot[:, 0]).split(NEAR), length.split(NEAR), strict=True):
        if one is None:
            torch.mm(near, q, out=to)
        else:
            torch.mv(near, one, out=to)
        torch.linalg.vector_norm(near, dim=1, out=long)
    square = length.square_()
    if centre:
        square -= torch.cat([near.sum(1) for near in pieces]).square_() / x.shape[1]
    return dot, square


def _trace_of_square(rows: Tensor, trace: float) -> float:
    """``tr C^2`` as the mean square product of different rows of a sample (a U-statistic)."""
    n = len(rows)
    if n < 2:
        return trace**2
    gram = (rows @ rows.T).double().square()
    return max(float((gram.sum() - gram.diagonal().sum()) / (n * (n - 1))), trace**2 / rows.shape[1])
