"""Fewer bytes for the same picture: what the terminal shows already is not sent again.

Textual sends whole spans of lines, each piece with its full style. :class:`Slim` stands between it and the terminal,
remembers every cell, and sends only cells that differ, ordered by style where styles are long. A move of the cursor
whose card is another feature's goes from 9.6 kB to a sixth, which is what a slow line feels.

Long runs of blanks are erased rather than written where the caller says that the terminal can (:func:`erases`).

It understands what Textual sends for a frame: moves, styles, text, ends of lines. Modes, titles and clipboard are
passed on as they are; after anything else all cells are forgotten, so that they are sent again. Cells hold one
character of one cell's width; a span with any other character is sent whole, since terminals differ on those.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.driver import Driver

_MOVE = re.compile("\x1b\\[([0-9]+);([0-9]+)H")
_PIECE = re.compile("\x1b\\[([0-9;]*)m|([^\x00-\x1f\x7f-\x9f]+)")
_HARMLESS = re.compile(
    "(?:\x1b\\[[?>=<][0-9;]*\\$?[a-zA-Z]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1bP[^\x1b]*\x1b\\\\|\x1b\\[m|\x1b\\[0m)*"
)
"""Modes, titles, clipboard: no cell changes."""
_SCREENS = re.compile("\x1b\\[\\?(?:3|47|1047|1049)[hl]")
"""Another screen is shown: nothing is known of its cells."""
_PLAIN = re.compile("[ -~\u00a1-\u00ac\u00ae-\u02ff\u0370-\u0377\u0391-\u03a1\u03a3-\u03ff\u0400-\u0482\u048a-\u052f"
                    "\u2010-\u2027\u2030-\u205e\u2074-\u208e\u2190-\u22ff\u2500-\u25fc]*")  # fmt: skip
"""Characters that every terminal draws in one cell."""
_BLANKS = re.compile(" {12,}")
_LIT = frozenset(("4", "7", "9", "21", "53"))
"""Attributes that show on a blank, in its text's colour."""
_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "7": "27", "9": "29"}
WIDEST = 10**6
GAP = 4
"""Cells between two changes of one style that are rather sent again than jumped over: a jump takes as many bytes."""
LONG = 8
"""From a style of so many bytes on, a jump is cheaper than a change of style: cells go out ordered by style."""
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"

Style = tuple[str, str, str]
"""Attributes, colour of the text, background, each as parameters of ``ESC [ … m``; blanks have ``*`` for the text's."""
NO_STYLE: Style = ("", "", "")
Piece = tuple[Style, int, int, str]
"""Style, row, column, text."""


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
    return style if _LIT.intersection(style[0].split(";")) else ("", "*", style[2])


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


@lru_cache(4096)
def cells_of(body: str) -> tuple[list[str], list[Style], bool] | None:
    """Characters, their styles, whether each is one cell; None for what is no span. The lists are shared: read them."""
    body = body.rstrip("\r\n")
    chars: list[str] = []
    styles: list[Style] = []
    style, plain, at = NO_STYLE, True, 0
    for match in _PIECE.finditer(body):
        if match.start() != at:
            return None  # something else is in between
        at = match.end()
        parameters, text = match.groups()
        if parameters is not None:
            style = style_of(parameters, style)
        if text:
            chars += text
            if " " in text:
                blank = blank_of(style)
                styles += [blank if c == " " else style for c in text]
            else:
                styles += [style] * len(text)
            plain = plain and _PLAIN.fullmatch(text) is not None
    return (chars, styles, plain) if at == len(body) else None


def erases() -> bool:
    """Whether the terminal erases in the colour of the ground, and can erase a number of characters (terminfo)."""
    import curses

    try:
        curses.setupterm()
        return curses.tigetflag("bce") > 0 and bool(curses.tigetstr("ech"))
    except curses.error:
        return False


def _erased(blanks: re.Match[str]) -> str:
    """Blanks as an erasure and a move over them."""
    n = len(blanks[0])
    return f"\x1b[{n}X\x1b[{n}C"


def _text_of(pieces: list[Piece], erase: bool) -> str:
    """Pieces as text, from a terminal without a style to one."""
    if len(max((style[1] for style, *_ in pieces), key=len, default="")) >= LONG:
        order = {style: at for at, style in enumerate(dict.fromkeys(style for style, *_ in pieces))}
        pieces = sorted(pieces, key=lambda piece: order[piece[0]])
    out: list[str] = []
    pen, row, column = NO_STYLE, -1, -1
    for style, y, x, text in pieces:
        if y != row or x < column:
            out.append(f"\x1b[{y + 1};{x + 1}H")
        elif x > column:
            out.append(f"\x1b[{x - column}C" if x > column + 1 else "\x1b[C")
        if style != pen:
            code, pen = step(pen, style)
            out.append(code)
        out.append(_BLANKS.sub(_erased, text) if erase and not _LIT.intersection(style[0].split(";")) else text)
        row, column = y, x + len(text)
    return "".join(out) + ("\x1b[0m" if pen != NO_STYLE else "")


