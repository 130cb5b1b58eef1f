"""Pictures of the pages that stand above table and card, each at one size, dark and light by turns."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tui.heads_place import fill_heads
from tests.tui.place import D, Place, settled, until
from tests.tui.test_ask import Service, page, type_in
from tests.tui.test_depth_page import depth_page
from tests.tui.test_match_and_set import match, together
from tests.tui.test_near import fill_near
from wbtui.tui.screens.answer import AnswerScreen
from wbtui.tui.screens.flow import FlowScreen
from wbtui.tui.screens.heads import HeadsScreen
from wbtui.tui.screens.marked import SetScreen
from wbtui.tui.screens.match import MatchScreen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Three layers, heads of two, nearest features and a match with another SAE of L1. Read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("whole"), n=300)
    folder = place.model / "saes" / "L1-b"
    shutil.copytree(place.model / "saes" / "L1", folder)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["W_dec"][150:] = np.random.default_rng(5).normal(size=(150, D))
    save_file(weights, folder / "sae_weights.safetensors")
    for name in ("L0", "L1", "L2"):
        place.fill(name)
    place.fill("L1-b", vocab=False, nulls=False)
    for name in ("L0", "L1"):
        fill_heads(place, name)
    fill_near(place)
    match(place)
    return place


class Answers(Service):
    """Questions and sets."""

    def __init__(self, place: Place) -> None:
        super().__init__("tiny")
        self.place = place

    async def ask(self, **fields: Any) -> dict[str, Any]:
        if fields["what"] == "set":
            return {"answer": together(fields["args"]["members"], self.place)}
        return await super().ask(**fields)


async def find(pilot: Any) -> None:
    await pilot.press("f")
    await type_in(pilot, "w:word3")
    await pilot.press("enter")
    await page(pilot, AnswerScreen)
    await pilot.press("A")
    await page(pilot, AnswerScreen)
    await pilot.press("m", "down")


async def edges(pilot: Any) -> None:
    await pilot.press("E")
    await page(pilot, AnswerScreen)
    await pilot.press("down")


async def flow(pilot: Any) -> None:
    await pilot.press("W")
    await page(pilot, FlowScreen)


async def marked(pilot: Any) -> None:
    await pilot.press(*"mmmm", "M")
    screen: SetScreen = await page(pilot, SetScreen)
    assert screen.answer is not None


async def matched(pilot: Any) -> None:
    await pilot.press("equals_sign", "enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, MatchScreen) and pilot.app.screen.matching is not None)
    await page(pilot, MatchScreen)
    await pilot.press("down")


async def near(pilot: Any) -> None:
    await pilot.press("tilde")
    await until(pilot, lambda: pilot.app.screen.read, "the words of the listed features")


async def compared(pilot: Any) -> None:
    await pilot.press("p", "j")
    main = await settled(pilot)
    await until(pilot, lambda: len(main.cosines) == 1, "the cosine")


async def head(pilot: Any) -> None:
    await pilot.press("h")
    await page(pilot, HeadsScreen)
    await pilot.press("p")


async def depth(pilot: Any) -> None:
    await pilot.press("V")
    await depth_page(pilot)


PAGES: dict[str, tuple[Callable[[Any], Awaitable[None]], tuple[int, int], str]] = {
    "find": (find, (120, 40), "dark"), "edges": (edges, (80, 24), "light"), "flow": (flow, (120, 40), "dark"),
    "set": (marked, (120, 40), "light"), "match": (matched, (120, 40), "dark"), "near": (near, (80, 24), "light"),
    "compare": (compared, (120, 40), "dark"), "head": (head, (80, 24), "light"), "depth": (depth, (200, 50), "dark"),
}  # fmt: skip
"""Page -> how one gets there, size, theme."""


@pytest.mark.parametrize("name", list(PAGES))
def test_page_looks(whole: Place, snap_compare: Any, name: str) -> None:
    go, size, look = PAGES[name]

    async def before(pilot: Any) -> None:
        await until(pilot, lambda: pilot.app.desk.state == "up")
        await settled(pilot)
        await go(pilot)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()

    app = whole.app(whole.address("L1", 5), Answers(whole), look=look)
    assert snap_compare(app, terminal_size=size, run_before=before)
