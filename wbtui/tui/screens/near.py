"""``~``: the nearest features of one, in its own SAE and in others, with their words."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from wbtui.address import Address
from wbtui.catalog.plan_neighbours import ALL
from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.schema_neighbours import DEC, ENC
from wbtui.tui import keymap
from wbtui.tui import messages as say
from wbtui.tui.data import Opened, open_address
from wbtui.tui.draw.line import Line, cut, wrap
from wbtui.tui.draw.near import Item, NearList, head_line, items_of, list_lines
from wbtui.tui.facts import kind_text, listed, state_of
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.tui.screens.main import MainScreen

WORDS = 8


class NearScreen(WbScreen):
    """A list by SAE; Enter goes to the feature, Tab ranks by encoders instead of decoders."""

    CONTEXT = "near"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("near")]
    AUTO_FOCUS = ""

    def __init__(self, main: MainScreen, opened: Opened) -> None:
        super().__init__()
        self.main = main
        self.opened = opened
        self.row = main.view.cursor
        self.kind = DEC
        self.at = 0
        self.note = ""
        self.words: dict[tuple[str, int], tuple[str, str]] = {}
        self.read = False
        """Whether the words of all listed features were looked for."""

    def body(self) -> ComposeResult:
        """Head, list."""
        yield Lines(id="head")
        yield Card(id="list")
        yield Lines(id="note")

    def on_mount(self) -> None:
        """Look for what is there."""
        self.look()

    def look(self) -> None:
        """Take in comparisons and words, in a thread."""
        self.in_background(self._look, group="look", exclusive=True)

    async def _look(self) -> None:
        shelf = self.opened.table.neighbours
        assert shelf is not None
        await asyncio.to_thread(shelf.look)
        self.fit()
        await self._ask(None)
        items = self.items()
        for sae in dict.fromkeys(item.near.sae for item in items):
            found = await asyncio.to_thread(partial(self._words_in, sae, items))
            self.words.update(found)
            self.fit()
        self.read = True

    def _words_in(self, sae: str, items: tuple[Item, ...]) -> dict[tuple[str, int], tuple[str, str]]:
        """(kind, words) of the listed features of one SAE; opens its table if it is another's."""
        try:
            opened = self.opened
            if sae != opened.sae.name:
                opened = open_address(Address(opened.model.name, sae), opened.cache, opened.plan.definition)
        except (WbtuiError, OSError):
            return {}
        table, out = opened.table, {}
        for row in {item.near.feature for item in items if item.near.sae == sae}:
            if state_of(table, row) == "absent":
                out[sae, row] = ("", "(not computed there)")
                continue
            words = [w.text for w in listed(table, row, "writes", WORDS) if not w.inside_null]
            out[sae, row] = (kind_text(table, row), " ".join(words) or "(inside noise)")
        return out

    async def _ask(self, other: str | None) -> None:
        """Ask the service for comparisons that are missing: those beside the SAE, or with every SAE."""
        shelf = self.opened.table.neighbours
        assert shelf is not None
        missing = shelf.missing(beside=other is None)
        if not missing or not self.opened.writable or shelf.failure:
            if other is not None:
                self.tell("every SAE of the model is compared" if not missing else shelf.failure or "read-only cache")
            return
        try:
            await self.wb.desk.compute_neighbours(self.opened, other, "screen" if other is None else "batch")
            self.tell(f"computing: {', '.join(s.name for s in missing[:6])}{' …' if len(missing) > 6 else ''}")
        except WbtuiError as error:
            self.tell(error.line(), "warn")

    def tell(self, text: str, role: str = "dim") -> None:
        """A line under the list."""
        self.note = text
        text = text or " "
        self.query_one("#note", Lines).set_lines([cut([(" " + safe_token_text(text), role)], self.app.size.width)])

    def items(self) -> tuple[Item, ...]:
        """What is listed."""
        return items_of(self.main.near_look(), self.row, self.kind)

    def fit(self) -> None:
        """Draw."""
        if self.small or not self.is_mounted:
            return
        card, width = self.query_one("#list", Card), self.app.size.width
        items = self.items()
        self.at = max(0, min(self.at, len(items) - 1))
        address = f"{self.opened.sae.name} #{self.row}  {kind_text(self.opened.table, self.row)}"
        self.query_one("#head", Lines).set_lines([head_line(address, self.kind, len(items), width)])
        if items:
            lines = list_lines(NearList(items, self.words), self.at, card.inner_width, card.size.height, self.kind)
        else:
            lines = self._empty(card.inner_width)
        card.set_lines(lines)

    def _empty(self, width: int) -> list[Line]:
        look = self.main.near_look()
        if look.tables:
            off = "its encoder does not read the stream, or is zero" if self.kind == ENC else "its decoder row is zero"
            text = f"no direction to compare: {off}, or not finite"
        else:
            text = "nothing is compared yet; C compares with every SAE of the model"
        return [[], *wrap(text.split(), width, "dim")]

    def on_job_moved(self, message: say.JobMoved) -> None:
        """Something landed."""
        if message.job.get("event") in ("product", "job"):
            self.look()

    # Keys -----------------------------------------------------------------------------------------------------------

    def action_down(self) -> None:
        """Down."""
        self.at += 1
        self.fit()

    def action_up(self) -> None:
        """Up."""
        self.at -= 1
        self.fit()

    def action_side(self) -> None:
        """By encoder or by decoder."""
        self.kind = ENC if self.kind == DEC else DEC
        self.at = 0
        self.fit()
        self.look()

    def action_all(self) -> None:
        """Compare with every SAE of the model."""
        self.in_background(self._ask, ALL, group="ask", exclusive=True)

    def _chosen(self) -> Address | None:
        items = self.items()
        if not items:
            return None
        near = items[self.at].near
        return Address(self.opened.model.name, near.sae, near.feature)

    def action_go(self) -> None:
        """Go to the feature."""
        address = self._chosen()
        if address is not None:
            self.app.pop_screen()
            self.main.follow(address)

    def action_pin(self) -> None:
        """Compare the feature with the chosen one: this one is pinned, the other under the cursor."""
        address = self._chosen()
        if address is not None:
            self.app.pop_screen()
            self.main.action_pin()
            self.main.follow(address)

    def action_help(self) -> None:
        """All keys."""
        from wbtui.tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())

    def action_back(self) -> None:
        """Back."""
        self.app.pop_screen()
