"""The card: one widget, drawn line by line."""

from __future__ import annotations

from typing import ClassVar

from textual import events

from wbtui.tui.draw.line import Line
from wbtui.tui.messages import CardScrolled
from wbtui.tui.widgets.lines import Lines


class Card(Lines):
    """Lines of the card, a cell of margin at either side; the wheel scrolls it where it is longer than its place."""

    DEFAULT_CSS = "Card { width: 1fr; height: 1fr; }"
    MARGIN: ClassVar[Line] = [(" ", "text")]

    @property
    def inner_width(self) -> int:
        """Cells for a line."""
        return max(0, self.size.width - 2)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Wheel."""
        event.stop()
        self.post_message(CardScrolled(3))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Wheel."""
        event.stop()
        self.post_message(CardScrolled(-3))
