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
