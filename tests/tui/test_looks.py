"""Colours, and pictures of the main screens at three sizes."""

from __future__ import annotations

from typing import Any

import pytest
from rich.color import ColorSystem
from rich.style import Style
from textual.color import Color
from textual.css.stylesheet import Stylesheet

from tests.tui.place import Place, screen_text, settled, until
from wbtui.address import Address
from wbtui.notes.store import NoteStore, site_of
from wbtui.tui.theme import PALETTES, palette_name


def test_palettes_have_the_same_roles() -> None:
    names = [set(palette) for palette in PALETTES.values()]
    assert all(own == names[0] for own in names)


def test_no_color_uses_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert palette_name("truecolor") == "plain"
    assert all(style.color is None and style.bgcolor is None for style in PALETTES["plain"].values())


def test_palette_by_number_of_colours() -> None:
    assert palette_name("truecolor") == palette_name("256") == "rich"
    assert palette_name("standard") == "named"
    assert palette_name(None) == "plain"


@pytest.mark.parametrize("role", ["text", "strong", "dim", "head", "writes", "reads", "against", "mark", "error"])
@pytest.mark.parametrize("palette", ["rich", "light"])
def test_text_stays_readable_in_256_colours(role: str, palette: str) -> None:
    style: Style = PALETTES[palette][role]
    assert style.color is not None
    assert style.bgcolor is not None
    fore, back = (c.downgrade(ColorSystem.EIGHT_BIT).get_truecolor() for c in (style.color, style.bgcolor))
    assert _contrast(fore, back) > 4.5


def _contrast(a: Any, b: Any) -> float:
    def light(c: Any) -> float:
        parts = [x / 255 for x in (c.red, c.green, c.blue)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("system", ["standard", "256", "truecolor"])
async def test_the_cursor_and_the_classes_show_without_colour(ready: Place, system: str) -> None:
    app = ready.app(ready.address(), color_system=system)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("m")
        await settled(pilot)
        lines = screen_text(app).splitlines()
        assert sum("▸" in line for line in lines) == 1
        assert sum(line[1:2] == "●" for line in lines) == 1
        assert any("none" in line and "(inside noise)" in line for line in lines) or len(main.rows)


SHOTS = [(80, 24), (120, 40), (200, 50)]


@pytest.mark.parametrize(("look", "ground"), [("dark", "#101419"), ("light", None), ("ansi", None)])
async def test_the_style_sheet_is_made_once_and_follows_another_theme(
    ready: Place, look: str, ground: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    again = Stylesheet.reparse
    monkeypatch.setattr(Stylesheet, "reparse", lambda self: (made.append("again"), again(self))[1])
    app = ready.app(ready.address("L1"), look=look)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        assert made == [], "a start parses no style twice"
        first = app.screen.styles.background
        assert first == Color.parse(app.theme_variables["background"])
        assert ground is None or first == Color.parse(ground)
        app.theme = "textual-light" if look != "light" else "textual-dark"
        await pilot.pause()
        assert made == ["again"]
        assert app.screen.styles.background == Color.parse(app.theme_variables["background"]) != first


@pytest.mark.parametrize("size", SHOTS, ids=[f"{w}x{h}" for w, h in SHOTS])
def test_main(ready: Place, snap_compare: Any, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async def before(pilot: Any) -> None:
        await settled(pilot)
        await pilot.press("j", "m", "j")
        await settled(pilot)

    assert snap_compare(ready.app(ready.address()), terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", SHOTS, ids=[f"{w}x{h}" for w, h in SHOTS])
def test_light_with_a_note(ready: Place, snap_compare: Any, size: tuple[int, int]) -> None:
    async def before(pilot: Any) -> None:
        main = await settled(pilot)
        site = site_of(main.opened.table.origin)  # type: ignore[union-attr]
        row = main.view.cursor
        NoteStore().set_tags(site, row, ("people", "todo"))
        NoteStore().set_marks(site, [row], [])
        NoteStore().set_note(site, row, "professions; does a head look for “who”?\nask Ann", "")
        main.visit(Address(main.view.model, main.view.sae, row))
        await until(pilot, lambda: main.view.marks.count == 1)
        await settled(pilot)

    assert snap_compare(ready.app(ready.address(), look="light"), terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", SHOTS, ids=[f"{w}x{h}" for w, h in SHOTS])
def test_page(ready: Place, snap_compare: Any, size: tuple[int, int]) -> None:
    async def before(pilot: Any) -> None:
        await settled(pilot)
        await pilot.press("enter")
        await settled(pilot)

    assert snap_compare(ready.app(ready.address()), terminal_size=size, run_before=before)


@pytest.mark.parametrize("key", ["question_mark", "D", "c"])
def test_other_screens(ready: Place, snap_compare: Any, key: str) -> None:
    async def before(pilot: Any) -> None:
        await settled(pilot)
        await pilot.press(key)
        await pilot.pause()

    assert snap_compare(ready.app(ready.address()), terminal_size=(80, 24), run_before=before)
