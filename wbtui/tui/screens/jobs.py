"""``J``: what the service works on: progress, time left, cancel, retry, log."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.tui import keymap
from wbtui.tui import messages as say
from wbtui.tui.draw.jobs import LIVE, in_order, job_lines
from wbtui.tui.draw.line import Line, rule, wrap
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.screens.reading import ReadingScreen
from wbtui.tui.widgets.card import Card


class JobsScreen(WbScreen):
    """Jobs: what runs, what waits, what has ended; the cursor's job with its products."""

    CONTEXT = "jobs"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("jobs")]
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self.job: int | None = None
        """The cursor's job by number: the list moves under it, and ``x`` must not hit another. None: the first."""
        self.note = ""
        self._service_line = ""
        """What was last said of the service itself, not of a key."""

    def body(self) -> ComposeResult:
        """The list."""
        yield Card(id="text")

    def on_mount(self) -> None:
        """Ask for the list; it goes on by events."""
        self.in_background(self._ask, exclusive=True)

    async def _ask(self) -> None:
        desk = self.wb.desk
        try:
            desk.jobs = {j["job"]: j for j in await desk.list_jobs()}
        except WbtuiError as error:
            self.note = error.line()
        self.fit()

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """As they are listed."""
        return in_order(self.wb.desk.jobs.values())

    @property
    def at(self) -> int:
        """The cursor's row."""
        return next((n for n, job in enumerate(self.jobs) if job["job"] == self.job), 0)

    def fit(self) -> None:
        """Draw."""
        card = self.query_one("#text", Card)
        desk = self.wb.desk
        card.set_lines(
            job_lines(
                self.jobs, self.at, desk.state, self.note, card.inner_width, desk.devices, height=card.size.height
            )
        )

    def _move(self, by: int) -> None:
        jobs = self.jobs
        if jobs:
            self.job = jobs[max(0, min(self.at + by, len(jobs) - 1))]["job"]
        self.fit()

    def on_job_moved(self, message: say.JobMoved) -> None:
        """Redraw."""
        self.fit()

    def on_service_changed(self, message: say.ServiceChanged) -> None:
        """What was said of the service holds until it stands otherwise; another service counts its jobs anew."""
        if message.line or self.note == self._service_line:
            self.note = message.line
        self._service_line = message.line
        if message.state != "up":
            self.job = None
        self.fit()

    def action_down(self) -> None:
        """Down."""
        self._move(1)

    def action_up(self) -> None:
        """Up."""
        self._move(-1)

    def action_cancel(self) -> None:
        """Cancel the job under the cursor."""
        jobs = self.jobs
        if jobs and jobs[self.at].get("state") in LIVE:
            self.in_background(self._cancel, int(jobs[self.at]["job"]), exclusive=True)

    async def _cancel(self, job: int) -> None:
        try:
            await self.wb.desk.cancel(job)
            self.note = f"job {job} cancelled; what is finished stays"
        except WbtuiError as error:
            self.note = error.line()
        self.fit()

    def action_retry(self) -> None:
        """Ask again for what the job under the cursor was to do."""
        jobs = self.jobs
        if not jobs:
            return
        job = jobs[self.at]
        if job.get("state") in LIVE:
            self.note = f"job {job['job']} is {job.get('state')}; r asks again for one that has ended"
            self.fit()
        else:
            self.in_background(self._retry, int(job["job"]), exclusive=True)

    async def _retry(self, job: int) -> None:
        try:
            again = await self.wb.desk.retry(job)
            self.note = f"asked again: job {again}; what is finished is not computed twice"
        except WbtuiError as error:
            self.note = error.line()
        self.fit()

    def action_log(self) -> None:
        """What the service wrote down, with the job's error above it."""
        jobs = self.jobs
        self.app.push_screen(LogScreen(jobs[self.at] if jobs else None))

    def action_restart(self) -> None:
        """End the service, of whatever version, and start one of this version."""
        self.note = "restarting the service…"
        self.fit()
        self.in_background(self._restart, exclusive=True)

    async def _restart(self) -> None:
        try:
            await self.wb.desk.restart()
            self.note = "the service was restarted; what was running is computed when it is asked for again"
        except WbtuiError as error:
            self.note = error.line()
        self.fit()

    def action_back(self) -> None:
        """Back."""
        self.app.pop_screen()


class LogScreen(ReadingScreen):
    """The end of the service's log, newest last; above it what became of one job.

    Args:
        job: as the service describes it, or None.
    """

    def __init__(self, job: dict[str, Any] | None) -> None:
        super().__init__()
        self.job = job
        self.log_text: list[str] = []

    def on_mount(self) -> None:
        """Read in a thread."""
        self.in_background(self._read, exclusive=True)

    async def _read(self) -> None:
        self.log_text = await asyncio.to_thread(log_end)
        self.fit()
        self._show(len(self.text))

    def lines(self, width: int) -> list[Line]:
        """The job's state and error, then the log."""
        out: list[Line] = []
        if self.job is not None:
            state = safe_token_text(str(self.job.get("state", "")))
            head = f"JOB {self.job['job']} {safe_token_text(str(self.job.get('label') or ''))}"
            out.append(rule(width, head, state))
            error = self.job.get("error")
            if isinstance(error, dict):
                for name in ("found", "expected", "do"):
                    if error.get(name):
                        words = f"{name}: {safe_token_text(str(error[name]))}".split()
                        out += wrap(words, width, "error" if name == "found" else "text", "  ")
            else:
                out.append([("no error", "dim")])
            out.append([])
        out.append(rule(width, "LOG OF THE SERVICE", f"last {len(self.log_text)} lines"))
        for line in self.log_text:
            out += wrap(safe_token_text(line).split(), width, "text", "    ") or [[]]
        return out


LOG_BYTES = 64 * 1024


def log_end(lines: int = 200) -> list[str]:
    """The last lines of the service's log; a line that says so where there is none."""
    from wbtui.service import logs

    place = logs.path()
    try:
        with open(place, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return [f"{place}: {error.strerror or error}"]
    return text.splitlines()[-lines:] or ["nothing yet"]
