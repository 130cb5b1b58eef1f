"""Populations live (E3, methods 1.4): groups of one metric compared while a label's bar or a threshold line moves.

A :class:`Population` sorts a metric's values once. Everything else counts along that order: with A(i) and B(i) the
members of two groups among the first i values (cut only where the value changes, so that ties are one step),

    U     = sum over distinct values of a (B before + b / 2)      a, b members at that value (exact integers)
    delta = 2 U / (n_a n_b) - 1                                   Cliff's; > 0: the first group is larger
    D     = max |A / n_a - B / n_b|                               Kolmogorov-Smirnov distance

so new labels cost O(n), and a threshold on the metric itself a binary search. numpy only; p-values and permutations are
:mod:`wbtui.analysis.populations`, which runs in the worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from wbtui.errors import UsageError
from wbtui.features import classes
from wbtui.features.names import resolve

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

BINS = 60
CUT_MODES = ("null", "quantile", "fixed")
CUT_SCOPES = ("layer", "model")
GROUPINGS = ("semantic", "coherent", "promotes", "single", "diffuse", "none")
YES, NO, UNKNOWN = 0, 1, -1


@dataclass(frozen=True)
class Cut:
    """A threshold and how it was set: what must stand beside every share (methods 1.1).

    Attributes:
        value: the bar; beyond is strictly above. NaN where bars are several (a class).
        mode: ``null``, ``quantile`` or ``fixed``.
        scope: what it was set over: ``layer`` (one SAE) or ``model`` (all of them).
        pool: the same in words, with numbers.
    """

    value: float
    mode: str
    scope: str
    pool: str

    def __post_init__(self) -> None:
        if self.mode not in CUT_MODES or self.scope not in CUT_SCOPES:
            raise UsageError(f"threshold {self.mode!r} over {self.scope!r}", f"{CUT_MODES} over {CUT_SCOPES}")

    @property
    def flat_by_definition(self) -> bool:
        """Whether it passes the same share of every layer whatever the weights are."""
        return self.mode == "quantile" and self.scope == "layer"

    def line(self) -> str:
        """How it was set, in words."""
        value = "" if np.isnan(self.value) else f"{self.value:.4g}, "
        return f"{value}{self.mode} over {self.scope}: {self.pool}"


def quantile_cut(samples: Sequence[np.ndarray], q: float, *, scope: str, pool: str) -> Cut:
    """The ``q`` quantile of pooled finite values. It ranks; it proves nothing: it passes 1 - q of its pool."""
    if not 0 < q < 1:
        raise UsageError(f"quantile {q}", "a number between 0 and 1")
    values = _finite(samples)
    bar = float(np.quantile(values, q)) if len(values) else float("nan")
    return Cut(bar, "quantile", scope, f"quantile {q:g} of {len(values):,} values, {pool}")


def null_cut(samples: Sequence[np.ndarray], percent: float, *, scope: str, pool: str) -> Cut:
    """The largest of several nulls' percentiles (each null is one array)."""
    bars = [float(np.percentile(v, percent)) for s in samples if len(v := _finite([s]))]
    return Cut(max(bars) if bars else float("nan"), "null", scope, f"{percent:g}th percentile of {pool}")


def _finite(samples: Sequence[np.ndarray]) -> np.ndarray:
    values = np.concatenate([np.asarray(s, np.float64).ravel() for s in samples]) if samples else np.empty(0)
    return values[np.isfinite(values)]


@dataclass(frozen=True, eq=False)
class Grouping:
    """Labels of rows. ``codes`` int8 [n] index ``names``; -1 rows belong to no group (not computed, not finite)."""

    name: str
    names: tuple[str, ...]
    codes: np.ndarray
    how: str
    """How the labels' thresholds were set, and over which pool."""

    def mask(self, group: int | str = 0) -> np.ndarray:
        """bool [n]: members of one group."""
        return self.codes == (self.names.index(group) if isinstance(group, str) else group)

    @property
    def known(self) -> np.ndarray:
        """bool [n]: rows that belong to some group."""
        return self.codes >= 0


def from_flag(name: str, labels: np.ndarray, known: np.ndarray | None, how: str) -> Grouping:
    """Two groups, ``name`` and ``not name``, out of a yes-or-no."""
    codes = np.where(labels, YES, NO).astype(np.int8)
    if known is not None:
        codes[~known] = UNKNOWN
    return Grouping(name, (name, f"not {name}"), codes, how)


def grouping(table: FeatureTable, name: str) -> Grouping:
    """The groups that a label makes of a table's stored rows.

    Args:
        name: a yes-or-no (``semantic.writes``, ``coherent.either``, ``promotes.reads``, ``same``) or a class
            (``writes.class``).

    Raises:
        UsageError: a name that is no label.
    """
    found = resolve(name)
    how = f"{table.thresholds.line()}, set over layer ({table.origin.address()})"
    if found.kind == "class":
        codes = np.where(table.computed, table.column(found.text), UNKNOWN).astype(np.int8)
        return Grouping(found.text, classes.CLASS_NAMES, codes, how)
    if not found.boolean:
        raise UsageError(f"{name!r} is no label", "a yes-or-no such as semantic.writes, or writes.class")
    return from_flag(found.text, table.column(found.text), table.known(found.text) & table.computed, how)


