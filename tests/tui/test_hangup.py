"""A terminal that goes away under the app, as when an SSH line drops."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import tty
from pathlib import Path

import pytest
from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from tests.service.conftest import wait_until
from wbtui.service.start import with_package
from wbtui.tui.hangup import Line, when_gone

WITHIN = 30.0


class Broken:
    """A terminal that has hung up."""

    tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(errno.EIO, "Input/output error")

    flush = write


def test_what_is_written_to_a_terminal_that_has_gone_is_thrown_away_and_no_one_waits() -> None:
    broken = Broken()
    thread = WriterThread(Line(broken))  # type: ignore[arg-type]
    thread.start()
    done = threading.Event()

    def write() -> None:
        for _ in range(10 * MAX_QUEUED_WRITES):
            thread.write("x")
        thread.stop()
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(WITHIN), "the thread that writes has died, and its queue is full"
    assert broken.tries == 1


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_full_terminal_that_does_not_block_loses_nothing(kind: str) -> None:
    ours, theirs = os.pipe() if kind == "pipe" else pty.openpty()
    if kind == "terminal":
        tty.setraw(theirs)
    os.set_blocking(theirs, False)
    frames = [f"frame {i} \u2500" * 200 + "\n" for i in range(300)]
    with open(theirs, "w", encoding="utf-8", closefd=False) as file:
        line = Line(file)
        thread = WriterThread(line)  # type: ignore[arg-type]
        thread.start()

        def write() -> None:
            for frame in frames:
                thread.write(frame)
            thread.stop()

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        wanted = "".join(frames).encode()
        got = b""
        while len(got) < len(wanted) and select.select([ours], [], [], WITHIN)[0]:
            got += os.read(ours, 4096)  # slower than it is written: it is full again and again
        writer.join(WITHIN)
        assert not writer.is_alive() and not line.gone
    assert got == wanted
    os.close(ours)
    os.close(theirs)


def test_a_terminal_that_goes_while_it_is_full_lets_the_writer_go() -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(theirs, False)
    with open(theirs, "w", encoding="utf-8", closefd=False) as file:
        line = Line(file)
        full = threading.Thread(target=lambda: (line.write("x" * 1_000_000), line.flush()), daemon=True)
        full.start()
        # not "no longer writable": once a full terminal's bytes are moved to its reader it is, and wakes nobody
        wait_until(lambda: 0 < len(line._waiting) < 1_000_000, WITHIN)
        os.close(ours)
        full.join(WITHIN)
        assert not full.is_alive() and line.gone
    os.close(theirs)


def test_the_end_of_a_terminal_is_heard_without_a_signal() -> None:
    ours, theirs = pty.openpty()
    gone = threading.Event()
    watcher = when_gone(theirs, gone.set)
    assert watcher is not None
    os.write(ours, b"typing is no end\n")
    assert not gone.wait(0.05)
    os.close(ours)
    assert gone.wait(WITHIN)
    watcher.join(WITHIN)
    os.close(theirs)


class Stall:
    """Makes a terminal's app draw, which no one reads, until it gets no further. Call it again and again.

    Args:
        app: its process.
        terminal: the other end of its terminal.
    """

    def __init__(self, app: int, terminal: int) -> None:
        self.app, self.terminal = app, terminal
        self.calls = 0
        self.before = ""

    def __call__(self) -> bool:
        """Turns of 30 new sizes, which are drawn, then 60 keys. True after a turn in which the main thread, which would
        take the keys, had no time at all: it waits."""
        turn, self.calls = self.calls % 90, self.calls + 1
        if turn < 30:
            self.resize(200 - turn % 2)
            return False
        if turn == 45:
            self.before = self.ticks()
        os.write(self.terminal, b"\x1b[B" if turn % 2 else b"\x1b[A")
        return turn == 89 and self.ticks() == self.before

    def ticks(self) -> str:
        """Time that the main thread has had so far."""
        return Path(f"/proc/{self.app}/task/{self.app}/stat").read_text().rpartition(")")[2].split()[11]

    def resize(self, columns: int) -> None:
        """The whole screen is drawn anew for it."""
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_app_ends_with_its_terminal_though_no_one_read_what_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a line that nothing reads any more, an app that waits for it, and no hang-up signal (as by ``nohup``) WHEN
    the terminal goes THEN so does the app, in order."""
    monkeypatch.setenv("TERM", "xterm-256color")
    app, terminal = pty.fork()
    if app == 0:
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.execve(sys.executable, [sys.executable, "-P", "-m", "wbtui"], with_package(dict(os.environ)))
        os._exit(1)
    stalled, status = Stall(app, terminal), None

    def ended() -> tuple[int, int] | None:
        found = os.waitpid(app, os.WNOHANG)
        return found if found[0] else None

    try:
        stalled.resize(200)
        assert os.read(terminal, 1)  # it has come up; from here on nothing is read
        wait_until(stalled, WITHIN, "the app waits for its terminal")
        os.close(terminal)
        status = wait_until(ended, WITHIN, "the app ends")[1]
    finally:
        if status is None:
            os.kill(app, signal.SIGKILL)
            os.waitpid(app, 0)
    assert os.waitstatus_to_exitcode(status) == 0
