"""``J``: what the service works on: progress, time left, cancel, retry, log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from wbtui.display import fit, safe_token_text
from wbtui.errors import WbtuiError
from wbtui.tui import keymap
from wbtui.tui import messages as say
from wbtui.tui.draw.frame import ANALYSES, SERVICE_WORDS, duration
from wbtui.tui.draw.line import Line, cut, rule, wrap
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.screens.reading import ReadingScreen
from wbtui.tui.widgets.card import Card

LIVE = ("queued", "running")


class JobsScreen(WbScreen):
    """Jobs, newest first; the cursor's job with its products."""

    CONTEXT = "jobs"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("jobs")]
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0
        self.note = ""

    def body(self) -> ComposeResult:
        """The list."""
        yield Card(id="text")

    def on_mount(self) -> None:
        """Ask for the list; it goes on by events."""
        self.run_worker(self._ask(), exclusive=True)

    async def _ask(self) -> None:
        desk = self.wb.desk
        try:
            desk.jobs = {j["job"]: j for j in await desk.list_jobs()}
        except WbtuiError as error:
            self.note = error.line()
        self.fit()

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Live ones first, then the newest."""
        known = self.wb.desk.jobs.values()
        return sorted(known, key=lambda j: (j.get("state") not in LIVE, -int(j["job"])))

    def fit(self) -> None:
        """Draw."""
        card = self.query_one("#text", Card)
        jobs = self.jobs
        self.at = max(0, min(self.at, len(jobs) - 1))
        desk = self.wb.desk
        lines = job_lines(jobs, self.at, desk.state, self.note, card.inner_width, desk.devices)
        card.set_lines(lines[: card.size.height])

    def on_job_moved(self, message: say.JobMoved) -> None:
        """Redraw."""
        self.fit()

    def on_service_changed(self, message: say.ServiceChanged) -> None:
        """Redraw."""
        self.note = message.line or self.note
        self.fit()

    def action_down(self) -> None:
        """Down."""
        self.at += 1
        self.fit()

    def action_up(self) -> None:
        """Up."""
        self.at -= 1
        self.fit()

    def action_cancel(self) -> None:
        """Cancel the job under the cursor."""
        jobs = self.jobs
        if jobs and jobs[self.at].get("state") in LIVE:
            self.run_worker(self._cancel(int(jobs[self.at]["job"])), exclusive=True)

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
            self.run_worker(self._retry(int(job["job"])), exclusive=True)

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
        self.run_worker(self._restart(), exclusive=True)

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
        self.run_worker(self._read(), exclusive=True)

    async def _read(self) -> None:
        self.log_text = await asyncio.to_thread(log_end)
        self.fit()
        self._show(len(self.text))

    def lines(self, width: int) -> list[Line]:
        """The job's state and error, then the log."""
        out: list[Line] = []
        if self.job is not None:
            state = str(self.job.get("state", ""))
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


def device_lines(devices: Sequence[Mapping[str, Any]], width: int) -> list[Line]:
    """One line for each worker: its device, memory in use by anyone and in all, what it is at."""
    out: list[Line] = []
    for device in devices:
        memory = device.get("memory")
        text = ""
        if isinstance(memory, list) and len(memory) == 2:
            used, total = (float(n) / 2**30 for n in memory)
            filled = round(min(max(used / total, 0.0), 1.0) * 20) if total else 0
            text = f"{'█' * filled}{'░' * (20 - filled)} {used:.1f} of {total:.1f} GiB in use (by anyone)"
        at = str(device.get("at") or ("idle" if device.get("alive") else "asleep"))
        name = fit(safe_token_text(str(device.get("device") or device.get("name"))), 9)
        out.append(cut([(f"  {name} ", "text"), (fit(safe_token_text(at), 9) + " ", "text"), (text, "dim")], width))
    return out


def job_lines(
    jobs: list[dict[str, Any]],
    at: int,
    service: str,
    note: str,
    width: int,
    devices: Sequence[Mapping[str, Any]] = (),
) -> list[Line]:
    """The screen's text."""
    words, role = SERVICE_WORDS[service]
    out: list[Line] = [[("JOBS", "strong"), ("   ", "text"), (words or "service not asked yet", role)]]
    if note:
        out += wrap(safe_token_text(note).split(), width, "warn")
    out += device_lines(devices, width)
    out.append([])
    if not jobs:
        out.append([("nothing runs, nothing waits", "dim")])
        return out
    label_width = max(16, min(44, width - 52))
    head = f"  {'job':>4}  {fit('what', label_width)} {fit('state', 10)} {'done':>6}  {'left':>7}  priority"
    out.append([(head, "head")])
    for n, job in enumerate(jobs):
        state = str(job.get("state", ""))
        live = state in LIVE
        eta = job.get("eta")
        left = duration(float(eta)) if live and isinstance(eta, (int, float)) else ""
        share = float(job.get("fraction") or 0.0) * 100
        label = safe_token_text(str(job.get("label") or "…"))
        line: Line = [("▸ " if n == at else "  ", "strong"), (f"{job['job']:>4}  ", "dim")]
        line += [(fit(label, label_width) + " ", "text" if live else "dim")]
        line += [(fit(state, 10), "error" if state == "failed" else "text" if live else "dim")]
        line += [(f" {share:>4.0f} %  {left:>7}  ", "text" if live else "dim"), (str(job.get("priority", "")), "dim")]
        out.append(cut(line, width))
    job = jobs[at]
    out += [[], rule(width, f"JOB {job['job']}")]
    error = job.get("error")
    if isinstance(error, dict):
        out += wrap(safe_token_text(WbtuiError.from_json(error).line()).split(), width, "error")
    for product in job.get("products") or []:
        if not isinstance(product, dict):
            continue
        rows, done = int(product.get("rows") or 0), int(product.get("rows_done") or 0)
        state = str(product.get("state", ""))
        name = ANALYSES.get(str(product.get("analysis")), str(product.get("analysis")))
        amount = f"{done:,} of {rows:,}" if rows else ""
        share_ = done / rows if rows else float(state == "complete")
        filled = round(min(max(share_, 0.0), 1.0) * 20)
        out.append(
            cut(
                [(fit(name, 16), "text"), ("█" * filled, "reads"), ("░" * (20 - filled), "faint"),
                 (f"  {amount:>20}  ", "dim"), (state, "dim")],
                width,
            )
        )  # fmt: skip
    return out
