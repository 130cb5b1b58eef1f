"""Downloads that the app started: each a process of its own (``wbtui download … --json``), told as it goes.

The app itself makes no request. A process that is ended keeps what has arrived; the next one goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from textual.message import Message

from wbtui.display import safe_token_text
from wbtui.tui.draw.frame import duration
from wbtui.tui.draw.line import Line
from wbtui.tui.messages import DownloadChanged

LIVE = ("starting", "running")


@dataclass(frozen=True)
class Download:
    """One download as it stands."""

    model: str
    sae: str | None
    state: str = "starting"
    """``starting``, ``running``, ``done``, ``failed``, ``cancelled``."""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    eta: float | None = None
    note: str = ""
    """A wait, or why it failed."""

    @property
    def live(self) -> bool:
        """Whether it goes on."""
        return self.state in LIVE

    @property
    def name(self) -> str:
        """What is fetched."""
        return self.sae or self.model

    def after(self, event: dict[str, Any]) -> Download:
        """The download after an event of its process."""
        kind = event.get("event")
        if kind == "plan":
            return replace(self, state="running", done=event["have"], total=event["total"], rate=0.0, eta=None, note="")
        if kind == "progress":
            return replace(
                self, state="running", done=event["done"], total=event["total"], rate=event["rate"], eta=event["eta"],
                note="",
            )  # fmt: skip
        if kind == "waiting":
            return replace(self, note=str(event["why"]))
        if kind == "done":
            return replace(self, state="done", done=self.total, note="")
        if kind == "error":
            parts = (event.get("found"), event.get("expected") and f"expected {event['expected']}", event.get("do"))
            return replace(self, state="failed", note="; ".join(filter(None, parts)))
        return self


def download_line(download: Download, cancel: str) -> Line:
    """A download on one line: share, bytes, rate, time left, and the key that cancels."""
    name = safe_token_text(download.name)
    if download.state == "done":
        return [("✓ ", "mark"), (name, "text"), (" is here", "dim")]
    if download.state == "failed":
        return [("! ", "error"), (name + ": ", "text"), (safe_token_text(download.note), "error")]
    if download.state == "cancelled":
        return [("× ", "warn"), (name, "text"), (" stopped; what has arrived is kept", "dim")]
    line: Line = [("↓ ", "mark")]
    if not download.total:
        line.append(("asking the Hub", "dim"))
    else:
        line.append((f"{100 * download.done / download.total:.0f} %", "strong"))
        line.append((f"  {size(download.done)} of {size(download.total)}", "dim"))
        if download.rate > 0:
            line.append((f"  {size(download.rate)}/s", "dim"))
        if download.eta is not None and download.done < download.total:
            line.append((f"  {duration(download.eta)} left", "dim"))
    line.append((f"  {cancel} cancels  ", "dim"))
    if download.note:  # what is waited for matters more than the name, which is in the list below
        line.append((safe_token_text(download.note) + "  ", "warn"))
    line.append((name, "text"))
    return line


def size(count: float) -> str:
    """``310 MB``, ``5.2 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}" if count < 10 * scale else f"{count / scale:.0f} {unit}"
    return f"{count:.0f} B"


class Downloads:
    """The app's downloads, one at a time.

    Args:
        tell: takes :class:`wbtui.tui.messages.DownloadChanged`.
    """

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self.now: Download | None = None
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, model: str, sae: str | None) -> bool:
        """Begin, unless one is under way."""
        if self.now is not None and self.now.live:
            return False
        self._set(Download(model, sae))
        self._task = asyncio.get_running_loop().create_task(self._run(model, sae))
        return True

    @property
    def _mine(self) -> bool:
        """Whether what is under way is the running task's: one that has failed may still be ending beside the next."""
        return self._task is asyncio.current_task() and self.now is not None and self.now.live

    def cancel(self) -> bool:
        """Stop what is under way; what has arrived is kept."""
        if self.now is None or not self.now.live:
            return False
        self._set(replace(self.now, state="cancelled", note=""))
        _end(self._process)
        return True

    async def close(self) -> None:
        """The app goes: so does its download."""
        _end(self._process)
        if self._task is not None:
            with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._task, 5)

    def _set(self, download: Download) -> None:
        self.now = download
        self._tell(DownloadChanged())

    async def _run(self, model: str, sae: str | None) -> None:
        words = [sys.executable, "-m", "wbtui", "download", "--json", "--", model, *([sae] if sae else [])]
        try:
            process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE)
        except OSError as error:
            self._failed(f"cannot start a process: {error.strerror or error}")
            return
        assert process.stdout is not None and process.stderr is not None
        if self._mine:
            self._process = process
        else:  # cancelled while it started
            _end(process)
        errors = asyncio.get_running_loop().create_task(process.stderr.read())
        async for raw in process.stdout:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(raw)
                if self._mine and self.now is not None:
                    self._set(self.now.after(event))
        said = (await errors).decode("utf-8", "replace").strip()
        code = await process.wait()
        if self._mine:
            last = said.splitlines()[-1].removeprefix("wbtui: ") if said else f"the process ended with code {code}"
            self._failed(last)

    def _failed(self, line: str) -> None:
        if self.now is not None:
            self._set(replace(self.now, state="failed", note=line))


def _end(process: Process | None) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
