"""A widget of ready lines that repaints only those that changed: what keeps a slow terminal quick."""

from __future__ import annotations

from typing import ClassVar

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from wbtui.tui.cells import Cell
from wbtui.tui.draw.line import Inked, Line, to_cells, to_strip
from wbtui.tui.theme import PALETTES, Ink


class Drawn(Widget):
    """A widget that draws all of its cells itself, without border or padding: Textual's own composing of lines, half
    of what a frame takes, is passed by."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._filtered: dict[int, tuple[Strip, Strip]] = {}
        self._filtered_for: tuple[object, ...] = ()

    def drawn(self, width: int, height: int) -> list[Strip]:
        """The widget's lines, each ``width`` cells. What has not changed should be the same strip as before."""
        raise NotImplementedError

    def cells_at(self, y: int, known: Inked) -> list[Cell] | None:
        """The cells of row ``y``, as they come of :meth:`drawn` (:func:`wbtui.tui.draw.line.to_cells`)."""
        raise NotImplementedError

    def render_line(self, y: int) -> Strip:
        """Row ``y``."""
        width, height = self.outer_size  # of a widget without border or padding: its size, quicker to be had
        return self.drawn(width, height)[y]

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of a region, through the app's filters (ASCII, no colour)."""
        width, height = self.outer_size
        strips = self.drawn(width, height)
        filters = self.get_line_filters()
        if filters:
            background = self.background_colors[1]
            state = (*map(id, filters), background)
            if self._filtered_for != state or len(self._filtered) > 4 * len(strips) + 64:
                self._filtered_for, self._filtered = state, {}
            for y, strip in enumerate(strips):
                done = self._filtered.get(id(strip))
                if done is None or done[0] is not strip:
                    through = strip
                    for each in filters:
                        through = through.apply_filter(each, background)
                    done = self._filtered[id(strip)] = (strip, through)
                strips[y] = done[1]
        strips = strips[crop.y : crop.bottom]
        if crop.column_span != (0, width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    @property
    def ink(self) -> Ink:
        """The app's palette."""
        return PALETTES[getattr(self.app, "palette", "rich")]


class Lines(Drawn):
    """Draws a list of lines, one a row; what is not given is blank."""

    DEFAULT_CSS = "Lines { height: 1; width: 1fr; }"
    MARGIN: ClassVar[Line] = []
    """What stands before each line."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._inked: dict[int, tuple[Line, Strip]] = {}
        self._inked_for: tuple[object, ...] = ()
        self._shown: dict[int, tuple[Line, list[Cell] | None]] = {}
        """By the number of a line, which is kept so that no other can have that number."""
        self._shown_for: tuple[object, ...] = ()

    @property
    def lines(self) -> list[Line]:
        """What is drawn now."""
        return self._lines

    def set_lines(self, lines: list[Line]) -> None:
        """Draw these from now on; only rows that differ are repainted."""
        old = self._lines
        both = min(len(old), len(lines))
        changed = [y for y in range(both) if old[y] != lines[y]]
        moved = set(changed)
        self._lines = [lines[y] if y in moved else old[y] for y in range(both)] + lines[both:]
        changed += range(both, max(len(old), len(lines)))
        width, height = self.outer_size
        if not changed or width == 0:
            return
        if len(changed) * 2 > height:
            self.refresh()
        else:
            self.refresh(*(Region(0, y, width, 1) for y in changed if y < height))

    def drawn(self, width: int, height: int) -> list[Strip]:
        """The lines in ink."""
        ink = self.ink
        if self._inked_for != (width, id(ink)):
            self._inked_for = (width, id(ink))
            self._inked.clear()
        out = []
        for y in range(height):
            line = self._lines[y] if y < len(self._lines) else _BLANK
            found = self._inked.get(y)
            if found is None or found[0] is not line:
                found = self._inked[y] = (line, to_strip([*self.MARGIN, *line], width, ink))
            out.append(found[1])
        return out

    def cells_at(self, y: int, known: Inked) -> list[Cell] | None:
        """The cells of a row in ink."""
        return self._cells_of(self._lines[y] if y < len(self._lines) else _BLANK, known)

    def _cells_of(self, line: Line, known: Inked) -> list[Cell] | None:
        width, height = self.outer_size
        ink = self.ink
        state = (width, id(ink), known)
        if self._shown_for != state or len(self._shown) > MOST * height:
            self._shown_for, self._shown = state, {}
        found = self._shown.get(id(line))
        if found is None:
            found = self._shown[id(line)] = (line, to_cells([*self.MARGIN, *line], width, ink, None, known))
        return found[1]

    def prepare(self, lines: list[Line], known: Inked) -> None:
        """Make the cells of lines that may be drawn next."""
        for line in lines[: self.outer_size.height]:
            self._cells_of(line, known)


MOST = 8
"""Pictures whose cells are remembered."""
_BLANK: Line = []
