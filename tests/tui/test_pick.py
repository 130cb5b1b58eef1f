"""Models, SAEs and layers by a few letters: on the start screen, and with ``O`` over everything there is."""

from __future__ import annotations

import pytest

from tests.tui.place import Place, screen_text, settled, until
from wbtui.tui.draw.line import lit
from wbtui.tui.screens.pick import REGISTRY, PickScreen
from wbtui.tui.screens.start import StartScreen, is_address

SAE = "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"
PAGE = "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345"


def test_matched_characters_are_told_by_their_own_role() -> None:
    assert lit("abcd", frozenset({0, 2, 3}), "dim") == [("a", "hit"), ("b", "dim"), ("cd", "hit")]
    assert lit("abcdef", frozenset({0, 4}), "dim", 4) == [("…", "hit"), ("d", "dim"), ("e", "hit"), ("f", "dim")]
    assert lit("abc", frozenset(), "dim", 3) == [("abc", "dim")]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_a_few_letters_find_an_sae_and_enter_opens_it(ready: Place, size: tuple[int, int]) -> None:
    app = ready.app(ready.address("L1", 5))
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        await pilot.press("O")
        picker = app.screen
        assert isinstance(picker, PickScreen)
        assert [pick.name for pick in picker.picks[:3]] == ["L0", "L1", "L2"], "at once, before the rest is looked for"
        await until(pilot, lambda: picker.whole)
        text = screen_text(app)
        assert "REGISTRY" in text and "demo@L3" in text and "● L1" in text
        await pilot.press(*"g2 2b res canon 12 16k")
        assert picker.under is not None and picker.under.name == SAE
        row = next(line for line in screen_text(app).splitlines() if line.startswith(" ▸ ↓ "))
        assert row.rstrip().endswith(SAE[-40:]) and "▸ ↓ L12 " in row, "a name that is too long loses its beginning"
        await pilot.press("escape", *"9b pt res l20 131k canon")
        assert picker.under.name == "gemma-scope-9b-pt-res-canonical/layer_20/width_131k/canonical"
        await pilot.press("enter")
        assert "not on this disk: ^d downloads it" in screen_text(app)
        await pilot.press("escape", *"2", "number_sign", *"17", "enter")
        await until(pilot, lambda: app.screen is main and main.view.sae == "L2" and main.view.cursor == 17)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: (main.view.sae, main.view.cursor) == ("L1", 5))


async def test_the_list_walks_over_its_groups(ready: Place) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(100, 24)) as pilot:
        await settled(pilot)
        await pilot.press("O")
        picker = app.screen
        assert isinstance(picker, PickScreen)
        await until(pilot, lambda: picker.whole)
        seen = []
        for _ in range(24):  # every row stands under the arrow once, whatever rules lie between
            assert picker.under is not None
            row = next(line for line in screen_text(app).splitlines() if line.startswith(" ▸"))
            assert picker.under.shown[-30:] in row
            seen.append(picker.under.shown)
            await pilot.press("down")
        assert len(set(seen)) == 24
        assert any(name.startswith("demo@") for name in seen)
        await pilot.press(*["pagedown"] * 4)
        assert picker.under is not None and picker.under.group == REGISTRY
        await pilot.press(*"zzqqzz")
        assert "nothing matches these letters" in screen_text(app)
        await pilot.press("enter", "ctrl+d")
        assert "no SAE under the cursor" in screen_text(app)
        await pilot.press("escape", "escape")
        assert app.screen is app.main


async def test_a_page_that_is_not_here_is_shown_where_it_can_be_fetched(ready: Place) -> None:
    """WHEN a page of a missing SAE is pasted in the jump bar, the start screen, the picker THEN the cursor is on it."""
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        for _ in range(2):
            if app.screen is main:
                await pilot.press("colon")
                app.screen.query_one("#entry").insert_text_at_cursor(PAGE)  # type: ignore[attr-defined]
            else:
                await pilot.press("escape")
                app.screen.query_one("#entry").insert_text_at_cursor(PAGE)  # type: ignore[attr-defined]
                await pilot.pause()
                assert "⏎ opens https://www.neuronpedia.org" in screen_text(app)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, StartScreen))
            await until(pilot, lambda: "▸ ↓ layer_12/width_16k/canonical" in screen_text(app))
            flat = " ".join(screen_text(app).split())
            assert f"`wbtui download google/gemma-2-2b {SAE}` fetches it" in flat
            assert app.screen.chosen.name == "google/gemma-2-2b"  # type: ignore[attr-defined]
        while app.screen is not main:
            await pilot.press("escape")
        await pilot.press("O")
        picker = app.screen
        assert isinstance(picker, PickScreen)
        await until(pilot, lambda: picker.whole)
        picker.query_one("#entry").insert_text_at_cursor(PAGE)  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: picker.under is not None and picker.under.name == SAE)
        assert picker.word.startswith("gemma-2-2b/12-gemmascope-res-16k is")


@pytest.mark.parametrize(
    ("text", "want"),
    [("demo@L3", True), ("./x", True), (PAGE, True), ("gemma", False), ("@L3", False), ("l3@", False), ("", False)],
)
def test_what_is_an_address_in_the_start_screen(text: str, want: bool) -> None:
    assert is_address(text) is want


async def test_an_address_opens_from_the_start_screen_and_the_palette(ready: Place) -> None:
    app = ready.app(None)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, StartScreen) and app.screen.models is not None)
        await pilot.press(*"nosuch", "at", *"L3", "enter")
        await until(pilot, lambda: "no model 'nosuch' here" in screen_text(app))
        app.screen.query_one("#entry").value = f"{ready.address('L2', 9)}"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: app.main is not None and app.main.view.cursor == 9)
        main = await settled(pilot)
        await pilot.press("ctrl+p")
        await pilot.pause()
        app.screen.query_one("Input").value = f"{ready.address('L1', 3)}"  # type: ignore[attr-defined]
        await until(pilot, lambda: "go to" in screen_text(app))
        await pilot.press("enter")
        if app.screen is not main:
            await pilot.press("enter")
        await until(pilot, lambda: (main.view.sae, main.view.cursor) == ("L1", 3))


async def test_letters_narrow_the_start_screen(ready: Place) -> None:
    app = ready.app(None)
    async with app.run_test(size=(120, 40)) as pilot:
        start = app.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: start.models is not None and bool(start.registry))
        await pilot.press(*"gma2 9b")
        assert start.chosen is not None and start.chosen.name == "google/gemma-2-9b"
        await until(pilot, lambda: "google/gemma-2-9b" in start.published)
        await pilot.press("enter", *"layer_9 131 canon")
        found = start._saes
        assert found and found[0].name.endswith("layer_9/width_131k/canonical")  # type: ignore[union-attr]
        releases = [item.release for item in found]  # type: ignore[union-attr]
        assert len(list(dict.fromkeys(releases))) == sum(
            a != b for a, b in zip(releases, ["", *releases], strict=False)
        )
