"""E3's tests (methods 1.4): p-values by scipy, permutation nulls, controls. For the worker and the command line only.

Two kinds of evidence that never mix. :class:`Test` holds p-values of scipy's Mann-Whitney and Kolmogorov-Smirnov
tests; they go through Benjamini-Hochberg. :class:`Permuted` holds a statistic and its distribution under permuted
labels, whole families of near-duplicates at a time; its smallest p is 1 / (n_perm + 1), so it never enters
Benjamini-Hochberg.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from wbtui.errors import Cancelled, WorkError

N_PERM = 200
NEAR_DUPLICATE = 0.7
MAX_CLUSTERED = 32_768
"""Above this many features the decoder's cosines are not searched (n² products); features then count one by one."""
UNIT_SPREAD = 1e-3
_BLOCK = 512
_LABELLINGS = 32


@dataclass(frozen=True)
class Test:
    """One comparison's p-values by scipy (two-sided, asymptotic), and q-values once :func:`adjust` saw it."""

    __test__ = False  # not a test case for pytest
    name: str
    delta: float
    ks: float
    p_mann_whitney: float
    p_ks: float
    q_mann_whitney: float = float("nan")
    q_ks: float = float("nan")


@dataclass(frozen=True)
class Permuted:
    """A statistic and its distribution under permuted labels.

    Attributes:
        value: observed. null: [n_perm] permuted values.
    """

    value: float
    null: np.ndarray

    @property
    def centre(self) -> float:
        """Median of the permuted values."""
        return float(np.median(self.null))

    def interval(self, percent: float = 95.0) -> tuple[float, float]:
        """The central interval of the permuted values."""
        tail = (100 - percent) / 2
        low, high = np.percentile(self.null, (tail, 100 - tail))
        return float(low), float(high)

    @property
    def tail(self) -> float:
        """(1 + permutations that reach the value) / (n + 1), one-sided upward."""
        return float((1 + np.count_nonzero(self.null >= self.value - 1e-12)) / (len(self.null) + 1))

    @property
    def lower_tail(self) -> float:
        """The same downward."""
        return float((1 + np.count_nonzero(self.null <= self.value + 1e-12)) / (len(self.null) + 1))


def test(name: str, a: np.ndarray, b: np.ndarray) -> Test:
    """Mann-Whitney and Kolmogorov-Smirnov of two samples; NaN where one is empty. What is not finite is left out."""
    a, b = (np.asarray(x, np.float64)[np.isfinite(x)] for x in (a, b))
    if not len(a) or not len(b):
        return Test(name, *(float("nan"),) * 4)
    u = stats.mannwhitneyu(a, b, alternative="two-sided", method="asymptotic")
    d = stats.ks_2samp(a, b, method="asymp")
    delta = 2 * float(u.statistic) / (len(a) * len(b)) - 1
    p = float(u.pvalue)
    return Test(name, delta, float(d.statistic), 1.0 if np.isnan(p) else p, float(d.pvalue))


test.__test__ = False  # type: ignore[attr-defined]


def adjust(tests: Sequence[Test]) -> list[Test]:
    """Benjamini-Hochberg over all comparisons of one family (layers × heads × sides), each kind of test by itself.

    Raises:
        WorkError: something else than scipy's tests, as a permutation's tail.
    """
    wrong = [type(t).__name__ for t in tests if not isinstance(t, Test)]
    if wrong:
        raise WorkError(f"Benjamini-Hochberg over {wrong[0]}", "p-values that are not bounded by a number of shuffles")
    q = {}
    for kind in ("mann_whitney", "ks"):
        p = np.array([getattr(t, f"p_{kind}") for t in tests], np.float64)
        known = np.isfinite(p)
        q[kind] = np.full(len(p), np.nan)
        if known.any():
            q[kind][known] = stats.false_discovery_control(p[known], method="bh")
    return [
        Test(t.name, t.delta, t.ks, t.p_mann_whitney, t.p_ks, float(q["mann_whitney"][i]), float(q["ks"][i]))
        for i, t in enumerate(tests)
    ]


# -- families of near-duplicates and permuted labels -----------------------------------------------------------------


def families(decoder: Tensor, cut: float = NEAR_DUPLICATE, stop: Callable[[], bool] | None = None) -> np.ndarray:
    """Clusters of features whose decoder rows are linked by a cosine above ``cut`` (single linkage).

    Args:
        decoder: [n, D]. Rows that are zero or not finite stand alone.
        stop: polled between blocks.

    Returns:
        int64 [n]: a cluster's number for each feature, 0, 1, … in order of their first feature.
    """
    rows = decoder.float()
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    good = torch.isfinite(norm) & (norm > 0)
    unit = torch.where(good, rows / torch.where(good, norm, 1.0), 0.0)
    n = len(unit)
    found = np.arange(n)
    for start in range(0, n, _BLOCK):
        if stop is not None and stop():
            raise Cancelled("the search for near-duplicates was stopped")
        linked = (unit[start : start + _BLOCK] @ unit[start:].T > cut).cpu().numpy()  # the upper triangle is enough
        i, j = linked.nonzero()
        graph = coo_array((np.ones(len(i), np.int8), (found[i + start], found[j + start])), shape=(n, n))
        found = connected_components(graph, directed=False)[1][found]
    first, inverse = np.unique(found, return_index=True, return_inverse=True)[1:]
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return np.asarray(place[inverse])


