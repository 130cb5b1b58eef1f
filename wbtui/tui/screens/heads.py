"""``h``: how a feature takes part in the heads that read it; who its partners are; a head's own page."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from wbtui.errors import Cancelled, WbtuiError
from wbtui.features.heads import OTHER, STATISTIC_WORDS, HeadTable, Row
from wbtui.tui import keymap
from wbtui.tui import messages as say
from wbtui.tui.draw import frame
from wbtui.tui.draw.heads import Spot, feature_words, geometry, grid_lines, words_role
from wbtui.tui.draw.heads_numbers import number_lines, softmax_lines
from wbtui.tui.draw.heads_page import (
    BESIDE,
    SPLIT,
    head_lines,
    partner_lines,
    share_words,
    waiting_lines,
)
from wbtui.tui.draw.heads_writes import writes_lines
from wbtui.tui.draw.line import Line, cut, spread, width_of
from wbtui.tui.facts import REASONS, reason, short_name, state_of
from wbtui.tui.head_pages import HeadPages
from wbtui.tui.screens.heads_actions import HeadsActions
from wbtui.tui.screens.heads_on_demand import HeadsOnDemand
from wbtui.tui.screens.page import PageScreen

if TYPE_CHECKING:
    from wbtui.features.head_shelf import HeadShelf
    from wbtui.features.table import FeatureTable
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen

GRID_LINES = 12
LIVE = ("queued", "running")


class HeadsScreen(HeadsActions, HeadsOnDemand, PageScreen):
    """Grids of ratios over partners; the feature is the main screen's, which follows every step made here.

    Args:
        main: whose cursor, history and order are used.
        opened: its SAE.
    """

    CONTEXT = "heads"
    HEADS_FIRST = True
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("heads")]

    def __init__(self, main: MainScreen, opened: Opened) -> None:
        super().__init__(opened)
        self.main = main
        self.spot = Spot(layer=-1)
        self.job: dict[str, Any] | None = None
        self.job_layer: int | None = None
        self.failure = ""
        self.pages = HeadPages()
        self.targets: dict[str, FeatureTable | None] = {}
        """Tables of SAEs behind the heads, for words; None while one is opened, or where it cannot be."""
        self.tables: list[HeadTable] = []
        self.figures: dict[tuple[int, str, str | None], tuple[str, str]] = {}
        self._rows: dict[tuple[int, int, int, str | None], Row] = {}

    # State ----------------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Look what is there; ask for what is not."""
        self.look(ask=True)

    @property
    def table(self) -> FeatureTable:
        """The features."""
        return self.opened.table

    @property
    def shelf(self) -> HeadShelf:
        """The layers that read them."""
        assert self.table.heads is not None
        return self.table.heads

    @property
    def row(self) -> int:
        """The feature."""
        return self.main.view.cursor

    @property
    def heads(self) -> HeadTable | None:
        """The chosen layer's heads."""
        return next((t for t in self.tables if t.layer == self.spot.layer), None)

    def look(self, ask: bool = False) -> None:
        """Open and refresh the layers' tables in a thread; with ``ask`` have the first one computed if it is not."""
        if self.shelf.absent:
            self.pending = False
            self.draw()
            return
        self.pending = True
        self.in_background(self._look, ask, group="look", exclusive=True)

    async def _look(self, ask: bool) -> None:
        shelf, statistic = self.shelf, self.spot.statistic

        def work() -> tuple[list[HeadTable], dict[tuple[int, str, str | None], tuple[str, str]]]:
            shelf.look()
            shelf.refresh()
            found = [t for layer in shelf.layers if (t := shelf.peek(layer)) is not None and t.ready]
            figures = {}
            for t in found:
                for side in OTHER:
                    some = t.any_head(side, statistic)
                    figures[t.layer, side, statistic] = (
                        share_words(t.pairs(side, statistic), "pairs"), share_words(some, "features in some head")
                    )  # fmt: skip
            return found, figures

        try:
            self.tables, figures = await asyncio.to_thread(work)
            self.figures.update(figures)
        except (WbtuiError, OSError) as error:
            self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
        self._rows.clear()
        if self.tables and self.heads is None:
            self._enter(self.tables[0])
        self.pending = False
        self.want_pages()
        first = self.shelf.first
        if ask and first is not None and not any(t.layer == first for t in self.tables):
            self.ask(first)
        self.main.heads_moved()
        self.draw()

    def _enter(self, heads: HeadTable) -> None:
        """Stand on the strongest part of the feature in a layer."""
        parts = self.row_of(heads).strongest(1) if 0 <= self.row < heads.n else []
        head, side = (parts[0].head, parts[0].side) if parts else (0, self.spot.side)
        self.spot = replace(self.spot, layer=heads.layer, head=head, side=side, pick=0)

    def row_of(self, heads: HeadTable) -> Row:
        """The feature in a layer's heads, remembered."""
        key = (heads.layer, heads.version, self.row, self.spot.statistic)
        if key not in self._rows:
            if len(self._rows) > 256:
                self._rows.clear()
            self._rows[key] = heads.row(self.row, self.spot.statistic)
        return self._rows[key]

    # Computing ------------------------------------------------------------------------------------------------------

    def ask(self, layer: int) -> None:
        """Have a layer computed, ahead of other work."""
        if not self.opened.writable:
            self.failure = "the cache is read-only: heads cannot be computed here"
            self.draw()
            return
        if layer in self.shelf.failures:
            self.failure = self.shelf.failures[layer]
            self.draw()
            return
        self.job_layer = layer
        self.in_background(self._ask, layer, group="ask", exclusive=True)

    async def _ask(self, layer: int) -> None:
        try:
            self.job = await self.wb.desk.compute_heads(self.opened, layer)
            self.failure = ""
        except Cancelled:
            return
        except WbtuiError as error:
            self.failure, self.job_layer = error.line(), None
        if self.job is not None and self.job.get("state") not in LIVE:
            self.look()
        self.draw()

    def on_job_moved(self, message: say.JobMoved) -> None:
        """Progress, a finished product, an end."""
        job = message.job
        if self.job is None or job.get("job") != self.job.get("job"):
            return
        self.job = {**self.job, **{k: v for k, v in job.items() if k != "event"}}
        ended = job.get("event") == "job" and job.get("state") in ("done", "failed", "cancelled")
        if ended:
            error = job.get("error")
            if job["state"] == "failed" and isinstance(error, dict):
                self.failure = WbtuiError.from_json(error).line()
            elif job["state"] == "cancelled":
                self.failure = "cancelled; what is finished stays, C goes on"
            self.job, self.job_layer = None, None
        if ended or job.get("event") == "product":
            self.look()
        self.draw()

    def on_service_changed(self, message: say.ServiceChanged) -> None:
        """Say so; what is there can be read."""
        if message.state in ("down", "other version") and self.job_layer is not None:
            self.failure, self.job, self.job_layer = message.line or "the service is down", None, None
        if message.state == "up":
            self.want_pages()
        self.draw()

    # Drawing --------------------------------------------------------------------------------------------------------

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is and what the numbers mean; the feature; the layer's shares beyond noise."""
        sae = self.opened.sae
        here = ("heads", f"L{self.spot.layer}.H{self.spot.head}") if self.spot.page == "head" else ("heads",)
        place = f"{sae.name} {sae.site}" if width >= 100 else sae.name
        left = frame.crumb([short_name(self.opened.model.name), place, f"#{self.row}", *here], None, width)
        left = left[:-1] if left[-1][0].isspace() else left
        for text in self._meanings():
            if width_of(left) + len(text) + 3 <= width:
                left = spread(left, [(text + " ", "dim")], width)
                break
        note = ""
        if (heads := self.heads) is not None:
            figures = self.figures.get((heads.layer, self.spot.side, self.spot.statistic))
            if figures:
                note = f"L{heads.layer} as {self.spot.side}: {figures[0]}"
                both = f"{note} · {figures[1]}"
                note = both if len(both) + 8 <= width else note
        return left, self._title(width), frame.separator(width, None, note=note)

    def _meanings(self) -> list[str]:
        definition = self.shelf.definition
        heads = self.heads
        statistic = self.spot.statistic or (heads.statistic if heads is not None else "max")
        offset = f"Δ = {definition.offset}" if definition.rope == "offset" else definition.rope
        words = f"{STATISTIC_WORDS[statistic]} over noise · {offset} · scale {definition.scale}"
        if heads is not None and heads.estimated(statistic):
            words = "≈ " + words
        short = f"{STATISTIC_WORDS[statistic]} over noise"
        if heads is not None and heads.plan is not None:
            facts = heads.plan.facts
            words = " · ".join((words, *facts.words))
            short += f" · {facts.marks}" if facts.marks else ""
        noise = heads.null_words() if heads is not None else ""
        named = f"{STATISTIC_WORDS[statistic]} over noise · per-feature normalised"
        normalised = heads is not None and heads.plan is not None and heads.plan.normalised
        return [f"{words} · {noise}" if noise else words, words, *([named] if normalised else []), short]

    def _title(self, width: int) -> Line:
        row, table = self.row, self.table
        if not 0 <= row < table.n:
            return [(" this SAE has no such feature", "dim")]
        left: Line = [(f" #{row}  ", "strong"), (table.sentence(row), "strong"), ("  ", "text")]
        if state_of(table, row) != "absent":
            words = feature_words(table, row, max(0, width - width_of(left) - 40))
            left.append((words, "writes" if words_role(words, True) == "text" else "dim"))
        right: Line = [("1.0 = 99 % of noise in that head", "dim"), (" ", "text")]
        return spread(left, right, width) if width_of(left) + width_of(right) <= width else cut(left, width)

    def _note(self) -> tuple[str, str]:
        """What stands in place of the grids."""
        if self.shelf.absent:
            return f"– {self.shelf.absent}. Nothing of this SAE can take part in attention.", "text"
        if self.failure:
            return f"{self.failure} · C asks again", "warn"
        if self.job is not None:
            return f"{frame.job_text(self.job)} · the grids fill when the layer is there", "text"
        failed = self.shelf.failures.get(self.shelf.first or 0)
        if failed:
            return failed, "error"
        return ("computing…" if self.job_layer is not None else "…"), "dim"

    def lines(self, width: int, height: int) -> list[Line]:
        """Grids over partners and numbers, or a head's own page."""
        row, table, heads = self.row, self.table, self.heads
        if not self.tables or heads is None or not 0 <= row < table.n:
            return waiting_lines(*self._note(), width)
        if self.spot.page == "head":
            return head_lines(table, heads, self.spot, row, width, height)
        rows = {t.layer: self.row_of(t) for t in self.tables}
        room = min(GRID_LINES, max(3, height // 2 - 1), 1 + sum(
            -(-t.n_heads // geometry(width, t.n_heads).per_line) for t in self.tables))  # fmt: skip
        out, _ = grid_lines(self.tables, rows, self.spot, width, room)
        out.append(self._legend(width))
        out.append([("─" * width, "rule")])
        left = height - len(out)
        if why := reason(table, row):
            return [*out, [(f"– {REASONS[why][1]}", "dim")]]
        page, note = self.page_of(row)
        if width >= SPLIT:
            a = partner_lines(table, heads, row, self.spot, width - BESIDE - 3, left, page, note)
            b = self._numbers(heads, BESIDE, left)
            for i in range(left):
                one, two = (x[i] if i < len(x) else [] for x in (a, b))
                out.append([*cut(one, width - BESIDE - 3), (" │ ", "rule"), *cut(two, BESIDE)])
            return out
        below = self._written(heads, width, numbers=False) if left >= 12 else []
        upper = partner_lines(table, heads, row, self.spot, width, left - len(below), page, note)
        return [*out, *upper, *([] for _ in range(left - len(below) - len(upper))), *below]

    def _numbers(self, heads: HeadTable, width: int, height: int) -> list[Line]:
        """Every number of the feature in the chosen head, then what the head writes of it."""
        numbers = number_lines(heads, self.row, self.spot, width)
        written = self._written(heads, width)
        softmax = softmax_lines(heads, self.row, self.spot, width)
        out = [*numbers, *written, *softmax]
        return out if len(out) <= height else [*numbers[: max(3, height - len(written))], *written][:height]

    def _written(self, heads: HeadTable, width: int, *, numbers: bool = True) -> list[Line]:
        seen = self.seen
        if seen is None:
            return []
        pick = self.spot.link if self.spot.active == "links" else -1
        return writes_lines(self.table, heads, self.spot.head, seen, width, pick=pick, numbers=numbers)

    def _legend(self, width: int) -> Line:
        missing = [layer for layer in self.shelf.layers if layer not in [t.layer for t in self.tables]]
        words = " ░ below 1  ▒ 1–1.5  ▓ 1.5–2  █ above 2"
        first = self.shelf.first
        direct = "" if self.spot.layer == first else "direct path only: layers between rewrite it"
        if self.job is not None:
            direct = f"L{self.job_layer}: {frame.job_text(self.job)}"
        elif missing and not direct:
            direct = f"L computes heads of L{missing[0]}"
        return spread([(words, "dim")], [(direct + " ", "dim")], width)

    def last_line(self, width: int) -> Line:
        """A notice, a failure, or what this page is."""
        if not self.notice[0] and self.failure and self.tables:
            return frame.state_line([(self.failure, "warn")], width)
        return frame.state_line([self.notice], width) if self.notice[0] else super().last_line(width)
