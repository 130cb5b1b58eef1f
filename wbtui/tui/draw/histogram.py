"""A population as cells: groups told apart by solid, shade and line, the threshold through them, the feature's mark.

One column or more a bin. Two groups stand on one base, the lower in front; noise is an outline over both. More groups
(classes) stand in bands of their own, each scaled to its own peak: shapes are compared, sizes are given in numbers.
"""

from __future__ import annotations

import math

import numpy as np
from rich.cells import cell_len

from wbtui.tui.bins import Bins
from wbtui.tui.crowd import NOISE, Crowd, Standing
from wbtui.tui.draw.line import Line, cut

GUTTER = 6
"""Cells of the scale at the left, its line included."""
SOLID, SHADE, LINE, BAND = "█", "▒", "─", "▪"
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ROUND_TOPS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


def swatch(crowd: Crowd, group: str) -> tuple[str, str]:
    """(glyph, role) that stand for a group."""
    if group == NOISE:
        return (LINE, "text") if overlaid(crowd) else (BAND, "dim")
    if not overlaid(crowd):
        return BAND, "writes"
    return (SOLID, "writes") if group == crowd.groups[0] else (SHADE, "head")


def overlaid(crowd: Crowd) -> bool:
    """Whether groups share one base; else each has a band."""
    return len(crowd.groups) <= 2


class Grid:
    """How bins lie on columns: ``per`` bins a column group of ``wide`` cells."""

    def __init__(self, bins: Bins, width: int) -> None:
        self.bins = bins
        self.per = max(1, math.ceil(bins.n / max(1, width)))
        self.shown = math.ceil(bins.n / self.per)
        self.wide = max(1, min(12, width // self.shown))
        self.width = self.shown * self.wide

    def merged(self, counts: np.ndarray) -> np.ndarray:
        """Sums over the bins of each column group."""
        return np.add.reduceat(counts, np.arange(0, len(counts), self.per)) if len(counts) else counts

    def last(self, values: np.ndarray) -> np.ndarray:
        """Each column group's last bin."""
        return values[np.minimum(np.arange(1, self.shown + 1) * self.per, len(values)) - 1]

    def group_of(self, value: float) -> int:
        """Column group that holds a value."""
        return self.bins.where(value) // self.per

    def span(self, value: float) -> tuple[int, int]:
        """Bins (first, one past the last) under a value's columns."""
        first = self.group_of(value) * self.per
        return first, min(first + self.per, self.bins.n)

    def column(self, value: float) -> int:
        """Cell of a value on the axis: outermost ones hold what lies beyond."""
        i = self.bins.where(value)
        low, high, at = float(self.bins.edges[i]), float(self.bins.edges[i + 1]), value
        if self.bins.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-300))
        inside = min(max((at - low) / (high - low), 0.0), 1.0 - 1e-9)
        return min(int((i + inside) / self.per * self.wide), self.width - 1)


def plot(
    crowd: Crowd, line: Standing, mark: tuple[str, float], width: int, height: int, *, cumulative: bool = False
) -> list[Line]:
    """The drawing, exactly ``height`` lines of ``width`` cells.

    Args:
        line: where the threshold stands.
        mark: a feature's name and its value, NaN where it has none.
        width, height: cells; heights below 6 and widths below 20 draw nothing useful but do not fail.
    """
    grid = Grid(crowd.bins, max(1, width - GUTTER))
    rows = max(1, height - 4)
    rows -= rows % 2 if rows > 5 else 0  # so that half the scale is a row
    cells = [[(" ", "text")] * grid.width for _ in range(rows)]
    at = grid.column(line.value) if math.isfinite(line.value) else -1
    if grid.wide > 1 and at >= 0 and line.moved:
        at = grid.group_of(line.value) * grid.wide
    if overlaid(crowd):
        gutter = _overlay(crowd, grid, cells, cumulative)
    else:
        gutter = _bands(crowd, grid, cells, cumulative)
    for row in cells:
        if at >= 0:
            row[at] = ("┆", "cut") if row[at] == (SOLID, "writes") or row[at][1] == "cut" else ("┆", "strong")
    what = "share at or below" if cumulative else "share per bin, each group on its own scale"
    if overlaid(crowd):
        what = "share of group at or below" if cumulative else "share of group per bin"
    out = [_caption(what, crowd, line, at, width)]
    for y in range(rows - 1, -1, -1):
        out.append(cut([*gutter[y], *_spans(cells[y])], width))
    out += [*_axis(grid, at, width), _mark(crowd, grid, mark, width)]
    return [*out, *([cut([], width)] * (height - len(out)))][:height]


