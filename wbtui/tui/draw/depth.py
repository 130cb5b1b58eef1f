"""The Depth page as drawn: one small curve a measure, with an interval a layer; a map of layers × heads. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wbtui.features.depth import DepthProfile, VariationTest
from wbtui.features.depth_profiles import Curve, Depth
from wbtui.tui.draw.line import Line, cut, rule, spread, wrap

GUTTER = 7
PANEL = 58
"""Least width of a panel where several stand beside each other."""
SHORTEST = 9
"""Least height of a panel: title, five rows, layers, values, a blank."""
CELL = 7
LABEL = 6
SHARES = ((0.10, "█"), (0.05, "▓"), (0.02, "▒"))
"""Least share of features beyond noise for a glyph of the map; noise itself is 1 %."""


def columns_of(width: int) -> int:
    """Panels beside each other."""
    return max(1, min(3, width // PANEL))


def panels_shown(width: int, height: int) -> tuple[int, int]:
    """(panels beside each other, rows of them) that fit."""
    return columns_of(width), max(1, height // SHORTEST)


def panels_lines(curves: Sequence[Curve], pick: int, width: int, height: int) -> list[Line]:
    """Every curve that fits, the picked one among them."""
    across, down = panels_shown(width, height)
    rows = -(-len(curves) // across)
    down = min(down, rows)
    top = max(0, min(pick // across - down // 2, rows - down))
    each, tall = (width - 3 * (across - 1)) // across, height // down
    out: list[Line] = []
    for row in range(top, top + down):
        here = list(curves[row * across : (row + 1) * across])
        drawn = [panel_lines(c, each, tall, picked=row * across + i == pick) for i, c in enumerate(here)]
        for y in range(tall):
            line: Line = []
            for at, lines in enumerate(drawn):
                line += [*([(" │ ", "rule")] if at else []), *cut(lines[y] if y < len(lines) else [], each)]
            out.append(line)
    return out


def panel_lines(curve: Curve, width: int, height: int, *, picked: bool = False) -> list[Line]:
    """One curve: title with what can be said of its shape, points with intervals, noise, layers, values."""
    title = ("▸ " if picked else "") + curve.name.upper()
    profile = curve.profile
    out = [rule(width, title, title_role="strong")]
    if profile is None:
        word = "refused: " if curve.refused else "– "
        return [*out, *wrap((word + curve.why).split(), width, "warn" if curve.refused else "dim")][:height]
    room = max(3, height - 4)
    return [*out, *plot_lines(profile, curve.unit, width, room), *_contrast(profile, curve.unit, width)][:height]


def _places(profile: DepthProfile, width: int) -> list[int]:
    """The column of each layer: by its depth in the model, or one after the other where there is no room for that."""
    room = width - GUTTER
    points = profile.points
    if profile.n_layers <= room:
        return [GUTTER + int((p.layer + 0.5) * room / profile.n_layers) for p in points]
    return [GUTTER + int((i + 0.5) * room / len(points)) for i in range(len(points))]


def plot_lines(profile: DepthProfile, unit: str, width: int, height: int) -> list[Line]:
    """``●`` the value, ``│`` its 95 % interval, ``·`` the noise; then layers and values."""
    places = _places(profile, width)
    tops = [v for p in profile.points for v in (p.value, p.high, p.null) if math.isfinite(v)]
    full = max(tops, default=1.0) or 1.0
    cells = [[" "] * width for _ in range(height)]

    def row_of(value: float) -> int:
        return height - 1 - min(height - 1, max(0, int(value / full * height)))

    for x, point in zip(places, profile.points, strict=True):
        if not 0 <= x < width:
            continue
        if math.isfinite(point.null):
            cells[row_of(point.null)][x] = "·"
        if math.isfinite(point.low) and math.isfinite(point.high):
            for y in range(row_of(point.high), row_of(point.low) + 1):
                cells[y][x] = "│"
        cells[row_of(point.value)][x] = "●"
    out: list[Line] = []
    for y, row in enumerate(cells):
        label = value_text(full, unit) if y == 0 else "0" if y == height - 1 else ""
        text = "".join(row[GUTTER:])
        out.append([(label.rjust(GUTTER - 2) + (" ┤" if label else "  "), "dim"), *_inked(text)])
    layers = [" "] * width
    values = [" "] * width
    free = [0, 0]
    for x, point in zip(places, profile.points, strict=True):
        for at, (line, text) in enumerate(
            ((layers, f"L{point.layer:g}"), (values, value_text(point.value, unit).removesuffix(" %")))
        ):
            start = max(free[at], x - len(text) // 2)
            if start <= x and start + len(text) <= width:
                line[start : start + len(text)] = text
                free[at] = start + len(text) + 1
    unit_word = "%" if unit == "share" else ""
    out.append([("".join(layers), "dim")])
    out.append([(unit_word.rjust(GUTTER - 2) + "".join(values)[GUTTER - 2 :], "text")])
    return out


def _inked(text: str) -> Line:
    out: Line = []
    for char in text:
        role = {"●": "strong", "│": "reads", "·": "noise"}.get(char, "text")
        if out and out[-1][1] == role:
            out[-1] = (out[-1][0] + char, role)
        else:
            out.append((char, role))
    return out


def _contrast(profile: DepthProfile, unit: str, width: int) -> list[Line]:
    """What can be said of the shape, then the contrast that it rests on."""
    found, verdict = profile.shape.contrast, profile.shape.verdict
    claimed: Line = [(verdict, "strong" if profile.shape.quadratic is not None else "dim")]
    if found is None:
        return [cut([*claimed, (" · a third of the model has no SAE", "dim")], width)]
    value, low, high = (value_text(v, unit, signed=True) for v in (found.value, found.low, found.high))
    interval = f"({low.removesuffix(' %')} … {high.removesuffix(' %')})"
    tries = [f" · outer thirds − middle {value} {interval}", f" · outer − middle {value} {interval}",
             f" · outer−middle {value} {interval}", f" · outer−middle {value}", ""]  # fmt: skip
    curvature = profile.shape.quadratic
    if curvature is not None:
        tries.insert(0, f"{tries[0]} · curvature {value_text(curvature.c, unit, signed=True)}")
    text = next(t for t in tries if len(verdict) + len(t) <= width or not t)
    return [cut([*claimed, (text, "dim")], width)]


def value_text(value: float, unit: str, signed: bool = False) -> str:
    """A share in per cent, another number in three digits."""
    if not math.isfinite(value):
        return "–"
    plus = "+" if signed and value > 0 else ""
    if unit == "share":
        size = abs(value) * 100
        return f"{plus}{value * 100:.{1 if size < 9.95 else 0}f} %"
    return f"{plus}{value:.3g}"


def variation_line(found: VariationTest | None, statistic: str, width: int) -> Line:
    """``layer means over depth (rms): CV as query .21, as key .34 · difference …``."""
    if found is None:
        return cut([(" variation over depth: heads of at least two layers are needed", "dim")], width)
    head = f" CV over depth of the layer means of {statistic}: as key {found.first:.3f}, as query {found.second:.3f}"
    tail = (
        f" · key − query {found.difference:+.3f}, sides exchanged {found.null_low:+.3f} … {found.null_high:+.3f}, "
        f"p {found.p:.2g} (least possible {found.smallest_p:.2g})"
    )
    return cut([(head, "text"), (tail if len(head) + len(tail) <= width else f" · p {found.p:.2g}", "dim")], width)


# The map ----------------------------------------------------------------------------------------------------------


def map_lines(depth: Depth, side: str, pick: int, width: int, height: int) -> list[Line]:
    """Layers × heads: share of features beyond the noise's 99 % in each head; 1 % of noise is."""
    found = depth.head_shares(side)
    title = f"FEATURES BEYOND 99 % OF NOISE IN EACH HEAD, AS {side.upper()}, BY {depth.statistic}"
    out = [rule(width, title, "% of features; noise 1")]
    if not found:
        return [*out, [("– no layer’s heads are computed: h on the main page computes them, C here", "dim")]]
    heads = max(len(shares) for _, _, shares in found)
    per = max(1, min(heads, (width - LABEL) // CELL))
    names = "".join(f"H{h}".rjust(CELL - 1) + " " for h in range(per)) if per >= heads else ""
    out.append([(" " * LABEL + names, "dim")])
    starts = [(layer, first, shares) for layer, _, shares in found for first in range(0, len(shares), per)]
    at = next((i for i, (layer, _, _) in enumerate(starts) if layer == found[min(pick, len(found) - 1)][0]), 0)
    room = max(1, height - len(out) - 1)
    top = max(0, min(at - room // 2, len(starts) - room))
    picked = found[min(pick, len(found) - 1)][0]
    for layer, first, shares in starts[top : top + room]:
        label = (f"▸L{layer}" if layer == picked else f" L{layer}") if first == 0 else f"  {first}"
        line: Line = [(label.ljust(LABEL), "strong" if layer == picked else "text")]
        for share in shares[first : first + per].tolist():
            line.append((f" {glyph_of(share)}{_percent(share)} ", "text" if share > SHARES[-1][0] else "dim"))
        out.append(line)
    out.append(spread([(" ░ below 2 %  ▒ 2–5  ▓ 5–10  █ above 10", "dim")], _summary(found), width))
    return out


def _summary(found: Sequence[tuple[int, str, np.ndarray]]) -> Line:
    layer, head, best = max(
        ((layer, int(np.nanargmax(s)), float(np.nanmax(s))) for layer, _, s in found if np.isfinite(s).any()),
        key=lambda item: item[2], default=(0, 0, math.nan),
    )  # fmt: skip
    return [(f"most: L{layer}.H{head} {best * 100:.1f} % " if math.isfinite(best) else "", "dim")]


def glyph_of(share: float) -> str:
    """A cell's glyph."""
    if not math.isfinite(share):
        return "–"
    return next((glyph for least, glyph in SHARES if share > least), "░")


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "   –"
    return f"{share * 100:4.1f}" if share < 0.9995 else " 100"
