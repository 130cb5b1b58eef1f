"""``W``: where a feature comes from and where it goes: the chain of best decoder cosines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from wbtui.address import parse_address
from wbtui.errors import Cancelled, StoreError, WbtuiError
from wbtui.features import answers
from wbtui.features.flow_text import flow_svg
from wbtui.store import io as store_io
from wbtui.tui import keymap
from wbtui.tui.draw import frame
from wbtui.tui.draw.answer import flow_notes, flow_rows
from wbtui.tui.draw.line import Line
from wbtui.tui.facts import meaning_of, short_name
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen

USUAL = {"r": 0.5, "m": 0.25, "a": 0.25}
STEP = 0.05


class FlowScreen(WbScreen):
    """One feature's chain.

    Args:
        main: whose place is changed when a node is opened.
        opened: the feature's SAE.
        feature: its number.
    """

    CONTEXT = "flow"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("flow")]
    AUTO_FOCUS = ""

    def __init__(self, main: MainScreen, opened: Opened, feature: int) -> None:
        super().__init__()
        self.main = main
        self.opened = opened
        self.feature = feature
        self.bars = dict(USUAL)
        self.which = "r"
        self.at = 0
        self.answer: dict[str, Any] | None = None
        self.pending = False
        self.notice: tuple[str, str] = ("", "dim")

    def body(self) -> ComposeResult:
        """Head and chain."""
        yield Lines(id="crumb")
        yield Lines(id="rule")
        yield Card(id="chain")

    def on_mount(self) -> None:
        """Ask."""
        self.ask()

    def fit(self) -> None:
        """Draw for the present size."""
        self.draw()

    def ask(self) -> None:
        """Ask the service, with the thresholds as they stand."""
        self.pending = True
        self.in_background(self._ask, group="ask", exclusive=True)
        self.draw()

    async def _ask(self) -> None:
        args = {"feature": self.feature, "thresholds": dict(self.bars)}
        first = self.answer is None
        try:
            self.answer = await self.wb.desk.ask(self.opened, "flow", args)
            self.notice = ("", "dim")
        except Cancelled:
            return
        except WbtuiError as error:
            self.notice = (error.line(), "error")
        self.pending = False
        if first and self.answer is not None:
            self.at = next(i for i, n in enumerate(self.answer["nodes"]) if n["step"] == 0)
        self.draw()

    def draw(self) -> None:
        """Everything."""
        if self.small:
            return
        width = self.app.size.width
        parts = [short_name(self.opened.model.name), self.opened.sae.name, f"#{self.feature}", "flow"]
        self.query_one("#crumb", Lines).set_lines([frame.crumb(parts, meaning_of(self.opened.table), width)])
        self.query_one("#rule", Lines).set_lines(
            [frame.separator(width, None, note=self.notice[0], role=self.notice[1])]
        )
        card = self.query_one("#chain", Card)
        inner = card.inner_width
        lines: list[Line] = []
        if self.answer is None:
            lines.append([("following it from layer to layer…" if self.pending else "", "dim")])
        else:
            notes = flow_notes({**self.answer, "thresholds": self.bars}, self.which, inner)
            lines = [*notes[:2], [], *flow_rows(self.answer, self.at, inner), [], *notes[2:]]
            over = len(lines) - card.size.height
            if over > 0:  # keep the node in sight: rows go first above it
                top = max(0, min(over, self.at + 4 - card.size.height // 2))
                lines = lines[top:]
        card.set_lines(lines)

    def _move(self, step: int) -> None:
        if self.answer is not None:
            self.at = max(0, min(self.at + step, len(self.answer["nodes"]) - 1))
            self.draw()

    def action_down(self) -> None:
        """One down."""
        self._move(1)

    def action_up(self) -> None:
        """One up."""
        self._move(-1)

    def action_open(self) -> None:
        """Go to the feature."""
        if self.answer is not None:
            address = parse_address(self.answer["nodes"][self.at]["address"])
            self.app.pop_screen()
            self.main.visit(address)

    def action_which(self) -> None:
        """The next threshold."""
        names = list(USUAL)
        self.which = names[(names.index(self.which) + 1) % len(names)]
        self.draw()

    def action_shift_bar(self, sign: int) -> None:
        """Move it."""
        self.bars[self.which] = round(max(0.0, min(1.0, self.bars[self.which] + sign * STEP)), 2)
        self.ask()

    def action_reset(self) -> None:
        """The usual ones."""
        self.bars = dict(USUAL)
        self.ask()

    def action_export(self) -> None:
        """Picture and numbers."""
        if self.answer is not None:
            self.in_background(self._export, dict(self.answer), group="export", exclusive=True)

    async def _export(self, answer: dict[str, Any]) -> None:
        def work() -> Path:
            stem = f"{Path(short_name(self.opened.model.name)).name}-{self.opened.sae.name}-{self.feature}-flow"
            path = answers.free_name(Path.cwd(), stem.replace("/", "-"), ".svg")
            try:
                store_io.write_bytes(path, flow_svg(answer).encode("utf-8"))
                store_io.write_bytes(path.with_suffix(".json"), json.dumps(answer, indent=1).encode("utf-8"))
            except OSError as error:
                raise StoreError(f"{path}: {error.strerror or error}", "a folder that can be written") from None
            return path

        try:
            self.notice = (f"wrote {await asyncio.to_thread(work)}", "mark")
        except WbtuiError as error:
            self.notice = (error.line(), "error")
        self.draw()

    def action_back(self) -> None:
        """Back."""
        self.workers.cancel_group(self, "ask")
        self.app.pop_screen()
