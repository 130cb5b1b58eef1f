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
from typing import TYPE_CHECKING

from wbtui.tui.cells import LIT, NO_STYLE, Cell, Style, blank_of, cells_of, step

if TYPE_CHECKING:
    from textual.driver import Driver
    from textual.message import Message

    from wbtui.tui.first import First

_MOVE = re.compile("\x1b\\[([0-9]+);([0-9]+)H")
_HARMLESS = re.compile(
    "(?:\x1b\\[[?>=<][0-9;]*\\$?[a-zA-Z]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1bP[^\x1b]*\x1b\\\\|\x1b\\[m|\x1b\\[0m)*"
)
"""Modes, titles, clipboard: no cell changes."""
_SCREENS = re.compile("\x1b\\[\\?(?:3|47|1047|1049)[hl]")
"""Another screen is shown: nothing is known of its cells."""
_BLANKS = re.compile(" {12,}")
WIDEST = 10**6
GAP = 4
"""Cells between two changes of one style that are rather sent again than jumped over: a jump takes as many bytes."""
LONG = 8
"""From a style of so many bytes on, a jump is cheaper than a change of style: cells go out ordered by style."""
OTHER_SCREEN = "\x1b[?1049h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"

Piece = tuple[Style, int, int, str]
"""Style, row, column, text."""
Body = str | list[Cell]
"""What a span shows: the text that draws it, or the cells where each is known."""
Span = tuple[int, int, Body, list[Cell] | None]
"""Row, column, what it shows, its cells; None where a character may be no cell, or two: then it has a text."""
Sent = tuple[int, Body]
_NEVER: Sent = (0, "")
_NOTHING: dict[int, Sent] = {}


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
        out.append(_BLANKS.sub(_erased, text) if erase and not LIT.intersection(style[0].split(";")) else text)
        row, column = y, x + len(text)
    return "".join(out) + ("\x1b[0m" if pen != NO_STYLE else "")


class Slim:
    """The cells of one terminal, and the text that brings them from one frame to the next.

    Args:
        erase: runs of blanks may be erased.
    """

    def __init__(self, erase: bool = False) -> None:
        self._erase = erase
        self._rows: dict[int, list[Cell | None]] = {}
        self._sent: dict[int, dict[int, Sent]] = {}
        """Row -> column -> (end, what was sent) of spans as they last came, where no other has touched them since."""

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
        spans: list[Span] = []
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
            spans.append((int(row) - 1, int(column) - 1, body, found[0] if found[1] else None))
        sent = self.show(spans)
        return first + sent + wish if sent else first

    def show(self, spans: list[Span]) -> str:
        """Take in what spans show; what of it is new, as text."""
        out: list[str] = []
        new: list[Piece] = []
        covered: dict[int, list[tuple[int, int]]] = {}
        for y, x, body, cells in spans:
            before = self._sent.get(y, _NOTHING).get(x, _NEVER)[1]
            if before is body or (type(before) is str and before == body):
                continue
            end = x + len(cells) if cells is not None else WIDEST
            taken = covered.setdefault(y, [])
            if any(x < end_ and x_ < end for x_, end_ in taken):  # over another of this frame: that one goes first
                out.append(_text_of(new, self._erase))
                new.clear()
                covered = {y: (taken := [])}
            taken.append((x, end))
            self._note(y, x, end, body if cells is not None else "")
            if cells is not None:
                self._compare(y, x, cells, new)
                continue
            assert isinstance(body, str), "what is not one cell a character has a text"
            known = self._rows.get(y)  # characters are not cells here: where the rest of the line stands is not known
            if known is not None:
                del known[x:]
            out.append(f"\x1b[{y + 1};{x + 1}H" + body.rstrip("\r\n") + "\x1b[0m")
        out.append(_text_of(new, self._erase))
        return "".join(out)

    def _note(self, y: int, x: int, end: int, body: Body) -> None:
        """Remember a span; forget those of its row that it covers in part."""
        row = self._sent.setdefault(y, {})
        for x_, (end_, _) in list(row.items()):
            if x_ < end and x < end_:
                del row[x_]
        if body:
            row[x] = (end, body)

    def _compare(self, y: int, x: int, cells: list[Cell], new: list[Piece]) -> None:
        """Put the changed cells of a span into ``new``, in pieces of one style, and remember them."""
        row = self._rows.setdefault(y, [])
        end = x + len(cells)
        if len(row) < end:
            row += [None] * (end - len(row))
        was = row[x:end]
        if was == cells:
            return
        row[x:end] = cells
        begin, last, style, blank = (
            -1,
            -1,
            NO_STYLE,
            NO_STYLE,
        )  # the piece under work: from, to, how it looks
        both = enumerate(zip(cells, was, strict=True))
        for i in [i for i, (a, b) in both if a is not b and a != b]:
            its = cells[i][1]
            if i == last:
                if its is style or its in (style, blank):
                    last = i + 1
                    continue
                if style[1] == "*" and blank_of(its) == style:  # blanks take the style of the text that follows
                    last, style = i + 1, its
                    continue
            elif i - last <= GAP and begin >= 0 and all(s in (style, blank) for _, s in cells[last : i + 1]):
                last = i + 1
                continue
            if begin >= 0:
                new.append((style, y, x + begin, "".join([char for char, _ in cells[begin:last]])))
            begin, last, style, blank = i, i + 1, its, blank_of(its)
        if begin >= 0:
            new.append((style, y, x + begin, "".join([char for char, _ in cells[begin:last]])))


class Frames:
    """:class:`Slim` with frames put together: an empty one is not sent, a full one goes out in one piece."""

    def __init__(self, erase: bool = False) -> None:
        self.slim = Slim(erase)
        self._frame: list[str] | None = None

    def forget(self) -> None:
        """See :meth:`Slim.forget`."""
        self.slim.forget()

    @property
    def open(self) -> bool:
        """Whether a frame is not at its end."""
        return self._frame is not None

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


def slim_driver(base: type[Driver], *, erase: bool = False, first: First | None = None) -> type[Driver]:
    """A driver that sends what ``base`` would, through :class:`Frames`.

    Args:
        base: a driver of Textual's.
        erase: as for :class:`Slim`.
        first: the picture that may stand already, on the screen that the driver would enter.
    """

    from textual.events import InputEvent, Paste

    class SlimDriver(base):  # type: ignore[misc, valid-type]
        frames: Frames | None = None

        def start_application_mode(self) -> None:
            super().start_application_mode()
            if first is not None and first.standing:
                self.attrs_before = first.hand_over()

        def send_message(self, message: Message) -> None:
            if (
                first is None
                or not isinstance(message, InputEvent | Paste)
                or not first.keeps(super().send_message, message)
            ):
                super().send_message(message)

        def write(self, data: str) -> None:
            if first is not None and first.standing and data == OTHER_SCREEN:
                return  # entering it a second time would clear it
            if self.frames is None:
                self.frames = Frames(erase)
            out = self.frames.feed(data)
            if out:
                super().write(out)

        def show(self, spans: list[Span], cursor: str, in_frame: bool) -> bool:
            """Write what is new of some spans, the cursor's move behind it; False where a frame is under way."""
            frames = self.frames
            if frames is None or frames.open:
                return False
            out = frames.slim.show(spans)
            if out:
                super().write(BEGIN + out + cursor + END if in_frame else out + cursor)
            return True

        def forget(self) -> None:
            """See :meth:`Slim.forget`."""
            if self.frames is not None:
                self.frames.forget()

    return SlimDriver