def _spans(cells: list[tuple[str, str]]) -> Line:
    """Cells as a line, neighbours of one role together."""
    out: Line = []
    for glyph, role in cells:
        if out and out[-1][1] == role:
            out[-1] = (out[-1][0] + glyph, role)
        else:
            out.append((glyph, role))
    return out


def _caption(what: str, crowd: Crowd, line: Standing, at: int, width: int) -> Line:
    """What the height means, and the line's value where it stands."""
    value = number(crowd.bins, line.value)
    label = f"┆ {value}"
    start = GUTTER + at
    if at < 0:
        return cut([(what, "dim")], width)
    if start + cell_len(label) > width:
        label, start = f"{value} ┆", GUTTER + at - cell_len(value) - 1
    if cell_len(what) + 2 > start:
        what = "" if start < 14 else "share"
    return cut([(what.ljust(start), "dim"), (label, "strong")], width)


def _overlay(crowd: Crowd, grid: Grid, cells: list[list[tuple[str, str]]], cumulative: bool) -> list[Line]:
    """Solid and shade from one base, the lower in front, noise as an outline. The scale is returned, base first."""
    rows = len(cells)
    shares = {g: grid.last(crowd.cumulative(g)) if cumulative else grid.merged(crowd.share(g)) for g in crowd.drawn}
    peak = max((float(s.max()) for s in shares.values() if len(s)), default=0.0)
    top = 1.0 if cumulative else _round_top(peak)
    first = shares[crowd.groups[0]] / top * rows
    second = shares[crowd.groups[1]] / top * rows if len(crowd.groups) > 1 else np.zeros(grid.shown)
    if cumulative:
        if NOISE in shares:  # curves end in the same place: the more telling ones lie above
            _outline(cells, grid, shares[NOISE] * rows)
        _curve(cells, grid, second, shade=True)
        _curve(cells, grid, first, shade=False)
    else:
        _columns(cells, grid, first, second)
        if NOISE in shares:
            _outline(cells, grid, shares[NOISE] / top * rows)
    gutter: list[Line] = [[("     │", "rule")] for _ in range(rows)]
    for y, share in ((rows - 1, top), (rows // 2 - 1, top / 2)):
        if y == rows - 1 or (rows > 3 and rows % 2 == 0):
            gutter[y] = [(_scale(share).rjust(5), "dim"), ("┤", "rule")]
    return gutter


def _round_top(peak: float) -> float:
    if not peak > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(peak))
    return float(next(r * power for r in _ROUND_TOPS if r * power >= peak * (1 - 1e-12)))


def _scale(share: float) -> str:
    x = share * 100
    return f"{x:.2g} %" if x < 10 else f"{x:.0f} %"


def _columns(cells: list[list[tuple[str, str]]], grid: Grid, first: np.ndarray, second: np.ndarray) -> None:
    """Two groups' columns, heights in cells; whatever is above zero shows.

    Solid stands in front; where shade ends lower, its top runs through the solid column.
    """
    rows = len(cells)
    for i in range(grid.shown):
        solid = min(max(round(float(first[i]) * 8), 1) if first[i] > 0 else 0, rows * 8)
        shade = min(float(second[i]), float(rows))
        top = math.ceil(shade - 0.5) - 1
        for y in range(rows):
            own, other = min(max(solid - 8 * y, 0), 8), min(max(shade - y, 0.0), 1.0)
            if own == 8 and y == top:
                cell = (SHADE, "cut")
            elif own:
                cell = (_EIGHTHS[own], "writes")
            elif other > 0:
                cell = (SHADE if other >= 0.5 else "░", "head")
            else:
                continue
            for x in range(i * grid.wide, (i + 1) * grid.wide):
                cells[y][x] = cell


def _curve(cells: list[list[tuple[str, str]]], grid: Grid, heights: np.ndarray, *, shade: bool) -> None:
    """A rising curve in half cells (solid) or cells (shade)."""
    rows = len(cells)
    if not heights.any():
        return
    before = 0
    for i in range(grid.shown):
        here = min(max(round(float(heights[i]) * 2 - 0.5), 0), rows * 2 - 1)
        for x in range(i * grid.wide, (i + 1) * grid.wide):
            low = before if x == i * grid.wide else here
            for y in range(low // 2, here // 2 + 1):
                if shade:
                    cells[y][x] = (SHADE, "head")
                    continue
                lower, upper = low <= 2 * y <= here, low <= 2 * y + 1 <= here
                cells[y][x] = (SOLID if lower and upper else "▄" if lower else "▀", "writes")
        before = here


def _outline(cells: list[list[tuple[str, str]]], grid: Grid, heights: np.ndarray) -> None:
    """Noise as a stepped line over what is there; on solid it is cut out of it."""
    rows = len(cells)

    def put(x: int, y: int, glyph: str) -> None:
        if 0 <= y < rows and x < grid.width:
            cells[y][x] = (glyph, "cut" if cells[y][x][0] == SOLID or cells[y][x][1] == "cut" else "text")

    before = -1
    for i in range(grid.shown + 1):
        x = i * grid.wide
        here = min(int(heights[i]), rows - 1) if i < grid.shown and heights[i] > 0 else -1
        low, high = min(before, here), max(before, here)
        if low != high and x < grid.width:
            for y in range(max(low + 1, 0), high):
                put(x, y, "│")
            put(x, high, "╭" if here > before else "╮")
            put(x, low, "╯" if here > before else "╰")
        elif here >= 0:
            put(x, here, LINE)
        for more in range(1, grid.wide):
            put(x + more, here, LINE)
        before = here


def _bands(crowd: Crowd, grid: Grid, cells: list[list[tuple[str, str]]], cumulative: bool) -> list[Line]:
    """One band a group, first group on top, each scaled to its own peak."""
    rows, groups = len(cells), crowd.drawn
    each = max(1, rows // len(groups))
    gutter: list[Line] = [[("     │", "rule")] for _ in range(rows)]
    for at, group in enumerate(groups):
        base = rows - (at + 1) * each
        if base < 0:
            break
        share = grid.last(crowd.cumulative(group)) if cumulative else grid.merged(crowd.share(group))
        top = 1.0 if cumulative else float(share.max()) if len(share) else 0.0
        role = "dim" if group == NOISE else "writes"
        room = each * 8 - (1 if each > 1 else 0)  # a gap to the band above
        for i in range(grid.shown):
            level = max(1, round(float(share[i]) / top * room)) if top > 0 and share[i] > 0 else 0
            for y in range(each):
                eighths = min(max(level - 8 * y, 0), 8)
                if eighths:
                    for x in range(i * grid.wide, (i + 1) * grid.wide):
                        cells[base + y][x] = (_EIGHTHS[eighths], role)
        gutter[base] = [(f"{group:>5}"[:5], "text"), ("┤", "rule")]
    return gutter


def _axis(grid: Grid, at: int, width: int) -> list[Line]:
    """The base with its ticks, and their numbers."""
    base, labels = ["─"] * grid.width, [" "] * max(0, width - GUTTER + 5)
    end = -1
    for x, text in _ticks(grid):
        start = x - cell_len(text) // 2 + 5
        if start <= end or start + cell_len(text) > len(labels):
            continue
        base[x] = "┬"
        labels[start : start + cell_len(text)] = list(text)
        end = start + cell_len(text)
    if 0 <= at < grid.width:
        base[at] = "┷" if base[at] == "─" else "┿"
    return [
        cut([("     └", "rule"), ("".join(base), "rule")], width),
        cut([(" ", "text"), ("".join(labels), "dim")], width),
    ]


def _ticks(grid: Grid) -> list[tuple[int, str]]:
    """(cell, text) of round values, as many as have room."""
    bins = grid.bins
    if bins.whole:
        texts = [_trimmed(bins.centre(i)) for i in range(bins.n)]
        step = bins.edges[1] - bins.edges[0]
        room = (max(map(len, texts)) + 2) * grid.per / grid.wide
        every = next((k for k in (1, 2, 5, 10, 20) if k >= room), 60)
        first = round((bins.edges[0] + bins.edges[1]) / 2 / step)
        middle = grid.wide // 2 if grid.per == 1 else 0
        return [(i // grid.per * grid.wide + middle, texts[i]) for i in range(bins.n) if (first + i) % every == 0]
    if bins.log:
        return [(grid.column(v), text) for v, text in _log_ticks(bins)]
    step = bins.edges[1] - bins.edges[0]
    room = (max(len(t) for t in bins.texts) + 3) * grid.per / grid.wide
    every = next((k for k in (1, 2, 4, 5, 10, 20, 50) if k >= room), 60)
    first = round(bins.edges[0] / step)
    return [(i // grid.per * grid.wide, _trimmed(bins.text(i))) for i in range(bins.n) if (first + i) % every == 0]


def _log_ticks(bins: Bins) -> list[tuple[float, str]]:
    low, high = bins.edges[0], bins.edges[-1]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(found) >= 4:
            return [(v, f"{v:g}") for v in found]
    every = max(1, bins.n // 6)
    return [(float(bins.edges[i]), bins.text(i)) for i in range(0, bins.n, every)]


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _mark(crowd: Crowd, grid: Grid, mark: tuple[str, float], width: int) -> Line:
    """Where the feature stands, in a place and in words."""
    name, value = mark
    if not math.isfinite(value):
        return cut([(f"      {name} has no value here", "dim")], width)
    if crowd.bins.log and value <= 0:
        return cut([(f"      {name} is at {number(crowd.bins, value)}: no place on this axis", "dim")], width)
    at = GUTTER + grid.column(value)
    words = f"{name} {number(crowd.bins, value)}, above {percent(crowd.percentile(value), 1)} of all"
    if at + 2 + cell_len(words) <= width:
        return cut([(" " * at, "text"), ("▲", "strong"), (f" {words}", "text")], width)
    return cut([((words + " ").rjust(at), "text"), ("▲", "strong")], width)


def number(bins: Bins, value: float) -> str:
    """A value to a digit more than the edges have; an edge as it is."""
    if not math.isfinite(value):
        return "–"
    if bins.whole:
        near = bins.where(value)
        middle = bins.centre(near)
        if abs(float(middle) - value) < 1e-4 * (bins.edges[1] - bins.edges[0]):
            return middle
    at = int(np.searchsorted(bins.edges, value))
    if at < len(bins.edges) and bins.edges[at] == value:
        return bins.text(at)
    if bins.log:
        return f"{value:#.3g}".rstrip(".")
    decimals = len(bins.texts[0].partition(".")[2]) + (0 if bins.whole else 1)
    text = f"{value:.{decimals}f}"
    return text if len(text) <= 7 else f"{value:.4g}"


def percent(share: float, decimals: int = 0) -> str:
    """``88 %``, ``1.0 %``; never 0 % for some or 100 % for not all."""
    if not math.isfinite(share):
        return "–"
    x = share * 100
    if 0 < x < 0.05:
        return "<0.1 %"
    if 99.95 <= x < 100:
        return ">99.9 %"
    if 0 < x < 9.95 or 99.5 <= x < 100 or (decimals and 0 < x < 100):
        return f"{x:.1f} %"
    return f"{x:.0f} %"
