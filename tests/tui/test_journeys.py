"""What a user does, key by key, in the real app over real products (the service faked)."""

from __future__ import annotations

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from tests.tui.place import FakeClient, Place, columns_with, screen_text, settled, until
from wbtui import schema
from wbtui.errors import ServiceError, WorkError
from wbtui.store.products import Product
from wbtui.tui.messages import ServiceChanged
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.start import StartScreen


async def type_text(pilot: Any, text: str) -> None:
    for char in text:
        await pilot.press("space" if char == " " else char)


async def test_start_pick_filter_sort_mark_export_quit(
    ready: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(ready.model.parent))
    app = ready.app(None)
    async with app.run_test(size=(120, 40)) as pilot:
        start = app.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: start.models is not None)
        await type_text(pilot, "tin")
        await until(pilot, lambda: "tiny" in start.saes)
        assert start._models[0].name == "tiny"
        await pilot.press("enter")
        await until(pilot, lambda: "▸ ● L2" in screen_text(app), "the last layer under the cursor")
        await pilot.press("enter")
        main = await settled(pilot)
        assert main.opened is not None
        assert main.opened.sae.name == "L2"
        assert len(main.rows) == 600

        await pilot.press("slash")
        await type_text(pilot, "n_words>=2 kind=mix")
        await until(pilot, lambda: main.view.filter == "n_words>=2 kind=mix" and 0 < len(main.rows) < 600)
        await pilot.press("enter")
        assert main.typing == ""
        found = len(main.rows)
        assert f"{found} of 600" in screen_text(app)

        await pilot.press("s", "s")
        await until(pilot, lambda: main.view.sort == (("writes.z_max", True),))
        await settled(pilot)
        values = main.opened.table.column("writes.z_max")[main.rows.order]
        assert (values[:-1] >= values[1:]).all()

        await pilot.press("g", "m", "m")
        assert main.view.marks.numbers().tolist() == sorted(main.rows.order[:2].tolist())
        await pilot.press("x")
        out = tmp_path / "two.csv"
        app.screen.query_one("#path", Input).value = str(out)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen), "the dialog to close")
        await pilot.pause()
        assert f"wrote 2 features to {out}" in screen_text(app).replace("\n", "")
        with open(out, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [int(r["id"]) for r in rows] == main.rows.order[:2].tolist()
        note = json.loads((tmp_path / "two.csv.meta.json").read_text())
        assert note["selection"] == "marked"
        await pilot.press("q")
    assert app.return_code == 0


async def test_live_filter_tells_errors_and_the_nearest_thing(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("slash")
        await type_text(pilot, "z_maxx>3")
        await until(pilot, lambda: main.arranged is not None and main.arranged.error != "")
        assert "z_max" in screen_text(app).splitlines()[2]
        before = main.rows
        await type_text(pilot, "0")
        await until(pilot, lambda: main.arranged is not None and main.arranged.filter == "z_maxx>30")
        assert main.rows is before, "a wrong filter leaves the rows"
        await pilot.press("enter")
        assert main.typing == "filter", "a wrong filter stays in the bar"
        entry = main.query_one("#entry", Input)
        entry.value = "z_max>99"
        await until(pilot, lambda: main.arranged is not None and main.arranged.filter == "z_max>99")
        await until(pilot, lambda: "writes.z_max runs" in screen_text(app), "what would have matched")
        assert "no feature matches" in screen_text(app)
        entry.value = "wrd3x"
        await until(pilot, lambda: main.arranged is not None and main.arranged.filter == "wrd3x")
        await pilot.press("escape")
        await until(pilot, lambda: len(main.rows) == 600)
        assert main.view.filter == ""


async def test_jump_and_history(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        first = main.view.cursor
        await pilot.press("colon")
        await type_text(pilot, "#321")
        await pilot.press("enter")
        assert main.view.cursor == 321
        await settled(pilot)
        assert "#321" in screen_text(app).splitlines()[0]
        await pilot.press("colon")
        await type_text(pilot, "600")
        await pilot.press("enter")
        assert main.typing == "jump"
        assert "0 to 599" in screen_text(app)
        await pilot.press("escape", "left_square_bracket")
        assert main.view.cursor == first
        await pilot.press("right_square_bracket")
        assert main.view.cursor == 321
        await pilot.press("colon")
        await type_text(pilot, "L2#7")
        await pilot.press("enter")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L2" and main.settled)
        assert main.view.cursor == 7
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L1" and main.settled)
        assert main.view.cursor == 321


async def test_next_and_previous_layer_keep_filter_and_order(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("s", "slash")
        await type_text(pilot, "n_words>0")
        await pilot.press("enter")
        await until(pilot, lambda: len(main.rows) < 600)
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L2" and main.settled)
        assert main.view.filter == "n_words>0"
        assert main.view.sort == (("writes.evidence", True),)
        assert main.view.cursor == int(main.rows.order[0])
        await pilot.press("greater_than_sign")
        await pilot.pause()
        assert "no SAE after layer 2" in screen_text(app)


async def test_resizing_is_safe_and_tiny_terminals_say_so(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(200, 50)) as pilot:
        main = await settled(pilot)
        await pilot.press(*"jjjjj")
        cursor = main.view.cursor
        for size in ((120, 40), (80, 24), (60, 20), (55, 18), (20, 5), (200, 50), (99, 30), (100, 20)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: app.size == size)
            await settled(pilot)
            text = screen_text(app)
            if size[0] < 60 or size[1] < 20:
                assert "60×20" in text
            else:
                assert f"#{cursor}" in text
                assert "▸" in text
            assert main.view.cursor == cursor
        await pilot.resize_terminal(55, 18)
        await pilot.press("j")
        assert main.view.cursor != cursor, "keys go on working"
        await pilot.press("q")
    assert app.return_code == 0


async def test_complete_products_need_no_service_and_say_it_is_down(ready: Place) -> None:
    client = FakeClient(refuse=ServiceError("no service is running"))
    app = ready.app(ready.address(), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: app.desk.state == "down")
        await pilot.pause()
        assert "service down (read-only browsing)" in screen_text(app)
        assert client.started == [False], "nothing is started where nothing is missing"
        assert client.calls == []


async def test_a_service_of_another_version_is_named(place: Place) -> None:
    client = FakeClient(refuse=ServiceError("service of version 9.9", "version 0.1", "run `wbtui daemon restart`"))
    app = place.app(place.address(), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.desk.state == "other version")
        await until(pilot, lambda: "daemon restart" in screen_text(app))
        await pilot.press("j")
        await pilot.pause()
        assert "another version" in screen_text(app)
        assert app.main is not None
        assert app.main.view.cursor == 1, "browsing goes on"


async def test_missing_rows_are_computed_arrive_and_nothing_jumps(place: Place) -> None:
    place.columns = columns_with()
    row = {k: v[5].tolist() for k, v in place.columns.items()}
    asked: asyncio.Event = asyncio.Event()

    def compute(**fields: Any) -> dict[str, Any]:
        asked.set()
        return {"job": 7, "state": "queued", "products": []}

    client = FakeClient(compute=compute, row=lambda **fields: {"columns": {**row, "unmasked": True}})
    app = place.app(place.address(feature=5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, asked.is_set)
        fields = next(f for op, f in client.calls if op == "compute")
        assert fields["priority"] == "screen"
        assert fields["around"] == 5
        assert fields["cache"] == str(place.cache)
        main = app.main
        assert main is not None
        await until(pilot, lambda: main.opened is not None and 5 in main.opened.table.provisional)
        await settled(pilot)
        text = screen_text(app)
        assert "~ provisional, unmasked" in text
        assert "0 computed" in text

        client.queue.put_nowait(
            {"event": "progress", "job": 7, "state": "running", "fraction": 0.25, "eta": 12.0, "now": "tokens"}
        )
        await until(pilot, lambda: "features 25 %, 12 s left" in screen_text(app))

        line = main.rows.position(5) - main.view.top
        plan = place.fill(columns=place.columns, shards=1)
        client.queue.put_nowait({"event": "shard", "job": 7})
        await until(pilot, lambda: "256 computed" in screen_text(app))
        await settled(pilot)
        assert main.view.cursor == 5
        assert main.opened is not None
        assert not main.opened.table.provisional
        assert "provisional" not in screen_text(app)
        assert line < 0 or main.rows.position(5) - main.view.top == line

        for start, stop in Product(place.cache, plan.tokens).missing():
            place.land(plan, start, stop)
        Product(place.cache, plan.tokens).assemble()
        client.queue.put_nowait({"event": "job", "job": 7, "state": "done"})
        await until(pilot, lambda: main.opened is not None and main.opened.missing == ())
        await settled(pilot)
        assert main.view.cursor == 5
        assert "tokens ready" in screen_text(app)


async def test_a_failed_job_and_row_are_one_line_and_c_asks_again(place: Place) -> None:
    error = WorkError("out of memory", "", "use a smaller tile")
    client = FakeClient(
        compute=lambda **fields: {"job": 3, "state": "queued", "products": []}, row=lambda **fields: error
    )
    app = place.app(place.address(), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "out of memory" in screen_text(app))
        client.queue.put_nowait({"event": "job", "job": 3, "state": "failed", "error": error.to_json()})
        await until(pilot, lambda: "out of memory" in screen_text(app).splitlines()[-1])
        before = client.ops().count("compute")
        await pilot.press("C")
        await until(pilot, lambda: client.ops().count("compute") == before + 1)
        assert client.calls[-1][1].get("priority") == "batch" or "batch" in [f.get("priority") for _, f in client.calls]


async def test_a_lost_service_leaves_what_is_there(place: Place) -> None:
    place.fill(shards=1)
    client = FakeClient(compute=lambda **f: {"job": 1, "state": "queued", "products": []}, row=lambda **f: _never())
    app = place.app(place.address(), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.desk.state == "up")
        client.connected = False
        client.queue.put_nowait({"event": "disconnected"})
        await until(pilot, lambda: "service down" in screen_text(app) or "gone" in screen_text(app))
        await pilot.press("j", "j")
        main = await settled(pilot)
        assert main.view.cursor == int(main.rows.order[2])
        assert "256 computed" in screen_text(app)


async def _never() -> Any:
    await asyncio.Event().wait()


async def test_a_read_only_cache_is_said(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wbtui.tui.data.os.access", lambda path, mode: False)
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.pause()
        assert "cache read-only" in screen_text(app)


async def test_reads_absent_bad_and_zero_rows_have_their_words(place: Place) -> None:
    flags = {3: schema.FLAG_ZERO_DECODER, 8: schema.FLAG_NO_READS}
    columns = columns_with(bad=(4,), flags=flags)
    columns["flags"][4] = schema.FLAG_BAD_DECODER
    place.fill(columns=columns)
    app = place.app(place.address(feature=3))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        assert "decoder row is zero" in screen_text(app)
        for row, words in ((4, "not finite"), (8, "does not read the residual stream")):
            await pilot.press("colon")
            await type_text(pilot, str(row))
            await pilot.press("enter")
            await settled(pilot)
            assert words in screen_text(app).replace("\n", " ")
            assert "nan" not in screen_text(app)


async def test_one_feature_is_enough(tmp_path: Path) -> None:
    place = Place(tmp_path, n=1, layers=(0,))
    place.fill("L0")
    app = place.app(place.address("L0"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("j", "k", "G", "g", "pagedown", "m", "v", "v", "asterisk", "u", "s", "enter", "escape")
        assert main.view.cursor == 0
        assert "1 features" in screen_text(app) or "1 feature" in screen_text(app)


async def test_hostile_tokens_through_every_view(hostile: Place) -> None:
    app = hostile.app(hostile.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        for size in ((120, 40), (80, 24), (200, 50)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
            for key in ("g", "i", "enter", "pagedown", "escape", "i", "D", "escape", "c", "escape", "pagedown"):
                await pilot.press(key)
                await settled(pilot)
                text = screen_text(app)
                assert all(c == "\n" or (ord(c) >= 32 and not 127 <= ord(c) < 160) for c in text)
                assert "\u202e" not in text
                strips = app.screen._compositor.render_strips()
                assert all(strip.cell_length == size[0] for strip in strips)


async def test_header_picker_sorts_and_adds(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("S")
        names = [c.name for c in main.table_view.cells]
        assert main.view.picker == 0
        await pilot.press("left")
        assert names[main.view.picker or 0] == "writes.evidence"
        await pilot.press("enter")
        assert main.view.sort == (("writes.evidence", True),)
        await pilot.press("left", "plus")
        assert main.view.sort == (("writes.evidence", True), ("writes.z_max", True))
        await pilot.press("escape")
        assert main.view.picker is None
        await settled(pilot)
        assert "evid▼ z▼" in screen_text(app)


async def test_columns_are_chosen_by_name(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("c")
        await type_text(pilot, "kurt")
        await pilot.press("enter", "escape")
        await settled(pilot)
        assert main.view.columns[-1].endswith("kurt")
        assert "kurt" in screen_text(app)


async def test_export_asks_before_it_writes_over(ready: Place, tmp_path: Path) -> None:
    app = ready.app(ready.address())
    out = tmp_path / "all.jsonl"
    out.write_text("mine")
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("x", "f3", "f4")
        app.screen.query_one("#path", Input).value = str(out)
        await pilot.press("enter")
        await pilot.pause()
        assert "exists" in screen_text(app)
        assert out.read_text() == "mine"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MainScreen))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 600
    assert "writes.words" in lines[0]


async def test_export_to_nowhere_says_why(ready: Place, tmp_path: Path) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("x")
        app.screen.query_one("#path", Input).value = str(tmp_path / "no" / "such" / "folder.csv")
        await pilot.press("enter")
        await until(pilot, lambda: "No such file" in screen_text(app))
        await pilot.press("escape")
        assert isinstance(app.screen, MainScreen)


async def test_copy_says_where_to(ready: Place) -> None:
    app = ready.app(ready.address(feature=12))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("y")
        await until(pilot, lambda: "OSC 52" in screen_text(app))
        assert app.clipboard.endswith("@L1#12")


async def test_unknown_place_keeps_what_is_open(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("colon")
        await type_text(pilot, "nothing@L9")
        await pilot.press("enter")
        await until(pilot, lambda: "no model" in screen_text(app))
        assert main.opened is not None
        assert main.opened.sae.name == "L1"


async def test_messages_of_the_service_reach_a_screen_on_top(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("J")
        await until(pilot, lambda: "JOBS" in screen_text(app))
        app.desk.jobs = {4: {"job": 4, "state": "running", "label": "demo@L3", "fraction": 0.5, "eta": 20.0}}
        app._tell(ServiceChanged("up"))
        await until(pilot, lambda: "demo@L3" in screen_text(app))
        assert "50 %" in screen_text(app)
        await pilot.press("escape")
        assert isinstance(app.screen, MainScreen)


async def test_a_first_visit_says_five_lines_until_the_first_key_and_the_next_resumes(ready: Place) -> None:
    from wbtui.tui.app import WbtuiApp

    def app() -> WbtuiApp:
        client = FakeClient(refuse=ServiceError("no service is running"))
        return WbtuiApp(
            ready.address(), cache=ready.cache, definition=ready.definition, make_client=client.made, color_system="256"
        )

    first = app()
    async with first.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        lines = screen_text(first).splitlines()
        assert any("WELCOME" in line for line in lines)
        assert "find" in lines[-2], "the footer keeps its place"
        await pilot.press("j")
        await settled(pilot)
        assert "WELCOME" not in screen_text(first)
        await pilot.press("s")
        main = await settled(pilot)
        left = main.view
        await pilot.press("q")
    again = app()
    again.address = None
    async with again.run_test(size=(120, 40)) as pilot:
        start = again.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: start.last is not None)
        await pilot.press("ctrl+l")
        main = await settled(pilot)
        assert "WELCOME" not in screen_text(again)
        assert (main.view.cursor, main.view.sort) == (left.cursor, left.sort)


async def test_memory_stands_on_the_last_line_and_the_service_can_be_restarted(
    ready: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarted: list[bool] = []
    monkeypatch.setattr("wbtui.service.client.restart", lambda: restarted.append(True))
    app = ready.app(ready.address(), FakeClient(jobs=lambda: {"jobs": []}))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: app.desk.state == "up")
        device = {"name": "0:auto", "device": "cuda:0", "memory": [3 << 30, 24 << 30], "busy": True, "alive": True}
        app.desk._take(app.desk._client, {"event": "devices", "devices": [{**device, "at": "shard"}]})  # type: ignore[arg-type]
        await until(pilot, lambda: "cuda:0 3.0/24 GiB" in screen_text(app))
        await pilot.press("J")
        await until(pilot, lambda: "3.0 of 24.0 GiB in use" in screen_text(app))
        await pilot.press("R")
        await until(pilot, lambda: bool(restarted) and "was restarted" in screen_text(app))
