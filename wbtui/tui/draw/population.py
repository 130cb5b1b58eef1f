"""Where a feature stands among all: its metric's histogram by group, the noise under it, a mark where it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from wbtui.tui.bins import Bins, make_bins
from wbtui.tui.crowd import noise_of
from wbtui.tui.draw.bars import spark
from wbtui.tui.draw.line import Line, cut, rule
from wbtui.tui.facts import semantic_mask

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

GRID = 16_384
"""Values that a population keeps: a million of each metric would be the app's largest possession."""
GROUPS = (("semantic", "writes"), ("other", "text"), ("noise", "dim"))


@dataclass(frozen=True)
class Population:
    """One metric's distribution over features and noise, ready to draw: made once a table's version, in a thread."""

    name: str
    bins: Bins
    """The page's bins; a drawing joins neighbours to fit its width."""
    shares: dict[str, np.ndarray]
    """Group -> share per bin."""
    counts: dict[str, int]
    medians: dict[str, float]
    values: np.ndarray
    """Finite values of all features, rising; of many, ``GRID`` at even ranks."""

    def above(self, value: float) -> float:
        """Share of all features that ``value`` stands above; of many, to a hundredth of a per cent."""
        return float(np.searchsorted(self.values, value, side="left")) / max(1, len(self.values))


def place_text(share: float) -> str:
    """A share as a place: ``above 98.7 %`` without the word, in few cells."""
    percent = share * 100
    return f"{percent:.1f} %" if percent > 99 or 0 < percent < 1 else f"{percent:.0f} %"


def make_population(table: FeatureTable, name: str) -> Population | None:
    """Gather a metric's population; None with fewer than two finite values."""
    column = np.asarray(table.column(name))
    values = column if column.dtype == np.float32 else column.astype(np.float64)
    known = np.isfinite(values) & np.asarray(table.computed)
    if np.count_nonzero(known) < 2:
        return None
    chosen = semantic_mask(table) & known
    noise = [kind_values for _, kind_values in noise_of(table, name)]
    ordered = np.array(values) if known.all() else values[known]
    ordered.sort()
    semantic = values[chosen]
    semantic.sort()
    pooled = np.sort(np.concatenate(noise)) if noise else np.zeros(0)
    bins = make_bins([ordered, *noise], single=column.dtype == np.float32)
    everything, first = bins.counts(ordered), bins.counts(semantic)
    found = {
        "semantic": (len(semantic), first, _middle(semantic)),
        # what is left of a million rows is not sorted again: only its counts and its median are asked for
        "other": (len(ordered) - len(semantic), everything - first, middle_of_rest(ordered, semantic)),
        "noise": (len(pooled), bins.counts(pooled), _middle(pooled)),
    }
    even = np.linspace(0, len(ordered) - 1, min(GRID, len(ordered))).round().astype(np.int64)
    return Population(
        name,
        bins,
        {group: counts / max(1, n) for group, (n, counts, _) in found.items()},
        {group: n for group, (n, _, _) in found.items()},
        {group: middle for group, (_, _, middle) in found.items()},
        ordered[even].astype(np.float64),
    )


def _middle(ordered: np.ndarray) -> float:
    """The median of ascending values; NaN of none."""
    n = len(ordered)
    return (float(ordered[(n - 1) // 2]) + float(ordered[n // 2])) / 2 if n else math.nan


def middle_of_rest(ordered: np.ndarray, part: np.ndarray) -> float:
    """The median of ascending values without those of a part of them, ascending too; NaN where nothing is left."""
    n = len(ordered) - len(part)

    def nth(k: int) -> float:
        """The k-th of the rest, from 0: the first value up to which there are more than k of them."""
        low, high = k, k + len(part)  # as many of the part stand before it at most
        while low < high:
            at = (low + high) // 2
            if np.searchsorted(ordered, ordered[at], "right") - np.searchsorted(part, ordered[at], "right") > k:
                high = at
            else:
                low = at + 1
        return float(ordered[low])

    return (nth((n - 1) // 2) + nth(n // 2)) / 2 if n else math.nan


def joined(bins: int, room: int) -> int:
    """How many neighbouring bins share a cell where there is room for so many cells."""
    return max(1, math.ceil(bins / max(1, room)))


def merged(shares: np.ndarray, room: int) -> np.ndarray:
    """Shares over at most ``room`` cells, as many bins in each (the last may hold fewer)."""
    return np.add.reduceat(shares, np.arange(0, len(shares), joined(len(shares), room)))


def place(population: Population, value: float, room: int) -> int:
    """The cell (of at most ``room``) that holds a value; the outermost ones hold what lies beyond."""
    return population.bins.where(value) // joined(population.bins.n, room)


def population_block(population: Population | None, name: str, value: float, width: int) -> list[Line]:
    """Three sparklines on one axis, a mark, and how many features the row stands above.

    The bins are those of the page (``F``). Each group is scaled to its own largest bin: shapes are compared, sizes are
    given in numbers.
    """
    right = "F for the page" if width >= 52 else "F"
    head = rule(width, f"POPULATION  {name}", right)
    if population is None:
        return [head, [("…", "dim")]]
    room = max(10, min(60, width - 10 - 26))
    drawn = len(merged(population.shares["other"], room))
    out = [head]
    for group, role in GROUPS:
        count, median = population.counts[group], population.medians[group]
        text = spark(merged(population.shares[group], room)) if count else " " * drawn
        shown = f"{median:.1f}" if math.isfinite(median) else "–"
        out.append(
            cut(
                [
                    (f"{group:<9} ", "dim"),
                    (text.ljust(room), role),
                    (f"  n {count:<7}", "dim"),
                    ("median ", "dim"),
                    (shown, "text"),
                ],
                width,
            )
        )
    if math.isfinite(value):
        at = 10 + place(population, value, room)
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
    room = 24
    share = sum(population.shares[g] * population.counts[g] for g in ("semantic", "other"))
    text = spark(merged(np.asarray(share), room)).ljust(room)
    at = place(population, value, room)
    note = f"  this {value:.1f}, above {population.above(value) * 100:.1f} %"
    more = f" · semantic median {population.medians['semantic']:.1f}"
    if math.isfinite(population.medians["semantic"]) and 8 + room + cell_len(note + more) <= width:
        note += more
    return cut(
        [("z_max   ", "head"), (text[:at], "dim"), ("▲", "strong"), (text[at + 1 :], "dim"), (note, "text")], width
    )
