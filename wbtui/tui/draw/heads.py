"""Heads as drawn: mirrored bars on the card, grids of ratios. Pure functions of table, row, width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from wbtui.display import fit
from wbtui.features.heads import STATISTIC_WORDS, HeadTable, Part, Row, largest
from wbtui.tui.draw.bars import bar
from wbtui.tui.draw.line import Line, cut, rule, width_of, wrap
from wbtui.tui.facts import listed, state_of

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

ROLES = {"query": "reads", "key": "writes"}
ARROWS = {"query": "→", "key": "←"}
"""A query looks for its partner; a key is looked for by it."""
SHADES = ((2.0, "█"), (1.5, "▓"), (1.0, "▒"))
SHOWN = 8
"""Heads on a card at most."""
CELL = 7
LABEL = 6
INSIDE = "(inside noise)"
WHAT = "which heads read this feature, as query and as key, for which partner, against noise in the same head"


@dataclass(frozen=True)
class HeadsLook:
    """What the card knows of the reader layer's heads: a table, or a note in its place."""

    heads: HeadTable | None = None
    note: str = ""
    role: str = "dim"
    layer: int | None = None


# Words ------------------------------------------------------------------------------------------------------------


def feature_words(table: FeatureTable, feature: int, width: int) -> str:
    """A feature's best words beyond noise, as many whole ones as fit; of what it reads where it writes none; safe."""
    if not 0 <= feature < table.n or width <= 0:
        return ""
    if state_of(table, feature) == "absent":
        return "…"
    before = ""
    for side in ("writes", "reads"):
        words = listed(table, feature, side, min(6, width // 3 + 1))
        beyond = [w.text for w in words if not w.inside_null]
        if beyond:
            break
        before = "reads "
    else:
        return fit(INSIDE, width).rstrip()
    text = before + beyond[0]
    for word in beyond[1:]:
        if cell_len(text) + 1 + cell_len(word) > width:
            break
        text += " " + word
    return fit(text, width).rstrip() if cell_len(text) > width else text


def partner_line(table: FeatureTable, row: int, part: Part, width: int) -> Line:
    """``← #88 who which``; ``itself`` where a feature pairs with itself."""
    if part.partner < 0 or width < 6:
        return []
    head = f"{ARROWS[part.side]} #{part.partner} "
    words = "itself" if part.partner == row else feature_words(table, part.partner, width - cell_len(head))
    return cut([(head, "text" if part.beyond else "dim"), (words, words_role(words, part.beyond))], width)


def words_role(words: str, beyond: bool) -> str:
    """How a feature's words are inked beside a number that is beyond noise or not."""
    return "text" if beyond and not words.startswith(INSIDE[:4]) else "dim"


def shade(ratio: float) -> str:
    """A cell's glyph by how far beyond noise."""
    if not math.isfinite(ratio):
        return "–"
    return next((glyph for least, glyph in SHADES if ratio > least), "░")


def ratio_text(ratio: float) -> str:
    """A ratio in four cells."""
    if not math.isfinite(ratio):
        return "   –"
    return f"{ratio:4.1f}" if ratio < 99.95 else f"{min(ratio, 9999):4.0f}"


# The card ---------------------------------------------------------------------------------------------------------


def heads_block(table: FeatureTable, row: int, width: int, look: HeadsLook, count: int = SHOWN) -> list[Line]:
    """HEADS: a line a head, query to the left, key to the right, the line of the noise at 1.

    With more heads than ``count`` only the strongest of either side. As high for every feature, so that nothing jumps.
    """
    if look.heads is None:
        if not look.note:
            return []
        title = "HEADS" if look.layer is None else f"HEADS of L{look.layer}"
        return [rule(width, title), *wrap(look.note.split(), width, look.role)[:3]]
    heads = look.heads
    here = heads.row(row)
    best = here.best
    how = f"{STATISTIC_WORDS[here.statistic]} over noise in the same head"
    title = f"HEADS of L{heads.layer}"
    if len(title) + len(how) + 4 > width:
        how = "over noise"
    out = [rule(width, title, ("≈ " if heads.estimated(here.statistic) else "") + how)]
    if not np.isfinite(best).any():
        return [*out, [("– no head has a number for it: its direction is zero or not finite", "dim")]]
    beyond = int((best > 1).sum())
    shown = list(range(heads.n_heads)) if heads.n_heads <= count else largest(best, count).tolist()
    name_width = max(len(f"H{h}") for h in shown) + 1
    bar_width = max(4, min(14, (width - name_width - 11 - 26) // 2))
    room = width - name_width - 2 * bar_width - 12
    full = max(1.5, float(np.nanmax(best)))
    left = name_width + bar_width + 5
    said = "all inside noise" if not beyond else "partner of the stronger" if room >= 24 else "partner"
    titles = (("as query".rjust(left - 1), "dim"), (" ┆ ", "faint"), ("as key".ljust(bar_width + 5), "dim"))
    out.append(cut([*titles, (said, "dim")], width))
    for h in shown:
        query, key = here.part("query", h), here.part("key", h)
        top = query if not key.ratio >= query.ratio else key
        out.append(
            cut(
                [
                    (f"H{h}".ljust(name_width), "text" if top.beyond else "dim"),
                    *mirrored(query.ratio, full, bar_width, ROLES["query"]),
                    (ratio_text(query.ratio), "text" if query.beyond else "dim"),
                    (" ┆", "faint"),
                    (ratio_text(key.ratio) + " ", "text" if key.beyond else "dim"),
                    *bar(key.ratio, full, bar_width, 1.0, ROLES["key"]),
                    (" ", "text"),
                    *(partner_line(table, row, top, room) if top.beyond else []),
                ],
                width,
            )
        )
    if more := heads.n_heads - len(shown):
        hidden = beyond - int((best[shown] > 1).sum())
        out.append([(f"{more} more, " + (f"{hidden} of them beyond noise" if hidden else "inside noise"), "dim")])
    return out


def mirrored(ratio: float, full: float, width: int, role: str) -> Line:
    """A bar that grows to the left: ``░`` up to the noise, solid beyond, ``┊`` at the level not reached."""
    if not math.isfinite(ratio) or width <= 0:
        return [(" " * max(0, width), "text")]
    length, edge = min(max(ratio / full, 0.0), 1.0) * width, min(round(width / full), width)
    if ratio <= 1:
        light = "░" * min(round(length), edge)
        tick = edge if edge < width else width - 1
        return [(" " * (width - tick - 1), "text"), ("┊", "faint"), (light[:tick].rjust(tick), "noise")]
    halves = max(1, min(round((length - edge) * 2), (width - edge) * 2))
    solid = ("▐" if halves % 2 else "") + "█" * (halves // 2)
    return [(solid.rjust(width - edge), role), ("░" * edge, "noise")]


def heads_line(table: FeatureTable, row: int, width: int, look: HeadsLook) -> Line:
    """The compact card's line: the strongest parts beyond noise with the first one's partner."""
    line: Line = [("heads   ", "head")]
    if look.heads is None:
        return cut([*line, (look.note, look.role)], width)
    here = look.heads.row(row)
    parts = here.strongest(4)
    if not parts:
        return cut([*line, ("–", "dim")], width)
    beyond = [p for p in parts if p.beyond]
    if not beyond:
        text = f"(inside noise) strongest L{look.heads.layer}.H{parts[0].head} {parts[0].side} {parts[0].ratio:.1f}"
        return cut([*line, (text, "dim")], width)
    for at, part in enumerate(beyond):
        piece: Line = [(f"L{look.heads.layer}.H{part.head} {part.side} ", "text"), (f"{part.ratio:.1f} ", "strong")]
        found = partner_line(table, row, part, 24 if at == 0 else 0)
        if found:
            piece += [(text.rstrip() if i else text, role) for i, (text, role) in enumerate(found) if text.strip()]
        if width_of(line) + width_of(piece) > width:
            break
        line += [*piece, ("   ", "text")]
    return cut(line, width) if width_of(line) <= width else cut(line[:-1], width)


# The page: grids --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spot:
    """Where one is on the page."""

    layer: int
    head: int = 0
    side: str = "key"
    pick: int = 0
    """Place in the list of partners, or of features on a head's own page."""
    page: str = "grid"
    """``grid`` or ``head``."""
    active: str = "grid"
    """What Enter is about: the cell of the ``grid``, the line of the ``list``, or one of the ``links`` of what the head
    writes. On a head's own page the list."""
    link: int = 0
    """Place among the links."""
    statistic: str | None = None


@dataclass(frozen=True)
class Geometry:
    """How grids fit a width: heads a line, and whether both sides stand beside each other."""

    per_line: int
    beside: bool


def geometry(width: int, n_heads: int) -> Geometry:
    """Both sides beside each other if every head fits on one line of each; else the chosen side alone, wrapped."""
    if 2 * (LABEL + n_heads * CELL) + 3 <= width:
        return Geometry(max(1, n_heads), True)
    return Geometry(max(1, min(n_heads, (width - LABEL) // CELL)), False)


def moved(spot: Spot, tables: Sequence[HeadTable], shape: Geometry, dx: int, dy: int) -> Spot:
    """One cell on; up and down go through the wrapped lines of a layer, then to the layer beside it."""
    layers = [t.layer for t in tables]
    if spot.layer not in layers:
        return spot
    at = layers.index(spot.layer)
    heads = tables[at].n_heads
    spot = replace(spot, active="grid")
    if dx:
        return replace(spot, head=min(max(spot.head + dx, 0), heads - 1), pick=0)
    head = spot.head + dy * shape.per_line
    last_line = (heads - 1) // shape.per_line
    if dy > 0 and head >= heads and spot.head // shape.per_line < last_line:
        head = heads - 1
    if 0 <= head < heads:
        return replace(spot, head=head, pick=0)
    if not 0 <= at + dy < len(tables):
        return spot
    there, column = tables[at + dy], spot.head % shape.per_line
    lines = (there.n_heads - 1) // shape.per_line
    head = column if dy > 0 else min(lines * shape.per_line + column, there.n_heads - 1)
    return replace(spot, layer=there.layer, head=min(head, there.n_heads - 1), pick=0)


def grid_lines(
    tables: Sequence[HeadTable], rows: dict[int, Row], spot: Spot, width: int, height: int
) -> tuple[list[Line], int]:
    """The grids (heading and at most ``height`` - 1 lines of cells, the chosen one in sight) and how many are above."""
    shape = geometry(width, max((t.n_heads for t in tables), default=1))
    sides = ("key", "query") if shape.beside else (spot.side,)
    starts = [(t, first) for t in tables for first in range(0, t.n_heads, shape.per_line)]
    chosen = next(
        (i for i, (t, first) in enumerate(starts)
         if t.layer == spot.layer and first <= spot.head < first + shape.per_line), 0
    )  # fmt: skip
    room = max(1, height - 1)
    top = max(0, min(chosen - room // 2, len(starts) - room))
    span = LABEL + shape.per_line * CELL
    head: Line = []
    for at, side in enumerate(sides):
        name = f" as {side.upper()}"
        on = side == spot.side
        titles: Line = [(name.ljust(LABEL + 3), "strong" if on else "head")]
        for h in range(shape.per_line if shape.beside or len(starts) == len(tables) else 0):
            text = f"H{h}".rjust(CELL - 1) + " "
            titles.append((text[3:] if h == 0 else text, "strong" if on and h == spot.head else "dim"))
        head += [*([("   ", "text")] if at else []), *cut(titles, span)]
    out = [cut(head, width)]
    for t, first in starts[top : top + room]:
        line: Line = []
        for at, side in enumerate(sides):
            line += [("   ", "text")] if at else []
            label = f" L{t.layer}" if first == 0 else f"  {first}"
            line.append((label.ljust(LABEL), "text" if first == 0 else "dim"))
            ratios = rows[t.layer].ratio[side][first : first + shape.per_line].tolist()
            for h, ratio in enumerate(ratios, first):
                here = spot.layer == t.layer and spot.head == h and spot.side == side
                glyph, text = shade(ratio), ratio_text(ratio)
                role = ROLES[side] if ratio > 1 else "dim"
                line += [(f"▸{glyph}", role), (text, "picked"), ("◂", role)] if here else [(f" {glyph}{text} ", role)]
            line.append((" " * ((shape.per_line - len(ratios)) * CELL), "text"))
        out.append(line)
    return out, top
