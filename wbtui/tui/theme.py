"""Colours by role. Drawing code names roles only; four palettes give them a look.

``RICH`` (dark) and ``LIGHT`` for 256 colours and truecolour, ``NAMED`` for 16 (the terminal's own colours), ``PLAIN``
for ``NO_COLOR`` and terminals without any. No role is told from another by colour alone: glyph, place or word always
says it too.
"""

from __future__ import annotations

import os

from rich.style import Style

BACKGROUND = "#101419"
TEXT = "#c8ced6"

_BASE = Style(color=TEXT, bgcolor=BACKGROUND)
_LIT = {
    "text": Style(color=TEXT),
    "strong": Style(color="#f2f5f8", bold=True),
    "dim": Style(color="#7d8894"),
    "faint": Style(color="#4a545f"),
    "rule": Style(color="#39434e"),
    "noise": Style(color="#46525f"),
    "head": Style(color="#8b96a3"),
    "writes": Style(color="#e2b15b"),
    "reads": Style(color="#6cb6c9"),
    "against": Style(color="#b48ead"),
    "mark": Style(color="#8fc77e", bold=True),
    "hit": Style(color="#8fc77e", bold=True, underline=True),
    "warn": Style(color="#e2b15b"),
    "error": Style(color="#e5786d"),
    "key": Style(color="#f2f5f8"),
    "provisional": Style(color="#a9b2bc", italic=True),
    "cursor": Style(bgcolor="#26313f"),
    "cursor_off": Style(bgcolor="#1b232c"),
    "range": Style(bgcolor="#22302a"),
    "picked": Style(color="#101419", bgcolor="#c8ced6"),
    "cut": Style(color="#101419", bgcolor="#e2b15b"),
}
_RICH = {name: _BASE + style for name, style in _LIT.items()}
PAPER = "#faf9f5"
INK = "#2b3038"
_ON_PAPER = {
    "text": Style(color=INK),
    "strong": Style(color="#000000", bold=True),
    "dim": Style(color="#5f6770"),
    "faint": Style(color="#9aa1a9"),
    "rule": Style(color="#b9bec4"),
    "noise": Style(color="#a3a9b0"),
    "head": Style(color="#545c66"),
    "writes": Style(color="#875f00"),
    "reads": Style(color="#005f87"),
    "against": Style(color="#870087"),
    "mark": Style(color="#005f00", bold=True),
    "hit": Style(color="#005f00", bold=True, underline=True),
    "warn": Style(color="#875f00"),
    "error": Style(color="#af0000"),
    "key": Style(color="#000000"),
    "provisional": Style(color="#4e565f", italic=True),
    "cursor": Style(bgcolor="#d7dfe8"),
    "cursor_off": Style(bgcolor="#e8ebee"),
    "range": Style(bgcolor="#dcead9"),
    "picked": Style(color=PAPER, bgcolor=INK),
    "cut": Style(color=PAPER, bgcolor="#875f00"),
}
_LIGHT = {name: Style(color=INK, bgcolor=PAPER) + style for name, style in _ON_PAPER.items()}
_NAMED = {
    "text": Style(),
    "strong": Style(bold=True),
    "dim": Style(color="bright_black"),
    "faint": Style(color="bright_black"),
    "rule": Style(color="bright_black"),
    "noise": Style(color="bright_black"),
    "head": Style(color="white"),
    "writes": Style(color="yellow"),
    "reads": Style(color="cyan"),
    "against": Style(color="magenta"),
    "mark": Style(color="green", bold=True),
    "hit": Style(color="green", bold=True, underline=True),
    "warn": Style(color="yellow"),
    "error": Style(color="red"),
    "key": Style(bold=True),
    "provisional": Style(italic=True),
    "cursor": Style(reverse=True),
    "cursor_off": Style(underline=True),
    "range": Style(underline=True),
    "picked": Style(reverse=True),
    "cut": Style(color="yellow", reverse=True),
}
_PLAIN = {
    name: Style(
        bold=style.bold if name in ("strong", "mark", "key", "hit") else None,
        dim=True if name in ("dim", "faint", "rule", "noise") else None,
        italic=style.italic,
        underline=style.underline,
        reverse=style.reverse,
    )
    for name, style in _NAMED.items()
}

BARS = ("cursor", "cursor_off", "range")
"""Roles that lie under others: backgrounds of whole lines."""
_RICH.update({name: _LIT[name] for name in BARS})
_LIGHT.update({name: _ON_PAPER[name] for name in BARS})

Ink = dict[str, Style]
PALETTES: dict[str, Ink] = {"rich": _RICH, "light": _LIGHT, "named": _NAMED, "plain": _PLAIN}


def palette_name(color_system: str | None, theme: str = "auto") -> str:
    """Which palette a terminal gets.

    ``NO_COLOR`` and ``mono`` come first; then the number of colours (rich's names): 16 are the terminal's own, as
    ``ansi`` asks for; with more, ``dark`` or ``light``, by ``COLORFGBG`` where the terminal says what its ground is.
    """
    if os.environ.get("NO_COLOR") is not None or color_system is None or theme == "mono":
        return "plain"
    if color_system == "standard" or theme == "ansi":
        return "named"
    light = theme == "light" or (theme == "auto" and light_ground())
    return "light" if light else "rich"


def light_ground() -> bool:
    """Whether the terminal says that its background is light (``COLORFGBG``: 7 and the bright ones are)."""
    ground = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return ground == "7" or (ground.isdecimal() and 9 <= int(ground) <= 15)
