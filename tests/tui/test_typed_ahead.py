"""GIVEN keys that come in one piece THEN each goes where the ones before it lead, in order."""

from __future__ import annotations

import asyncio

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.widgets import Input

from tests.tui.place import Place, settled, until
from wbtui.tui.app import WbtuiApp
from wbtui.tui.screens import main as main_module
from wbtui.tui.screens.pick import PickScreen


async def typed(app: WbtuiApp, text: str, hops: int = 0) -> None:
    """Hand an app all keys at once, or with a few turns of the loop between two."""
    for char in text:
        app.post_message(events.Key(_character_to_key(char), char))
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
