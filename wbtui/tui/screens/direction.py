"""``:dir:v.npy@L3.resid_post``: a vector of the user's as text to read; and what an answer's columns mean."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wbtui.address import Address
from wbtui.display import safe_token_text
from wbtui.errors import Cancelled, WbtuiError
from wbtui.features.answers import MEANINGS
from wbtui.features.asking import Asked
from wbtui.tui.draw.line import Line, cut, wrap
from wbtui.tui.screens.reading import ReadingScreen

if TYPE_CHECKING:
    from wbtui.tui.data import Opened


class DirectionScreen(ReadingScreen):
    """A vector's words, places, neighbours and heads, as ``wbtui show --direction`` prints them.

    Args:
        opened: where it was asked from.
        asked: a vector with its position.
    """

    def __init__(self, opened: Opened, asked: Asked) -> None:
        super().__init__()
        self.opened = opened
        self.asked = asked
        self.pending = True
        self.shown: list[str] = ["scoring the vector…"]
        self.role = "dim"

    def on_mount(self) -> None:
        """Ask."""
        self.in_background(self._ask, group="ask", exclusive=True)

    async def _ask(self) -> None:
        from wbtui.features.probe_text import direction_lines
        from wbtui.tui.data import open_address

        path = os.path.abspath(os.path.expanduser(self.asked.path))
        args: dict[str, Any] = {"path": path, "tensor": self.asked.tensor, "at": self.asked.position}
        try:
            answer = await self.wb.desk.ask(self.opened, "direction", args)

            def work() -> list[str]:
                population = None
                if answer["sae"] == self.opened.sae.name:
                    population = self.opened.table
                elif answer["sae"] is not None:
                    place = Address(self.opened.model.name, answer["sae"])
                    population = open_address(place, self.wb.cache, self.wb.definition).table
                return direction_lines(answer, population, self.wb.definition, self.asked.path)

            self.shown, self.role = await asyncio.to_thread(work), "text"
        except Cancelled:
            return
        except WbtuiError as error:
            self.shown, self.role = [error.line()], "error"
        self.pending = False
        self.fit()

    def lines(self, width: int) -> list[Line]:
        """The text; headings in capitals stand out, what lies inside noise is dim."""
        out: list[Line] = []
        for at, text in enumerate(self.shown):
            word = text.split(" ", 1)[0]
            head = at == 0 or (len(word) > 3 and word.isupper())
            role = "strong" if head else "dim" if "inside noise" in text else self.role
            if self.role == "error":
                out += wrap(safe_token_text(text).split(), width, "error")
            else:
                out.append(cut([(text, role)], width))
        return out


class MeaningScreen(ReadingScreen):
    """What the columns of an answer mean.

    Args:
        columns: their names.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self.columns = columns

    def lines(self, width: int) -> list[Line]:
        """A paragraph a column."""
        out: list[Line] = [[("WHAT THE COLUMNS MEAN", "strong")], []]
        for name in self.columns:
            out.append([(name, "head")])
            out += [[("  ", "text"), *line] for line in wrap(MEANINGS[name].split(), width - 2, "text")]
        return out
