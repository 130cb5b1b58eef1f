"""Every screen, found by the table of openers that the bindings' test has, and every key of each: nothing that a
terminal would obey is drawn, and every line is as wide as the terminal. The last guard is off: sources are tested."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.widget import Widget
from textual.widgets import Input, TextArea

from tests.hostile.made import Hostile, HostileService
from tests.hostile.texts import NAME, TOKENS, files_are_sound, harm, misplaced
from tests.tui.place import settled, until
from tests.tui.test_whole_journeys import OPENERS
from wbtui import paths
from wbtui.tui import keymap, screens
from wbtui.tui.app import WbtuiApp
from wbtui.tui.data import save_session
from wbtui.tui.filters import Guard
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.state import start

LEAVE = {"quit", "quit-now", "start-quit", "jobs-restart"}
"""Bindings that end the app or the machine's service."""
QUESTION = "w:東京"


def app_of(hostile: Hostile, *, guard: bool = False) -> WbtuiApp:
    """The app on feature 5 of layer 1, with the hostile service and its log."""
    paths.log_dir().mkdir(parents=True)
    (paths.log_dir() / "daemon.log").write_bytes(NAME.encode() + b"\n\xff\x9b31m\n" + "\n".join(TOKENS).encode())
    place = hostile.at(1, 5)
    save_session(replace(start(place.model, place.sae or "", 5), filter=f"{NAME}>1"))
    app = hostile.app(place, HostileService(hostile))
    if not guard:
        app._filters = [f for f in app._filters if not isinstance(f, Guard)]
    return app


def look(app: WbtuiApp, at: object) -> None:
    """Fails where the screen holds what a terminal obeys, or a line of another width."""
    width, height = app.size
    strips = app.screen._compositor.render_strips()
    assert len(strips) == height
    for strip in strips:
        text = "".join(segment.text for segment in strip)
        assert not harm(text, lines=False), (at, ascii(text))
        assert not misplaced(text, width), (at, ascii(text))


async def quiet(pilot: Any) -> None:
    """Until nothing is under way."""
    await pilot.pause()
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def to_main(pilot: Any) -> MainScreen:
    """Leave whatever is open."""
    while not isinstance(pilot.app.screen, MainScreen):
        pilot.app.pop_screen()
        await pilot.pause()
    main: MainScreen = pilot.app.screen
    while main.typing or main.editor is not None:
        await pilot.press("escape")
    return main


async def opened(pilot: Any, context: str) -> None:
    """What the context's keys open, from the main screen."""
    app = pilot.app
    main = await to_main(pilot)
    keys = OPENERS[context]
    if context == "set" and main.view.marks.count > 1:
        keys = keys[-1:]
    await pilot.press(*keys)
    if context != "main":
        await until(pilot, lambda: app.screen.keys_context == context, context)
    if context == "match" and app.screen.other is None:
        await pilot.press("enter")
        await until(pilot, lambda: not app.screen.pending, "the match")
    await quiet(pilot)


async def press_and_look(hostile: Hostile, context: str, keys: list[keymap.Key]) -> None:
    """Open a screen, then press keys on it, one after the other, opening it again where one has left it."""
    app = app_of(hostile)
    async with app.run_test(size=(80, 24)) as pilot:
        main = await settled(pilot)
        main.last_question = QUESTION
        await until(pilot, lambda: app.desk.state == "up")
        await opened(pilot, context)
        look(app, context)
        here = app.screen
        for key in keys:
            if app.screen is not here or main.typing or main.editor:
                await opened(pilot, context)
                here = app.screen
            await pilot.press(key.keys[0])
            await quiet(pilot)
            look(app, (context, key.id))
    assert app._exception is None


@pytest.mark.parametrize("context", list(OPENERS))
async def test_every_screen(hostile: Hostile, context: str, tmp_path: Path) -> None:
    """The screen, and a few of its keys: others in each context, the same ones in each run."""
    every = [key for key in keymap.CONTEXTS[context] if key.id not in LEAVE]
    files = [key for key in every if key.action == "export" and context != "main"]
    keys = files + random.Random(context).sample(every, min(2, len(every)))
    await press_and_look(hostile, context, keys)
    files_are_sound(tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("context", list(OPENERS))
async def test_every_key_of_every_screen(hostile: Hostile, context: str, tmp_path: Path) -> None:
    await press_and_look(hostile, context, [key for key in keymap.CONTEXTS[context] if key.id not in LEAVE])
    files_are_sound(tmp_path)


async def test_views_that_no_opener_leads_to(hostile: Hostile) -> None:
    """Page, tokens, comparison, find, a head's own page, the map, the log, at another size."""
    app = app_of(hostile)
    journeys = (
        "i enter pagedown i n escape", "p j greater_than_sign", "f enter j D", "h p tab j", "V m", "J l",
        "tilde tab enter", "question_mark", "D", "y", "Y",
    )  # fmt: skip
    async with app.run_test(size=(132, 36)) as pilot:
        main = await settled(pilot)
        main.last_question = QUESTION
        await until(pilot, lambda: app.desk.state == "up")
        for keys in journeys:
            for key in keys.split():
                await pilot.press(key)
                await quiet(pilot)
                look(app, (keys, key))
            main = await to_main(pilot)
            if main.view.page != "main":
                await pilot.press("escape")
    assert app._exception is None


async def test_what_is_pasted_into_entries_and_editors(hostile: Hostile) -> None:
    app = app_of(hostile, guard=True)
    texts = ["".join(t for t in TOKENS[i : i + 30] if len(t) < 99) for i in range(0, len(TOKENS), 30)]
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for keys in ("slash", "f", "t", "a", "x", "c", "o"):
            await to_main(pilot)
            await pilot.press(keys)
            await quiet(pilot)
            fields: list[Widget] = [w for w in app.screen.query("Input, TextArea") if w.display]
            assert fields, keys
            for text in [*texts, NAME + "\ud800\udcff"]:
                for one in fields:
                    if isinstance(one, Input):
                        one.value = text
                    elif isinstance(one, TextArea):
                        one.load_text(text)
                await quiet(pilot)
                for strip in app.screen._compositor.render_strips():
                    shown = "".join(segment.text for segment in strip)
                    assert not harm(shown, lines=False), (keys, ascii(shown))
                    assert strip.cell_length == 80
    assert app._exception is None


def test_work_that_never_began_leaves_nothing_unawaited() -> None:
    """A coroutine made for a worker that the end of the app forestalls is a warning at exit; ``in_background`` takes
    the function instead."""
    for path in Path(screens.__file__).parent.glob("*.py"):
        assert path.name == "base.py" or ".run_worker(" not in path.read_text(encoding="utf-8"), path.name
