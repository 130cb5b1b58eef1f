"""A metric's population as the app draws it: groups, noise, bins whose edges can be read, the line's counts.

Gathered once per metric and labels in a thread; moving the threshold over it is a few binary searches (methods 1.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wbtui.features import classes
from wbtui.features import populations as pop
from wbtui.features.names import is_name, resolve
from wbtui.features.noise import METRICS as NOISE_METRICS
from wbtui.features.noise import NullSample
from wbtui.tui.bins import Bins, make_bins
from wbtui.tui.state import FIRST_SORT, SortKey

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

DEFAULT_METRIC = "writes.z_max"
LABELS = (
    "semantic.writes", "semantic.reads", "semantic.either", "semantic.both", "coherent.writes", "promotes.writes",
    "writes.class",
)  # fmt: skip
"""Groupings that ``g`` goes through."""
LABEL_WORDS = {
    "semantic.writes": "semantic = one + set, by what it writes",
    "semantic.reads": "semantic = one + set, by what it reads",
    "semantic.either": "semantic = one + set, on writes or reads",
    "semantic.both": "semantic = one + set, on writes and reads",
    "coherent.writes": "coherent = set, by what it writes",
    "promotes.writes": "promotes = one, set or mix, by what it writes",
    "writes.class": "classes none, one, set, mix, by what it writes",
}
NOISE = "noise"
ALL = "all"
BAR = 99.0
"""Percentile of the noise at which the line stands first."""


def metrics_of(first: str = DEFAULT_METRIC) -> tuple[str, ...]:
    """Every metric with one number a row, of both sides and of the row as a whole; ``first`` too where it is not one.

    Ids, yes-or-nos and classes are none. ``against`` is left out: it is the other end of ``writes``.
    """
    from wbtui.features.names import scalar_names

    numbers = [n for n in scalar_names() if (r := resolve(n)).numeric and n != "id" and not r.base.endswith("_id")]
    out: list[str] = []
    for side in ("writes", "reads", ""):
        own = [n for n in numbers if resolve(n).side == side]
        out += [n for n in own if n.endswith(".z_max")] + [n for n in own if not n.endswith(".z_max")]
    return tuple(out) if first in out else (first, *out)


def metric_for(sort: tuple[SortKey, ...], picked: str = "") -> str:
    """The metric to open on: the picked column's, else the first of the order's; writes.z_max where that is no number.

    The order of a first visit is a mixture made for reading, not a measure: it counts as none chosen.
    """
    for name in (picked, *([] if sort == FIRST_SORT else [key for key, _ in sort[:1]])):
        if name and is_name(name) and (found := resolve(name)).numeric and found.base != "id":
            return found.text
    return DEFAULT_METRIC


def noise_of(table: FeatureTable, name: str) -> list[tuple[str, np.ndarray]]:
    """(kind, ascending values) of a metric over random directions, kind by kind; empty where they have no such number.

    Stored metrics come from the directions that set the bars. Those derived with bars (``evidence``, ``n_words``,
    ``first_view``) are judged on fresh ones where these are there.
    """
    found = resolve(name)
    used = list(table.thresholds.used)
    if found.kind == "near":
        return [] if table.neighbours is None else table.neighbours.noise(found.text)
    if found.kind == "stored" and found.side:
        pairs = [(s.kind, s.sorted(found.side, found.base)) for s in used if _has(s, found.side, found.base)]
        return [(kind, values) for kind, values in pairs if len(values)]
    if found.kind != "number" or not used:
        return []
    bars = table.thresholds.side(found.side)
    fresh = [s for s in table.checks if s.kind != "sign_flip"] or used
    out = []
    for sample in fresh:
        read = sample.read(found.side)
        if found.base == "n_words":
            values = classes.words_beyond(read("word_z"), bars.word_z)[np.isfinite(read("z_max"))]
        elif found.base == "evidence":
            values = classes.evidence(read, bars.units)
        elif found.base == "first_view" and _has(sample, found.side, "word_share"):
            values = classes.first_view(read, bars.units)
        elif found.base == "n_eff" and _has(sample, found.side, "h_kappa"):
            values = np.exp(read("h_kappa").astype(np.float64))
        else:
            continue
        values = np.sort(values[np.isfinite(values)].astype(np.float64))
        if len(values):
            out.append((sample.kind, values))
    return out


def _has(sample: NullSample, side: str, base: str) -> bool:
    if base in NOISE_METRICS:
        return True
    try:
        sample.read(side)(base)
    except KeyError:
        return False
    return True


@dataclass(frozen=True)
class Standing:
    """The line at one place."""

    value: float
    moved: bool
    above: dict[str, float]
    """Group -> share strictly above; of noise the larger over its kinds."""
    fdr: float
    """Share of noise over share of all features above the line, the larger over kinds; NaN where it says nothing."""


@dataclass(frozen=True, eq=False)
class Crowd:
    """A metric's population under one set of labels, ready to draw."""

    name: str
    label: str
    groups: tuple[str, ...]
    """Groups of features as drawn, the first the one that the label names; ``("all",)`` while there are no labels."""
    split: pop.Split
    noise: tuple[tuple[str, np.ndarray], ...]
    bins: Bins
    start: float
    """Where the line stands first."""
    how: str
    """How that was set, in words."""
    mode: str
    """``null`` or ``fixed``."""
    stats: dict[str, pop.GroupStats]
    effects: tuple[pop.Effect, ...]
    counts: dict[str, np.ndarray]
    """Group -> int64 [bins], noise included."""
    circular: bool
    """Whether labels and metric come from the same list of tokens."""
    unlabelled: int
    """Rows with a value but no label."""
    hidden: int
    """Values that a logarithmic axis cannot show."""
    missing: str = ""
    """Why there is nothing to draw."""
    pooled_noise: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def drawn(self) -> tuple[str, ...]:
        """Groups with members, noise last."""
        return tuple(g for g in (*self.groups, *([NOISE] if self.noise else [])))

    def share(self, group: str) -> np.ndarray:
        """Share of a group per bin (of all its values, also those that are not drawn)."""
        n = self.stats[group].n
        return self.counts[group] / n if n else np.zeros(self.bins.n)

    def cumulative(self, group: str) -> np.ndarray:
        """Share of a group below each bin's upper edge (at the last one: all)."""
        n, counts = self.stats[group].n, self.counts[group]
        below = n - int(counts.sum())
        return (below + np.cumsum(counts)) / n if n else np.zeros(self.bins.n)

    def stand(self, value: float) -> Standing:
        """Shares and false-discovery rate with the line at a value: binary searches."""
        above = {
            self.groups[i]: (beyond / n if n else math.nan) for i, (beyond, n) in enumerate(self.split.beyond(value))
        }
        if self.noise:
            above[NOISE] = max(float(len(v) - np.searchsorted(v, value, side="right")) / len(v) for _, v in self.noise)
        rates = [pop.fdr(self.split.pooled, v, value) for _, v in self.noise]
        return Standing(value, value != self.start, above, max(rates, default=math.nan))

    def percentile(self, value: float) -> float:
        """Share (0…1) of all features of finite value that lie strictly below."""
        values = self.split.population.sorted
        return float(np.searchsorted(values, value, side="left")) / max(1, len(values))

    def step(self, value: float, bins: int) -> float:
        """The line some bins on: from between two edges first to the next edge; it never leaves the bins."""
        edges = self.bins.edges
        at = self.bins.where(value)
        if bins < 0 and value > edges[at]:
            at += 1
        return float(edges[min(max(at + bins, 0), self.bins.n - 1)])


