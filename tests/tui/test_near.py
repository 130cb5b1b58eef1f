"""Nearest features and the comparison, key by key, over products made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tui.place import FakeClient, Place, screen_text, settled, until, write_rows
from wbtui.catalog.models import find_model
from wbtui.catalog.plan_neighbours import plan_neighbours
from wbtui.catalog.saes import find_sae
from wbtui.definitions import NeighboursDefinition
from wbtui.features.pair import pair_cosines
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.near import NearScreen

TO = {"before": (17, 0.82), "after": (29, 0.11), "same": (18, 0.41)}
"""Role -> nearest feature of every feature and its cosine; noise ends at .3."""


def fill_near(place: Place, sae: str = "L1") -> None:
    model = find_model(str(place.model))
    plan = plan_neighbours(model, find_sae(model, sae), NeighboursDefinition(), place.cache)
    for pair in plan.pairs:
        feature, cosine = TO[pair.role]
        ids = np.tile(np.arange(feature, feature + 5, dtype=np.int32), (place.n, 1))
        cosines = np.tile((cosine - 0.01 * np.arange(5)).astype(np.float32), (place.n, 1))
        columns = {"dec.cos": cosines, "dec.id": ids, "enc.cos": cosines / 2, "enc.id": ids}
        write_rows(place.cache, pair.product, columns)
        for spec in pair.nulls:
            best = np.linspace(0.1, 0.3, spec.rows, dtype=np.float32)
            write_rows(place.cache, spec, {"dec.best": best, "enc.best": best})


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three layers and what is near L1's; read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("near"))
    for sae in ("L0", "L1", "L2"):
        place.fill(sae)
    fill_near(place)
    return place


async def test_the_card_says_what_is_near_and_keys_follow_it(near: Place) -> None:
    app = near.app(near.address("L1", 5))
    async with app.run_test(size=(120, 60)) as pilot:
        main = await settled(pilot)
        text = screen_text(app)
        assert "#18" in text
        assert "L0 #17 .82" in text and "L2 #29 .11" in text
        main.set_view(main.view)
        await pilot.press("slash", *"id:5", "enter")
        await until(pilot, lambda: len(main.rows) == 1)
        await pilot.press("less_than_sign")
        await until(pilot, lambda: main.view.sae == "L0" and main.settled)
        assert main.view.cursor == 17 and main.rows.position(17) >= 0, "the filter stays behind"
        assert "cosine .82 with #5 of L1" in screen_text(app)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.view.sae == "L1" and main.settled)
        assert (main.view.cursor, main.view.filter) == (5, "id:5"), "[ brings the filter back"
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: main.view.sae == "L2" and main.settled)
        assert main.view.cursor == 29
        assert "inside noise" in screen_text(app)
        await pilot.press("greater_than_sign")
        await pilot.pause()
        assert "no SAE after layer 2" in screen_text(app)


async def test_filter_and_sort_by_nearness(near: Place) -> None:
    app = near.app(near.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("slash", *"nn>.4", "enter")
        await until(pilot, lambda: main.view.filter == "nn>.4" and main.settled and len(main.rows) == 600)
        await pilot.press("slash", *(["backspace"] * 5), *"nn.next>.3", "enter")
        await until(pilot, lambda: main.view.filter == "nn.next>.3" and len(main.rows) == 0)
        await until(
            pilot,
            lambda: main.arranged is not None and "nn.next runs from 0.11 to 0.11" in main.arranged.hint,
            "what matches nothing says what there is",
        )


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_the_list(near: Place, size: tuple[int, int]) -> None:
    app = near.app(near.address("L1", 5))
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        await pilot.press("tilde")
        screen = app.screen
        assert isinstance(screen, NearScreen)
        await until(pilot, lambda: screen.read, "the words of the listed features")
        await pilot.pause()
        text = screen_text(app)
        assert "NEAREST L1 #5" in text and "L1  this SAE" in text and "99 % of noise .30" in text
        opened = main.opened
        assert opened is not None
        assert screen.words["L1", 18][0] == opened.table.kind(18)
        await pilot.press("tab")
        await until(pilot, lambda: "encoder columns" in screen_text(app))
        await pilot.press("tab", *(["j"] * 5), "enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen) and main.view.sae == "L0" and main.settled)
        assert main.view.cursor == 17


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_compare(near: Place, size: tuple[int, int]) -> None:
    app = near.app(near.address("L1", 5))
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        await pilot.press("p")
        await until(pilot, lambda: "both are this feature" in screen_text(app))
        await pilot.press("j")
        other = main.view.cursor
        opened = main.opened
        assert opened is not None and other != 5
        expected = pair_cosines(opened.model, opened.sae, 5, opened.sae, other)
        shown = f"{expected.decoder:.2f}".replace("-", "−").replace("0.", ".", 1)
        await until(pilot, lambda: f"cosine of decoders {shown}" in screen_text(app), "the cosine")
        text = screen_text(app)
        assert f"COMPARE  L1 #5 : L1 #{other}" in text
        assert "▸" in text and f" {other} " in text, "the table stays, and its cursor follows"
        value = opened.table.value("writes.z_max", 5)
        assert f"{value:.1f}" in text
        await pilot.press("less_than_sign")
        await until(pilot, lambda: main.view.sae == "L0" and main.settled and "L1 #5 : L0 #17" in screen_text(app))
        assert main.view.pin == (str(near.model), "L1", 5), "the pin holds over layers"
        await pilot.press("escape")
        assert main.view.page == "main"
        await pilot.press("P")
        await until(pilot, lambda: "L1 #5 : L0 #17" in screen_text(app))
        await pilot.press("p")
        assert main.view.pin == (str(near.model), "L0", 17)


async def test_what_is_missing_is_asked_for_once_and_computed_when_wished(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill("L1")
    client = FakeClient(compute=lambda **_: {"job": 4, "state": "queued", "products": []})
    app = place.app(place.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)

        def asked() -> list[object]:
            return [f.get("other") for op, f in client.calls if op == "compute" and f["analysis"] == "neighbours"]

        await until(pilot, lambda: asked() == [None], "the comparisons that are made by themselves")
        fill_near(place)
        client.queue.put_nowait({"event": "product", "job": 4, "analysis": "neighbours", "state": "complete"})
        await until(pilot, lambda: "L0 #17 .82" in screen_text(app), "they land on the card")
        assert asked() == [None]
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: main.view.sae == "L2")
