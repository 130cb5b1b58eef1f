"""The first picture stands before the app is loaded.

To import Textual and to mount a screen takes twice as long as to open a place and to put its rows in order. So where a
finished table is all that there is to show, the main screen's page is drawn straight to the terminal, by what draws it
in the app (:mod:`wbtui.tui.draw`); then the app comes, enters no screen of its own, clears nothing, and sends its first
frame over the picture: the same cells again. Keys that are typed meanwhile wait in the terminal's queue, unseen.

Whatever is out of the ordinary is left to the app: numbers that are missing, a first visit, a page other than the main
one, a terminal that is too small or a slow line, a place that takes long to open. Until the app has the terminal
(:meth:`First.hand_over`) every way out gives it back as it was found: an error, Ctrl+C, a polite kill.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wbtui.tui import state as st
from wbtui.tui.hangup import Line as Terminal

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from wbtui.tui.data import Arranged, Early, Opened

try:
    import termios
except ImportError:  # no terminals of this kind here
    termios = None  # type: ignore[assignment]

WAITED = 0.25
"""Seconds that the loading of the app waits for a place to be open."""
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?1049l\x1b[?25h"
"""The other screen without a cursor; back."""
LEAVING = ("ctrl+c", "ctrl+q")
"""Keys that never wait."""
TEXTUALS = ("TEXTUAL", "TEXTUAL_DRIVER", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_FILTERS")
"""Variables with which Textual draws in another way."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class First:
    """The terminal between the command and the app. As a context manager it gives back what the app has not taken."""

    def __init__(self) -> None:
        self.standing = False
        """Whether the picture is on screen, and the terminal not the app's yet."""
        self._keys: list[tuple[Callable[[Any], None], Any]] = []
        self._kept_back = False
        self._lock = threading.Lock()
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> First:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._told_to_leave:
                signal.signal(number, handler)

    def show(
        self,
        early: Early,
        view: st.View,
        *,
        at_top: bool,
        look: str = "auto",
        ascii: bool = False,
    ) -> bool:
        """Draw the page of a place, if it is the main page with a finished table.

        Args:
            early: the place, on its way.
            view: what is to be shown of it.
            at_top: the cursor goes to whichever row comes first.
            look: the setting ``theme``.
            ascii: no glyph beyond ASCII.

        Returns:
            bool: whether it stands.
        """
        width, height = shutil.get_terminal_size()  # as Textual asks
        if view.page != "main" or width < st.MIN_WIDTH or height < st.MIN_HEIGHT or not plain_terminal():
            return False
        from wbtui.tui import picture_before  # meanwhile the place is opened

        ready = early.ready(WAITED)
        if ready is None or not finished(*ready):
            return False
        text = picture_before.page(*ready, view, (width, height), at_top=at_top, look=look, ascii=ascii)
        return bool(text) and shutil.get_terminal_size() == (width, height) and self._take(text)

    def _take(self, text: str) -> bool:
        """Take the terminal and write; False where it cannot be had."""
        fd = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
        try:
            self._before = termios.tcgetattr(fd)
            self.standing = True  # from here on there is something to be given back
            for number in SIGNALS:
                if signal.getsignal(number) == signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, self._told_to_leave)
            termios.tcsetattr(fd, termios.TCSANOW, unseen(self._before))
        except (termios.error, OSError, ValueError):
            self.standing = False
            return False
        self._write(ENTER + text)
        return True

    def hand_over(self) -> list[Any]:
        """The app has the terminal. Returns how it was found (as of ``termios.tcgetattr``)."""
        self.standing = False
        return self._before

    def give_back(self) -> None:
        """The terminal as it was found, if the app does not have it."""
        if not self.standing:
            return
        self.standing = False
        self._write(LEAVE)
        try:
            termios.tcflush(sys.__stdin__.fileno(), termios.TCIFLUSH)  # type: ignore[union-attr]  # keys for the app
            termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, self._before)  # type: ignore[union-attr]
        except (termios.error, OSError, ValueError):
            pass  # the terminal has gone

    # Keys that are typed at a picture which no screen stands behind yet

    def keep_back(self) -> None:
        """From now on keys wait for :meth:`let_in`: they are meant for rows that the app has not got yet."""
        self._kept_back = True

    def keeps(self, send: Callable[[Any], None], message: Any) -> bool:
        """Whether a key, or what the mouse did, waits; if not, it is to be sent. On any thread."""
        if getattr(message, "key", "") in LEAVING:
            return False
        with self._lock:
            if self._kept_back:
                self._keys.append((send, message))
            return self._kept_back

    def let_in(self) -> None:
        """The rows are there: send what has waited, in its order, and all that comes from now on."""
        with self._lock:
            self._kept_back = False
            for send, message in self._keys:
                message.time = time.monotonic()  # for what waits for a key's answer, and not for long, it comes now
                send(message)
            self._keys.clear()

    def _told_to_leave(self, number: int, frame: FrameType | None) -> None:
        self.give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _write(self, text: str) -> None:
        if sys.__stderr__ is not None:
            terminal = Terminal(sys.__stderr__)
            terminal.write(text)
            terminal.flush()


def plain_terminal() -> bool:
    """Whether the terminal is one that the app would draw on in its usual way."""
    told = any(os.environ.get(name) for name in TEXTUALS)
    return termios is not None and not told and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def finished(opened: Opened, arranged: Arranged) -> bool:
    """Whether all that a page shows of a place is there."""
    table = opened.table
    return not (opened.missing or table.provisional or table.kept.error or not arranged.rows)


def unseen(attributes: list[Any]) -> list[Any]:
    """A terminal's attributes as Textual sets them, but that Ctrl+C interrupts: what is typed is not shown, and every
    byte stays as it is for the app."""
    out = list(attributes)
    out[0] &= ~(termios.IXON | termios.IXOFF | termios.ICRNL | termios.INLCR | termios.IGNCR)
    out[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    out[6] = list(out[6])
    out[6][termios.VMIN], out[6][termios.VTIME] = 1, 0
    for name in ("VSUSP", "VQUIT", "VDSUSP"):  # keys of the app; nothing would put the screen back
        if hasattr(termios, name):
            out[6][getattr(termios, name)] = b"\0"
    return out


def opening_view(view: st.View, opened: Opened) -> st.View:
    """A view on a place that was just opened: its names, and what is kept of it."""
    kept = opened.table.kept
    extra = ("tags",) if kept.tags else ()
    return replace(view, model=opened.model.name, sae=opened.sae.name, marks=st.Marks(kept.marks.copy()), extra=extra)
