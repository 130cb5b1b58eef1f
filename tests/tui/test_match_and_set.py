"""Journeys: filter → mark → set page → export; match → lost list → open."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from safetensors.numpy import load_file, save_file

from tests.features import make
from tests.tui.place import D, FakeClient, Place, screen_text, settled, until
from wbtui.catalog.models import find_model
from wbtui.catalog.plan_match import plan_match
from wbtui.catalog.saes import find_sae
from wbtui.definitions import MatchDefinition
from wbtui.errors import ServiceError
from wbtui.features.marked import Part
from wbtui.features.table import FeatureTable
from wbtui.store.products import Product
from wbtui.tui.draw.line import text_of
from wbtui.tui.draw.marked import cosines_block
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.marked import SetScreen
from wbtui.tui.screens.match import MatchScreen, spans

SIZES = [(80, 24), (120, 40), (200, 50)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """L1 and, at its place, L1-b: half of its rows are L1's in another order, half are new; the match is computed."""
    place = Place(tmp_path_factory.mktemp("pair"), n=300, layers=(1,))
    folder = place.model / "saes" / "L1-b"
    shutil.copytree(place.model / "saes" / "L1", folder)
    weights = load_file(folder / "sae_weights.safetensors")
    rng = np.random.default_rng(5)
    weights["W_dec"] = weights["W_dec"][::-1].copy()
    weights["W_dec"][150:] = rng.normal(size=(150, D))
    save_file(weights, folder / "sae_weights.safetensors")
    place.fill("L1")
    place.fill("L1-b", vocab=False, nulls=False)
    match(place)
    return place


def unit(place: Place, sae: str) -> np.ndarray:
    rows = load_file(place.model / "saes" / sae / "sae_weights.safetensors")["W_dec"].astype("float64")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def match(place: Place) -> None:
    """The match product of L1 with L1-b, made with numpy."""
    model = find_model(str(place.model))
    plan = plan_match(model, find_sae(model, "L1"), model, find_sae(model, "L1-b"), MatchDefinition(), place.cache)
    cosines = unit(place, "L1") @ unit(place, "L1-b").T
    noise = {f"null.{k}.{s}": np.full(9, 0.5, np.float32) for k in ("isotropic", "decoder_cov") for s in "ab"}
    columns = {
        "a.cos": cosines.max(1).astype("float32"), "a.id": cosines.argmax(1).astype("int32"),
        "b.cos": cosines.max(0).astype("float32"), "b.id": cosines.argmax(0).astype("int32"), **noise,
    }  # fmt: skip
    Product(place.cache, plan.product).write_whole(columns)


def together(members: list[list[Any]], place: Place) -> dict[str, Any]:
    """What the service answers to ``set``."""
    saes, rows = [m[0] for m in members], [m[1] for m in members]
    units = np.array([unit(place, sae)[row] for sae, row in members])
    null = {"pair_p99": 0.6, "rank": 2.5, "n": 96}
    return {
        "features": rows, "saes": saes, "absent": [], "absent_saes": [], "rank": 2.1,
        "cosines": (units @ units.T).tolist(), "null": {"isotropic": null, "decoder_cov": null},
    }  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
async def test_match_lost_list_open_and_back(pair: Place, size: tuple[int, int]) -> None:
    app = pair.app(pair.address("L1", 7))
    cosines = unit(pair, "L1") @ unit(pair, "L1-b").T
    best = cosines.max(1)
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, MatchScreen))
        await pilot.pause()
        assert "L1-b" in screen_text(app)
        await pilot.press("enter")
        page = app.screen
        assert isinstance(page, MatchScreen)
        await until(pilot, lambda: page.matching is not None and not page.pending)
        await pilot.pause()
        text = screen_text(app)
        assert f"{100 * (best >= 0.9).mean():.1f} %" in text
        assert "MATCHED" in text
        await pilot.press("tab")
        await pilot.pause()
        assert f"LOST {(best < 0.7).sum()}" in screen_text(app)
        await pilot.press("right", "right", "right", "right", "left")
        await pilot.pause()
        lost = np.flatnonzero(best < 0.85)
        lost = lost[np.argsort(best[lost], kind="stable")]
        assert len(lost) > 3
        assert f"LOST {len(lost)}" in screen_text(app)
        assert "bar 0.85" in screen_text(app)
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen))
        assert main.view.cursor == lost[1]
        await pilot.press("left_square_bracket")
        await settled(pilot)
        assert main.view.cursor == 7


async def test_new_features_open_in_the_other_sae_and_lists_become_filters(pair: Place) -> None:
    app = pair.app(pair.address("L1", 7))
    cosines = unit(pair, "L1") @ unit(pair, "L1-b").T
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, MatchScreen))
        await pilot.press("enter")
        page = app.screen
        assert isinstance(page, MatchScreen)
        await until(pilot, lambda: page.matching is not None and not page.pending)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, MainScreen))
        await settled(pilot)
        mutual = cosines.argmax(0)[cosines.argmax(1)] == np.arange(300)
        assert len(main.rows) == int((mutual & (cosines.max(1) >= 0.7)).sum())
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, MatchScreen))
        await pilot.press("enter")
        page = app.screen
        assert isinstance(page, MatchScreen)
        await until(pilot, lambda: page.matching is not None and not page.pending)
        await pilot.press("shift+tab", "shift+tab")
        await pilot.pause()
        assert page.which == "new"
        wanted = page.rows[0]["b"]
        await pilot.press("enter")
        await until(pilot, lambda: app.main is not None and app.main.view.sae == "L1-b")
        await settled(pilot)
        assert main.view.cursor == wanted