@dataclass(frozen=True)
class GroupStats:
    """One group of a metric: moments and order statistics (population ``std``), NaN without members."""

    name: str
    n: int
    mean: float
    std: float
    p25: float
    median: float
    p75: float
    p90: float


@dataclass(frozen=True)
class Effect:
    """Two groups compared; effect sizes of ``a`` against ``b``, NaN where a group is empty."""

    a: str
    b: str
    n_a: int
    n_b: int
    u: float
    """Mann-Whitney's U of ``a``."""
    delta: float
    ks: float
    median_ratio: float
    p75_difference: float


@dataclass(frozen=True, eq=False)
class Bins:
    """Edges [bins + 1] shared by every group; the last bin holds its upper edge."""

    edges: np.ndarray
    log: bool

    @property
    def centres(self) -> np.ndarray:
        """Middle of each bin, on its own scale."""
        a, b = self.edges[:-1], self.edges[1:]
        return np.sqrt(a * b) if self.log else (a + b) / 2


def shared_bins(samples: Sequence[np.ndarray], bins: int = BINS, log: bool = False) -> Bins:
    """Equal bins, linear or in the logarithm, over everything finite (``log``: and positive) in all samples."""
    values = _finite(samples)
    values = values[values > 0] if log else values
    if not len(values):
        return Bins(np.geomspace(1, 10, bins + 1) if log else np.linspace(0, 1, bins + 1), log)
    low, high = float(values.min()), float(values.max())
    if log and low < high:
        edges = np.geomspace(low, high, bins + 1)
    elif log:
        edges = np.geomspace(low / 2, high * 2, bins + 1)
    else:
        edges = np.histogram_bin_edges(np.array([low, high]), bins)
    if low < high:  # rounding must not push the extremes out
        edges[0], edges[-1] = low, high
    return Bins(edges, log)


class Population:
    """One metric over a pool of rows, sorted once.

    Args:
        values: [n]; what is not finite belongs to no group.
        name: the metric.
    """

    def __init__(self, values: np.ndarray, name: str = "") -> None:
        values = np.asarray(values, dtype=np.float64).ravel()
        self.name = name
        self.n = len(values)
        rows = np.flatnonzero(np.isfinite(values))
        self.order = rows[np.argsort(values[rows], kind="stable")].astype(np.int32 if self.n < 2**31 else np.int64)
        """Rows of finite value, ascending by value."""
        self.sorted = values[self.order]
        self._last = np.flatnonzero(np.append(self.sorted[1:] != self.sorted[:-1], True))[: len(self.sorted)]
        self._distinct = len(self._last) == len(self.sorted)

    def split(self, groups: Grouping) -> Split:
        """The groups along this metric: one gather and one running count per group.

        Raises:
            UsageError: labels of another number of rows.
        """
        if len(groups.codes) != self.n:
            raise UsageError(f"{len(groups.codes)} labels", f"{self.n}, one a row")
        return Split(self, groups)

    def place(self, values: np.ndarray | float, side: str = "left") -> np.ndarray:
        """How many sorted values stand before each (``left``: strictly below, ``right``: not above)."""
        return np.searchsorted(self.sorted, values, side="left" if side == "left" else "right")


