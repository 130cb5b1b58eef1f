"""The main screen's page as text for the terminal, without Textual (:mod:`wbtui.tui.first`)."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import ColorSystem

from wbtui.features.names import is_name
from wbtui.tui import state as st
from wbtui.tui.cells import Style as Shown
from wbtui.tui.cells import style_of
from wbtui.tui.draw import frame, main
from wbtui.tui.draw.card import Look
from wbtui.tui.draw.line import Line, ink_of, runs, to_cells
from wbtui.tui.draw.table import TableRows
from wbtui.tui.facts import state_of
from wbtui.tui.first import opening_view
from wbtui.tui.plain import ascii_cells, use_ascii
from wbtui.tui.slim import Slim, Span
from wbtui.tui.theme import PALETTES, palette_name

if TYPE_CHECKING:
    from rich.style import Style

    from wbtui.tui.data import Arranged, Opened

SYSTEMS = {"kitty": ColorSystem.EIGHT_BIT, "256color": ColorSystem.EIGHT_BIT, "16color": ColorSystem.STANDARD}
NAMES = {ColorSystem.STANDARD: "standard", ColorSystem.EIGHT_BIT: "256", ColorSystem.TRUECOLOR: "truecolor"}
"""rich's names."""


def color_system() -> ColorSystem:
    """How many colours the terminal has, as rich tells it from the environment; its console takes long to load."""
    if os.environ.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return ColorSystem.TRUECOLOR
    term = os.environ.get("TERM", "").strip().lower()
    return SYSTEMS.get(term.rpartition("-")[2], ColorSystem.STANDARD)


class Paper:
    """Lines at places, and the text that draws them."""

    def __init__(self, system: ColorSystem, palette: str, ascii: bool) -> None:
        self.ink = PALETTES[palette]
        self._system = system
        self._ascii = ascii
        self._spans: list[Span] = []
        self._known = lru_cache(None)(self._style)

    def _codes(self, style: Style) -> str:
        kept, style._ansi = style._ansi, None  # rich keeps them with a style, for whichever terminal they were
        try:
            return style._make_ansi_codes(self._system)
        finally:
            style._ansi = kept

    def _style(self, style: Style) -> Shown:
        return style_of(self._codes(style))

    def put(self, y: int, x: int, line: Line, width: int, base: Style | None = None) -> None:
        """A line of exactly ``width`` cells in ink."""
        pieces = runs(line, width)
        if self._ascii:
            pieces = [(ascii_cells(text), role) for text, role in pieces]
        cells = to_cells(pieces, width, self.ink, base, self._known)
        if cells is not None:
            self._spans.append((y, x, cells, cells))
            return
        text = "".join(f"\x1b[{self._codes(ink_of(role, self.ink, base))}m{text}\x1b[0m" for text, role in pieces)
        self._spans.append((y, x, text, None))

    def text(self) -> str:
        """What draws all of it on a terminal of whose cells nothing is known."""
        return Slim().show(self._spans)


def page(
    opened: Opened,
    arranged: Arranged,
    view: st.View,
    size: tuple[int, int],
    *,
    at_top: bool,
    look: str = "auto",
    ascii: bool = False,
) -> str:
    """What draws the main page as the app's first frame has it; empty where the row under the cursor is not there.

    Args:
        opened: a place with all its numbers.
        arranged: its rows in the view's order.
        view: as the session or the address has it.
        size: columns, rows of the terminal; not too small.
        at_top, look, ascii: as for :meth:`wbtui.tui.first.First.show`.
    """
    (width, height), table, rows = size, opened.table, arranged.rows
    assert rows is not None
    places = main.parts(width, height)
    (left, tall), (card, deep) = places.table, places.card
    view = main.first_view(opening_view(view, opened), rows, max(1, tall - 1), at_top)
    row = view.cursor
    if not 0 <= row < table.n or state_of(table, row) != "ready":
        return ""
    for name in st.shown_columns(view, left):
        if is_name(name):
            table.prepare(name)
    system = color_system()
    use_ascii(ascii)
    paper = Paper(system, palette_name(NAMES[system], look), ascii)
    paper.put(0, 0, main.crumb_line(view, opened, width), width)
    paper.put(1, 0, main.status_line(view, rows, table, width), width)
    paper.put(2, 0, frame.separator(width, left - 1 if places.split else None), width)
    body = TableRows()
    body.divider = places.split
    body.take(table, view, rows)
    body.lay_out(left)
    for y in range(tall):
        its = body.row_at(y, left, tall, paper.ink)
        paper.put(main.HEAD + y, 0, its.line, left - 1, its.base)
        paper.put(main.HEAD + y, left - 1, [its.edge], 1, None if places.split else its.base)
    if places.split:
        for y, line in enumerate(main.shares_lines(None, left)):
            paper.put(main.HEAD + tall + y, 0, line, left)
    its_look = Look(
        marked=row in view.marks,
        tokens=view.tokens,
        layer=opened.sae.layer,
        layers=opened.model.n_layers,
        heads=main.heads_look(opened, seen=False),
        near=main.near_look(opened, seen=False),
    )
    lines = main.first_card(table, row, card - 2, deep, its_look, places.split)[:deep]
    top, start = (main.HEAD, left) if places.split else (main.HEAD + tall, 0)
    for y in range(deep):
        line = lines[y] if y < len(lines) else []
        paper.put(top + y, start, [(" ", "text"), *line], card)
    paper.put(height - 2, 0, frame.keys_line("main", width), width)
    paper.put(height - 1, 0, main.last_line(opened, width), width)
    return paper.text()
