"""A pasted page of Neuronpedia in the jump bar, and a feature's page to the clipboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tui.place import Place, screen_text, settled, until


@pytest.fixture
def known(tmp_path: Path) -> Place:
    """A model of a name that Neuronpedia has; L2 says what it is called there, L1 does not."""
    place = Place(tmp_path, n=40, layers=(1, 2), name="gemma-2-2b")
    config = place.model / "saes" / "L2" / "cfg.json"
    data = json.loads(config.read_text())
    data["metadata"]["neuronpedia_id"] = "gemma-2-2b/2-gemmascope-res-16k"
    config.write_text(json.dumps(data))
    place.fill("L1")
    place.fill("L2")
    return place


async def test_a_page_is_pasted_and_a_page_is_copied(known: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """WHEN a page is pasted behind ``:`` THEN its SAE opens at its feature; ``Y`` gives the page back."""
    monkeypatch.setenv("WBTUI_COPY", "file")
    app = known.app(known.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("Y")
        assert "no page on Neuronpedia is known of this SAE" in screen_text(app)
        await pilot.press("colon")
        app.screen.query_one("#entry").insert_text_at_cursor(  # type: ignore[attr-defined]
            "https://www.neuronpedia.org/gemma-2-2b/2-gemmascope-res-16k/7?embed=true"
        )
        await pilot.press("enter")
        await until(pilot, lambda: (main.view.sae, main.view.cursor) == ("L2", 7))
        assert main.view.model == str(known.model) and not main.typing
        await settled(pilot)
        await pilot.press("Y")
        page = "https://www.neuronpedia.org/gemma-2-2b/2-gemmascope-res-16k/7"
        await until(pilot, lambda: f"copied {page}" in screen_text(app))
        await pilot.press("enter", "end")
        await until(pilot, lambda: page in screen_text(app), "the page in the card")
        await pilot.press("escape", "left_square_bracket")
        await until(pilot, lambda: main.view.sae == "L1", "[ leads back")


async def test_a_page_that_is_not_here(known: Place) -> None:
    app = known.app(known.address("L1"))
    async with app.run_test(size=(200, 50)) as pilot:
        main = await settled(pilot)
        await pilot.press("colon", *"neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345", "enter")
        await until(pilot, lambda: "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical" in screen_text(app))
        assert main.view.sae == "L1"
        await pilot.press("colon", *"neuronpedia.org/list/x", "enter")
        await until(pilot, lambda: "/list/x" in screen_text(app))


async def test_an_address_of_several_lines_is_shown_whole_and_drawn_once(known: Place) -> None:
    """WHEN a pasted address takes more lines than the head has THEN the head grows, and drawing comes to rest."""
    app = known.app(known.address("L1"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("o")
        start = app.screen
        await until(pilot, lambda: bool(start.models))  # type: ignore[attr-defined]
        drawn = []
        fit = start.fit  # type: ignore[attr-defined]
        start.fit = lambda: (drawn.append(1), fit())  # type: ignore[attr-defined]
        start.query_one("#entry").value = "./" + " ".join(["folder/" * 6] * 6)  # type: ignore[attr-defined]
        await until(pilot, lambda: start.query_one("#head").size.height > 3)
        await pilot.pause()
        count = len(drawn)
        for _ in range(5):
            await pilot.pause()
        assert len(drawn) == count < 6
        assert screen_text(app).count("folder/") >= 36
