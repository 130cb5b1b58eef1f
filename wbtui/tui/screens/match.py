"""``=``: what of this SAE is found in another at the same place: shares, and lists of matched, lost, new, split."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from wbtui.address import Address
from wbtui.catalog.plan_match import MatchPlan, plan_match
from wbtui.catalog.saes import SaeInfo, stream_position
from wbtui.definitions import MatchDefinition, to_json
from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError, WorkError
from wbtui.features.match import BAR, LISTS, Matching, summary
from wbtui.store.products import Product
from wbtui.tui import keymap
from wbtui.tui.data import open_address
from wbtui.tui.draw import frame
from wbtui.tui.draw.line import Line, cut, spread, wrap
from wbtui.tui.draw.match import MEANINGS, choices_lines, row_line, share_lines, tabs_line
from wbtui.tui.facts import meaning_of, short_name
from wbtui.tui.screens.page import PageScreen
from wbtui.tui.widgets.card import Card

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen

BAR_STEP = 0.05
LOOK_EVERY = 0.3
"""Seconds between looks whether the product is there."""


class MatchScreen(PageScreen):
    """Choose another SAE, then see the match.

    Args:
        main: the screen below; its history takes the places that are opened from here.
        opened: A.
    """

    CONTEXT = "match"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("match")]

    def __init__(self, main: MainScreen, opened: Opened) -> None:
        super().__init__(opened)
        self.main = main
        here = stream_position(opened.sae)
        self.choices = [s for s in opened.saes if s.path != opened.sae.path and stream_position(s) == here]
        self.other: SaeInfo | None = None
        self.plan: MatchPlan | None = None
        self.matching: Matching | None = None
        self.control: Matching | None = None
        self.table: FeatureTable | None = None
        self.rows: list[dict[str, Any]] = []
        self.which, self.bar = LISTS[0], BAR
        self.at, self.top = 0, 0
        self.failure = ""
        self.pending = False

    @property
    def row(self) -> int:
        """The feature that the page was opened from."""
        return self.main.view.cursor

    # Work -----------------------------------------------------------------------------------------------------------

    async def _match(self, other: SaeInfo) -> None:
        try:
            self.plan, self.matching = await self._one(other)
            address = Address(self.opened.model.name, other.name)
            found = await asyncio.to_thread(open_address, address, self.opened.cache, self.opened.plan.definition)
            self.table = found.table
            await self._list()
            control = next((s for s in self.choices if s.name == f"{self.opened.sae.name}-control"), None)
            if control is not None and control.path != other.path:
                self.draw()
                self.control = (await self._one(control))[1]
        except (WbtuiError, OSError) as error:
            self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
            if self.matching is None:
                self.other = None
        self.pending = False
        self.draw()

    async def _one(self, other: SaeInfo) -> tuple[MatchPlan, Matching]:
        """The match with an SAE, computed first where it is not there."""
        opened = self.opened
        model = opened.model
        plan = await asyncio.to_thread(plan_match, model, opened.sae, model, other, MatchDefinition(), opened.cache)
        product = Product(opened.cache, plan.product)
        if await asyncio.to_thread(lambda: product.state) != "complete":
            desk = self.wb.desk
            job = await desk.compute_match(opened, str(plan.other_address), to_json(plan.definition))
            number = int(job["job"])
            while await asyncio.to_thread(lambda: product.state) != "complete":
                now = desk.jobs.get(number, {})
                if now.get("state") in ("failed", "cancelled"):
                    error = now.get("error") or {}
                    raise WorkError(str(error.get("found") or f"the match was {now['state']}"), do="b chooses again")
                if desk.state not in ("up", "starting"):
                    raise WorkError("the service has gone", do="b chooses again")
                self.say(frame.job_text(now) if now else "the match is computed…")
                await asyncio.sleep(LOOK_EVERY)
            self.notice = ("", "dim")
        return plan, await asyncio.to_thread(Matching.open, opened.cache, plan)

    async def _list(self) -> None:
        if self.matching is not None:
            self.rows = await asyncio.to_thread(self.matching.rows, self.which, self.bar)
            self.at = self.top = 0

    def _relist(self) -> None:
        if self.matching is None:
            return
        self.rows = self.matching.rows(self.which, self.bar)
        self.at = self.top = 0
        self.say("")

    # Drawing --------------------------------------------------------------------------------------------------------

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is; A and B; the rule."""
        opened = self.opened
        crumb = frame.crumb((short_name(opened.model.name), "match"), meaning_of(opened.table), width)
        a = f" A {safe_token_text(opened.sae.name)} {opened.sae.d_sae:,}"
        b = f"   B {safe_token_text(self.other.name)} {self.other.d_sae:,}" if self.other is not None else ""
        right = "cosine of decoder rows in the stream " if width >= 100 else "cosines of decoders "
        warnings = " · ".join(self.plan.warnings) if self.plan is not None else ""
        title = spread([(a + b, "text")], [(right, "dim")], width)
        return crumb, title, frame.separator(width, None, note=warnings, role="warn" if warnings else "dim")

    def lines(self, width: int, height: int) -> list[Line]:
        """The choice, or the figures and a list."""
        if self.other is None:
            return choices_lines(self.choices, self.at, self.failure, width)
        if self.matching is None:
            return [[], [(f"matching with {safe_token_text(self.other.name)}…", "dim")]]
        out = [*share_lines(self.matching, self.control, width), [("─" * width, "rule")]]
        out += [tabs_line(self.matching, self.which, self.bar, width), [(fit_words(self.which, width), "dim")]]
        room = max(1, height - len(out))
        self.top = max(0, min(self.top, self.at, len(self.rows) - 1))
        if self.at >= self.top + room:
            self.top = self.at - room + 1
        for i in range(self.top, min(len(self.rows), self.top + room)):
            line = row_line(self.rows[i], self.which, self.opened.table, self.table, cursor=i == self.at, width=width)
            out.append(cut(line, width))
        if not self.rows:
            out += wrap(["–", "none", "at", "this", "bar"], width, "dim")
        return out

    def last_line(self, width: int) -> Line:
        """What was said, or what the list's signs mean."""
        if self.notice[0] or self.matching is None:
            return cut([(" " + safe_token_text(self.notice[0] or " "), self.notice[1])], width)
        return cut([(" = mutual · ~ nearest one way only · ×n parts of a split · bars are ours", "faint")], width)

    # Keys -----------------------------------------------------------------------------------------------------------

    def _step(self, delta: int) -> None:
        most = len(self.choices) if self.other is None else len(self.rows)
        self.at = max(0, min(self.at + delta, most - 1))
        self.say("")

    def action_down(self) -> None:
        """One."""
        self._step(1)

    def action_up(self) -> None:
        """One."""
        self._step(-1)

    def action_page(self, sign: int) -> None:
        """A page."""
        self._step(sign * max(1, self.query_one("#drawing", Card).size.height - 12))

    def action_edge(self, end: int) -> None:
        """First or last."""
        self._step(10**9 if end else -(10**9))

    def action_list(self, step: int) -> None:
        """Another list."""
        self.which = LISTS[(LISTS.index(self.which) + step) % len(LISTS)]
        self._relist()

    def action_bar(self, step: int) -> None:
        """Another bar."""
        self.bar = round(min(0.95, max(0.05, self.bar + step * BAR_STEP)), 2)
        self._relist()

    def action_other(self) -> None:
        """Choose again."""
        self.other = self.matching = self.control = self.plan = self.table = None
        self.rows, self.at, self.top, self.failure = [], 0, 0, ""
        self.say("")

    def action_open(self) -> None:
        """Match with the chosen SAE, or open the feature that the line is about."""
        if self.other is None:
            if self.choices and not self.pending:
                self.other, self.failure, self.pending = self.choices[self.at], "", True
                self.at = 0
                self.in_background(self._match, self.other, group="match", exclusive=True)
                self.draw()
        elif self.rows:
            row = self.rows[self.at]
            self._go_b(row) if self.which == "new" else self._go_a(row)

    def action_partner(self) -> None:
        """Open the other feature of the line."""
        if self.other is not None and self.rows:
            row = self.rows[self.at]
            self._go_a(row) if self.which == "new" else self._go_b(row)

    def _go_a(self, row: dict[str, Any]) -> None:
        if row["a"] >= 0:
            self.app.pop_screen()
            self.main.go_quietly(row["a"])

    def _go_b(self, row: dict[str, Any]) -> None:
        number = row["b"][0] if isinstance(row["b"], list) else row["b"]
        if self.other is not None and number >= 0:
            self.app.pop_screen()
            self.main.visit(Address(self.opened.model.name, self.other.name, number))

    def action_show(self) -> None:
        """A's features of the list as a filtered table; ``[`` leads back."""
        if self.which == "new":
            self.say("new features are of the other SAE: ⏎ opens one there", "warn")
        elif self.rows:
            numbers = sorted(row["a"] for row in self.rows)
            self.app.pop_screen()
            self.main.show_filtered("id:" + spans(numbers))

    def action_export(self) -> None:
        """Figures and lists."""
        matching, plan, table = self.matching, self.plan, self.table
        if matching is None or plan is None or table is None:
            return
        from wbtui.features.match_files import write
        from wbtui.tui.drawn_export import stem_of

        tables = (self.opened.table, table)
        ready = all(bool(t.computed.all()) for t in tables)
        stem = stem_of(self.opened.table, f"match-{plan.other.name}")

        def make(folder: Path) -> list[Path]:
            found = summary(matching, plan, tables if ready else None, self.control, self.bar)
            return write(folder / stem, matching, found, tables, self.bar)

        self.write_files(make)


def fit_words(which: str, width: int) -> str:
    """What a list holds, cut to a width."""
    from wbtui.display import fit

    return fit(MEANINGS[which], width)


def spans(numbers: list[int]) -> str:
    """Ascending numbers as ``1,3..7``: short enough for a filter."""
    out: list[str] = []
    for number in numbers:
        if out and int(out[-1].rpartition("..")[2]) == number - 1:
            out[-1] = f"{out[-1].partition('..')[0]}..{number}"
        else:
            out.append(str(number))
    return ",".join(out)
