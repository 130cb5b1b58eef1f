"""Whole journeys of a user: from the first start to the next morning; a job that fails; sizes; every key."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from tests.tui.place import FakeClient, Place, screen_text, settled, until
from tests.tui.test_journeys import type_text
from wbtui import paths
from wbtui.errors import ServiceError, WorkError
from wbtui.notes.store import NoteStore, site_of
from wbtui.tui import keymap
from wbtui.tui.app import WbtuiApp
from wbtui.tui.data import load_session
from wbtui.tui.screens.jobs import JobsScreen, LogScreen
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.start import StartScreen


def app_of(place: Place, **more: Any) -> WbtuiApp:
    """The app as a user starts it: it remembers, and knows whether it was here before."""
    fake = FakeClient(refuse=ServiceError("no service is running"))
    more.setdefault("make_client", fake.made)
    more.setdefault("address", None)
    return WbtuiApp(cache=place.cache, definition=place.definition, color_system="truecolor", **more)


async def test_from_the_first_start_to_the_next_morning(
    ready: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(ready.model.parent))
    monkeypatch.chdir(tmp_path)
    app = app_of(ready)
    assert app.first_run
    async with app.run_test(size=(120, 40)) as pilot:
        start = app.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: start.models is not None)
        await type_text(pilot, "tiny")
        await until(pilot, lambda: "tiny" in start.saes)
        await pilot.press("enter", "enter")
        main = await settled(pilot)
        assert "any key begins" in screen_text(app), "five lines teach"
        await pilot.press("slash")
        await type_text(pilot, "n_words>=2")
        await until(pilot, lambda: main.view.filter == "n_words>=2" and 0 < len(main.rows) < 600)
        await pilot.press("enter", "s", "s")
        await until(pilot, lambda: main.view.sort == (("writes.z_max", True),))
        await settled(pilot)
        assert "any key begins" not in screen_text(app)
        await pilot.press("g", "m", "m", "k", "t")
        tagged = main.view.cursor
        await type_text(pilot, "todo")
        await pilot.press("enter")
        await until(pilot, lambda: main.typing == "")
        await pilot.press("a")
        await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        await type_text(pilot, "ask ann")
        await pilot.press("enter")
        await until(pilot, lambda: main.editor is None)

        pinned = main.view.cursor
        await pilot.press("p", "j")
        await until(pilot, lambda: main.view.page == "compare" and len(main.cosines) > 0, "both side by side")
        text = screen_text(app)
        assert f"COMPARE  {main.view.sae} #{pinned} : {main.view.sae} #{main.view.cursor}" in text
        await pilot.press("escape")
        await settled(pilot)

        await pilot.press("slash", "end", "ctrl+u")
        await type_text(pilot, "marked note:ann")
        await until(pilot, lambda: main.rows.order.tolist() == [tagged])
        await pilot.press("enter")
        main.set_view(replace(main.view, columns=("id", "writes.z_max", "tags", "note")))
        await settled(pilot)
        await pilot.press("x", "f2", "f4")
        out = tmp_path / "found.csv"
        app.screen.query_one("#path", Input).value = str(out)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen), "the dialog to close")
        rows = list(csv.DictReader(out.open(encoding="utf-8")))
        assert [(int(r["id"]), r["tags"], r["note"]) for r in rows] == [(tagged, "todo", "ask ann")]
        about = json.loads((tmp_path / "found.csv.meta.json").read_text())
        assert about["filter"] == "marked note:ann"
        assert {"model", "sae", "definition", "wbtui", "thresholds"} <= set(about)
        await settled(pilot)
        left = main.view
        await pilot.press("q")
    assert app.return_code == 0

    again = app_of(ready, resume=load_session())
    assert not again.first_run
    async with again.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        for name in ("model", "sae", "cursor", "filter", "sort", "columns", "page", "marks"):
            assert getattr(main.view, name) == getattr(left, name), name
        assert "ask ann" in screen_text(again)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(again.screen, StartScreen))
    fresh = app_of(ready, resume=None)
    async with fresh.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert isinstance(fresh.screen, StartScreen)


async def test_a_job_fails_while_it_is_watched_and_is_asked_for_again(place: Place) -> None:
    error = WorkError("out of memory on cuda:0", "2 GiB free", "use a smaller tile")
    asked: list[int] = []

    def retry(job: int) -> dict[str, Any]:
        asked.append(job)
        return {"job": 4}

    listed = {"job": 3, "state": "running", "label": "tiny@L1", "fraction": 0.4, "eta": 30.0, "priority": "batch"}
    client = FakeClient(
        compute=lambda **fields: {"job": 3, "state": "queued", "products": []},
        row=lambda **fields: WorkError("busy"),
        jobs=lambda: {"jobs": [listed]},
        retry=retry,
    )
    paths.log_dir().mkdir(parents=True)
    (paths.log_dir() / "daemon.log").write_text("line one\n\x1b[31mCUDA out of memory\n")
    app = place.app(place.address(), client)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.desk.state == "up")
        await pilot.press("J")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen) and "40 %" in screen_text(app))
        assert "30 s" in screen_text(app), "time left"
        await pilot.press("r")
        await pilot.pause()
        assert asked == [], "what runs is not asked for again"
        client.queue.put_nowait({"event": "job", "job": 3, "state": "failed", "error": error.to_json()})
        await until(pilot, lambda: "failed" in screen_text(app) and "out of memory on cuda:0" in screen_text(app))
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, LogScreen) and "CUDA out of memory" in screen_text(app))
        assert "do: use a smaller tile" in screen_text(app)
        assert "\x1b" not in screen_text(app)
        await pilot.press("escape", "r")
        await until(pilot, lambda: "asked again: job 4" in screen_text(app))
        assert asked == [3]
        client.queue.put_nowait({"event": "job", "job": 4, "state": "queued", "label": "tiny@L1"})
        await until(pilot, lambda: "queued" in screen_text(app))


async def test_a_partial_product_is_marked_partial_wherever_it_shows(place: Place, tmp_path: Path) -> None:
    place.fill(shards=1)
    app = place.app(place.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert "256 computed" in screen_text(app)
        await pilot.press("x")
        out = tmp_path / "part.csv"
        app.screen.query_one("#path", Input).value = str(out)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen))
        assert main.opened is not None
    assert json.loads((tmp_path / "part.csv.meta.json").read_text())["complete"] is False


async def test_from_large_to_small_and_back_the_screen_is_the_same(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(200, 50)) as pilot:
        main = await settled(pilot)
        NoteStore().set_note(site_of(main.opened.table.origin), 5, "long " * 80, "")  # type: ignore[union-attr]
        await pilot.press("colon")
        await type_text(pilot, "5")
        await pilot.press("enter", "t")
        await type_text(pilot, "x")
        await pilot.press("enter")
        await until(pilot, lambda: main.typing == "")
        await settled(pilot)
        await pilot.press("j")
        await settled(pilot)
        await pilot.press("k")
        await settled(pilot)
        before, view = screen_text(app), main.view
        for size in ((60, 20), (200, 50)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: app.size == size)
            await settled(pilot)
            assert "#5" in screen_text(app)
        assert main.view.cursor == view.cursor
        assert screen_text(app).splitlines()[0] == before.splitlines()[0]
        assert "NOTE" in screen_text(app)


OPENERS = {
    "main": (), "start": ("o",), "jobs": ("J",), "columns": ("c",), "export": ("x",), "note": ("a",),
    "population": ("F",), "heads": ("h",), "depth": ("V",), "answer": ("E",), "flow": ("W",),
    "set": ("m", "m", "M"), "match": ("equals_sign",), "near": ("tilde",), "reading": ("D",), "pick": ("O",),
}  # fmt: skip
"""Context -> keys that open it from the table."""


@pytest.mark.parametrize("context", list(OPENERS))
async def test_every_binding_is_reachable_where_it_should_be(ready: Place, context: str) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press(*OPENERS[context])
        if context == "note":
            await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        elif context != "main":
            await until(pilot, lambda: getattr(app.screen, "CONTEXT", "") == context)
        await pilot.pause()
        active = app.screen.active_bindings
        for key in keymap.CONTEXTS[context]:
            for name in key.keys:
                assert name in active, f"{key.id}: {name} does nothing"
                assert active[name].binding.id == key.id, f"{name} is {active[name].binding}, not {key.id}"


def test_every_context_is_tried() -> None:
    assert set(OPENERS) == set(keymap.CONTEXTS)
