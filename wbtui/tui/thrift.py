"""The same picture in fewer bytes: colours and attributes are said again only where they change.

Textual writes every piece of text with all of its style and a reset behind it: a dark theme's background alone is 18
bytes a piece. Here the terminal's state is followed through a frame and only what differs is written; runs of blanks
are erased, not written, where terminfo says that the terminal erases in the colour of the ground (``bce``, ``ech``).
What is not text or a style (cursor, modes, queries) goes through as it is; a write begins and ends in the default
style. Used over SSH alone: a terminal of this machine takes bytes faster than they are saved.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SGR = re.compile(r"\x1b\[([0-9;:]*)m")
_CURSOR = re.compile(r"\x1b\[[0-9;]*[HABCD]")
"""Moves: they leave the style alone and draw nothing."""
_BLANKS = re.compile(" {12,}")
_DRAWN = frozenset({"4", "7", "9"})
"""Attributes that show on a blank: underline, reverse, strike."""
_RESET = "\x1b[0m"
_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "7": "27", "8": "28", "9": "29"}

Style = tuple[str, str, frozenset[str]]
"""Foreground, background (parameters, empty: the terminal's own), attributes."""
_PLAIN: Style = ("", "", frozenset())


def erases() -> bool:
    """Whether the terminal erases in the colour of the ground, and can erase a number of characters."""
    import curses

    try:
        curses.setupterm()
        return curses.tigetflag("bce") > 0 and bool(curses.tigetstr("ech"))
    except curses.error:
        return False


def thin(data: str, erase: bool = False) -> str:
    """A write of Textual's with styles said only where they change.

    Args:
        data: text with control sequences; begins in the default style.
        erase: blanks may be erased.

    Returns:
        str: draws the same cells, and ends in the default style where ``data`` does.
    """
    out: list[str] = []
    have = want = _PLAIN
    at = 0
    for found in _SGR.finditer(data):
        text = data[at : found.start()]
        at = found.end()
        if text:
            have = _write(out, text, have, want, erase)
        known = _after(want, found[1])
        if known is None:  # a style that is not followed: said as it is, from what is wanted so far
            out.append(_change(have, want) + found[0])
            rest = data[at:]
            return "".join(out) + rest
        want = known
    if data[at:]:
        have = _write(out, data[at:], have, want, erase)
    if have != want:
        out.append(_change(have, want))
    return "".join(out)


def _write(out: list[str], text: str, have: Style, want: Style, erase: bool) -> Style:
    """A piece that is no style: text in the wanted one; moves of the cursor before it need none."""
    if have != want:
        moved = 0
        while (move := _CURSOR.match(text, moved)) is not None:
            moved = move.end()
        out.append(text[:moved])
        text = text[moved:]
        if not text:
            return have
        out.append(_change(have, want))
    if erase and not want[2] & _DRAWN:
        text = _BLANKS.sub(_erased, text)
    out.append(text)
    return want


def _erased(blanks: re.Match[str]) -> str:
    """Blanks as an erasure and a move over them."""
    n = len(blanks[0])
    return f"\x1b[{n}X\x1b[{n}C"


@lru_cache(maxsize=4096)
def _change(have: Style, want: Style) -> str:
    """The shortest way from one style to another."""
    if have == want:
        return ""
    codes: list[str] = []
    kept = have[2]
    for off in dict.fromkeys(_OFF[a] for a in sorted(kept - want[2])):
        codes.append(off)
        kept = frozenset(a for a in kept if _OFF[a] != off)  # bold and dim end together
    codes += sorted(want[2] - kept)
    for own, its, default in ((have[0], want[0], "39"), (have[1], want[1], "49")):
        if own != its:
            codes.append(its or default)
    step = f"\x1b[{';'.join(codes)}m"
    anew = ";".join([*sorted(want[2]), *filter(None, want[:2])])
    whole = f"\x1b[0;{anew}m" if anew else _RESET
    return min(step, whole, key=len)


@lru_cache(maxsize=4096)
def _after(style: Style, parameters: str) -> Style | None:
    """A style after an SGR sequence's parameters; None where it says something that is not followed."""
    ground, back, attributes = style
    codes = parameters.split(";") if parameters else ["0"]
    at = 0
    while at < len(codes):
        code = codes[at].lstrip("0") or "0"
        taken = 1
        if code == "0":
            ground, back, attributes = _PLAIN
        elif code in _OFF:
            attributes = attributes | {code}
        elif code in ("38", "48"):
            taken = {"5": 3, "2": 5}.get(codes[at + 1] if at + 1 < len(codes) else "", 0)
            if not taken or at + taken > len(codes):
                return None
            value = ";".join(codes[at : at + taken])
            ground, back = (value, back) if code == "38" else (ground, value)
        elif code in ("39", "49"):
            ground, back = ("", back) if code == "39" else (ground, "")
        elif code.isdecimal() and (30 <= int(code) <= 37 or 90 <= int(code) <= 97):
            ground = code
        elif code.isdecimal() and (40 <= int(code) <= 47 or 100 <= int(code) <= 107):
            back = code
        elif code in _OFF.values():
            attributes = frozenset(a for a in attributes if _OFF[a] != code)
        else:
            return None
        at += taken
    return ground, back, attributes
