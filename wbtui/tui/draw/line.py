"""A line is a list of (text, role); this file measures, cuts, joins and inks lines. Text in a line is safe already."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style

from wbtui.display import fit, safe_token_text
from wbtui.tui.cells import PLAIN, Cell, letters
from wbtui.tui.cells import Style as Shown
from wbtui.tui.theme import Ink

if TYPE_CHECKING:
    from textual.strip import Strip

Span = tuple[str, str]
Line = list[Span]
Inked = Callable[[Style], Shown | None]
LIT = ("picked", "cut")
"""Roles whose background shows: blanks after them are not theirs."""


def width_of(line: Line) -> int:
    """Cells of a line."""
    return sum(len(text) if text.isascii() else cell_len(text) for text, _ in line)


def text_of(line: Line) -> str:
    """A line without its roles (for tests and logs)."""
    return "".join(text for text, _ in line)


def cut(line: Line, width: int) -> Line:
    """A line of exactly ``width`` cells: padded with spaces, or cut with an ellipsis."""
    cells = [len(text) if text.isascii() else cell_len(text) for text, _ in line]  # text is safe: no control characters
    total = sum(cells)
    if total == width:
        return line
    if total < width:
        return [*line, (" " * (width - total), "text")]
    out: Line = []
    left = width - 1  # one cell is for the ellipsis
    for (text, role), its in zip(line, cells, strict=True):
        if its > left:
            out.append((fit(text, left + 1) if its > left + 1 else _ended(text, left), role))
            break
        out.append((text, role))
        left -= its
    return out if width > 0 else []


def _ended(text: str, width: int) -> str:
    """A text that would just fit, its end given up for the ellipsis that more follows."""
    return fit(text + "…", width + 1)


def spread(left: Line, right: Line, width: int) -> Line:
    """Two lines on one, the second flush right; the first is cut where both do not fit."""
    room = width - width_of(right)
    if room <= 0:
        return cut(right, width)
    return [*cut(left, room), *right]


def lit(text: str, places: frozenset[int], role: str, width: int | None = None) -> Line:
    """A text with the characters at ``places`` as hits; one of more than ``width`` cells loses its beginning.

    Of names that are paths the end is what tells one from another.
    """
    start = 0
    if width is not None and cell_len(text) > width:
        start, room = len(text), max(0, width - 1)
        while start and (step := cell_len(text[start - 1])) <= room:
            start, room = start - 1, room - step
    out: Line = [("…", "hit" if any(at < start for at in places) else role)] if start else []
    for at in range(start, len(text)):
        its = "hit" if at in places else role
        if out and out[-1][1] == its:
            out[-1] = (out[-1][0] + text[at], its)
        else:
            out.append((text[at], its))
    return out


def rule(width: int, title: str = "", right: str = "", role: str = "rule", title_role: str = "head") -> Line:
    """``TITLE ───────── right``."""
    inner = width - (cell_len(title) + 1 if title else 0) - (cell_len(right) + 1 if right else 0)
    out: Line = []
    if title:
        out.append((title + " ", title_role))
    out.append(("─" * max(0, inner), role))
    if right:
        out.append((" " + right, title_role))
    return out if inner >= 0 else cut(out, width)


def wrap(words: Iterable[str], width: int, role: str = "text", indent: str = "") -> list[Line]:
    """Words as lines of at most ``width`` cells; words of others (errors name what was found) are made safe."""
    lines: list[Line] = []
    current = ""
    for word in map(safe_token_text, words):
        trial = f"{current} {word}" if current else indent * bool(lines) + word
        if cell_len(trial) <= width or not current:
            current = trial
        else:
            lines.append([(current, role)])
            current = indent + word
    if current:
        lines.append([(current, role)])
    return [cut(line, width) if width_of(line) > width else line for line in lines]


def runs(line: Line, width: int) -> Line:
    """A line of exactly ``width`` cells in as few pieces as its ink needs.

    Neighbours of one role become one piece, and blanks join what stands before them: fewer bytes for a slow terminal.
    """
    out: Line = []
    text, role = "", ""
    for piece, its in cut(line, width):
        if its == role or (role and role not in LIT and not piece.strip(" ")):
            text += piece
        elif piece:
            if text:
                out.append((text, role))
            text, role = piece, its
    if text:
        out.append((text, role))
    return out


def to_strip(line: Line, width: int, ink: Ink, base: Style | None = None) -> Strip:
    """A line in a palette's ink, exactly ``width`` cells wide; ``base`` (the cursor's bar) lies under every role."""
    from rich.segment import Segment
    from textual.strip import Strip  # the first picture is drawn before Textual is loaded

    return Strip([Segment(text, ink_of(role, ink, base)) for text, role in runs(line, width)], width)


def to_cells(line: Line, width: int, ink: Ink, base: Style | None, known: Inked) -> list[Cell] | None:
    """The cells of what :func:`to_strip` makes; None where a character may be no cell, or two.

    Args:
        known: what a terminal makes of a style, as :mod:`wbtui.tui.cells` writes it; None where that cannot be told.
    """
    out: list[Cell] = []
    for text, role in runs(line, width):
        style = known(ink_of(role, ink, base))
        if style is None or PLAIN.fullmatch(text) is None:
            return None
        out += map(letters(style).__getitem__, text)
    return out


def ink_of(role: str, ink: Ink, base: Style | None) -> Style:
    """The style of a role, over a bar where one lies under it."""
    style = ink[role]
    return style + base if base is not None else style
