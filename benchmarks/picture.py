"""A small terminal: what is on a screen after some output. For benchmarks and tests, which wait for words on a screen.

It knows moves, styles, text, ends of lines, erasing and the alternative screen, and passes over modes and titles. It
shares no code with :mod:`wbtui.tui.slim`, which it is used to judge.
"""

from __future__ import annotations

import codecs
import re

from rich.cells import cell_len

_SEQUENCE = re.compile(
    r"\x1b\[(?P<private>[?>=<]?)(?P<numbers>[0-9;]*)(?P<middle>\$?)(?P<final>[@-~])"
    r"|\x1b\](?P<title>[^\x07\x1b]*)(?:\x07|\x1b\\)|\x1bP[^\x1b]*\x1b\\|\x1b[^\[\]P]"
)
Attributes = dict[str, str]


class Picture:
    """Cells of a screen: (character, attributes) by row and column; a wide character has an empty one behind it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.clear()
        self.row = self.column = 0
        self.pen: Attributes = {}
        self._rest = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def clear(self) -> None:
        """Blank cells everywhere."""
        self.cells: list[list[tuple[str, Attributes]]] = [[(" ", {})] * self.columns for _ in range(self.rows)]

    def feed(self, data: bytes | str) -> None:
        """Take output in; a sequence may be cut anywhere."""
        text = self._rest + (data if isinstance(data, str) else self._decoder.decode(data))
        at = 0
        while at < len(text):
            char = text[at]
            if char == "\x1b":
                match = _SEQUENCE.match(text, at)
                if match is None:
                    break
                at = match.end()
                self._sequence(match)
                continue
            at += 1
            if char == "\n":
                self.row = min(self.row + 1, self.rows - 1)
                self.column = 0  # terminals of apps turn \n into \r\n
            elif char == "\r":
                self.column = 0
            elif char >= " ":
                self._put(char)
        self._rest = text[at:]

    def _sequence(self, match: re.Match[str]) -> None:
        final, numbers = match["final"], match["numbers"] or ""
        values = [int(n or 0) for n in numbers.split(";")] if numbers else []
        first = values[0] if values else 0
        if match["private"] == "?" and final in "hl" and first in (47, 1047, 1049):
            self.clear()
        if match["private"] or match["middle"] or final is None:
            return
        if final == "H":
            self.row, self.column = max(1, first) - 1, max(1, values[1] if len(values) > 1 else 1) - 1
        elif final == "C":
            self.column += max(1, first)
        elif final == "X":  # in the colour of the ground
            end = min(self.column + max(1, first), self.columns)
            ground = {k: v for k, v in self.pen.items() if k == "back"}
            self.cells[self.row][self.column : end] = [(" ", ground)] * max(0, end - self.column)
        elif final == "J" and first == 2:
            self.clear()
        elif final == "m":
            self._style(values or [0])

    def _style(self, values: list[int]) -> None:
        pen = dict(self.pen)
        while values:
            n = values.pop(0)
            if n == 0:
                pen = {}
            elif n in (38, 48):
                size = 4 if values[:1] == [2] else 2
                pen["text" if n == 38 else "back"] = ";".join(map(str, values[:size]))
                del values[:size]
            elif 30 <= n <= 37 or 90 <= n <= 97:
                pen["text"] = str(n)
            elif 40 <= n <= 47 or 100 <= n <= 107:
                pen["back"] = str(n)
            elif n == 22:
                pen.pop("1", None), pen.pop("2", None)
            elif n in (39, 49):
                pen.pop("text" if n == 39 else "back", None)
            elif 23 <= n <= 29:
                pen.pop(str(n - 20), None)
            else:
                pen[str(n)] = "on"
        self.pen = pen

    def _put(self, char: str) -> None:
        width = cell_len(char)
        if width and self.row < self.rows and self.column + width <= self.columns:
            line = self.cells[self.row]
            line[self.column] = (char, self.pen)
            if width == 2:
                line[self.column + 1] = ("", self.pen)
        self.column += width

    @property
    def text(self) -> str:
        """The lines."""
        return "\n".join("".join(char for char, _ in line).rstrip() for line in self.cells)

    def seen(self) -> list[list[tuple[str, Attributes]]]:
        """Cells with only what can be seen of them: a blank has no colour of its own, unless something lights it."""

        def one(char: str, pen: Attributes) -> tuple[str, Attributes]:
            if char == " " and not pen.keys() & {"4", "7", "9", "21", "53"}:
                return char, {k: v for k, v in pen.items() if k == "back"}
            return char, pen

        return [[one(char, pen) for char, pen in line] for line in self.cells]
