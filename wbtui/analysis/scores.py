"""A direction against every feature of a dictionary, in one pass over its rows: scores, spread, tails.

With rows ``w_i`` (decoder rows, or encoder columns) and a query ``q`` the score of feature ``i`` is ``w_i q / |w_i|``.
Beside it stands how often a random direction of the dictionary's own covariance ``C = W^T W / F`` scores as much. Such
a direction is ``r = C^(1/2) g`` with Gaussian ``g``, and the covariance is never formed. With ``a = q C q`` (the mean
square of ``w_i q``) and ``p = C q / sqrt(a)``, of square length ``b``::

    r q = u sqrt(a)        |r|^2 = (u sqrt(b) + y / sqrt(b))^2 + L        u standard normal

``y`` is what of the rest of ``r`` lies along ``p``, Gaussian with variance ``v = p C p - b^2``, and ``L`` the square
length of what is left, with mean ``t - b - v / b`` for ``t = tr C``; ``L`` is taken as a chi-square of the effective
dimension of that remainder. ``P(r q >= s |r|)`` is then Gaussian in ``u`` and a quadrature over ``y`` and ``L``. For an
isotropic dictionary ``v = 0`` and this is the exact law of a random direction's cosine. ``tr C^2`` and ``p C p`` come
from a sample of rows, ``C q`` of wide dictionaries from a quarter or less of them, all else from the one pass. Two
thousand drawn directions would resolve 1/2001 and cost a hundred times the pass (methods 1.2, "Thresholds", has them
where a list of tokens must be scored).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.streaming import Stop, poll
from wbtui.errors import UsageError

Blocks = Callable[[], Iterable[Tensor]]
"""All rows of one side, ``[n, D]`` fp32 blocks of any strides, each time it is called."""

CHUNK = 64
"""Rows of a column-major dictionary's matrix read at once."""
COLUMNS = 512
"""Its columns taken together for the sample."""
BACK = 4096
"""Rows that ``C q`` is taken from at most: all of a dictionary up to this width."""
SAMPLE = 256
"""Rows whose mutual products estimate ``tr C^2``."""
LEAST_DEGREES = 8.0
"""Dictionaries (or what the query leaves of them) of fewer effective dimensions have no tail: it would be wrong."""
NODES = 24
"""Of the quadrature, each way."""
LEAST_TAIL = 1e-12
"""Tails below this are given as this: further out the closed form is not to be trusted."""


@dataclass(frozen=True)
class Lengths:
    """What does not depend on the queries, to be kept between them.

    Attributes:
        norms: ``[F]`` fp64, ``|w_i|`` (of the centred row where the pass was told to centre).
        usable: bool ``[F]``, finite and not zero.
        trace, trace2: tr C, and (from a sample of rows) tr C^2.
    """

    norms: np.ndarray
    usable: np.ndarray
    trace: float
    trace2: float