def gather(table: FeatureTable, name: str, label: str = LABELS[0], *, log: bool = False) -> Crowd:
    """Everything about a metric's population that drawing needs (some sorts: in a thread).

    Raises:
        UsageError: an unknown metric or label.
    """
    name = resolve(name).text
    column = np.asarray(table.column(name))
    single = column.dtype == np.float32
    known = np.asarray(table.known(name)) & np.asarray(table.computed)
    values = np.where(known, column, np.nan).astype(np.float64)
    population = pop.Population(values, name)
    labelled = pop.grouping(table, label)
    if not (labelled.codes[population.order] >= 0).any():
        labelled = pop.Grouping(ALL, (ALL,), np.zeros(table.n, np.int8), "")
    shown = _shown_names(labelled, label)
    split = population.split(pop.Grouping(labelled.name, shown, labelled.codes, labelled.how))
    noise = noise_of(table, name)
    pooled = np.sort(np.concatenate([v for _, v in noise])) if noise else np.zeros(0)
    bins = make_bins([population.sorted, *(v for _, v in noise)], log=log, single=single)
    counts = {g: bins.counts(split.values(g)) for g in shown}
    stats = {g: split.stats(g) for g in shown}
    if noise:
        counts[NOISE] = bins.counts(pooled)
        codes = np.zeros(len(pooled), np.int8)
        stats[NOISE] = pop.Population(pooled).split(pop.Grouping(NOISE, (NOISE,), codes, "")).stats(0)
    start, mode, how = _first_line(table, population.sorted, noise)
    return Crowd(
        name=name, label=label, groups=shown, split=split, noise=tuple(noise), bins=bins, start=start, how=how,
        mode=mode, stats=stats, effects=_effects(split, shown, pooled), counts=counts,
        circular=len(shown) > 1 and pop.defines_label(_inner(name), label),
        unlabelled=int(np.count_nonzero(labelled.codes[population.order] < 0)),
        hidden=sum(stats[g].n - int(counts[g].sum()) for g in (*shown, *([NOISE] if noise else []))),
        missing=_missing(table, name, population), pooled_noise=pooled,
    )  # fmt: skip


