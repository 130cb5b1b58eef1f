"""GIVEN what Textual sends WHEN it goes through Slim THEN the picture is the same, and shorter to say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from textual.drivers.linux_driver import LinuxDriver

from benchmarks.picture import Picture
from wbtui.tui.cells import NO_STYLE, step, style_of
from wbtui.tui.slim import BEGIN, END, Frames, Slim, slim_driver

COLUMNS, ROWS = 24, 6
STYLES = (
    "0", "1;38;2;1;2;3;48;5;7", "38;2;9;9;9;48;5;7", "2;3;31;42", "4;38;5;7", "7;97;100", "9", "48;2;0;0;0", "1;2;34",
    "39;49", "21;31",
)  # fmt: skip
TEXT = some.text(some.sampled_from("ab  ─█é░"), min_size=1, max_size=9)
HOSTILE = some.text(some.sampled_from("a 漢😀\u0301\u200bﬀ\ufe0fi"), min_size=1, max_size=6)


def said(row: int, column: int, pieces: list[tuple[str, str]]) -> str:
    return f"\x1b[{row};{column}H" + "".join(f"\x1b[{style}m{text}\x1b[0m" for style, text in pieces)


spans = some.builds(
    said,
    some.integers(1, ROWS),
    some.integers(1, COLUMNS - 9),
    some.lists(some.tuples(some.sampled_from(STYLES), TEXT), min_size=1, max_size=1),
)
blank_spans = some.builds(
    said,
    some.integers(1, ROWS),
    some.integers(1, COLUMNS - 16),
    some.lists(
        some.tuples(some.sampled_from(STYLES), some.sampled_from([" " * 11, " " * 12, "x" + " " * 15])),
        min_size=1,
        max_size=1,
    ),
)
wild_spans = some.builds(
    said,
    some.integers(1, ROWS),
    some.integers(1, COLUMNS - 12),
    some.lists(some.tuples(some.sampled_from(STYLES), HOSTILE), min_size=1, max_size=1),
)
others = some.sampled_from(
    ["\x1b[2J", "\x1b[?1049h", "\x1b[?25l", "\x1b]22;default\x07", "\x1b[?1000h", "\x1b[3;3Hx\x07y"]
)
frames_of = some.lists(some.one_of(some.lists(spans | blank_spans, max_size=6).map("\n".join), others), max_size=12)


def both(frames: list[str], erase: bool) -> tuple[Picture, Picture, int, int]:
    plain, short, slim = Picture(COLUMNS, ROWS), Picture(COLUMNS, ROWS), Slim(erase)
    sizes = [0, 0]
    for frame in frames:
        frame = frame + "\x1b[1;2H" if "H" in frame else frame
        out = slim.feed(frame)
        plain.feed(frame)
        short.feed(out)
        assert plain.seen() == short.seen(), (frame, out)
        sizes = [sizes[0] + len(frame), sizes[1] + len(out)]
    return plain, short, *sizes  # type: ignore[return-value]


@given(frames_of, some.booleans())
def test_the_picture_is_the_same_whatever_is_sent(frames: list[str], erase: bool) -> None:
    both(frames, erase)


@given(some.lists(wild_spans, max_size=8), some.lists(spans, max_size=4))
def test_characters_that_terminals_differ_on_are_sent_whole(wild: list[str], tame: list[str]) -> None:
    slim = Slim()
    for frame in [*tame, *wild, *wild, *tame]:
        out = slim.feed(frame)
        text = frame.partition("m")[2].partition("\x1b")[0]
        if any(ord(c) > 0x2FF for c in text.replace("─", "").replace("█", "").replace("░", "")):
            assert text in out


@given(some.lists(some.sampled_from(STYLES), max_size=8))
def test_steps_between_styles_end_where_they_should(styles: list[str]) -> None:
    picture, pen = Picture(8, 1), NO_STYLE
    for parameters in styles:
        want = Picture(8, 1)
        want.feed(f"\x1b[0m\x1b[{parameters}mx")
        code, pen = step(pen, style_of(parameters))
        picture.feed("\x1b[1;1H" + code + "x")
        assert picture.cells[0][0] == want.cells[0][0]


LINE = said(2, 3, [("38;2;1;2;3;48;2;4;5;6", "word1234 "), ("1;38;2;9;9;9;48;2;4;5;6", "12.5")])


def test_what_stands_is_not_sent_again() -> None:
    slim = Slim()
    assert slim.feed(LINE) != ""
    assert slim.feed(LINE) == ""
    out = slim.feed(LINE.replace("12.5", "12.6"))
    assert out == "\x1b[2;15H\x1b[1;38;2;9;9;9;48;2;4;5;6m6\x1b[0m"


def test_styles_that_are_long_come_once_each() -> None:
    def frame(a: str, b: str) -> str:
        pieces = [("38;2;1;2;3;48;2;4;5;6", a), ("1;38;2;9;9;9;48;2;4;5;6", b)]
        return "".join(said(row, 1, pieces * 2) for row in (1, 2, 3))

    slim = Slim()
    slim.feed(frame("aa", "bb"))
    out = slim.feed(frame("xx", "yy"))
    assert out.count("38;2;1;2;3") == 1 and out.count("38;2;9;9;9") == 1
    assert len(out) < len(frame("xx", "yy")) / 2.5


def test_frames_that_change_nothing_are_not_sent_and_others_go_out_whole() -> None:
    frames = Frames()
    assert [frames.feed(part) for part in (BEGIN, LINE, END)][:2] == ["", ""]
    assert [frames.feed(part) for part in (BEGIN, LINE, "\x1b[1;2H", END)] == ["", "", "", ""]
    out = [frames.feed(part) for part in (BEGIN, LINE.replace("1234", "1235"), END)]
    assert out[:2] == ["", ""] and out[2].startswith(BEGIN) and out[2].endswith(END)
    frames.forget()
    assert "word1235" in "".join(frames.feed(part) for part in (BEGIN, LINE.replace("1234", "1235"), END))
    assert frames.feed("\x1b]52;c;aGk=\x07") == "\x1b]52;c;aGk=\x07"


@pytest.mark.parametrize("other", ["\x1b[?1049h", "\x1b[2J", "\x1bc", "\x07", "abc"])
def test_after_what_is_not_understood_everything_is_sent(other: str) -> None:
    slim = Slim()
    slim.feed(LINE)
    assert slim.feed(other) == other
    assert "word1234" in slim.feed(LINE)


def test_the_driver_writes_less_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(LinuxDriver, "write", lambda self, data: sent.append(data))
    kind: Any = slim_driver(LinuxDriver)
    driver = kind.__new__(kind)
    driver.write(LINE)
    driver.write(LINE)
    assert len(sent) == 1
    driver.forget()
    driver.write(LINE)
    assert sent[0] == sent[1]


def test_a_style_that_is_not_followed_goes_through() -> None:
    strange = "\x1b[1;1H\x1b[31ma\x1b[0m\x1b[4:3mb\x1b[0m"
    assert Slim().feed(strange) == strange


@given(some.text(alphabet="\x1b[]0123456789;mXq \x07a", max_size=40), some.booleans())
def test_what_goes_to_no_place_passes_as_it_is(data: str, erase: bool) -> None:
    assert Slim(erase).feed(data) == data


def test_a_screen_of_one_ground_costs_little() -> None:
    piece = "\x1b[38;2;200;206;214;48;2;16;20;25mword\x1b[0m\x1b[38;2;125;136;148;48;2;16;20;25m and\x1b[0m"
    row = piece * 4 + "\x1b[38;2;200;206;214;48;2;16;20;25m" + " " * 80 + "\x1b[0m"
    frame = "".join(f"\x1b[{y};1H{row}\n" for y in range(1, 30))
    assert len(Slim().feed(frame)) < 0.75 * len(frame)
    assert len(Slim(erase=True).feed(frame)) < 0.6 * len(frame)
