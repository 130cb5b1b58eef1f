"""A session in a real pseudo-terminal over hostile names and tokens: every byte that reaches the terminal belongs to
the app's own few kinds of control sequence, or is text that draws."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from pathlib import Path

from benchmarks.app import take
from tests.hostile.made import Hostile
from tests.hostile.texts import NAME, TOKENS, harm

CSI = re.compile(r"\x1b\[[<=>?]?[0-9;:]*[ !$]?[A-Za-z]")
FINALS = frozenset("ABCDHJKhlmnpqru")
"""Moves, erases, modes, colours, questions and kitty's keys: what Textual's driver writes."""
OSC = re.compile(r"\x1b\](?:52;c;[A-Za-z0-9+/=]*|22;[a-z-]*)(?:\x07|\x1b\\)")
"""The clipboard and the pointer's shape. No title, no link."""
OTHERS = ("\x1b[?1049h", "\x1b7", "\x1b8", "\x1b=", "\x1b>")
KEYS = (
    *(b"j", b"i", b"\r", b"\x1b[6~", b"\x1b"),
    *(b"D", b"\x1b", b"h", b"p", b"\x1b", b"\x1b", b"F", b"\x1b"),
    *(b"~", b"\x1b", b"=", b"\r", b"\x1b", b"V", b"\x1b"),
    *(b"p", b"j", b"\x1b", b"J", b"l", b"\x1b", b"\x1b", b"o", b"\x1b[B", b"\x1b", b"\x1b"),
    *(b"/", b"\x1b[200~" + NAME.encode() + b"\x1b[201~", b"\x1b", b"a", b"\x1b", b"y", b"x", b"\r"),
)  # fmt: skip
"""Page, glossary, heads, population, near, match, depth, comparison, jobs, log, start, a paste, note, copy, export."""
QUIET, PATIENCE = 0.12, 60.0


def parsed(stream: str) -> str:
    """The text of a stream without its control sequences.

    Raises:
        AssertionError: a sequence of another kind.
    """
    out, at = [], 0
    while (start := stream.find("\x1b", at)) >= 0:
        out.append(stream[at:start])
        found = CSI.match(stream, start) or OSC.match(stream, start)
        if found is None:
            other = next((o for o in OTHERS if stream.startswith(o, start)), None)
            assert other is not None, f"at {start}: {stream[start : start + 40]!r}"
            at = start + len(other)
            continue
        if found.re is CSI:
            assert found.group(0)[-1] in FINALS, repr(found.group(0))
        at = found.end()
    return "".join([*out, stream[at:]])


class Terminal:
    """The app behind a pseudo-terminal of 100×30."""

    def __init__(self, address: str) -> None:
        self.output = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.environ.pop("TMUX", None)
            os.execv(sys.executable, [sys.executable, "-m", "wbtui", address])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def read(self, within: float) -> bool:
        """Whether something came within so many seconds."""
        data = take(self.fd, within)
        self.output += data
        return bool(data)

    def until(self, needle: bytes) -> None:
        while needle not in self.output:
            assert self.read(PATIENCE), (needle, self.output[-500:])

    def press(self, keys: bytes) -> None:
        """Keys, and what they bring."""
        os.write(self.fd, keys)
        self.read(QUIET * 4)  # some bring nothing
        while self.read(QUIET):
            pass

    def close(self) -> int:
        """Quit; the exit code."""
        os.write(self.fd, b"\x03")
        while self.read(PATIENCE):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_session(hostile: Hostile, tmp_path: Path) -> None:
    terminal = Terminal(str(hostile.at(1, 5)))
    try:
        terminal.until(b"tokens ready")
        for keys in KEYS:
            terminal.press(keys)
        code = terminal.close()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGKILL)
        raise
    stream = terminal.output.decode("utf-8")
    assert code == 0, stream[-2000:]
    for token in (*TOKENS, NAME):
        if harm(token):
            assert token in "\n\r\n\x07" or token not in stream, ascii(token)
    text = parsed(stream)
    assert set(harm(text, lines=False)) <= {"d", "a"}, set(harm(text, lines=False))
    shown = re.sub(r"\s+", " ", text)
    assert "␛]0;pwn␇" in shown or "␛]0;pwn" in shown, "the names were on the screen"
    assert "NEAREST" in shown and "COMPARE" in shown and "MATCH" in shown and "EXPORT" in shown


def test_the_grammar_sees_what_is_wrong() -> None:
    assert parsed("a\x1b[31mb\x1b[?2026h\x1b]52;c;eA==\x07c") == "abc"
    for bad in ("\x1b]0;title\x07", "\x1b]8;;x\x1b\\", "\x1bc", "\x1bP1$q\x1b\\", "\x1b[2;3t", "\x1b_x\x1b\\"):
        try:
            parsed(f"a{bad}b")
        except AssertionError:
            continue
        raise AssertionError(f"{bad!r} passed")
