"""A widget of ready lines that repaints only those that changed: what keeps a slow terminal quick."""

from __future__ import annotations

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from wbtui.tui.draw.line import Line, to_strip
from wbtui.tui.theme import PALETTES, Ink


class Lines(Widget):
    """Draws a list of lines, one a row; what is not given is blank."""

    DEFAULT_CSS = "Lines { height: 1; width: 1fr; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[Line] = []

    @property
    def ink(self) -> Ink:
        """The app's palette."""
        return PALETTES[getattr(self.app, "palette", "rich")]

    @property
    def lines(self) -> list[Line]:
        """What is drawn now."""
        return self._lines

    def set_lines(self, lines: list[Line]) -> None:
        """Draw these from now on; only rows that differ are repainted."""
        old, self._lines = self._lines, lines
        width = self.size.width
        changed = [
            y
            for y in range(max(len(old), len(lines)))
            if (old[y] if y < len(old) else None) != (lines[y] if y < len(lines) else None)
        ]
        if not changed or width == 0:
            return
        if len(changed) * 2 > self.size.height:
            self.refresh()
        else:
            self.refresh(*(Region(0, y, width, 1) for y in changed if y < self.size.height))

    def render_line(self, y: int) -> Strip:
        """Row ``y``."""
        line = self._lines[y] if y < len(self._lines) else []
        return to_strip(line, self.size.width, self.ink)