async def test_match_export_and_a_service_that_is_down(
    pair: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = pair.app(pair.address("L1-b"))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, MatchScreen))
        page = app.screen
        assert isinstance(page, MatchScreen)
        await pilot.press("enter")  # the other way round is another product, which is not there
        await until(pilot, lambda: bool(page.failure))
        assert "no service is running" in screen_text(app)
        await pilot.press("escape")
    app = pair.app(pair.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("equals_sign")
        await until(pilot, lambda: isinstance(app.screen, MatchScreen))
        page = app.screen
        assert isinstance(page, MatchScreen)
        await pilot.press("enter")
        await until(pilot, lambda: page.matching is not None and not page.pending)
        await pilot.press("e")
        await until(pilot, lambda: page.notice[0].startswith("wrote"))
        folder = next(tmp_path.glob("*match*"))
        assert json.loads((folder / "match.json").read_text())["counts"]["matched"] == len(page.matching.matched())
        assert (folder / "lost.csv").read_text().count("\n") == 1 + len(page.matching.lost())


@pytest.mark.parametrize("size", SIZES)
async def test_filter_mark_set_page_export(
    pair: Place, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = FakeClient(
        ask=lambda **fields: {"answer": together(fields["args"]["members"], pair)},
        compute=lambda **fields: ServiceError("nearest features are not what is tested"),
    )
    app = pair.app(pair.address("L1"), client)
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        await pilot.press("slash", *"n_words", "greater_than_sign", "8", "enter")
        await settled(pilot)
        assert 5 < len(main.rows) < 100
        await pilot.press("M")
        await pilot.pause()
        assert isinstance(app.screen, MainScreen)
        assert "two or more marked" in screen_text(app)
        await pilot.press("m", "m", "m", "m", "M")
        await until(pilot, lambda: isinstance(app.screen, SetScreen))
        page = app.screen
        assert isinstance(page, SetScreen)
        await until(pilot, lambda: not page.pending)
        await pilot.pause()
        text = screen_text(app)
        assert "4 marked features" in text
        assert "IN COMMON" in text
        for _ in range(4):
            await pilot.press("pagedown")
        await pilot.pause()
        text = screen_text(app)
        assert "effective rank 2.1 of 4" in text
        assert "inside noise" in text
        await pilot.press("e")
        await until(pilot, lambda: page.notice[0].startswith("wrote"))
        written = {p.name.rpartition("-")[2]: p for p in tmp_path.glob("*.csv")}
        assert set(written) == {"features.csv", "words.csv", "heads.csv", "cosines.csv"}
        with written["cosines.csv"].open() as file:
            rows = list(csv.reader(file))
        assert [int(x) for x in rows[0][1:]] == page.rows
        assert float(rows[1][1]) == pytest.approx(1)
        meta = json.loads(next(tmp_path.glob("*.meta.json")).read_text())
        assert meta["features"] == page.rows
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen))
        await settled(pilot)
        assert sorted(main.rows.order.tolist()) == sorted(page.rows)


async def test_a_set_without_service_says_so_and_keeps_the_words(pair: Place) -> None:
    app = pair.app(pair.address("L1"), FakeClient(refuse=ServiceError("no service is running")))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("m", "m", "M")
        await until(pilot, lambda: isinstance(app.screen, SetScreen))
        page = app.screen
        assert isinstance(page, SetScreen)
        await until(pilot, lambda: not page.pending)
        await pilot.pause()
        text = screen_text(app)
        assert "no service is running" in text
        assert "WRITES IN COMMON" in text


def test_spans() -> None:
    assert spans([]) == ""
    assert spans([1, 2, 3, 7, 9, 10]) == "1..3,7,9..10"


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return make.table(n=150)


@pytest.mark.parametrize("n", [1, 2, 12, 17, 40, 120])
@pytest.mark.parametrize("width", [58, 78, 118, 198])
def test_cosines_are_drawn_at_any_number_and_width_and_read_without_colour(
    n: int, width: int, table: FeatureTable
) -> None:
    cosines = np.eye(n)
    if n > 1:
        cosines[0, 1] = cosines[1, 0] = -0.85
        cosines[0, n - 1] = cosines[n - 1, 0] = 0.65 if n > 2 else -0.85
    null = {"isotropic": {"pair_p99": 0.25, "rank": 3.0, "n": 96}}
    answer = {"features": list(range(n)), "absent": [149], "cosines": cosines.tolist(), "rank": 1.5, "null": null}
    lines = [text_of(line) for line in cosines_block([Part(table, tuple(range(n)))], answer, width)]
    assert all(cell_len(line) <= width for line in lines)
    text = "\n".join(lines)
    if n == 1:
        assert "two features" in text
        return
    assert "0.25" in text
    numbers = n <= 16 and 6 * n + 5 <= width
    assert ("-.85" in text) == numbers
    if not numbers and n <= (width - 5):
        body = "\n".join(lines[2:])
        assert "▓" in body
        assert "·" in body
