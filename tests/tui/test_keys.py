"""Every key is in the map once, does something, and is listed in help."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.screen import Screen
from textual.widget import Widget

from tests.tui.place import Place, screen_text, settled, until
from wbtui.tui import keymap
from wbtui.tui.draw.line import Line, text_of
from wbtui.tui.screens.answer import AnswerScreen
from wbtui.tui.screens.choose import ChooseScreen
from wbtui.tui.screens.depth import DepthScreen
from wbtui.tui.screens.export import ExportScreen
from wbtui.tui.screens.flow import FlowScreen
from wbtui.tui.screens.heads import HeadsScreen
from wbtui.tui.screens.help import HelpScreen
from wbtui.tui.screens.jobs import JobsScreen
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.marked import SetScreen
from wbtui.tui.screens.match import MatchScreen
from wbtui.tui.screens.near import NearScreen
from wbtui.tui.screens.pick import PickScreen
from wbtui.tui.screens.population import PopulationScreen
from wbtui.tui.screens.reading import ReadingScreen
from wbtui.tui.screens.start import StartScreen
from wbtui.tui.widgets.note_editor import NoteArea

SCREENS: dict[str, type[Widget]] = {
    "main": MainScreen,
    "start": StartScreen,
    "pick": PickScreen,
    "jobs": JobsScreen,
    "columns": ChooseScreen,
    "export": ExportScreen,
    "note": NoteArea,
    "population": PopulationScreen,
    "heads": HeadsScreen,
    "depth": DepthScreen,
    "answer": AnswerScreen,
    "flow": FlowScreen,
    "set": SetScreen,
    "match": MatchScreen,
    "near": NearScreen,
    "reading": ReadingScreen,
}


def test_ids_are_unique_and_no_key_is_bound_twice_in_a_context() -> None:
    ids = [key.id for keys in keymap.CONTEXTS.values() for key in keys]
    assert len(ids) == len(set(ids))
    for keys in keymap.CONTEXTS.values():
        names = [name for key in keys for name in key.keys]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("context", list(keymap.CONTEXTS))
def test_every_key_has_an_action_on_its_screen(context: str) -> None:
    screen = SCREENS[context]
    for key in keymap.CONTEXTS[context]:
        action = getattr(screen, "action_" + key.action.partition("(")[0], None)
        assert callable(action), key.id
        assert getattr(Screen, action.__name__, None) is not action, f"{key.id} reaches Textual's own action"
        assert key.tooltip


@pytest.mark.parametrize("context", list(keymap.CONTEXTS))
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_footer_fits_and_offers_help_or_a_way_back(context: str, width: int) -> None:
    chosen = keymap.footer(context, width)
    assert sum(cell_len(key) + cell_len(word) + 3 for key, word in chosen) <= width + 3
    assert {"help", "back", "done", "leave"} & {word for _, word in chosen}


def test_help_lists_every_key_and_markdown_too() -> None:
    text = "\n".join(text_of(line) for line in HelpScreen().lines(118))
    flat = " ".join(text.split())
    markdown = keymap.markdown()
    for keys in keymap.CONTEXTS.values():
        for key in keys:
            assert key.shown in text, key.id
            assert " ".join(key.tooltip.split())[:30] in flat, key.id
            assert key.tooltip.replace("|", "\\|") in markdown


def _words(lines: list[Line]) -> list[str]:
    return sorted(word for line in lines for word in text_of(line).split() if word.strip("─"))


@pytest.mark.parametrize("width", [58, 78, 112, 179, 180, 198, 300])
def test_help_cuts_nothing_at_any_width(width: int) -> None:
    """GIVEN room for two columns THEN help is about half as long, and the same words are there."""
    lines = HelpScreen().lines(width)
    assert all(cell_len(text_of(line)) <= width for line in lines)
    known, plain = _words(lines), HelpScreen().lines(112)
    assert known == _words(plain)
    if width >= 180:
        assert len(lines) < 0.7 * len(plain)


async def test_every_main_key_can_be_pressed_anywhere_without_harm(ready: Place) -> None:
    app = ready.app(ready.address())
    quits = {"q", "ctrl+z"}
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        for key in keymap.MAIN:
            for name in key.keys:
                if name in quits:
                    continue
                await pilot.press(name)
                await pilot.pause()
                for _ in range(3):  # the start screen goes back to its models first
                    if not isinstance(app.screen, MainScreen):
                        await pilot.press("escape")
                        await pilot.pause()
                assert isinstance(app.screen, MainScreen), f"Esc leaves what {name} opened"
                main = await settled(pilot)
                if main.typing:
                    await pilot.press("escape")
        assert app._exception is None


async def test_help_is_one_key_away_from_start_and_main(ready: Place) -> None:
    app = ready.app(None)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.pause()
        assert "WRITES: tokens whose logits" in screen_text(app)
        await pilot.press("escape")
        assert isinstance(app.screen, StartScreen)
