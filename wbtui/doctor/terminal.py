"""The terminal: colours, widths of glyphs as the terminal itself draws them, the way to a clipboard, tmux."""

from __future__ import annotations

import locale
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len

from wbtui.doctor.check import Check
from wbtui.tui.clipboard import route_of

GLYPHS = ("●", "▸", "░", "▏", "…", "─", "東", "e\u0301")
"""What the app draws, a wide character and a combining one: each has a width that the app reckons with."""
ANSWER = re.compile(rb"\x1b\[(\d+);(\d+)R")
TMUX = {
    "set-clipboard": (("on", "external"), "`set -g set-clipboard on`: copies reach the outer terminal"),
    "escape-time": ((), "`set -g escape-time 10`: Esc acts at once"),
    "default-terminal": ((), "`set -g default-terminal tmux-256color`"),
    "focus-events": (("on", "off"), ""),
    "mouse": (("on", "off"), ""),
}
WITHIN = 2.0


def colours(system: str | None, environ: Mapping[str, str], theme: str) -> Check:
    """How many colours, and which look that gives."""
    from wbtui.tui.theme import palette_name

    words = {None: "none", "standard": "16", "256": "256", "truecolor": "16 million", "windows": "16"}
    look = {"rich": "dark", "light": "light", "named": "the terminal's own 16", "plain": "no colour"}
    found = (
        f"{words.get(system, system)} (TERM={environ.get('TERM', '')!r}, COLORTERM={environ.get('COLORTERM', '')!r})"
    )
    if "NO_COLOR" in environ:
        found += ", NO_COLOR is set"
    few = system in (None, "standard") and "NO_COLOR" not in environ
    return Check(
        "colours",
        "warn" if few else "ok",
        f"{found}; look: {look[palette_name(system, theme)]}",
        "a TERM such as xterm-256color, or COLORTERM=truecolor, gives more" if few else "",
    )


def encoding(environ: Mapping[str, str]) -> Check:
    """Whether the locale speaks UTF-8."""
    name = locale.getpreferredencoding(False)
    good = name.replace("-", "").lower() == "utf8"
    do = "" if good else "LC_ALL=C.UTF-8, or `wbtui --ascii`"
    lang = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return Check("encoding", "ok" if good else "warn", f"{name} (locale {lang!r})", do)


def widths(measured: Mapping[str, int] | None) -> Check:
    """Whether the terminal draws glyphs as wide as the app reckons."""
    if measured is None:
        return Check("widths", "note", "not measured: no terminal, or it does not say where its cursor is")
    wrong = [
        f"{glyph!r} takes {n}, reckoned {cell_len(glyph)}" for glyph, n in measured.items() if n != cell_len(glyph)
    ]
    if wrong:
        do = "set ambiguous characters to narrow in the terminal, or use `wbtui --ascii`"
        return Check("widths", "warn", "; ".join(wrong), do)
    return Check("widths", "ok", f"{len(measured)} glyphs measured, all as wide as reckoned")


def measure(within: float = 0.3) -> dict[str, int] | None:
    """Ask the terminal how far each glyph moves its cursor; None where it does not answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    out: dict[str, int] = {}
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        for glyph in GLYPHS:
            sys.stdout.write(f"\r{glyph}\x1b[6n")
            sys.stdout.flush()
            column = _column(fd, within)
            if column is None:
                return None
            out[glyph] = column - 1
    finally:
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()
        termios.tcsetattr(fd, termios.TCSANOW, before)
    return out


def _column(fd: int, within: float) -> int | None:
    """The column out of the terminal's answer; None if none comes in time."""
    data = b""
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([fd], [], [], left)[0]:
            break
        data += os.read(fd, 64)
        if match := ANSWER.search(data):
            return int(match.group(2))
    return None


def clipboard(environ: Mapping[str, str], wish: str, limit: int) -> Check:
    """Where a copy goes."""
    route = route_of(environ, wish)
    words = {
        "tmux": "the tmux buffer (and on to the terminal where tmux may)",
        "osc52": f"the terminal's clipboard (OSC 52) up to {limit:,} bytes, a file beyond; some terminals refuse",
        "file": "a file",
    }
    remote = ", over SSH" if environ.get("SSH_CONNECTION") else ""
    bad = wish == "tmux" and route != "tmux"
    return Check("clipboard", "warn" if bad else "ok", words[route] + remote, "this is no tmux" if bad else "")


def tmux(environ: Mapping[str, str], run: Callable[[Sequence[str]], str | None]) -> list[Check]:
    """tmux's version and the options that the app feels; nothing outside tmux."""
    if not environ.get("TMUX"):
        return []
    version = run(["tmux", "-V"])
    if version is None:
        return [Check("tmux", "warn", "inside tmux, but it does not answer", "is tmux in PATH?")]
    out = [Check("tmux", "ok", version)]
    for name, (good, do) in TMUX.items():
        value = run(["tmux", "show-options", "-gsv" if name in ("set-clipboard", "escape-time") else "-gv", name])
        if value is None:
            continue
        bad = bool(good) and value not in good
        bad |= name == "escape-time" and value.isdecimal() and int(value) > 50
        bad |= name == "default-terminal" and "256color" not in value and "direct" not in value
        out.append(Check(f"tmux {name}", "warn" if bad else "ok", value, do if bad else ""))
    return out


def asked(words: Sequence[str]) -> str | None:
    """A command's one line of output; None if there is no such command, it fails or takes too long."""
    if shutil.which(words[0]) is None:
        return None
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
