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
from wbtui.analysis.piece import columns_piece, rows_piece
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
CHUNK, FEW = 64, 16
"""Rows of a column-major dictionary's matrix that are gone through together, to stay in a core's cache; the same where
their squares are there beside them."""
LONG = 4096
"""The same where they are gone through once, for one query."""
PIECE = 4096
"""Its columns that one thread takes."""
COLUMNS = 512
"""Its columns taken together for the sample."""
BACK = 4096
"""Rows that ``C q`` is taken from at most: all of a dictionary up to this width."""
BACK_COLUMNS = 2048
"""The same where the rows are columns of a matrix, which must be read again for it."""
SAMPLE = 256
"""Rows whose mutual products estimate ``tr C^2``."""
GRAM = 64
"""Rows of a group of them."""


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
        lengths: what an earlier pass over the same rows, centred alike, found: some of the work is then saved.
        n: rows in all; evenly spaced ones among them are kept for the parts of the law that come from a sample.
        stop: polled at each block.

    Raises:
        Cancelled: ``stop`` said so.
        NoRows: no usable row.
    """
    q = queries.float().contiguous()  # [K, D]
    sample = _Sample(n, BACK)
    found: list[tuple[Tensor, Tensor, _Part | None]] = []

    def work(item: tuple[Tensor, int | None]) -> tuple[Tensor, Tensor, _Part | None]:
        poll(stop)
        x, before = item
        wanted = len(x) if lengths is None else 0
        dot = torch.zeros((len(q), len(x)), dtype=torch.float32, device=q.device)
        square = torch.zeros(wanted, dtype=torch.float32, device=q.device)
        total = torch.zeros(wanted if centre else 0, dtype=torch.float32, device=q.device)
        if x.stride(1) != 1 and len(x) > 1:
            columns_piece(x.T, q, dot, square, total, FEW if wanted else CHUNK)
        else:
            rows_piece(x, q, dot, square, total, NEAR if wanted or len(q) > 1 else len(x))
            square.square_()
        if len(total):
            square -= total.square_() / x.shape[1]
        if before is None:
            return dot, square, None
        return dot, square, sample.part(x.to(device=q.device, dtype=torch.float32), dot, before)

    source = iter(blocks())
    with one_thread():
        while wave := list(itertools.islice(source, WAVE)):
            some = [(block, sample.next(len(block))) for block in wave]
            found += _share(work, some, wave[0].numel() * len(wave), q)
        if not found:
            raise UsageError("a dictionary without rows", "at least one feature")
        squares = torch.cat([square for _, square, _ in found])
        parts = [part for _, _, part in found if part is not None]
        return _finish(torch.cat([dot for dot, _, _ in found], dim=1), squares, parts, centre, lengths)


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
    wanted = n if lengths is None else 0
    dots = torch.zeros((len(q), n), dtype=torch.float32, device=q.device)
    squares = torch.zeros(wanted, dtype=torch.float32, device=q.device)
    totals = torch.zeros(wanted if centre else 0, dtype=torch.float32, device=q.device)
    near = FEW if wanted else LONG if len(q) == 1 and matrix.dtype == torch.float32 else CHUNK

    def work(columns: tuple[int, int]) -> None:
        poll(stop)
        here = slice(*columns)
        columns_piece(matrix[:, here], q, dots[:, here], squares[here], totals[here], near)

    sample = _Sample(n, BACK_COLUMNS)

    def sampled(item: tuple[int, int]) -> _Part:
        poll(stop)
        here = slice(item[0], item[0] + COLUMNS)
        some = matrix[:, here].to(device=q.device, dtype=torch.float32)
        return sample.part(some.T, dots[:, here], item[1])

    wide = PIECE if q.device.type == "cpu" else n
    with one_thread():
        _share(work, [(a, min(n, a + wide)) for a in range(0, n, wide)], matrix.numel(), q)
        if len(totals):
            squares -= totals.square_() / width
        starts = [(a, first) for a in range(0, n, COLUMNS) if (first := sample.next(min(COLUMNS, n - a))) is not None]
        parts = _share(sampled, starts, len(starts) * COLUMNS * width, q)
        return _finish(dots, squares, parts, centre, lengths)


def _share(work: Callable[[T], R], items: list[T], elements: int, q: Tensor) -> list[R]:
    """The pieces shared out among threads; on a GPU one after another."""
    return spread(work, items, elements) if q.device.type == "cpu" else [work(item) for item in items]


@dataclass(frozen=True)
class _Part:
    """Of some rows: ``W^T W q`` ``[K, D]``, a few of them, and how many had a product."""

    back: Tensor
    rows: Tensor
    taken: int


class _Sample:
    """What the law of random directions takes from some of the rows: ``C q`` from up to ``most`` of them, and a few
    themselves. The rows are taken in whole blocks, evenly spaced."""

    def __init__(self, n: int, most: int) -> None:
        self._every = max(1, n // most)
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
        """What a block of rows ``[n, D]`` gives, with its products ``[K, n]`` with the queries."""
        few = slice(-before % self._step, None, self._step)
        fine = torch.isfinite(dot).all(0)
        all_fine = bool(fine.all())
        own, some = (x, dot) if all_fine else (x[fine], dot[:, fine])
        back = torch.mv(own.T, some[0])[None] if len(dot) == 1 else some @ own
        if x.stride(1) != 1:  # columns side by side: to gather single ones costs more than all else here
            few = slice(len(range(*few.indices(len(x)))))
            rows = x.T[:, few].clone(memory_format=torch.contiguous_format).T
        else:
            rows = x[few].clone()
        if not all_fine:
            rows = rows[fine[few]]
        return _Part(back.double(), rows, int((dot[:, fine] != 0).any(0).sum()))


def _finish(dots: Tensor, squares: Tensor, sample: list[_Part], centre: bool, lengths: Lengths | None) -> Scores:
    """What the parts come to, on one thread: where the machine is shared a team of them waits for its last longer than
    this takes."""
    products = dots.double().cpu().numpy().T  # [F, K], a query's numbers side by side
    if lengths is None:
        square = squares.double().cpu().numpy().clip(min=0.0)
        usable = np.isfinite(square) & (square > 0) & np.isfinite(products).all(1)
        if not usable.any():
            raise NoRows("a dictionary without a finite, non-zero row", "rows to score")
        trace = float(square[usable].mean())
        lengths = Lengths(
            np.sqrt(square), usable, trace, _trace_of_square([part.rows for part in sample], trace, centre)
        )
    usable, count = lengths.usable, int(lengths.usable.sum())
    taken = max(sum(part.taken for part in sample), 1)
    back = torch.stack([part.back for part in sample]).sum(0) / taken  # [K, D]
    if centre:
        back -= back.mean(1, keepdim=True)
    good = products if count == len(usable) else products[usable]
    a = np.einsum("fk,fk->k", good, good) / count
    p = back.cpu().numpy() / np.sqrt(np.where(a > 0, a, 1.0))[:, None]
    b = (p**2).sum(1)
    if taken < count:  # what drawing some of the rows adds to |p|^2 on average
        b = np.maximum(b - (lengths.trace - b) * (1 / taken - 1 / count), b / 2)
    ahead = torch.from_numpy(p.astype(np.float32)).to(dots.device).T  # centred where the rows should be
    square_sum = sum((part.rows @ ahead).double().square_().sum(0) for part in sample)
    along = torch.as_tensor(square_sum).cpu().numpy() / max(sum(len(part.rows) for part in sample), 1)
    return Scores(products, lengths, a, b, along)


def _trace_of_square(parts: list[Tensor], trace: float, centre: bool) -> float:
    """``tr C^2`` as the mean square product of different rows of a sample (a U-statistic); of many rows each is taken
    with those of the next group alone."""
    groups = [group for part in parts for group in part.split(GRAM) if len(group)]
    n = sum(len(group) for group in groups)
    if n < 2:
        return trace**2
    if len(groups) < 3:
        groups = [torch.cat(groups)]
    if centre:
        groups = [group - group.mean(1, keepdim=True) for group in groups]

    def both(pair: tuple[Tensor, Tensor]) -> float:
        gram = (pair[0] @ pair[1].T).double().square_()
        return float(gram.sum() if len(groups) > 1 else gram.sum() - gram.diagonal().sum())

    pairs = list(zip(groups, (*groups[1:], groups[0]), strict=True))
    total = sum(_share(both, pairs, n * groups[0].numel(), groups[0]))
    count = sum(len(a) * len(b) for a, b in pairs) - (n if len(groups) == 1 else 0)
    return max(total / count, trace**2 / groups[0].shape[1])
