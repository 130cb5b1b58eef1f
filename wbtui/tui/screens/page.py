"""What the full pages share (heads, population, depth): three lines of head, one drawing, a last line; files; help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult

from wbtui.definitions import RECONSTRUCTION
from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.tui.draw.line import Line, cut
from wbtui.tui.drawn_export import others_words
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.tui.data import Opened


class PageScreen(WbScreen):
    """One drawing under three lines of head.

    Args:
        opened: the SAE.
    """

    AUTO_FOCUS = ""
    HEADS_FIRST: ClassVar[bool] = False
    """Whether the glossary opens on heads and depth."""

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self.opened = opened
        self.notice: tuple[str, str] = ("", "dim")
        """What the last line says in place of the usual, and its role."""
        self.pending = True
        """Whether something is looked up in a thread (tests and pictures wait for it)."""

    def body(self) -> ComposeResult:
        """Head, drawing."""
        yield Lines(id="crumb")
        yield Lines(id="title")
        yield Lines(id="rule")
        yield Card(id="drawing")

    def tail(self) -> ComposeResult:
        """The last line."""
        yield Lines(id="last")

    def fit(self) -> None:
        """Draw for the present size."""
        self.draw()

    @property
    def row(self) -> int:
        """The feature that the page is about, or marks."""
        raise NotImplementedError

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is, what is shown, the rule."""
        raise NotImplementedError

    def lines(self, width: int, height: int) -> list[Line]:
        """The drawing."""
        raise NotImplementedError

    def last_line(self, width: int) -> Line:
        """The last line."""
        text, role = self.notice if self.notice[0] else (RECONSTRUCTION, "faint")
        return cut([(" " + safe_token_text(text), role)], width)

    def draw(self) -> None:
        """Everything."""
        if self.small or not self.is_mounted:
            return
        width = self.app.size.width
        self.draw_head()
        card = self.query_one("#drawing", Card)
        if card.inner_width <= 0:
            return
        card.set_lines(self.lines(card.inner_width, card.size.height))
        self.query_one("#last", Lines).set_lines([self.last_line(width)])

    def draw_head(self) -> None:
        """The three lines above."""
        width = self.app.size.width
        for name, line in zip(("crumb", "title", "rule"), self.head_lines(width), strict=True):
            self.query_one(f"#{name}", Lines).set_lines([cut(line, width)])

    def say(self, text: str, role: str = "dim") -> None:
        """A notice in the last line."""
        self.notice = (text, role)
        self.draw()

    # Files ----------------------------------------------------------------------------------------------------------

    def picture(self) -> str:
        """The page as it looks, as SVG."""
        from wbtui.tui.picture import on_grid

        return on_grid(self.app.export_screenshot(title="wbtui"))

    def write_files(self, make: Callable[[Path], list[Path]]) -> None:
        """Write files into the working folder in a thread, and say which."""
        self.in_background(self._write, make, group="export", exclusive=True)

    async def _write(self, make: Callable[[Path], list[Path]]) -> None:
        try:
            paths = await asyncio.to_thread(make, Path.cwd())
        except (WbtuiError, OSError) as error:
            self.say(error.line() if isinstance(error, WbtuiError) else str(error), "error")
        else:
            self.say(others_words(paths), "mark")

    # Keys -----------------------------------------------------------------------------------------------------------

    def action_glossary(self) -> None:
        """What the numbers mean."""
        from wbtui.tui.screens.glossary import GlossaryScreen

        self.app.push_screen(GlossaryScreen(self.opened.table, self.row, heads_first=self.HEADS_FIRST))

    def action_back(self) -> None:
        """Back to where one came from."""
        self.app.pop_screen()
