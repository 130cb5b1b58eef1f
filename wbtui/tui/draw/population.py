"""Where a feature stands among all: its metric's histogram by group, the noise under it, a mark where it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from wbtui.tui.draw.bars import histogram, spark
from wbtui.tui.draw.line import Line, cut, rule
from wbtui.tui.facts import null_values, semantic_mask

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

GROUPS = (("semantic", "writes"), ("other", "text"), ("noise", "dim"))
BINS = 120
"""Bins that are kept; a drawing merges them to its width."""


@dataclass(frozen=True)
class Population:
    """One metric's distribution over features and noise, ready to draw: made once a table's version, in a thread."""

    name: str
    edges: np.ndarray
    shares: dict[str, np.ndarray]
    """Group -> share per bin."""
    counts: dict[str, int]
    medians: dict[str, float]
    values: np.ndarray
    """Finite values of all features, rising."""

    def above(self, value: float) -> float:
        """Share of all features that ``value`` stands above."""
        return float(np.searchsorted(self.values, value, side="left")) / max(1, len(self.values))


def make_population(table: FeatureTable, name: str) -> Population | None:
    """Gather a metric's population; None with fewer than two finite values."""
    values = np.asarray(table.column(name), dtype=np.float64)
    known = np.isfinite(values) & np.asarray(table.computed)
    if np.count_nonzero(known) < 2:
        return None
    semantic = semantic_mask(table) & known
    noise = null_values(table, name)
    groups = {"semantic": values[semantic], "other": values[known & ~semantic], "noise": noise[np.isfinite(noise)]}
    ordered = np.sort(values[known])
    everything = [ordered, groups["noise"]] if len(groups["noise"]) else [ordered]
    low = min(float(np.quantile(v, 0.001)) for v in everything)
    high = max(float(np.quantile(v, 0.999)) for v in everything)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    return Population(
        name,
        edges,
        {group: histogram(v, edges) for group, v in groups.items()},
        {group: len(v) for group, v in groups.items()},
        {group: float(np.median(v)) if len(v) else math.nan for group, v in groups.items()},
        ordered,
    )


def merged(shares: np.ndarray, bins: int) -> np.ndarray:
    """Shares over ``bins`` equal bins, the kept ones summed."""
    place = np.arange(len(shares)) * bins // len(shares)
    return np.bincount(place, weights=shares, minlength=bins)


def place(population: Population, value: float, bins: int) -> int:
    """The bin (of ``bins``) that holds a value; the outermost ones hold what lies beyond."""
    low, high = population.edges[0], population.edges[-1]
    return int(min(max((value - low) / (high - low) * bins, 0), bins - 1))


def population_block(population: Population | None, name: str, value: float, width: int) -> list[Line]:
    """Three sparklines on one axis, a mark, and how many features the row stands above.

    Each group is scaled to its own largest bin: shapes are compared, sizes are given in numbers.
    """
    head = rule(width, "POPULATION", name)
    if population is None:
        return [head, [("…", "dim")]]
    bins = max(10, min(60, width - 10 - 26))
    out = [head]
    for group, role in GROUPS:
        count, median = population.counts[group], population.medians[group]
        text = spark(merged(population.shares[group], bins)) if count else " " * bins
        shown = f"{median:.1f}" if math.isfinite(median) else "–"
        out.append(
            cut(
                [
                    (f"{group:<9} ", "dim"),
                    (text, role),
                    (f"  n {count:<7}", "dim"),
                    ("median ", "dim"),
                    (shown, "text"),
                ],
                width,
            )
        )
    if math.isfinite(value):
        at = 10 + place(population, value, bins)
        text = f"this {value:.1f}, above {population.above(value) * 100:.1f} % of all"
        if at + 2 + cell_len(text) <= width:
            line: Line = [(" " * at, "text"), ("▲", "strong"), (" " + text, "text")]
        else:
            line = [((text + " ").rjust(at), "text"), ("▲", "strong")]
        out.append(cut(line, width))
    return out


def population_line(population: Population | None, value: float, width: int) -> Line:
    """All features in one sparkline with this one's place in it, for the narrow card."""
    if population is None or not math.isfinite(value):
        return [("z_max   ", "head"), ("…" if population is None else "–", "dim")]
    bins = 24
    share = sum(population.shares[g] * population.counts[g] for g in ("semantic", "other"))
    text = spark(merged(np.asarray(share), bins))
    at = place(population, value, bins)
    note = f"  this {value:.1f}, above {population.above(value) * 100:.1f} %"
    more = f" · semantic median {population.medians['semantic']:.1f}"
    if math.isfinite(population.medians["semantic"]) and 8 + bins + cell_len(note + more) <= width:
        note += more
    return cut(
        [("z_max   ", "head"), (text[:at], "dim"), ("▲", "strong"), (text[at + 1 :], "dim"), (note, "text")], width
    )
