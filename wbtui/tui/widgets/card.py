"""The card: one widget, drawn line by line."""

from __future__ import annotations

from textual import events
from textual.strip import Strip

from wbtui.tui.draw.line import to_strip
from wbtui.tui.messages import CardScrolled
from wbtui.tui.widgets.lines import Lines


class Card(Lines):
    """Lines of the card, a cell of margin at either side; the wheel scrolls it where it is longer than its place."""

    DEFAULT_CSS = "Card { width: 1fr; height: 1fr; }"

    @property
    def inner_width(self) -> int:
        """Cells for a line."""
        return max(0, self.size.width - 2)

    def render_line(self, y: int) -> Strip:
        """Row ``y`` between the margins."""
        line = self.lines[y] if y < len(self.lines) else []
        return to_strip([(" ", "text"), *line], self.size.width, self.ink)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Wheel."""
        event.stop()
        self.post_message(CardScrolled(3))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Wheel."""
        event.stop()
        self.post_message(CardScrolled(-3))
