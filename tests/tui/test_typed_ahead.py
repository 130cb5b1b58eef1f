"""GIVEN keys that come in one piece THEN each goes where the ones before it lead, in order."""

from __future__ import annotations

import asyncio

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.widgets import Input

from tests.tui.place import Place, settled, until
from wbtui.tui import ahead
from wbtui.tui.app import WbtuiApp
from wbtui.tui.screens import main as main_module
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.pick import PickScreen

NAMES = {"\r": "enter", "\x1b": "escape", "\x7f": "backspace"}


async def typed(app: WbtuiApp, text: str, hops: int = 0) -> None:
    """Hand an app all keys at once, or with a few turns of the loop between two."""
    for char in text:
        app.post_message(events.Key(NAMES.get(char) or _character_to_key(char), char))
        for _ in range(hops):
            await asyncio.sleep(0)


@pytest.mark.parametrize("hops", [0, 1, 2, 3, 5, 8, 13])
async def test_a_filter_in_one_piece_is_a_filter(ready: Place, hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "BAR_REST", 60.0)
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert not main.query("#bar"), "it is made when it is wanted"
        await typed(app, "/FORWhvp jkq", hops)
        await until(pilot, lambda: main.query("#entry") and main.query_one("#entry", Input).value == "FORWhvp jkq")
        assert app.screen is main and main.typing == "filter"
        await until(pilot, lambda: main.view.filter == "FORWhvp jkq", "the filter")


async def test_moves_in_one_piece_are_all_made(ready: Place) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await typed(app, "jjjjkj")
        await until(pilot, lambda: main.rows.position(main.view.cursor) == 4, "the fifth row")


async def test_letters_behind_the_key_of_a_picker_are_the_pickers(ready: Place) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await typed(app, "OL2")
        await until(pilot, lambda: isinstance(app.screen, PickScreen) and app.screen.query_one("#entry", Input).value)
        await until(pilot, lambda: app.screen.query_one("#entry", Input).value == "L2", "both letters")


async def test_the_bar_is_made_soon_after_the_first_picture(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_module, "BAR_REST", 0.01)
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await until(pilot, lambda: main.query("#entry"), "the bar")
        assert not main.query_one("#entry", Input).cursor_blink and main.typing == ""
        await pilot.press("slash", "a", "escape", "escape")
        assert main.typing == "" and main.view.filter == ""


@pytest.mark.parametrize("hops", [0, 1, 2, 3, 5, 8, 13])
async def test_keys_behind_enter_are_for_the_table(ready: Place, hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar has its letters; what comes behind the key that closes it is a command again."""
    moves: list[str] = []
    monkeypatch.setattr(MainScreen, "action_down", lambda self: moves.append(f"down {self.view.filter}"))
    monkeypatch.setattr(MainScreen, "action_up", lambda self: moves.append(f"up {self.view.filter}"))
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await typed(app, "/z_max>-9\rjkj", hops)
        await until(pilot, lambda: len(moves) == 3, "three moves")
        assert moves == ["down z_max>-9", "up z_max>-9", "down z_max>-9"] and not main.typing
        moves.clear()
        await typed(app, "/\x7f\x7f\x7f4\x7f5\rkj", hops)
        await until(pilot, lambda: len(moves) == 2, "two moves")
        assert moves == ["up z_max5", "down z_max5"] and not main.typing


async def test_a_backspace_takes_what_stands_before_it(ready: Place) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await typed(app, "/ab\x7fc\x7fde")
        await until(
            pilot, lambda: main.query("#entry") and main.query_one("#entry", Input).value == "ade", "what is left"
        )


async def test_keys_are_not_held_where_what_they_wait_for_is_lost(
    ready: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "LOST", 0.05)
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await typed(app, "/ab")
        await until(pilot, lambda: main.query("#entry") and main.query_one("#entry", Input).value == "ab")
        monkeypatch.setattr(WbtuiApp, "on_passed", lambda self, message: None)
        await typed(app, "\x7fc")
        await until(pilot, lambda: main.query_one("#entry", Input).value == "ac", "the key that was held")


async def test_an_app_that_ends_while_rows_are_arranged_ends_well(ready: Place) -> None:
    """GIVEN an order that is made in a thread and another that waits WHEN the table has gone THEN no fault."""
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await main.table_view.remove()
        main._ticket += 1
        await main._arrange()


async def test_keys_behind_the_escape_of_a_picker_are_for_the_table(
    ready: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a key that leaves a screen, and what was sent behind it THEN the next ones go on."""
    monkeypatch.setattr(ahead, "LOST", 1000.0)
    moves: list[str] = []
    monkeypatch.setattr(MainScreen, "action_down", lambda self: moves.append("down"))
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await typed(app, "OL2\x1b\x1bjj")
        await until(pilot, lambda: len(moves) == 2, "two moves")
        assert app.screen is main