def permutations(clusters: np.ndarray, n_perm: int, seed: int) -> Iterator[np.ndarray]:
    """Row permutations that move clusters whole: ``n_perm`` times int [n]; ``labels[p]`` are permuted labels.

    Clusters are laid out end to end twice, in two random orders, and the labels of the one layout are read onto the
    other: members of a family stay neighbours, and every row's label is used exactly once. Families of one feature
    give a plain permutation.
    """
    by_cluster = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)

    def layout() -> np.ndarray:
        order = rng.permutation(len(sizes))
        lengths = sizes[order]
        offset = np.arange(len(clusters)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return by_cluster[np.repeat(starts[order], lengths) + offset]

    for _ in range(n_perm):
        target, source = layout(), layout()
        out = np.empty(len(clusters), dtype=np.int64)
        out[target] = source
        yield out


def permuted_labels(labels: np.ndarray, clusters: np.ndarray, n_perm: int, seed: int) -> np.ndarray:
    """Labels [n] under :func:`permutations`: bool [n_perm, n]."""
    return np.stack([labels[p] for p in permutations(clusters, n_perm, seed)])


class Ranked:
    """Values [m, n] of m statistics (heads, sides) over n features, ranked once: δ and D of any number of labellings.

    Rows with a value that is not finite are left out of that statistic.
    """

    def __init__(self, values: np.ndarray) -> None:
        values = np.atleast_2d(np.asarray(values, np.float64))
        self.m, self.n = values.shape
        self._finite = np.isfinite(values)
        self._whole = self._finite.all(1)
        self._ranks = np.zeros((self.m, self.n))
        self._orders, self._lasts = [], []
        for i, row in enumerate(values):
            rows = np.flatnonzero(self._finite[i])
            self._ranks[i, rows] = stats.rankdata(row[rows])
            order = rows[np.argsort(row[rows], kind="stable")]
            ordered = row[order]
            self._orders.append(order)
            self._lasts.append(np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))[: len(order)])

    def delta(self, labels: np.ndarray) -> np.ndarray:
        """Cliff's δ of members against the rest: [m, k] for labels bool [k, n]."""
        labels = np.atleast_2d(labels)
        finite = self._finite.astype(np.float64)
        total = self._finite.sum(1)[:, None]
        parts = []
        for start in range(0, len(labels), _LABELLINGS):
            members = labels[start : start + _LABELLINGS].T.astype(np.float64)
            ranks, n_a = self._ranks @ members, finite @ members  # [m, k]
            with np.errstate(divide="ignore", invalid="ignore"):
                parts.append(2 * (ranks - n_a * (n_a + 1) / 2) / (n_a * (total - n_a)) - 1)
        return np.concatenate(parts, axis=1)

    def ks(self, labels: np.ndarray) -> np.ndarray:
        """Kolmogorov-Smirnov distance of members and the rest: [m, k]."""
        labels = np.atleast_2d(labels)
        out = np.full((self.m, len(labels)), np.nan)
        for i, (order, last) in enumerate(zip(self._orders, self._lasts, strict=True)):
            whole = len(last) == len(order)
            place = np.arange(1, len(order) + 1, dtype=np.float64) if whole else last + 1.0
            for j, row in enumerate(labels):
                up = np.cumsum(row[order], dtype=np.int32)
                up = up if whole else up[last]
                n_a = int(up[-1]) if len(up) else 0
                n_b = len(order) - n_a
                if n_a and n_b:
                    out[i, j] = np.abs(up * (1 / n_a + 1 / n_b) - place / n_b).max()
        return out


# -- controls --------------------------------------------------------------------------------------------------------


def matched_delta(values: np.ndarray, labels: np.ndarray, by: np.ndarray, parts: int = 10) -> np.ndarray | None:
    """Cliff's δ within deciles of another number (decoder norm), weighted by the pairs in each.

    Args:
        values: [m, n], m statistics of n features; labels: bool [n]; by: [n]. What is not finite is left out.

    Returns:
        np.ndarray | None: [m]; None where ``by`` does not vary (unit-norm decoders): there is nothing to match.
    """
    values = np.atleast_2d(np.asarray(values, np.float64))
    good = np.isfinite(by)
    values, labels, by = values[:, good], labels[good], by[good]
    if len(by) < parts or by.std() <= UNIT_SPREAD * abs(by.mean()):
        return None
    edges = np.quantile(by, np.linspace(0, 1, parts + 1)[1:-1])
    part = np.searchsorted(edges, by, side="right")
    total, pairs = np.zeros(len(values)), np.zeros(len(values))
    for k in range(parts):
        inside, members = values[:, part == k], labels[part == k]
        finite = np.isfinite(inside)
        weight = (finite & members).sum(1) * (finite & ~members).sum(1).astype(np.float64)
        delta = Ranked(inside).delta(members)[:, 0] if inside.shape[1] else np.zeros(len(values))
        total += np.where(weight > 0, np.nan_to_num(delta) * weight, 0.0)
        pairs += weight
    return np.where(pairs > 0, total / np.maximum(pairs, 1.0), np.nan)


@dataclass(frozen=True)
class GainSplit:
    """A head's δ taken apart: of the projection's length alone, and of participation per unit of it."""

    participation: float
    gain: float
    direction: float


def gain_split(participation: np.ndarray, gain: np.ndarray, labels: np.ndarray) -> GainSplit:
    """δ of participation, of gain, and of participation / gain. Arrays [n], labels bool [n]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        direction = np.where(gain > 0, participation / gain, np.nan)
    found = Ranked(np.stack([participation, gain, direction])).delta(labels)[:, 0]
    return GainSplit(*(float(v) for v in found))
