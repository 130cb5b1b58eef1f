"""A direction against every feature of a dictionary: scores, spread, tails (:mod:`wbtui.analysis.score_pass` makes them
in one pass over the rows).

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

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

LEAST_DEGREES = 8.0
"""Dictionaries (or what the query leaves of them) of fewer effective dimensions have no tail: it would be wrong."""
NODES, FEW_NODES = 24, 12
"""Of the quadrature, each way; the fewer where there are ``MANY_DEGREES``: they leave an error below 1e-4 there."""
MANY_DEGREES = 64.0
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
class Law:
    """How a random direction of a dictionary's covariance scores for one query; the numbers are those of the module."""

    a: float
    b: float
    along: float
    trace: float
    trace2: float

    def tail(self, score: np.ndarray) -> np.ndarray:
        """How likely a random direction of the dictionary's covariance is to score at least ``score``; NaN where the
        dictionary has too few effective dimensions to say."""
        from scipy.special import ndtr

        s = np.asarray(score, dtype=np.float64)
        law = self._nodes
        if law is None:
            return np.full(s.shape, np.nan)
        y, rest, weight = law
        a, b, size = self.a, max(self.b, 1e-300), np.abs(s)[..., None]
        # u sqrt(a) >= s |r|, squared for u >= 0: alpha u^2 - 2 beta u - gamma >= 0
        alpha, beta, gamma = a - size**2 * b, size**2 * y, size**2 * (y**2 / b + rest)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(beta**2 + alpha * gamma)
            low = (beta + root) / alpha
            inside = ndtr(-low)
            if not bool((alpha > 0).all()):
                high = (beta - root) / alpha
                inside = np.where(alpha > 0, inside, np.where(low > 0, inside - ndtr(-high), 0.0))
        tail = (np.nan_to_num(inside).clip(0.0, 1.0) * weight).sum(-1)
        tail = np.where(s >= 0, tail, 1.0 - tail).clip(LEAST_TAIL, 1.0)
        return np.where(np.isfinite(s), tail, np.nan)

    @cached_property
    def _nodes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Nodes of ``y`` and ``L``, and their weights; None for too few dimensions."""
        from scipy.special import gammaincinv, ndtr

        b = max(self.b, 1e-300)
        v = max(self.along - b * b, 0.0)
        left = self.trace - b - v / b
        square = self.trace2 - 2 * (v + b * b) + b * b - (v / b) ** 2
        degrees = left**2 / max(square, 1e-300) if left > 0 else 0.0
        if degrees < LEAST_DEGREES:
            return None
        x, w = _nodes(FEW_NODES if degrees >= MANY_DEGREES else NODES)
        y, rest = np.meshgrid(x * v**0.5, left / degrees * 2 * gammaincinv(degrees / 2, ndtr(x)))
        weight = np.outer(w, w) / w.sum() ** 2
        return y.ravel(), rest.ravel(), weight.ravel()

    def two_sided(self, score: np.ndarray) -> np.ndarray:
        """The same for the size of the score, whichever its sign."""
        one = self.tail(np.abs(score))
        return np.where(one <= LEAST_TAIL, LEAST_TAIL, np.minimum(2 * one, 1.0))  # what stands for less stays that


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

    def law(self, k: int = 0) -> Law:
        """Of query ``k``."""
        return Law(float(self.a[k]), float(self.b[k]), float(self.along[k]), self.trace, self.trace2)

    def tail(self, score: np.ndarray, k: int = 0) -> np.ndarray:
        """See :meth:`Law.tail`."""
        return self.law(k).tail(score)

    def dimensions(self, k: int = 0) -> float:
        """How many effective dimensions the dictionary has beside the query's own, ``(t - b)^2 / (tr C^2 - b^2)``."""
        rest = max(self.trace - float(self.b[k]), 0.0)
        return rest**2 / max(self.trace2 - float(self.b[k]) ** 2, 1e-300)

    def two_sided(self, score: np.ndarray, k: int = 0) -> np.ndarray:
        """See :meth:`Law.two_sided`."""
        return self.law(k).two_sided(score)


@lru_cache(maxsize=2)
def _nodes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes and weights for a standard normal (up to their sum)."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w


def best(values: np.ndarray, top: int, *, largest: bool = True) -> np.ndarray:
    """The ``top`` largest (or smallest) finite entries, best first, equal ones by number."""
    order = np.where(np.isfinite(values), -values if largest else values, np.inf)
    among = np.arange(len(order))
    if top < len(order):  # a sort of all costs as much as the pass
        among = np.flatnonzero(order <= np.partition(order, top - 1)[top - 1])
    found = among[np.argsort(order[among], kind="stable")[:top]]
    return found[np.isfinite(order[found])]
