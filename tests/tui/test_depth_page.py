"""The Depth page: curves, map, refusal, files, sizes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tui.heads_place import fill_heads
from tests.tui.place import Place, screen_text, settled, until
from wbtui.features.depth import LayerPoint, profile
from wbtui.features.populations import Cut
from wbtui.tui.draw.depth import glyph_of, plot_lines, value_text
from wbtui.tui.draw.line import text_of, width_of
from wbtui.tui.screens.depth import DepthScreen
from wbtui.tui.screens.main import MainScreen


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Tokens of L0 to L2, heads of two of them. Read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("deep"))
    for name in ("L0", "L1", "L2"):
        place.fill(name)
    fill_heads(place, "L0")
    fill_heads(place, "L1")
    return place


async def depth_page(pilot: Any) -> DepthScreen:
    await until(pilot, lambda: isinstance(pilot.app.screen, DepthScreen) and not pilot.app.screen.pending, "the page")
    await pilot.pause()
    assert isinstance(pilot.app.screen, DepthScreen)
    return pilot.app.screen


async def test_curves_map_refusal_and_a_way_to_an_sae(deep: Place) -> None:
    app = deep.app(deep.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("V")
        page = await depth_page(pilot)
        text = screen_text(app)
        assert "SEMANTIC BY WHAT IT WRITES" in text and "IN SOME HEAD AS KEY, BY RMS" in text
        assert text.count("too few layers for a shape") == 6
        assert "no heads: L2" in text
        assert "CV over depth of the layer means of rms: as key" in text
        await pilot.press("t")
        await depth_page(pilot)
        assert "P75 over all layers" in screen_text(app)
        await pilot.press("t")
        await depth_page(pilot)
        text = screen_text(app)
        assert text.count("refused: a depth curve of in some head") == 2
        await pilot.press("t", "s")
        await depth_page(pilot)
        assert page.statistic == "max"
        assert "IN SOME HEAD AS QUERY, BY MAX" in screen_text(app)
        await pilot.press("enter")
        assert "m shows layers × heads" in screen_text(app)
        await pilot.press("m", "tab")
        await pilot.pause()
        text = screen_text(app)
        assert "IN EACH HEAD, AS KEY" in text
        assert page.depth is not None
        layer, name, shares = page.depth.head_shares("key")[0]
        assert (layer, name) == (1, "L0")
        row = next(line for line in text.splitlines() if line.strip().startswith("▸L1"))
        assert f"{shares[0] * 100:.1f}" in row
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen) and main.view.sae == "L0", "the SAE")
        await settled(pilot)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.view.sae == "L1", "back")


async def test_every_point_is_written(deep: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = deep.app(deep.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("V")
        page = await depth_page(pilot)
        await pilot.press("t", "t")
        await depth_page(pilot)
        await pilot.press("e")
        await until(pilot, lambda: "wrote" in page.notice[0], "the files")
    (curves,) = (p for p in tmp_path.glob("*-depth.csv"))
    with open(curves, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert page.depth is not None
    want = [(c.name, p.label, p.value) for c in page.depth.curves if c.profile for p in c.profile.points]
    assert [(r["measure"], r["sae"], float(r["value"])) for r in rows] == want
    assert {r["threshold_scope"] for r in rows} <= {"layer", "model"}
    with open(tmp_path / curves.name.replace(".csv", ".heads.csv"), encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 2  # two layers, two heads, two sides
    note = json.loads((tmp_path / curves.name.replace(".csv", ".meta.json")).read_text())
    assert sum(c["refused"] is not None for c in note["curves"]) == 2
    assert "SEMANTIC" in (tmp_path / curves.name.replace(".csv", ".svg")).read_text()


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
async def test_every_size(deep: Place, size: tuple[int, int]) -> None:
    app = deep.app(deep.address("L1", 5))
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("V")
        page = await depth_page(pilot)
        for key in ("down", "right", "down", "down", "down", "m", "down", "tab", "m"):
            await pilot.press(key)
            await pilot.pause()
            for strip in app.screen._compositor.render_strips():
                assert strip.cell_length == size[0]
            assert "▸" in screen_text(app)
        assert page.pick == 0


async def test_nothing_computed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, layers=(0, 1))
    app = place.app(place.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("V")
        await depth_page(pilot)
        text = screen_text(app)
        assert "no tokens: L0, L1" in text
        assert text.count("– not computed for any layer") == 6
        await pilot.press("m", "enter", "e")
        await pilot.pause()
        assert "no layer’s heads are computed" in screen_text(app)


def test_a_plot_puts_points_at_their_depth_and_height() -> None:
    points = [LayerPoint("a", 0, 0.5, 0.25, 0.75, 9, 0.05), LayerPoint("b", 9, 1.0, 0.9, 1.0, 9)]
    found = profile("x", points, Cut(1.0, "null", "layer", ""), 10)
    lines = [text_of(line) for line in plot_lines(found, "share", 47, 10)]
    assert lines[0][45] == "●" and lines[0].startswith("100 % ┤")
    column = [line[9] for line in lines[:10]]
    assert column.index("●") == 4 and column[2:8] == ["│", "│", "●", "│", "│", "│"] and column[9] == "·"
    assert lines[10].split() == ["L0", "L9"] and lines[11].split() == ["%", "50", "100"]
    assert all(width_of(line) == 47 for line in plot_lines(found, "share", 47, 10))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.123, "share", "12 %"), (0.0123, "share", "1.2 %"), (1.0, "share", "100 %"), (1.2345, "number", "1.23"),
     (float("nan"), "share", "–")],
)  # fmt: skip
def test_numbers(value: float, unit: str, text: str) -> None:
    assert value_text(value, unit) == text


@pytest.mark.parametrize(("share", "glyph"), [(0.01, "░"), (0.03, "▒"), (0.07, "▓"), (0.2, "█"), (float("nan"), "–")])
def test_a_cell_of_the_map(share: float, glyph: str) -> None:
    assert glyph_of(share) == glyph
