"""Screens of text to read: help and glossary. One list of lines, scrolled."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from wbtui.tui import keymap
from wbtui.tui.draw.line import Line
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.widgets.card import Card


class ReadingScreen(WbScreen):
    """Text that scrolls by the usual keys."""

    CONTEXT = "reading"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("reading")]
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self.top = 0
        self.text: list[Line] = []

    def body(self) -> ComposeResult:
        """The text."""
        yield Card(id="text")

    def lines(self, width: int) -> list[Line]:
        """All lines for a width."""
        raise NotImplementedError

    def fit(self) -> None:
        """Lay the text out anew."""
        card = self.query_one("#text", Card)
        self.text = self.lines(card.inner_width)
        self._show(self.top)

    def _show(self, top: int) -> None:
        card = self.query_one("#text", Card)
        height = card.size.height
        self.top = max(0, min(top, len(self.text) - height))
        card.set_lines(self.text[self.top : self.top + height])

    def action_down(self) -> None:
        """One line."""
        self._show(self.top + 1)

    def action_up(self) -> None:
        """One line."""
        self._show(self.top - 1)

    def action_page(self, sign: int) -> None:
        """A page."""
        self._show(self.top + sign * max(1, self.query_one("#text", Card).size.height - 2))

    def action_back(self) -> None:
        """Back to where one came from."""
        self.app.pop_screen()

    def on_card_scrolled(self, message: object) -> None:
        """The wheel."""
        self._show(self.top + getattr(message, "lines", 0))
