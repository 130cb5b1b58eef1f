"""Cells of a terminal: one character in one style. What Textual sends, read as cells; styles, and steps between them.

Each cell is made once and shared, so that lines are compared and copied at the speed of pointers.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PIECE = re.compile("\x1b\\[([0-9;]*)m|([^\x00-\x1f\x7f-\x9f]+)")
PLAIN = re.compile("[ -~\u00a1-\u00ac\u00ae-\u02ff\u0370-\u0377\u0391-\u03a1\u03a3-\u03ff\u0400-\u0482\u048a-\u052f"
                    "\u2010-\u2027\u2030-\u205e\u2074-\u208e\u2190-\u22ff\u2500-\u25fc]*")  # fmt: skip
"""Characters that every terminal draws in one cell."""
LIT = frozenset(("4", "7", "9", "21", "53"))
"""Attributes that show on a blank, in its text's colour."""
_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "7": "27", "9": "29"}

Style = tuple[str, str, str]
"""Attributes, colour of the text, background, each as parameters of ``ESC [ … m``; blanks have ``*`` for the text's."""
NO_STYLE: Style = ("", "", "")
Cell = tuple[str, Style]
Cells = tuple[list[Cell], bool]
"""Cells and True; or none and False, where a character may be no cell or two. The lists are shared: read them."""


@lru_cache(4096)
def style_of(parameters: str, before: Style = NO_STYLE) -> Style:
    """``1;38;2;1;2;3;48;5;7`` → (``1``, ``38;2;1;2;3``, ``48;5;7``), on top of the style ``before``."""
    attributes, text, back = [a for a in before[0].split(";") if a], before[1], before[2]
    codes = parameters.split(";")
    at = 0
    while at < len(codes):
        code = codes[at].lstrip("0")
        if code in ("38", "48"):
            size = 5 if codes[at + 1 : at + 2] == ["2"] else 3
            value = ";".join(codes[at : at + size])
            text, back = (value, back) if code == "38" else (text, value)
            at += size
            continue
        number = int(code or 0)
        if not number:
            attributes, text, back = [], "", ""
        elif 30 <= number <= 37 or 90 <= number <= 97:
            text = code
        elif 40 <= number <= 47 or 100 <= number <= 107:
            back = code
        elif number == 39:
            text = ""
        elif number == 49:
            back = ""
        elif code in _OFF.values():
            attributes = [a for a in attributes if _OFF.get(a) != code]
        elif code not in attributes:
            attributes.append(code)
        at += 1
    return ";".join(attributes), text, back


@lru_cache(4096)
def blank_of(style: Style) -> Style:
    """The style of a blank, whose text has no colour to be seen (unless a line or a reversal shows it)."""
    return style if LIT.intersection(style[0].split(";")) else ("", "*", style[2])


@lru_cache(16384)
def step(pen: Style, to: Style) -> tuple[str, Style]:
    """What takes the terminal from one style to another, and the style it then has."""
    if to[1] == "*":
        if blank_of(pen) == to:
            return "", pen
        to = ("", pen[1], to[2])
    codes: list[str] = []
    had, want = ([a for a in style[0].split(";") if a] for style in (pen, to))
    gone = [a for a in had if a not in want]
    if any(a not in _OFF for a in gone):
        return f"\x1b[{';'.join(filter(None, ('0', *to)))}m", to
    off = list(dict.fromkeys(_OFF[a] for a in gone))
    codes += off
    codes += [a for a in want if a not in had or _OFF.get(a) in off]
    for now, then, default in ((pen[1], to[1], "39"), (pen[2], to[2], "49")):
        if now != then:
            codes.append(then or default)
    return (f"\x1b[{';'.join(codes)}m" if codes else ""), to


class Letters(dict[str, Cell]):
    """The cells of one style by their characters, made as they are asked for."""

    def __init__(self, style: Style) -> None:
        super().__init__()
        self._style = style

    def __missing__(self, char: str) -> Cell:
        blank = blank_of(self._style) if char == " " else self._style
        cell = self[char] = (char, blank) if blank == self._style else letters(blank)[char]
        return cell


@lru_cache(4096)
def letters(style: Style) -> Letters:
    """See :class:`Letters`."""
    return Letters(style)


@lru_cache(4096)
def cells_of(body: str) -> Cells | None:
    """The cells of a span as Textual writes it; None for what is no span."""
    body = body.rstrip("\r\n")
    cells: list[Cell] = []
    style, plain, at = NO_STYLE, True, 0
    for match in _PIECE.finditer(body):
        if match.start() != at:
            return None  # something else is in between
        at = match.end()
        parameters, text = match.groups()
        if parameters is not None:
            style = style_of(parameters, style)
        if text:
            plain = plain and PLAIN.fullmatch(text) is not None
            if plain:
                cells += map(letters(style).__getitem__, text)
    if at != len(body):
        return None
    return (cells, True) if plain else ([], False)
