"""The table: a virtual list over numpy arrays, drawn line by line. A million rows cost as much as thirty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.geometry import Region
from textual.strip import Strip

from wbtui.tui import state as st
from wbtui.tui.cells import Cell as Shown
from wbtui.tui.draw.line import Inked, Line, to_cells, to_strip
from wbtui.tui.draw.rows import GUTTER, Cell
from wbtui.tui.draw.table import TableRows
from wbtui.tui.messages import HeaderClicked, RowClicked, TableScrolled
from wbtui.tui.widgets.lines import Drawn

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


class FeatureTableView(TableRows, Drawn, can_focus=False):
    """Header and rows. Its right-hand column is the divider to the card, and shows where in the list one is."""

    DEFAULT_CSS = "FeatureTableView { width: 1fr; height: 1fr; }"

    def __init__(self, id: str | None = None) -> None:
        Drawn.__init__(self, id=id)
        TableRows.__init__(self)
        self._drawn: tuple[object, ...] = ()
        self._strips: dict[tuple[object, ...], Strip] = {}
        self._shown: dict[tuple[object, ...] | None, list[Shown] | None] = {}
        self.painted = 0
        """Rows drawn so far (benchmarks and tests read it)."""

    @property
    def page_height(self) -> int:
        """Rows in sight."""
        return max(1, self.outer_size.height - 1)

    @property
    def cells(self) -> list[Cell]:
        """The columns as laid out."""
        return self._cells

    @property
    def inner_width(self) -> int:
        """Cells for text."""
        return max(0, self.outer_size.width - 1)

    def show(self, table: FeatureTable | None, view: st.View, rows: st.Rows, empty: list[Line] | None = None) -> None:
        """Draw a state. A mere cursor move repaints two lines.

        Args:
            table: where the numbers are.
            view: cursor, top, marks, sort, columns.
            rows: the shown order.
            empty: lines to draw in place of rows where there are none.
        """
        old_view, old_rows = self._view, self._rows
        self.take(table, view, rows, empty)
        columns = st.shown_columns(view, self.outer_size.width)
        key = (
            id(table), table.version if table is not None else 0, id(rows), view.top, columns, view.sort, view.picker,
            self.outer_size, len(rows), view.anchor is not None, view.focus, tuple(map(tuple, self._empty)),
        )  # fmt: skip
        content = (key[0], key[1], columns, self.outer_size, table.kept.serial if table is not None else 0)
        if self._drawn[:1] != (content,):
            self.lay_out(self.outer_size.width)
        self._ranged = frozenset(st.ranged(view, rows).tolist()) if view.anchor is not None else frozenset()
        if self._drawn != (content, key) or view.anchor is not None or old_view is None:
            self._drawn = (content, key)
            self.refresh()
            return
        lines = {self._line_of(old_rows, old_view, old_view.cursor), self._line_of(rows, view, view.cursor)}
        if old_view.marks is not view.marks:
            lines |= self._marks_changed(old_view, view)
        self.refresh(*(Region(0, y, self.outer_size.width, 1) for y in lines if 0 < y < self.outer_size.height))

    def _line_of(self, rows: st.Rows, view: st.View, feature: int) -> int:
        position = rows.position(feature)
        return position - view.top + 1 if position >= 0 else -1

    def _marks_changed(self, old: st.View, new: st.View) -> set[int]:
        shown = self._rows.order[new.top : new.top + self.page_height]
        return {y + 1 for y, row in enumerate(shown) if (int(row) in old.marks) != (int(row) in new.marks)}

    def drawn(self, width: int, height: int) -> list[Strip]:
        """Header, rows, or the words that stand where no row is."""
        ink, out = self.ink, []
        for y in range(height):
            row = self.row_at(y, width, height, ink)
            strip = self._strips.get(row.key) if row.key is not None else None
            if strip is None:
                self.painted += row.key is not None
                strip = to_strip(row.line, max(0, width - 1), ink, row.base)
                strip = Strip.join([strip, to_strip([row.edge], 1, ink, None if self.divider else row.base)])
                if row.key is not None:
                    self._strips[row.key] = strip
            out.append(strip)
        return out

    def cells_at(self, y: int, known: Inked) -> list[Shown] | None:
        """The cells of a row."""
        (width, height), ink = self.outer_size, self.ink
        row = self.row_at(y, width, height, ink)
        key = (row.key, known) if row.key is not None else None
        if key in self._shown:
            return self._shown[key]
        cells = to_cells(row.line, max(0, width - 1), ink, row.base, known)
        edge = to_cells([row.edge], 1, ink, None if self.divider else row.base, known)
        both = cells + edge if cells is not None and edge is not None else None
        if key is not None:
            if len(self._shown) > 4 * height:
                self._shown.clear()
            self._shown[key] = both
        return both

    def forget_lines(self) -> None:
        """Every line is made anew, and what was made of it."""
        super().forget_lines()
        self._strips.clear()
        self._shown.clear()

    def prepare(self, rows: list[int], most: int) -> bool:
        """Make some of the lines that may be shown next; whether any was missing."""
        table, view = self._table, self._view
        if table is None or view is None:
            return False
        missing = [row for row in rows if (row, False, row in view.marks) not in self._cache]
        for row in missing[:most]:
            self._line(table, row, False, row in view.marks)
        return bool(missing)

    def on_click(self, event: events.Click) -> None:
        """A click takes the cursor there; on a heading it sorts."""
        if event.y == 0:
            name = self.column_at(event.x)
            if name:
                self.post_message(HeaderClicked(name, event.shift))
        if event.y > 0 and self._view is not None:
            position = self._view.top + event.y - 1
            if position < len(self._rows):
                self.post_message(RowClicked(int(self._rows.order[position]), event.chain > 1))

    def column_at(self, x: int) -> str:
        """The column over which ``x`` is, the blanks behind it included; empty before the first."""
        at = GUTTER + 1
        for cell in self._cells:
            if at <= x < at + cell.width + 2:
                return cell.name
            at += cell.width + 2
        return ""

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Wheel."""
        event.stop()
        self.post_message(TableScrolled(3))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Wheel."""
        event.stop()
        self.post_message(TableScrolled(-3))
