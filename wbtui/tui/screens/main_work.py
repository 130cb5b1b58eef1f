"""What reaches the main screen from threads and the service: rows, progress, histograms; and what it asks of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from wbtui.errors import Cancelled, WbtuiError
from wbtui.tui import messages as say
from wbtui.tui import state as st
from wbtui.tui.data import Opened, missing_analyses
from wbtui.tui.draw.heads import HeadsLook
from wbtui.tui.draw.main import heads_look
from wbtui.tui.draw.metrics import METRICS
from wbtui.tui.draw.population import Population, make_population
from wbtui.tui.facts import shares_of

if TYPE_CHECKING:
    from wbtui.tui.screens.main import MainScreen

PLACED = (*(f"{side}.{name}" for side in ("writes", "reads") for name, _, _ in METRICS), "d_norm", "e_norm", "selfcos")
"""Metrics whose place among all features is shown."""
REFRESH_EVERY = 0.25
"""Seconds between looks for landed shards, however fast they land."""


class MainWork:
    """Mixed into :class:`wbtui.tui.screens.main.MainScreen`."""

    row_failure: dict[int, str]
    """Features whose lone row could not be computed, and why."""
    lost: bool = False
    """Whether the service went while it was at work for this screen."""

    @property
    def me(self) -> MainScreen:
        """This screen, typed."""
        from typing import cast

        return cast("MainScreen", self)

    # Service --------------------------------------------------------------------------------------------------------

    def ask_compute(self, priority: str) -> None:
        """Ask the service for what is missing."""
        self.me.in_background(self._compute, priority, group="compute", exclusive=True)

    async def _compute(self, priority: str) -> None:
        me = self.me
        opened = me.opened
        if opened is None or not opened.writable:
            return
        try:
            me.job = await me.wb.desk.compute(opened, me.view.cursor, priority)
        except Cancelled:
            return
        except WbtuiError as error:
            self.me.notify_line(error.line(), "warn")
            return
        me.draw_last()
        me.look_for_rows()
        if me.view.cursor in range(opened.table.n):
            me.draw_card()

    def ask_row(self, row: int) -> None:
        """Ask for one feature's row ahead of the others, unless that has failed or cannot be."""
        me = self.me
        if me.opened is None or row in self.row_failure or me.wb.desk.state in ("down", "other version"):
            return
        me.wb.desk.ask_row(me.opened, row)

    def on_row_computed(self, message: say.RowComputed) -> None:
        """Show a provisional row."""
        me = self.me
        if message.opened is not me.opened or me.opened is None or me.opened.table.computed[message.feature]:
            return
        columns = st.with_nan(message.columns)
        if columns.pop("unmasked", False):
            me.unmasked.add(message.feature)
        try:
            me.opened.table.put_provisional(message.feature, columns)
        except WbtuiError as error:
            self.row_failure[message.feature] = error.line()
        me.draw()

    def on_row_failed(self, message: say.RowFailed) -> None:
        """Say why."""
        self.row_failure[message.feature] = message.line
        self.me.draw_card()

    def on_service_changed(self, message: say.ServiceChanged) -> None:
        """Show it; nothing else stops."""
        if message.state in ("starting", "up"):
            self.me.notice = ("", "dim")
        self.me.draw_last()
        if message.state == "up":
            self.me.look_for_near()
        if message.state == "up" and self.lost and self.me.opened is not None and self.me.opened.missing:
            self.ask_compute("screen")  # it came back: what was asked for the screen has to be asked again
        self.lost = message.state == "down" and (self.lost or self.me.job is not None)
        if message.state in ("down", "other version"):
            self.me.job = None
            if self.me.opened is not None and self.me.opened.missing and message.line:
                self.me.notify_line(message.line, "warn")
            self.me.draw_card_soon()

    def on_job_moved(self, message: say.JobMoved) -> None:
        """Progress, a landed shard, an end."""
        me = self.me
        job = message.job
        if me.opened is None:
            return
        if me.job is not None and job.get("job") == me.job.get("job"):
            me.job = {**me.job, **{k: v for k, v in job.items() if k != "event"}}
            if job.get("event") == "job" and job.get("state") in ("done", "failed", "cancelled"):
                me.job = None
                me.in_background(self._recheck, group="recheck", exclusive=True)
                error = job.get("error")
                if job["state"] == "failed" and isinstance(error, dict):
                    self.me.notify_line(WbtuiError.from_json(error).line(), "error")
                elif job["state"] == "cancelled":
                    self.me.notify_line("cancelled; what is finished stays, C goes on", "dim")
        if job.get("event") == "product":
            self.look_for_heads()
            me.look_for_near()
            me.in_background(self._recheck, group="recheck", exclusive=True)
        if job.get("event") in ("shard", "product", "job", "connected"):
            me._again_soon()
        me.draw_last()

    async def _recheck(self) -> None:
        me = self.me
        opened = me.opened
        if opened is None:
            return
        before, opened.missing = opened.missing, await asyncio.to_thread(missing_analyses, opened.cache, opened.plan)
        if before and not opened.missing:
            me.look_for_near()
        me.look_for_rows()
        me.draw_last()

    # Heads ----------------------------------------------------------------------------------------------------------

    def look_for_heads(self) -> None:
        """Open the reader layer's heads in a thread, or pick up what landed of them."""
        if self.me.opened is not None:
            self.me.in_background(self._look_for_heads, self.me.opened, group="heads", exclusive=True)

    async def _look_for_heads(self, opened: Opened) -> None:
        shelf = opened.table.heads
        if shelf is not None and not shelf.absent:

            def look() -> None:
                try:
                    shelf.table()
                    shelf.refresh()
                except (WbtuiError, OSError) as error:
                    shelf.failures[shelf.first or 0] = error.line() if isinstance(error, WbtuiError) else str(error)

            await asyncio.to_thread(look)
        if opened is self.me.opened:
            self.heads_moved()

    def heads_moved(self) -> None:
        """Heads are there, or it is known why not: the card says so, a filter by heads is applied again."""
        self.me.heads_seen = True
        self.me.draw_card()
        if "head:" in self.me.view.filter or any("head:" in name for name, _ in self.me.view.sort):
            self.me.rearrange()

    def heads_look(self) -> HeadsLook:
        """What the card draws of heads, or the words in their place."""
        return heads_look(self.me.opened, self.me.heads_seen)

    # Background -----------------------------------------------------------------------------------------------------

    def make_background(self) -> None:
        """Histograms and class shares of the table's present version, in a thread, one at a time."""
        if self.me.opened is None or self.me._making or self.me._made == self.me.opened.table.version:
            return
        self.me._making = True
        self.me.in_background(self.me._make_background, self.me.opened, group="background")

    async def _make_background(self, opened: Opened) -> None:
        version = opened.table.version

        def make() -> tuple[dict[str, Population], dict[str, Any] | None]:
            found = {name: make_population(opened.table, name) for name in PLACED}
            return {k: v for k, v in found.items() if v is not None}, shares_of(opened.table)

        try:
            populations, summary = await asyncio.to_thread(make)
        finally:
            self.me._making = False
        self.me.post_message(say.BackgroundMade(opened, version, populations, summary))

    def on_background_made(self, message: say.BackgroundMade) -> None:
        """Draw them; once more if rows landed meanwhile."""
        if message.opened is not self.me.opened:
            self.me.make_background()
            return
        self.me._made, self.me.populations, self.me.summary = message.version, message.populations, message.summary
        self.me.draw()
        if self.me.opened.table.version != message.version:
            self.me._again_soon()

    def _again_soon(self) -> None:
        if self.me._refresh_timer is None:
            self.me._refresh_timer = self.me.set_timer(REFRESH_EVERY, self.me.look_for_rows)

    def look_for_rows(self) -> None:
        """Take in what landed; rows arrive, nothing jumps."""
        self.me._refresh_timer = None
        if self.me.opened is None:
            return
        try:
            changed = self.me.opened.table.refresh()
        except (WbtuiError, OSError) as error:
            self.me.notify_line(error.line() if isinstance(error, WbtuiError) else str(error), "error")
            return
        if changed:
            self.me.rearrange()
        elif self.me._made != self.me.opened.table.version:
            self.me.make_background()
