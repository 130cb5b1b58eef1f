"""GIVEN changes that are drawn past Textual's compositor THEN the terminal shows what Textual would have drawn."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.color import ColorSystem
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from textual.app import App, ComposeResult
from textual.color import Color
from textual.drivers.headless_driver import HeadlessDriver
from textual.filter import ANSIToTruecolor, LineFilter, Monochrome, NoColor
from textual.geometry import Region

from benchmarks.picture import Picture
from tests.tui.place import HOSTILE, Place, settled, until
from wbtui.display import safe_token_text
from wbtui.tui.app import WbtuiApp
from wbtui.tui.cells import PLAIN, cells_of
from wbtui.tui.direct import Direct, strip_text, uncovered
from wbtui.tui.draw.line import Line, to_cells, to_strip
from wbtui.tui.filters import Guard
from wbtui.tui.slim import slim_driver
from wbtui.tui.theme import BARS, PALETTES
from wbtui.tui.widgets.lines import Lines

ROLES = [name for name in PALETTES["rich"] if name not in BARS]
PIECES = some.one_of(
    some.text(some.sampled_from("ab  ─█░é┃"), max_size=9),
    some.sampled_from(HOSTILE).map(lambda text: safe_token_text(text)[:20]),
)
LINES = some.lists(some.tuples(PIECES, some.sampled_from(ROLES)), max_size=6)
FILTERS: list[list[LineFilter]] = [
    [Guard()], [ANSIToTruecolor(DEFAULT_TERMINAL_THEME), Guard()], [NoColor(), Guard()],
    [Monochrome(), Guard()],
]  # fmt: skip


@given(
    LINES, some.integers(1, 40), some.sampled_from(sorted(PALETTES)), some.sampled_from([None, *BARS]),
    some.sampled_from(FILTERS), some.sampled_from(list(ColorSystem)),
    some.sampled_from([Color(16, 20, 25), Color(255, 255, 255)]),
)  # fmt: skip
def test_cells_of_a_line_are_those_that_textual_writes(
    line: Line, width: int, palette: str, bar: str | None, filters: list[LineFilter], system: Any, ground: Color
) -> None:
    ink = PALETTES[palette]
    base = ink[bar] if bar is not None else None
    direct = Direct()
    direct._use(system, filters)
    cells = to_cells(line, width, ink, base, direct.style)
    strip = to_strip(line, width, ink, base)
    for each in filters:
        strip = strip.apply_filter(each, ground)
    written = cells_of(strip_text(strip, system))
    if cells is None:
        told = all(direct.style(style) is not None for _, style, _ in to_strip(line, width, ink, base) if style)
        assert not told or written is None or not written[1], "left to Textual only where it must be"
    else:
        assert (cells, True) == written


def test_harmless_characters_pass_the_guard() -> None:
    plain = "".join(c for c in map(chr, range(sys.maxunicode)) if PLAIN.fullmatch(c))
    assert plain.isprintable() and len(plain) > 1000


def shown_by(app: App[Any], size: tuple[int, int]) -> Picture:
    """Give an app that runs without a terminal one, from now on."""
    picture = Picture(*size)

    class Terminal(HeadlessDriver):
        @property
        def is_headless(self) -> bool:
            return False

        def write(self, data: str) -> None:
            picture.feed(data)

    assert app._driver is not None
    app._driver.__class__ = slim_driver(Terminal)
    return picture


def whole(app: App[Any], size: tuple[int, int]) -> Picture:
    """What Textual's compositor makes of the whole screen."""
    picture = Picture(*size)
    for y, strip in enumerate(app.screen._compositor.render_strips()):
        picture.feed(f"\x1b[{y + 1};1H" + strip_text(strip, app.console._color_system or ColorSystem.TRUECOLOR))
    return picture


def still(app: App[Any]) -> bool:
    screen = app.screen
    waiting = screen._dirty_widgets or screen._layout_required or screen._repaint_required
    return not waiting and not any(w._repaint_required or w._layout_required for w in screen._compositor.widgets)


KEYS = [
    *"jjjkkjGgmJKsSx", "pagedown", "pageup", "down", "up", "enter", "escape", "right", "left", "tab", "ctrl+d", "c",
    "escape", "question_mark", "escape", "slash", *"z_max>4", "backspace", "enter", "F", "escape", "space", "u", "n",
]  # fmt: skip


@pytest.mark.parametrize(
    ("which", "size", "more"),
    [
        ("ready", (120, 40), {}),
        ("hostile", (100, 24), {"look": "light"}),
        ("hostile", (100, 30), {"color_system": "standard"}),
        ("ready", (90, 24), {"ascii": True}),
        ("ready", (140, 34), {"look": "mono"}),
    ],
)
async def test_whatever_is_pressed_the_picture_is_textuals(
    which: str, size: tuple[int, int], more: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    place: Place = request.getfixturevalue(which)
    chance = random.Random(f"{which} {size}")
    app = place.app(place.address("L1"), **more)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        picture = shown_by(app, size)
        app.action_redraw()
        keys = [*KEYS, *chance.choices(KEYS, k=6)]
        for key in keys:
            await pilot.press(key)
            await until(pilot, lambda: still(app), f"everything drawn after {key}")
            assert picture.seen() == whole(app, size).seen(), key
            assert picture.text == whole(app, size).text
            if app.main is None:
                break
        assert app.direct.drawn > 5


async def test_a_move_is_drawn_in_the_same_step_unless_more_keys_wait(
    ready: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        picture = shown_by(app, (120, 40))
        app.action_redraw()
        await until(pilot, lambda: still(app), "everything drawn")
        main._card_drawn = 0.0
        before, frames = picture.seen(), app.direct.drawn
        main.action_down()
        assert app.direct.drawn == frames + 1
        assert picture.seen() != before
        assert picture.seen() == whole(app, (120, 40)).seen()
        with monkeypatch.context() as busy:
            busy.setattr(WbtuiApp, "message_queue_size", property(lambda self: 5))
            main.action_down()
            assert app.direct.drawn == frames + 1, "more keys wait: they go first"


class Covered(App[None]):
    """One widget over another, one half out of sight."""

    CSS = """
    Screen { layers: base above; overflow: hidden; }
    #over { layer: above; width: 4; height: 1; offset: 2 1; }
    #low { height: 3; }
    #clipped { height: 9; }
    """

    def compose(self) -> ComposeResult:
        for name in ("free", "low", "clipped", "over"):
            yield Lines(id=name)


async def test_what_is_covered_or_clipped_is_left_to_textual() -> None:
    app = Covered()
    async with app.run_test(size=(20, 8)):
        places = uncovered(app.screen._compositor.visible_widgets)
        assert {widget.id: region for widget, region in places.items()} == {
            "free": Region(0, 0, 20, 1),
            "over": Region(2, 1, 4, 1),
        }
