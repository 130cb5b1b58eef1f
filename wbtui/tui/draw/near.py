"""ELSEWHERE: the nearest features of the SAE itself and of other layers, as a block, a line and a list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wbtui.display import fit, safe_token_text
from wbtui.schema_neighbours import DEC, ENC
from wbtui.tui.draw.bars import bar
from wbtui.tui.draw.line import Line, cut, rule, spread, width_of

if TYPE_CHECKING:
    from wbtui.features.neighbours import NearTable, Neighbour

_LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class NearLook:
    """What the card draws of near features, or the words in their place."""

    tables: tuple[NearTable, ...] = ()
    layer: int | None = None
    """The SAE's own layer."""
    note: str = ""
    role: str = "dim"

    @property
    def same(self) -> NearTable | None:
        """The SAE compared with itself."""
        return next((t for t in self.tables if t.role == "same"), None)

    def layers(self) -> list[NearTable]:
        """Comparisons with other layers, one a layer, by layer: next to it in the stream, else the first by name."""
        best: dict[int, NearTable] = {}
        for table in self.tables:
            at = table.other.layer
            if at == self.layer and table.role not in ("before", "after"):
                continue
            if at not in best or (table.role and not best[at].role):
                best[at] = table
        return [best[at] for at in sorted(best)]


def cosine_text(value: float) -> str:
    """``.41``, ``−.03``, ``1.00``; ``–`` where there is none."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.2f}".replace("-", "−").replace("0.", ".", 1)


def nearest_here(look: NearLook, row: int) -> str:
    """``nearest here #18 .41``; says where that is inside noise; empty where it is not known."""
    if look.same is None or not (found := look.same.listed(row)):
        return ""
    words = f"nearest here #{found[0].feature} {cosine_text(found[0].cosine)}"
    return words + (" (inside noise)" if found[0].inside_null else "")


def _steps(look: NearLook, row: int) -> str:
    """``L0▂▃▅·▆▄L5``: the best cosine in each compared layer from 0 to 1; a dot for the layer itself."""
    tables = look.layers()
    if not tables or look.layer is None:
        return ""
    cells: dict[int, str] = {look.layer: "·"}
    for table in tables:
        found = table.listed(row)
        value = found[0].cosine if found else math.nan
        cells[table.other.layer] = _LEVELS[min(7, max(0, int(value * 8)))] if math.isfinite(value) else " "
    low, high = min(cells), max(cells)
    return f"L{low}" + "".join(cells.get(at, " ") for at in range(low, high + 1)) + f"L{high}"


def _links(look: NearLook, row: int) -> list[tuple[str, Neighbour]]:
    """(text, neighbour) of the nearest feature of each layer, the nearest first."""
    found = [(t, n[0]) for t in look.layers() if (n := t.listed(row))]
    found.sort(key=lambda pair: -pair[1].cosine)
    return [(f"{safe_token_text(n.sae)} #{n.feature} {cosine_text(n.cosine)}", n) for _, n in found]


def elsewhere_block(look: NearLook, row: int, width: int) -> list[Line]:
    """The card's block; nothing where there is nothing to say."""
    if not look.tables and not look.note:
        return []
    head = rule(width, "ELSEWHERE", "best cosine per layer · < > ~" if width >= 52 else "< > ~")
    links = _links(look, row)
    if not links:
        return [head, cut([(look.note or "no other layer is compared with", look.role)], width)]
    line: Line = [(_steps(look, row), "text"), ("   ", "text")]
    for at, (text, near) in enumerate(links):
        piece: Line = [(" · " if at else "", "faint"), (text, "dim" if near.inside_null else "text")]
        if width_of(line) + width_of(piece) > width:
            break
        line += piece
    return [head, cut(line, width)]


def elsewhere_line(look: NearLook, row: int, width: int) -> Line:
    """The same on one line of the narrow card."""
    links = _links(look, row)
    head: Line = [("layers  ", "head")]
    if not links:
        return cut([*head, (look.note or "–", look.role)], width)
    line: Line = [*head, (_steps(look, row), "text"), ("   ", "text")]
    for text, near in links:
        piece: Line = [(text + "   ", "dim" if near.inside_null else "text")]
        if width_of(line) + width_of(piece) - 3 > width:
            break
        line += piece
    return cut(line, width)


@dataclass(frozen=True)
class Item:
    """One line of the list: a near feature in one SAE, by decoder and, where it is listed there, by encoder."""

    near: Neighbour
    encoder: float
    table: NearTable
    first: bool
    """Whether a heading stands above it."""


@dataclass(frozen=True)
class NearList:
    """The list of ``~``: which items, and words of features where their tables are open."""

    items: tuple[Item, ...]
    words: Mapping[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    """(SAE, feature) -> (kind, words)."""


def items_of(look: NearLook, row: int, kind: str = DEC) -> tuple[Item, ...]:
    """Every near feature by one kind of cosine: the SAE itself first, then by stream position."""
    order = sorted(look.tables, key=lambda t: t.role != "same")
    other = ENC if kind == DEC else DEC
    out = []
    for table in order:
        cross = {n.feature: n.cosine for n in table.listed(row, other)}
        for at, near in enumerate(table.listed(row, kind)):
            out.append(Item(near, cross.get(near.feature, math.nan), table, at == 0))
    return tuple(out)


ROLE_WORDS = {"same": "this SAE", "before": "before it in the stream", "after": "after it in the stream", "": ""}


def list_lines(found: NearList, at: int, width: int, height: int, kind: str = DEC) -> list[Line]:
    """The list around the item ``at``, as many lines as the height holds, headings included."""
    lines: list[tuple[Line, int]] = []
    for number, item in enumerate(found.items):
        if item.first:
            level = item.table.bar(kind)
            right = f"99 % of noise {cosine_text(level)}" if math.isfinite(level) else "no null yet"
            words = ROLE_WORDS[item.table.role]
            title = safe_token_text(item.table.other.name) + (f"  {words}" if words else "")
            lines.append((rule(width, title, right), -1))
        lines.append((_item_line(found, item, number == at, width, kind), number))
    here = next((i for i, (_, number) in enumerate(lines) if number == at), 0)
    top = max(0, min(here - height // 2, len(lines) - height))
    return [line for line, _ in lines[top : top + height]]


def _item_line(found: NearList, item: Item, chosen: bool, width: int, kind: str) -> Line:
    near = item.near
    ink = "dim" if near.inside_null else "text"
    wide = width >= 100
    room = 24 if wide else 10
    kind_word, words = found.words.get((near.sae, near.feature), ("", "…"))
    other = "encoder" if kind == DEC else "decoder"
    line: Line = [
        ("▸ " if chosen else "  ", "strong"),
        (f"#{near.feature}".rjust(8) + " ", "strong" if chosen else ink),
        *bar(max(near.cosine, 0.0), 1.0, room, item.table.bar(kind)),
        (cosine_text(near.cosine).rjust(6), ink),
        (f"  {other} {cosine_text(item.encoder)}".ljust(15), "dim"),
        (fit(kind_word, 8), "dim"),
        (words, ink),
    ]
    return cut(line, width)


def head_line(address: str, kind: str, count: int, width: int) -> Line:
    """What the list is."""
    what = "decoder rows" if kind == DEC else "encoder columns"
    return spread(
        [(" NEAREST ", "strong"), (safe_token_text(address), "text")],
        [(f"by cosine of {what} · {count} ", "dim")],
        width,
    )
