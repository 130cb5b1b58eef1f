"""A terminal that goes away: a closed window, a dropped SSH line, a killed tmux.

Before a dropped line is given up by the other end nothing reads what the app writes: the terminal's buffer fills, then
Textual's queue of 30 writes, and the event loop waits in the 31st. When the terminal then goes, the write under way
fails, the thread that writes would end of it, and nothing would ever free the loop: the hang-up signal could not be
answered, and the app would stay for ever (its reader at full load, for an ended terminal is always ready to be read).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import IO, Any

PIECE = 1 << 16
"""Bytes at most that are written at once, or wait to be."""


class Line:
    """A terminal's file that takes everything: while that is full it waits, once it has gone all is thrown away.

    What is shown already is not sent again (:mod:`wbtui.tui.slim`), so not a byte may be lost while the terminal is
    there. Another program may have left it non-blocking: then a file of Python's loses what does not fit, and bytes are
    written here, piece by piece.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.gone = False
        self._waiting = bytearray()
        self._fd = -1
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._fd = file.fileno()
            file.flush()

    def write(self, text: str) -> int:
        """As the file's, but for errors of the terminal."""
        if self._fd < 0:
            self._do(lambda: self._file.write(text))
        else:
            self._waiting += text.encode(getattr(self._file, "encoding", None) or "utf-8", "backslashreplace")
            if len(self._waiting) >= PIECE:
                self._do(self._send)
        return len(text)

    def flush(self) -> None:
        """As the file's, but for errors of the terminal."""
        self._do(self._file.flush if self._fd < 0 else self._send)

    def _send(self) -> None:
        while self._waiting:
            try:
                del self._waiting[: os.write(self._fd, self._waiting[:PIECE])]
            except BlockingIOError:
                select.select([], [self._fd], [])  # a terminal that hangs up can be written to, and says so then

    def _do(self, act: Callable[[], Any]) -> None:
        if not self.gone:
            try:
                act()
            except (OSError, ValueError):  # ValueError: closed
                self.gone = True
                self._waiting.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def outliving(driver: type[Any]) -> type[Any]:
    """A Textual driver whose thread that writes outlives its terminal."""

    def init(self: Any, *args: Any, **more: Any) -> None:
        driver.__init__(self, *args, **more)
        if hasattr(self, "_file"):
            self._file = Line(self._file)

    return type(f"Outliving{driver.__name__}", (driver,), {"__init__": init})


def when_gone(fd: int, act: Callable[[], object]) -> threading.Thread | None:
    """Call ``act`` once, on a thread of its own, when the terminal at ``fd`` hangs up; also where the signal does not
    come (``nohup``). None where the system cannot say: there the signal alone must do.

    Args:
        fd: a terminal, open for as long as the process lives.
        act: must be safe on any thread; an error of a loop that has ended meanwhile is nothing.
    """
    if not hasattr(select, "poll"):
        return None
    poll = select.poll()
    poll.register(fd, 0)  # no event is asked for: hang-ups and errors come unasked

    def wait() -> None:
        with contextlib.suppress(OSError, RuntimeError):
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
                act()

    thread = threading.Thread(target=wait, name="hang-up", daemon=True)
    thread.start()
    return thread