def _inner(name: str) -> str:
    found = resolve(name)
    return found.side if found.kind == "rank" else name


def _shown_names(labelled: pop.Grouping, label: str) -> tuple[str, ...]:
    """Groups as screens call them: ``semantic`` and ``other``; classes by their display words."""
    if labelled.name == ALL:
        return (ALL,)
    if resolve(label).kind == "class":
        return classes.SHOWN_NAMES
    return (resolve(label).base, "other")


def _first_line(
    table: FeatureTable, ordered: np.ndarray, noise: list[tuple[str, np.ndarray]]
) -> tuple[float, str, str]:
    """(value, mode, words) of the line's first place: the noise's 99 %, else the median of all."""
    if noise:
        number = max(len(v) for _, v in noise)
        kinds = " and ".join(dict.fromkeys(kind.replace("decoder_cov", "decoder-covariance") for kind, _ in noise))
        more = ", the larger of both" if len({kind for kind, _ in noise}) > 1 else ""
        cut = pop.null_cut([v for _, v in noise], BAR, scope="layer", pool=f"{number:,} {kinds} directions")
        return cut.value, "null", f"{BAR:g} % of {number:,} {kinds} directions{more}"
    start = float(np.median(ordered)) if len(ordered) else math.nan
    why = "no noise yet" if not table.thresholds.used else "random directions have no such number"
    return start, "fixed", f"the median of all: {why}"


def _effects(split: pop.Split, groups: tuple[str, ...], noise: np.ndarray) -> tuple[pop.Effect, ...]:
    """Effect sizes: of two groups against each other and of the first against noise; of classes each against none."""
    out: list[pop.Effect] = []
    if len(groups) == 2:
        out.append(split.effect(0, 1))
    elif len(groups) > 2:
        out += [split.effect(i, 0) for i in range(1, len(groups))]
    if len(noise) and len(groups) <= 2:
        out += [pop.compare(split.values(g), noise, (g, NOISE)) for g in groups]
    return tuple(out)


def _missing(table: FeatureTable, name: str, population: pop.Population) -> str:
    """Why a metric has nothing to draw; empty where it has."""
    if len(population.sorted):
        return ""
    if table.n == 0:
        return "this SAE has no features"
    if not np.asarray(table.computed).any():
        return "nothing is computed yet: the page fills as rows arrive (Esc, then C computes all)"
    if resolve(_inner(name)).side == "reads" and bool(np.asarray(table.column("no_reads"))[table.computed].all()):
        return "its encoder does not read the residual stream: tokens cannot be scored against it"
    found = resolve(name)
    if found.kind == "number" and not table.thresholds.used:
        return f"{name} is judged against the noise, which is not computed yet"
    return f"no feature has a finite value of {name}"