@dataclass(frozen=True)
class Scores:
    """K queries against F rows.

    Attributes:
        dots: ``[F, K]`` fp64, ``w_i q``; NaN for rows that are not finite.
        lengths: the rows'.
        a, b, along: ``[K]`` fp64: ``q C q``, ``|p|^2``, and (from a sample of rows) ``p C p``: see the module.
    """

    dots: np.ndarray
    lengths: Lengths
    a: np.ndarray
    b: np.ndarray
    along: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """See :class:`Lengths`."""
        return self.lengths.norms

    @property
    def usable(self) -> np.ndarray:
        """See :class:`Lengths`."""
        return self.lengths.usable

    @property
    def trace(self) -> float:
        """See :class:`Lengths`."""
        return self.lengths.trace

    @property
    def trace2(self) -> float:
        """See :class:`Lengths`."""
        return self.lengths.trace2

    @property
    def scores(self) -> np.ndarray:
        """``[F, K]``: products with rows at length one; NaN where a row is unusable."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.usable[:, None], self.dots / self.norms[:, None], np.nan)

    def z(self, scores: np.ndarray) -> np.ndarray:
        """Scores ``[F, K]`` in standard deviations from the mean over the dictionary's features."""
        with np.errstate(invalid="ignore"):
            return (scores - np.nanmean(scores, axis=0)) / np.nanstd(scores, axis=0)

    def tail(self, score: np.ndarray, k: int = 0) -> np.ndarray:
        """How likely a random direction of the dictionary's covariance is to score at least ``score`` for query ``k``;
        NaN where the dictionary has too few effective dimensions to say."""
        from scipy.special import ndtr

        s = np.asarray(score, dtype=np.float64)
        law = self._law(k)
        if law is None:
            return np.full(s.shape, np.nan)
        y, rest, weight = law
        a, b, size = float(self.a[k]), max(float(self.b[k]), 1e-300), np.abs(s)[..., None]
        # u sqrt(a) >= s |r|, squared for u >= 0: alpha u^2 - 2 beta u - gamma >= 0
        alpha, beta, gamma = a - size**2 * b, size**2 * y, size**2 * (y**2 / b + rest)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(beta**2 + alpha * gamma)
            low, high = (beta + root) / alpha, (beta - root) / alpha
            inside = np.where(alpha > 0, ndtr(-low), np.where(low > 0, ndtr(-low) - ndtr(-high), 0.0))
        tail = (np.nan_to_num(inside).clip(0.0, 1.0) * weight).sum(-1)
        tail = np.where(s >= 0, tail, 1.0 - tail).clip(LEAST_TAIL, 1.0)
        return np.where(np.isfinite(s), tail, np.nan)

    def _law(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Nodes of ``y`` and ``L``, and their weights; None for too few dimensions."""
        from scipy.special import gammaincinv, ndtr

        b = max(float(self.b[k]), 1e-300)
        v = max(float(self.along[k]) - b * b, 0.0)
        left = self.trace - b - v / b
        square = self.trace2 - 2 * (v + b * b) + b * b - (v / b) ** 2
        degrees = left**2 / max(square, 1e-300) if left > 0 else 0.0
        if degrees < LEAST_DEGREES:
            return None
        x, w = np.polynomial.hermite_e.hermegauss(NODES)
        y, rest = np.meshgrid(x * v**0.5, left / degrees * 2 * gammaincinv(degrees / 2, ndtr(x)))
        weight = np.outer(w, w) / w.sum() ** 2
        return y.ravel(), rest.ravel(), weight.ravel()

    def dimensions(self, k: int = 0) -> float:
        """How many effective dimensions the dictionary has beside the query's own, ``(t - b)^2 / (tr C^2 - b^2)``."""
        rest = max(self.trace - float(self.b[k]), 0.0)
        return rest**2 / max(self.trace2 - float(self.b[k]) ** 2, 1e-300)

    def two_sided(self, score: np.ndarray, k: int = 0) -> np.ndarray:
        """The same for the size of the score, whichever its sign."""
        return np.minimum(2 * self.tail(np.abs(score), k), 1.0)


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
        UsageError: no usable row.
    """
    q = queries.float().T.contiguous()  # [D, K]
    dots, squares = [], []
    sample = _Sample(q, n, centre)
    for block in blocks():
        poll(stop)
        x = block.to(q.device)
        # a matrix times one vector is read at the speed of memory; times a one-column matrix it may not be
        dot = torch.mv(x, q[:, 0])[:, None] if q.shape[1] == 1 else x @ q
        dots.append(dot)
        if lengths is None:
            square = _squares(x)
            squares.append(square - x.sum(1).square() / x.shape[1] if centre else square)
        sample.add(x, dot)
    if not dots:
        raise UsageError("a dictionary without rows", "at least one feature")
    return _finish(torch.cat(dots), torch.cat(squares) if lengths is None else None, sample, lengths)


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
    found = torch.zeros((len(q), n), dtype=torch.float32, device=q.device)
    squares, sums = (torch.zeros(n, dtype=torch.float32, device=q.device) for _ in range(2))
    ones = torch.ones(CHUNK, dtype=torch.float32, device=q.device)
    buffer = torch.empty((CHUNK, n), dtype=torch.float32, device=q.device) if lengths is None else ones
    for a in range(0, width, CHUNK):
        poll(stop)
        part = matrix[a : a + CHUNK].to(device=q.device, dtype=torch.float32)
        if len(q) == 1:
            found[0].addmv_(part.T, q[0, a : a + CHUNK])
        else:
            found.addmm_(q[:, a : a + CHUNK], part)
        if lengths is None:
            squares.addmv_(torch.mul(part, part, out=buffer[: len(part)]).T, ones[: len(part)])
            if centre:
                sums.addmv_(part.T, ones[: len(part)])
    if centre and lengths is None:
        squares -= sums.square() / width
    dots = found.T.contiguous()
    sample = _Sample(q.T.contiguous(), n, centre)
    for a in range(0, n, COLUMNS):
        if sample.wants():
            poll(stop)
            some = matrix[:, a : a + COLUMNS].to(device=q.device, dtype=torch.float32)
            sample.add(some.T, dots[a : a + COLUMNS])
    return _finish(dots, squares if lengths is None else None, sample, lengths)


class _Sample:
    """What the law of random directions takes from some of the rows: ``C q`` from up to ``BACK`` of them, and a few
    themselves. The rows are taken in whole blocks, evenly spaced."""

    def __init__(self, q: Tensor, n: int, centre: bool) -> None:
        self.back = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
        self.centre = centre
        self.rows: list[Tensor] = []
        self.taken = 0
        self._every = max(1, n // BACK)
        self._step = max(1, n // SAMPLE // self._every)
        self._blocks = 0

    def wants(self) -> bool:
        """Whether the next block is one of them; one that is not is passed over."""
        wanted = self._blocks % self._every == 0
        self._blocks += not wanted
        return wanted

    def add(self, x: Tensor, dot: Tensor) -> None:
        """A block of rows and their products with the queries."""
        if not self.wants():
            return
        self._blocks += 1
        fine = torch.isfinite(dot).all(1)
        if not bool(fine.all()):
            x, dot = x[fine], dot[fine]
        if len(x):
            self.back += (torch.mv(x.T, dot[:, 0])[:, None] if dot.shape[1] == 1 else x.T @ dot).double()
            self.rows.append(x[-self.taken % self._step :: self._step].clone())
        self.taken += int((dot != 0).any(1).sum())


def _finish(dots: Tensor, squares: Tensor | None, sample: _Sample, lengths: Lengths | None) -> Scores:
    products = dots.double().cpu().numpy()
    rows = torch.cat(sample.rows)
    if sample.centre:
        rows = rows - rows.mean(1, keepdim=True)
    if lengths is None:
        assert squares is not None
        square = squares.double().cpu().numpy().clip(min=0.0)
        usable = np.isfinite(square) & (square > 0) & np.isfinite(products).all(1)
        if not usable.any():
            raise UsageError("a dictionary without a finite, non-zero row", "rows to score")
        trace = float(square[usable].mean())
        lengths = Lengths(np.sqrt(square), usable, trace, _trace_of_square(rows, trace))
    usable, count = lengths.usable, int(lengths.usable.sum())
    taken = max(sample.taken, 1)
    back = sample.back / taken
    if sample.centre:
        back -= back.mean(0, keepdim=True)
    a = (products[usable] ** 2).mean(0)
    p = back.cpu().numpy() / np.sqrt(np.where(a > 0, a, 1.0))
    b = (p**2).sum(0)
    if taken < count:  # what drawing some of the rows adds to |p|^2 on average
        b = np.maximum(b - (lengths.trace - b) * (1 / taken - 1 / count), b / 2)
    along = (rows @ torch.from_numpy(p).to(rows)).double().square().mean(0).cpu().numpy()
    return Scores(products, lengths, a, b, along)


def _squares(x: Tensor) -> Tensor:
    """Square lengths of rows; where they are columns of a row-major matrix, without the slow strided reduction."""
    if x.stride(1) == 1 or len(x) < 2:
        return torch.linalg.vector_norm(x, dim=1).square()
    y = x.T
    return torch.mv((y * y).T, torch.ones(len(y), dtype=y.dtype, device=y.device))


def _trace_of_square(rows: Tensor, trace: float) -> float:
    """``tr C^2`` as the mean square product of different rows of a sample (a U-statistic)."""
    n = len(rows)
    if n < 2:
        return trace**2
    gram = (rows @ rows.T).double().square()
    return max(float((gram.sum() - gram.diagonal().sum()) / (n * (n - 1))), trace**2 / rows.shape[1])


def best(values: np.ndarray, top: int, *, largest: bool = True) -> np.ndarray:
    """The ``top`` largest (or smallest) finite entries, best first, equal ones by number."""
    order = np.where(np.isfinite(values), -values if largest else values, np.inf)
    found = np.argsort(order, kind="stable")[:top]
    return found[np.isfinite(order[found])]
