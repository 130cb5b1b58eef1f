"""What stands in each row of the table, as lines: header, rows, the words where none are, and the divider."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wbtui.tui import state as st
from wbtui.tui.draw.rows import Cell, header, layout, row_line

if TYPE_CHECKING:
    from rich.style import Style

    from wbtui.features.table import FeatureTable
    from wbtui.tui.draw.line import Line
    from wbtui.tui.theme import Ink

KEPT = 4096
"""Lines of rows that are remembered."""


class Row(NamedTuple):
    """What stands in a row: by which name it is remembered (None: not at all), words, the bar under them, edge."""

    key: tuple[object, ...] | None
    line: Line
    base: Style | None
    edge: tuple[str, str]


class TableRows:
    """The rows of a table in a state; the widget adds the terminal (:mod:`wbtui.tui.widgets.feature_table`)."""

    def __init__(self) -> None:
        self._table: FeatureTable | None = None
        self._view: st.View | None = None
        self._rows = st.Rows(_NOTHING, 0)
        self._cells: list[Cell] = []
        self._ranged: frozenset[int] = frozenset()
        self._empty: list[Line] = []
        self._cache: dict[tuple[int, bool, bool], Line] = {}
        self.divider = True

    def take(self, table: FeatureTable | None, view: st.View, rows: st.Rows, empty: list[Line] | None = None) -> None:
        """What is drawn from now on."""
        self._table, self._view, self._rows = table, view, rows
        self._empty = empty or []

    def lay_out(self, width: int) -> None:
        """Columns for a table of ``width`` cells, the divider included; every line is made anew."""
        assert self._view is not None
        columns = st.shown_columns(self._view, width)
        self._cells = layout(columns, max(0, width - 1), self._table.n if self._table is not None else 0)
        self.forget_lines()

    def forget_lines(self) -> None:
        """Every line is made anew."""
        self._cache.clear()

    def row_at(self, y: int, width: int, height: int, ink: Ink) -> Row:
        """Row ``y`` of a table of so many cells."""
        view, table, edge = self._view, self._table, self._edge(y, height)
        if view is None or table is None:
            return Row(None, self._empty[y - 1] if 0 < y <= len(self._empty) else [], None, edge)
        if y == 0:
            return Row(None, header(self._cells, view.sort, view.picker), None, edge)
        at = view.top + y - 1
        if at >= len(self._rows.order):
            return Row(None, self._empty[y - 1] if not len(self._rows) and y <= len(self._empty) else [], None, edge)
        row = int(self._rows.order[at])
        cursor, marked = row == view.cursor, row in view.marks
        bar = ink["cursor" if view.focus == "table" else "cursor_off"]
        base = bar if cursor else ink["range"] if row in self._ranged else None
        key = (row, cursor, marked, id(base), edge, width, id(ink))
        return Row(key, self._line(table, row, cursor, marked), base, edge)

    def _line(self, table: FeatureTable, row: int, cursor: bool, marked: bool) -> Line:
        key = (row, cursor, marked)
        line = self._cache.get(key)
        if line is None:
            if len(self._cache) > KEPT:
                self.forget_lines()
            line = self._cache[key] = row_line(table, row, self._cells, cursor=cursor, marked=marked)
        return line

    def _edge(self, y: int, height: int) -> tuple[str, str]:
        """``│`` beside a row, thick where the rows in sight lie in the whole list."""
        if not self.divider:
            return " ", "text"
        count, shown = len(self._rows), max(1, height - 1)
        if y and self._view is not None and count > shown:
            size = max(1, round(shown * shown / count))
            start = round(self._view.top / (count - shown) * (shown - size))
            if start < y <= start + size:
                return "┃", "dim"
        return "│", "rule"


_NOTHING = np.zeros(0, dtype=np.int64)
