"""Colours by role. Drawing code names roles only; three palettes give them a look.

``RICH`` for 256 colours and truecolour, ``NAMED`` for 16 (the terminal's own colours), ``PLAIN`` for ``NO_COLOR`` and
terminals without any. No role is told from another by colour alone: glyph, place or word always says it too.
"""

from __future__ import annotations

import os

from rich.style import Style
from textual.theme import Theme

BACKGROUND = "#101419"
PANEL = "#161c24"
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
        bold=style.bold if name in ("strong", "mark", "key") else None,
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

Ink = dict[str, Style]
PALETTES: dict[str, Ink] = {"rich": _RICH, "named": _NAMED, "plain": _PLAIN}

THEME = Theme(
    name="wbtui",
    primary="#6cb6c9",
    secondary="#e2b15b",
    accent="#e2b15b",
    warning="#e2b15b",
    error="#e5786d",
    success="#8fc77e",
    foreground=TEXT,
    background=BACKGROUND,
    surface=BACKGROUND,
    panel=PANEL,
    dark=True,
    variables={
        "input-cursor-background": TEXT,
        "input-cursor-foreground": BACKGROUND,
        "input-selection-background": "#39434e",
    },
)


def palette_name(color_system: str | None) -> str:
    """Which palette a terminal gets: by ``NO_COLOR`` first, then by its number of colours (rich's names)."""
    if os.environ.get("NO_COLOR") is not None or color_system is None:
        return "plain"
    return "named" if color_system == "standard" else "rich"