class Slim:
    """The cells of one terminal, and the text that brings them from one frame to the next.

    Args:
        erase: runs of blanks may be erased.
    """

    def __init__(self, erase: bool = False) -> None:
        self._erase = erase
        self._rows: dict[int, tuple[list[str], list[Style | None]]] = {}
        self._sent: dict[int, dict[int, tuple[int, str]]] = {}
        """Row -> column -> (end, body) of spans as they last came, where no other has touched them since."""

    def forget(self) -> None:
        """Nothing is known of the terminal's cells: the next frame is sent in full."""
        self._rows.clear()
        self._sent.clear()

    def feed(self, data: str) -> str:
        """What to send in place of ``data``."""
        first, *moves = _MOVE.split(data)
        if first and (_HARMLESS.fullmatch(first) is None or _SCREENS.search(first)):
            self.forget()
            return data
        spans = []
        wish = ""
        for row, column, body in zip(moves[::3], moves[1::3], moves[2::3], strict=True):
            if not body.rstrip("\r\n"):
                wish = f"\x1b[{row};{column}H"
                continue
            found = cells_of(body)
            if found is None:
                self.forget()
                return data
            wish = ""
            spans.append((int(row) - 1, int(column) - 1, body, found))
        sent = self._send(spans)
        return first + sent + wish if sent else first

    def _send(self, spans: list[tuple[int, int, str, tuple[list[str], list[Style], bool]]]) -> str:
        """Take in what spans show; what of it is new, as text."""
        out: list[str] = []
        new: list[Piece] = []
        covered: dict[int, list[tuple[int, int]]] = {}
        for y, x, body, (chars, styles, plain) in spans:
            if self._sent.get(y, {}).get(x, (0, ""))[1] == body:
                continue
            end = x + len(chars) if plain else WIDEST
            taken = covered.setdefault(y, [])
            if any(x < end_ and x_ < end for x_, end_ in taken):  # over another of this frame: that one goes first
                out.append(_text_of(new, self._erase))
                new.clear()
                covered = {y: (taken := [])}
            taken.append((x, end))
            self._note(y, x, end, body if plain else "")
            if plain:
                self._compare(y, x, chars, styles, new)
                continue
            cells = self._rows.get(y)  # characters are not cells here: where the rest of the line stands is not known
            if cells is not None:
                del cells[0][x:], cells[1][x:]
            out.append(f"\x1b[{y + 1};{x + 1}H" + body.rstrip("\r\n") + "\x1b[0m")
        out.append(_text_of(new, self._erase))
        return "".join(out)

    def _note(self, y: int, x: int, end: int, body: str) -> None:
        """Remember a span; forget those of its row that it covers in part."""
        row = self._sent.setdefault(y, {})
        for x_, (end_, _) in list(row.items()):
            if x_ < end and x < end_:
                del row[x_]
        if body:
            row[x] = (end, body)

    def _compare(self, y: int, x: int, chars: list[str], styles: list[Style], new: list[Piece]) -> None:
        """Put the changed cells of a span into ``new``, in pieces of one style, and remember them."""
        old_chars, old_styles = self._rows.setdefault(y, ([], []))
        end = x + len(chars)
        if len(old_chars) < end:
            old_styles += [None] * (end - len(old_chars))
            old_chars += [""] * (end - len(old_chars))
        was_chars, was_styles = old_chars[x:end], old_styles[x:end]
        if was_chars == chars and was_styles == styles:
            return
        old_chars[x:end], old_styles[x:end] = chars, styles
        begin, last, style = -1, -1, NO_STYLE  # the piece under work: from, to (excluded), in which style
        both = zip(chars, was_chars, styles, was_styles, strict=True)
        for i in [i for i, (a, b, c, d) in enumerate(both) if a != b or (c is not d and c != d)]:
            c = styles[i]
            if begin >= 0:
                if i == last and c is style:
                    last = i + 1
                    continue
                fits = (
                    all(s == style or s == blank_of(style) for s in styles[last : i + 1]) if i - last <= GAP else False
                )
                if not fits and i == last and style[1] == "*" and blank_of(c) == style:
                    fits, style = True, c  # blanks take the style of the text that follows
                if fits:
                    last = i + 1
                    continue
                new.append((style, y, x + begin, "".join(chars[begin:last])))
            begin, last, style = i, i + 1, c
        if begin >= 0:
            new.append((style, y, x + begin, "".join(chars[begin:last])))


class Frames:
    """:class:`Slim` with frames put together: an empty one is not sent, a full one goes out in one piece."""

    def __init__(self, erase: bool = False) -> None:
        self.slim = Slim(erase)
        self._frame: list[str] | None = None

    def forget(self) -> None:
        """See :meth:`Slim.forget`."""
        self.slim.forget()

    def feed(self, data: str) -> str:
        """What to send now; empty where nothing, or a frame is not at its end."""
        if data == BEGIN:
            self._frame = []
            return ""
        if data == END and self._frame is not None:
            frame, self._frame = "".join(self._frame), None
            return BEGIN + frame + END if frame else ""
        out = self.slim.feed(data)
        if self._frame is None:
            return out
        self._frame.append(out)
        return ""


def slim_driver(base: type[Driver], *, erase: bool = False) -> type[Driver]:
    """A driver that sends what ``base`` would, through :class:`Frames`; ``erase`` as for :class:`Slim`."""

    class SlimDriver(base):  # type: ignore[misc, valid-type]
        frames: Frames | None = None

        def write(self, data: str) -> None:
            if self.frames is None:
                self.frames = Frames(erase)
            out = self.frames.feed(data)
            if out:
                super().write(out)

        def forget(self) -> None:
            """See :meth:`Slim.forget`."""
            if self.frames is not None:
                self.frames.forget()

    return SlimDriver