class Split:
    """A population under one set of labels."""

    def __init__(self, population: Population, groups: Grouping) -> None:
        self.population = population
        self.names = groups.names
        self.how = groups.how
        self._codes = groups.codes[population.order]
        self._running: dict[int, np.ndarray] = {}

    def _group(self, group: int | str) -> int:
        return self.names.index(group) if isinstance(group, str) else group

    def counts(self, group: int | str) -> np.ndarray:
        """Running count int32 [finite + 1]: members among the first i sorted values."""
        g = self._group(group)
        if g not in self._running:
            out = np.zeros(len(self._codes) + 1, dtype=np.int32)
            np.cumsum(self._codes == g, out=out[1:])
            self._running[g] = out
        return self._running[g]

    def n(self, group: int | str) -> int:
        """Members with a finite value."""
        return int(self.counts(group)[-1])

    def values(self, group: int | str) -> np.ndarray:
        """A group's values, ascending."""
        return self.population.sorted[self._codes == self._group(group)]

    def stats(self, group: int | str) -> GroupStats:
        """Count, moments and order statistics of a group."""
        values = self.values(group)
        name = self.names[self._group(group)]
        if not len(values):
            return GroupStats(name, 0, *(float("nan"),) * 6)
        p25, p50, p75, p90 = (_at(values, q) for q in (0.25, 0.5, 0.75, 0.9))
        return GroupStats(name, len(values), float(values.mean()), float(values.std()), p25, p50, p75, p90)

    def effect(self, a: int | str = 0, b: int | str = 1) -> Effect:
        """Effect sizes of one group against another; O(n) integer counting, ties as half."""
        last = self.population._last
        first, second = self.counts(a), self.counts(b)
        n_a, n_b = int(first[-1]), int(second[-1])
        names = self.names[self._group(a)], self.names[self._group(b)]
        if not n_a or not n_b:
            return Effect(*names, n_a, n_b, *(float("nan"),) * 5)
        whole = self.population._distinct
        up_a, up_b = (first[1:], second[1:]) if whole else (first[last + 1], second[last + 1])
        if whole:
            twice = 2 * int(up_b[self._codes == self._group(a)].sum(dtype=np.int64))
        else:
            at_b = np.diff(up_b, prepend=0).astype(np.int64)
            at_a = np.diff(up_a, prepend=0).astype(np.int64)
            twice = int(at_a @ (2 * (up_b.astype(np.int64) - at_b) + at_b))
        gap = np.abs(up_a * np.float64(1 / n_a) - up_b * np.float64(1 / n_b)).max()
        medians, quarters = ([_nth(self, g, q) for g in (a, b)] for q in (0.5, 0.75))
        return Effect(
            *names, n_a, n_b,
            u=twice / 2,
            delta=twice / (n_a * n_b) - 1,
            ks=float(gap),
            median_ratio=medians[0] / medians[1] if medians[1] else float("nan"),
            p75_difference=quarters[0] - quarters[1],
        )  # fmt: skip

    def histogram(self, bins: Bins) -> np.ndarray:
        """Counts int64 [groups, bins]; what a logarithmic axis cannot show is in no bin."""
        places = self.population.place(bins.edges)
        places[-1] = int(self.population.place(bins.edges[-1], "right"))
        return np.stack([np.diff(self.counts(g)[places]) for g in range(len(self.names))]).astype(np.int64)

    def ecdf(self, group: int | str, at: np.ndarray) -> np.ndarray:
        """Share of a group at or below each value, NaN without members."""
        n = self.n(group)
        reached = self.counts(group)[self.population.place(at, "right")]
        return reached / n if n else np.full(np.shape(at), np.nan)

    def beyond(self, threshold: float) -> tuple[tuple[int, int], ...]:
        """(strictly above the threshold, members) of each group; a binary search once the groups are counted."""
        place = int(self.population.place(threshold, "right"))
        return tuple((self.n(g) - int(self.counts(g)[place]), self.n(g)) for g in range(len(self.names)))

    @cached_property
    def pooled(self) -> np.ndarray:
        """Values of all labelled rows, ascending."""
        return self.population.sorted[self._codes >= 0]


def fdr(values: np.ndarray, noise: np.ndarray, threshold: float) -> float:
    """False-discovery rate of "above the threshold": the noise's share over the features' own, at most 1.

    Args:
        values, noise: ascending and finite.

    Returns:
        float: NaN where nothing is above, or there is no noise.
    """
    if not len(values) or not len(noise):
        return float("nan")
    own = (len(values) - np.searchsorted(values, threshold, side="right")) / len(values)
    false = (len(noise) - np.searchsorted(noise, threshold, side="right")) / len(noise)
    return float(min(1.0, false / own)) if own else float("nan")


def compare(a: np.ndarray, b: np.ndarray, names: tuple[str, str] = ("a", "b")) -> Effect:
    """Effect sizes of one sample against another, as features against random directions. Ignores what is not finite."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    codes = np.repeat(np.array([YES, NO], np.int8), [len(a), len(b)])
    return Population(np.concatenate([a, b])).split(Grouping("", names, codes, "")).effect()


def _nth(split: Split, group: int | str, q: float) -> float:
    """A quantile of a group out of its running count: two binary searches, linear between neighbours."""
    counts, values = split.counts(group), split.population.sorted
    rank = q * (int(counts[-1]) - 1)
    low = int(rank)
    at = np.searchsorted(counts, [low + 1, min(low + 2, int(counts[-1]))], side="left") - 1
    return float(values[at[0]] + (values[at[1]] - values[at[0]]) * (rank - low))


def _at(ordered: np.ndarray, q: float) -> float:
    rank = q * (len(ordered) - 1)
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (rank - low))


def defines_label(metric: str, label: str) -> bool:
    """Whether a metric and a label come from the same list of tokens, so that their difference shows nothing new."""
    found, of = resolve(metric), resolve(label)
    label_sides = {"either": ("writes", "reads"), "both": ("writes", "reads")}.get(of.side, (of.side,))
    origin = {"against": "writes"}.get(found.side, found.side)
    return found.base in ("overlap",) or origin in label_sides
