"""ASCII, light and dark, mouse, palette, help for the panel that has the keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.command import CommandPalette

from tests.tui.place import Place, screen_text, settled, until
from tests.tui.test_journeys import type_text
from wbtui.display import safe_token_text
from wbtui.tui import keymap
from wbtui.tui.draw.line import text_of
from wbtui.tui.plain import ascii_cells, shown_text, use_ascii
from wbtui.tui.screens.help import HelpScreen
from wbtui.tui.screens.jobs import JobsScreen
from wbtui.tui.theme import palette_name


@pytest.fixture(autouse=True)
def usual() -> Any:
    """Keys and glyphs as usual afterwards."""
    yield
    use_ascii(False)
    keymap.use({})


# -- ASCII -------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=30))
def test_ascii_keeps_the_width(text: str) -> None:
    safe = safe_token_text(text) if text else ""
    assert ascii_cells(safe).isascii()
    assert cell_len(ascii_cells(safe)) == cell_len(safe)


@given(st.text(max_size=30), st.text(max_size=30))
def test_escaped_tokens_stay_apart(a: str, b: str) -> None:
    use_ascii(True)
    one, two = (shown_text(safe_token_text(t).replace("\\", "\\\\")) for t in (a, b))
    assert one.isascii()
    if safe_token_text(a) != safe_token_text(b) and not set(a + b) & set("_(e"):
        assert one != two


async def test_no_glyph_beyond_ascii_in_any_view(hostile: Place) -> None:
    app = hostile.app(hostile.address(), ascii=True)
    async with app.run_test(size=(100, 30)) as pilot:
        main = await settled(pilot)
        await pilot.press("m", "t")
        await type_text(pilot, "todo")
        await pilot.press("ü", "enter")
        await until(pilot, lambda: main.typing == "")
        views = """j i enter pagedown escape tab tab F escape h escape V m escape E escape W escape
            D escape question_mark pagedown escape c escape
            x escape J escape o escape escape a escape S escape v j escape ctrl+p escape colon escape slash z escape"""
        for key in views.split():
            await pilot.press(key)
            await pilot.pause()
            if app.main is app.screen:
                await settled(pilot)
            text = screen_text(app)
            bad = sorted({c for c in text if not c.isascii()})
            assert not bad, (key, bad)
            assert len(text.strip()) > 40, key
    assert app._exception is None


def test_two_tokens_never_look_alike_in_ascii(hostile: Place) -> None:
    use_ascii(True)
    assert shown_text("é") == "\\xe9"
    assert shown_text("東") != shown_text("京")


# -- colours -----------------------------------------------------------------------------------------------------------


def test_which_palette(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLORFGBG", raising=False)
    assert palette_name("truecolor", "auto") == "rich"
    assert palette_name("256", "light") == "light"
    assert palette_name("truecolor", "ansi") == palette_name("standard", "light") == "named"
    assert palette_name("truecolor", "mono") == "plain"
    for value, name in (("0;15", "light"), ("15;0", "rich"), ("0;default;7", "light"), ("12;8", "rich"), ("x", "rich")):
        monkeypatch.setenv("COLORFGBG", value)
        assert palette_name("truecolor", "auto") == name
    assert palette_name("truecolor", "dark") == "rich"
    monkeypatch.setenv("NO_COLOR", "1")
    assert palette_name("truecolor", "light") == "plain"


@pytest.mark.parametrize("theme", ["light", "ansi", "mono"])
async def test_every_look_draws_the_same_text(ready: Place, theme: str) -> None:
    async def text(look: str) -> str:
        app = ready.app(ready.address(), look=look)
        async with app.run_test(size=(120, 40)) as pilot:
            await settled(pilot)
            await pilot.press("j", "v", "j")
            await settled(pilot)
            return screen_text(app)

    assert await text(theme) == await text("dark")


# -- mouse -------------------------------------------------------------------------------------------------------------


async def test_a_heading_sorts_a_row_takes_the_cursor_the_wheel_moves(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        table = main.table_view
        at = next(x for x in range(60) if table.column_at(x) == "writes.z_max")
        await pilot.click(table, offset=(at, 0))
        assert main.view.sort == (("writes.z_max", True),)
        await pilot.click(table, offset=(at, 0))
        assert main.view.sort == (("writes.z_max", False),)
        word = next(x for x in range(60) if table.column_at(x) == "writes")
        await pilot.click(table, offset=(word, 0), shift=True)
        assert main.view.sort == (("writes.z_max", False), ("writes", False))
        await settled(pilot)
        await pilot.click(table, offset=(10, 4))
        assert main.view.cursor == int(main.rows.order[3])
        await pilot.mouse_down(table, offset=(10, 4))
        await pilot.double_click(table, offset=(10, 4))
        assert main.view.page == "card"


# -- palette and help --------------------------------------------------------------------------------------------------


async def test_the_palette_finds_keys_by_their_words_and_runs_them(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await type_text(pilot, "mark every row")
        await until(pilot, lambda: "mark every row that the filter lets through" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: main.view.marks.count == len(main.rows) > 0)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await type_text(pilot, "running work")
        await until(pilot, lambda: "running work" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))


def test_help_begins_with_the_keys_of_the_panel_that_has_them() -> None:
    jobs = [text_of(line) for line in HelpScreen("jobs").lines(100)]
    assert jobs[2].startswith("JOBS · here")
    card = "\n".join(text_of(line) for line in HelpScreen("main", "card").lines(100))
    assert card.index("THE CARD HAS THE KEYS") < card.index("MOVE · here") < card.index("WHAT ONE SEES")
    for line in HelpScreen("heads").lines(58):
        assert cell_len(text_of(line)) <= 58


async def test_the_first_run_teaches_until_a_key_and_help_brings_it_back(ready: Place) -> None:
    app = ready.app(ready.address())
    app.first_run = True
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "any key begins" in screen_text(app)
        await pilot.press("j")
        await settled(pilot)
        assert "any key begins" not in screen_text(app)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.pause()
        assert "any key begins" in screen_text(app)
