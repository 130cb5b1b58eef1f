"""Thrifty frames draw the same cells: both are played on a small terminal."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from wbtui.tui.thrift import thin

TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)
Cell = tuple[str, object]


def played(data: str, width: int = 40) -> tuple[dict[tuple[int, int], Cell], object]:
    """Cells that were drawn, each with all of its style, and the style at the end; erases in the ground's colour."""
    cells: dict[tuple[int, int], Cell] = {}
    fore, back, on = "", "", frozenset[str]()
    x = y = 0
    off = {"22": "12", "23": "3", "24": "4", "27": "7", "29": "9"}
    for found in TOKEN.finditer(data):
        parameters, final, char = found.groups()
        if char is not None:
            cells[x, y] = (char, (fore, back, on))
            x += 1
        elif final == "m":
            codes = (parameters or "0").split(";")
            while codes:
                code = codes.pop(0)
                if code == "0":
                    fore, back, on = "", "", frozenset()
                elif code in ("38", "48"):
                    n = 4 if codes[0] == "2" else 2
                    value, codes = ";".join(codes[:n]), codes[n:]
                    fore, back = (value, back) if code == "38" else (fore, value)
                elif code in ("39", "49"):
                    fore, back = ("", back) if code == "39" else (fore, "")
                elif code in off:
                    on = on - set(off[code])
                elif len(code) == 2:
                    fore, back = (code, back) if code[0] in "39" else (fore, code)
                else:
                    on = on | {code}
        elif final == "H":
            y, x = (int(n) for n in parameters.split(";"))
        elif final == "C":
            x += int(parameters)
        elif final == "X":
            for n in range(int(parameters)):
                cells[x + n, y] = (" ", ("", back, frozenset()))
    # what colour a blank's letter would have had is not seen
    seen = {
        at: (char, style if char != " " else ("", style[1], style[2] & {"4", "7", "9"}))  # type: ignore[index]
        for at, (char, style) in cells.items()
    }
    return seen, (fore, back, on)


colour = st.sampled_from(["38;2;1;2;3", "38;2;4;5;6", "48;2;16;20;25", "48;5;7", "31", "97", "44", "39", "49"])
attribute = st.sampled_from(["1", "2", "3", "4", "7", "9", "22", "23", "24", "27", "29", "0", ""])
style = st.lists(colour | attribute, min_size=1, max_size=3).map(lambda codes: f"\x1b[{';'.join(filter(None, codes))}m")
place = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda at: f"\x1b[{at[0]};{at[1]}H")
words = st.sampled_from(["a", "word", " ", " " * 11, " " * 12, "x" + " " * 30, "é▸"])
as_textual = st.lists(
    st.one_of(place, st.tuples(style, words).map(lambda part: part[0] + part[1] + "\x1b[0m")), max_size=12
).map("".join)
anything = st.lists(st.one_of(place, style, words, st.just("\x1b[0m")), max_size=14).map("".join)


@given(as_textual | anything, st.booleans())
def test_the_same_cells_in_the_same_style(data: str, erase: bool) -> None:
    small = thin(data, erase)
    assert played(small) == played(data)


@given(st.text(alphabet="\x1b[]0123456789;mHXq \x07a", max_size=40), st.booleans())
def test_anything_passes_with_its_text(data: str, erase: bool) -> None:
    def text(of: str) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", of)

    assert text(thin(data)) == text(data)


def test_a_style_that_is_not_followed_goes_through() -> None:
    assert thin("\x1b[31ma\x1b[0m\x1b[4:3mb\x1b[0m") == "\x1b[31ma\x1b[0m\x1b[4:3mb\x1b[0m"
    assert thin("\x1b[31ma\x1b[0m\x1b[21mb\x1b[0m") == "\x1b[31ma\x1b[0m\x1b[21mb\x1b[0m"


def test_a_screen_of_one_ground_costs_little() -> None:
    piece = "\x1b[38;2;200;206;214;48;2;16;20;25mword\x1b[0m\x1b[38;2;125;136;148;48;2;16;20;25m and\x1b[0m"
    row = piece * 4 + "\x1b[38;2;200;206;214;48;2;16;20;25m" + " " * 80 + "\x1b[0m"
    frame = "".join(f"\x1b[{y};1H{row}\n" for y in range(1, 30))
    assert len(thin(frame)) < 0.75 * len(frame)
    assert len(thin(frame, erase=True)) < 0.6 * len(frame)
