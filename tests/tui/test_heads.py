"""The Heads page, the card's HEADS block: drawing, journeys, states, time."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tui.heads_place import HEADS, arrays, fill_heads, head_plan, ov_arrays
from tests.tui.place import FakeClient, Place, columns_with, screen_text, settled, until, write_rows
from wbtui import schema
from wbtui.errors import ServiceError
from wbtui.features.heads import HeadNull, HeadTable
from wbtui.tui.draw.heads import (
    HeadsLook,
    Spot,
    geometry,
    grid_lines,
    heads_block,
    heads_line,
    mirrored,
    moved,
    ratio_text,
    shade,
)
from wbtui.tui.draw.line import text_of, width_of
from wbtui.tui.screens.heads import HeadsScreen
from wbtui.tui.screens.main import MainScreen

LOUD = 60.0
"""A score far beyond the noise of :func:`tests.tui.heads_place.arrays`."""
PAIR = {
    "key.max": {(1, 5): LOUD}, "key.partner": {(1, 5): 77}, "query.max": {(1, 77): LOUD}, "query.partner": {(1, 77): 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """L1 with heads of layer 2: head 1 pairs query #77 with key #5. Read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("paired"))
    place.fill("L1")
    fill_heads(place, changes=PAIR)
    return place


async def heads_page(pilot: Any) -> HeadsScreen:
    await until(pilot, lambda: isinstance(pilot.app.screen, HeadsScreen) and not pilot.app.screen.pending, "the page")
    await pilot.pause()
    assert isinstance(pilot.app.screen, HeadsScreen)
    return pilot.app.screen


# Drawing -----------------------------------------------------------------------------------------------------------


def table_of(heads: int, n: int = 50, layer: int = 4) -> HeadTable:
    nulls = [HeadNull("isotropic", 0, arrays(heads, 200, 2, n)), HeadNull("decoder_cov", 0, arrays(heads, 200, 3, n))]
    return HeadTable.from_arrays(arrays(heads, n, 1), nulls=nulls, ov=ov_arrays(heads, n, 4), layer=layer)


@pytest.mark.parametrize(
    ("ratio", "glyph", "text"),
    [(0.5, "░", " 0.5"), (1.0, "░", " 1.0"), (1.2, "▒", " 1.2"), (1.7, "▓", " 1.7"), (2.3, "█", " 2.3"),
     (12.34, "█", "12.3"), (123.4, "█", " 123"), (1e9, "█", "9999"), (float("nan"), "–", "   –"), (-3.0, "░", "-3.0")],
)  # fmt: skip
def test_a_cell_says_how_far_beyond_noise(ratio: float, glyph: str, text: str) -> None:
    assert (shade(ratio), ratio_text(ratio)) == (glyph, text)


@pytest.mark.parametrize("ratio", [-1.0, 0.0, 0.4, 0.99, 1.0, 1.01, 1.5, 2.9, 3.0, 9.0, float("nan")])
@pytest.mark.parametrize("width", [0, 1, 4, 13])
def test_a_mirrored_bar_fills_its_width_and_is_solid_beyond_noise_alone(ratio: float, width: int) -> None:
    line = mirrored(ratio, 3.0, width, "reads")
    assert width_of(line) == width
    text = text_of(line)
    if width >= 4:
        assert (("█" in text) or ("▐" in text)) == (ratio > 1)
        assert ("┊" in text) == (ratio <= 1)


def test_bars_of_both_sides_are_as_long_on_either_side() -> None:
    from wbtui.tui.draw.bars import bar

    left, right = text_of(mirrored(2.0, 4.0, 12, "reads")), text_of(bar(2.0, 4.0, 12, 1.0, "writes"))
    assert left.count("░") == right.count("░") == 3
    assert left.count("█") == right.count("█") == 3
    assert left.endswith("░░░")
    assert right.startswith("░░░")


async def test_the_block_is_as_wide_as_it_may_be(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.opened is not None
        for heads in (2, 8, 40):
            look = HeadsLook(table_of(heads, main.opened.table.n))
            for width in (30, 44, 50, 60, 90, 118):
                for row in (0, 5):
                    assert all(width_of(line) <= width for line in heads_block(main.opened.table, row, width, look))
                    assert width_of(heads_line(main.opened.table, row, width, look)) <= width


async def test_the_block_is_as_high_for_every_feature(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.opened is not None
        table = main.opened.table
        for heads in (2, 40):
            look = HeadsLook(table_of(heads, table.n))
            assert look.heads is not None
            best = [float(np.nanmax(look.heads.row(row).best)) for row in range(table.n)]
            rows = [int(np.argmin(best)), int(np.argmax(best))]
            assert best[rows[0]] < 1 < best[rows[1]]
            blocks = [[text_of(line) for line in heads_block(table, row, 60, look)] for row in rows]
            assert len(blocks[0]) == len(blocks[1])
            assert "all inside noise" in blocks[0][1]
            assert "partner" in blocks[1][1]


async def test_with_many_heads_the_strongest_are_shown_and_the_rest_counted(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.opened is not None
        heads = table_of(40, main.opened.table.n)
        heads.column("query.max")[::3, 0] *= 10
        lines = [text_of(line) for line in heads_block(main.opened.table, 0, 90, HeadsLook(heads), 8)]
        best = heads.row(0).best
        shown = [int(line.split()[0][1:]) for line in lines[2:10]]
        assert shown == sorted(range(40), key=lambda h: -best[h])[:8]
        assert (best > 1).sum() > 8
        hidden = int((best > 1).sum()) - int((best[shown] > 1).sum())
        want = f"32 more, {hidden} of them beyond noise" if hidden else "32 more, inside noise"
        assert lines[-1] == want


@pytest.mark.parametrize(
    ("heads", "width", "per_line", "beside"),
    [(4, 80, 4, True), (8, 120, 8, False), (4, 60, 4, False), (8, 200, 8, True), (32, 120, 16, False),
     (1024, 200, 27, False)],
)  # fmt: skip
def test_grids_fit_their_width(heads: int, width: int, per_line: int, beside: bool) -> None:
    shape = geometry(width, heads)
    assert (shape.per_line, shape.beside) == (per_line, beside)
    table = table_of(heads)
    lines, _ = grid_lines([table], {4: table.row(3)}, Spot(4, heads - 1), width, 12)
    assert len(lines) <= 12
    assert all(width_of(line) == width or width_of(line) <= width for line in lines)
    assert sum(text_of(line).count("▸") for line in lines) == 1


def test_arrows_reach_every_head_and_every_layer_and_stop_at_the_edges() -> None:
    tables = [table_of(10, layer=4), table_of(10, layer=5)]
    shape = geometry(40, 10)
    assert (shape.per_line, shape.beside) == (4, False)
    spot = Spot(4)
    seen = [(4, 0)]
    for _ in range(9):
        spot = moved(spot, tables, shape, 0, 1)
        seen.append((spot.layer, spot.head))
    assert seen[:6] == [(4, 0), (4, 4), (4, 8), (5, 0), (5, 4), (5, 8)]
    assert seen[6:] == [(5, 8)] * 4
    for _ in range(9):
        spot = moved(spot, tables, shape, 0, -1)
    assert (spot.layer, spot.head) == (4, 0)
    assert moved(spot, tables, shape, -1, 0).head == 0
    assert moved(Spot(4, 7), tables, shape, 0, 1).head == 9  # no head under it: the line's last
    assert moved(Spot(5, 3), tables, shape, 0, -1).head == 9
    assert moved(Spot(4, 9), tables, shape, 1, 0).head == 9


# Journeys ----------------------------------------------------------------------------------------------------------


async def test_open_heads_move_to_the_partner_and_back(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        text = screen_text(app)
        assert "HEADS of L2" in text
        assert "← #77" in text
        await pilot.press("h")
        page = await heads_page(pilot)
        assert (page.spot.layer, page.spot.head, page.spot.side) == (2, 1, "key")
        text = screen_text(app)
        assert "peak over noise · Δ = 0 · scale rms" in text
        assert "QUERIES THAT LOOK FOR #5 in L2.H1" in text
        heads = page.heads
        assert heads is not None
        ratio = LOUD / heads.bars("key")[1]
        assert f"▸█{ratio:4.1f}◂" in text

        await pilot.press("left")
        assert page.spot.head == 0
        await pilot.press("left")
        assert page.spot.head == 0
        await pilot.press("right", "tab")
        assert (page.spot.head, page.spot.side) == (1, "query")
        await pilot.press("tab", "j", "enter")
        assert main.view.cursor == 77
        assert (page.spot.head, page.spot.side) == (1, "query")
        assert "KEYS THAT #77 LOOKS FOR in L2.H1" in screen_text(app)
        assert "▸ #5 " in screen_text(app)
        await pilot.press("left_square_bracket")
        assert main.view.cursor == 5
        await pilot.press("right_square_bracket")
        assert main.view.cursor == 77
        await pilot.press("escape")
        assert isinstance(app.screen, MainScreen)
        await settled(pilot)
        assert "#77" in screen_text(app).splitlines()[0]
        await pilot.press("left_square_bracket")
        assert main.view.cursor == 5


async def test_a_heads_own_page(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await pilot.press("p")
        text = screen_text(app)
        assert "READS MOST AS KEY" in text
        assert "READS MOST AS QUERY" in text
        assert "WRITES MOST" in text
        heads = page.heads
        assert heads is not None
        want = [feature for feature, _ in heads.top(1, "key", 3)]
        assert want[0] == 5
        lines = [line for line in text.splitlines() if line.lstrip(" ▸").startswith(tuple(f"#{f} " for f in want))]
        assert len(lines) >= 3
        await pilot.press("j", "enter")
        assert main.view.cursor == want[1]
        assert page.spot.page == "grid"
        await pilot.press("p", "escape")
        assert page.spot.page == "grid"
        assert isinstance(app.screen, HeadsScreen)


async def test_the_next_feature_and_another_statistic(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(80, 24)) as pilot:
        main = await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        here = main.rows.position(5)
        await pilot.press("n")
        assert main.view.cursor == int(main.rows.order[here + 1])
        assert f"#{main.view.cursor}" in screen_text(app).splitlines()[0]
        await pilot.press("s")
        await heads_page(pilot)
        assert page.spot.statistic == "rms"
        assert "rms over noise" in screen_text(app)
        heads = page.heads
        assert heads is not None
        ratio = heads.row(main.view.cursor, "rms").ratio[page.spot.side][page.spot.head]
        assert f"{shade(ratio)}{ratio_text(ratio)}◂" in screen_text(app)


async def test_the_grid_is_written_as_it_is(paired: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await pilot.press("e")
        await until(pilot, lambda: "wrote" in page.notice[0], "the file")
    (path,) = tmp_path.glob("*.csv")
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    heads = page.heads
    assert heads is not None
    assert len(rows) == 2 * HEADS
    row = next(r for r in rows if (r["head"], r["side"]) == ("1", "key"))
    assert float(row["ratio"]) == heads.row(5).ratio["key"][1]
    assert float(row["score"]) == LOUD
    assert row["partner"] == "77"
    assert float(row["ratio_rms"]) == heads.row(5, "rms").ratio["key"][1]
    note = json.loads(path.with_suffix(".meta.json").read_text())
    assert note["attention"][0]["layer"] == 2
    assert note["feature"] == 5


async def test_a_filter_by_a_head(paired: Place) -> None:
    app = paired.app(paired.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press(
            "slash", *"head", "colon", *"L2", "full_stop", *"H1", "full_stop", *"key", "greater_than_sign", "3"
        )
        await until(pilot, lambda: main.view.filter == "head:L2.H1.key>3" and main.rows.order.tolist() == [5])
        for _ in ">3":
            await pilot.press("backspace")
        await until(pilot, lambda: 5 in main.rows.order.tolist() and main.view.filter == "head:L2.H1.key")
        await pilot.press(*(["backspace"] * 5), "9")
        await until(pilot, lambda: "nearest: head:L2.H1" in screen_text(app), "the error under the bar")
        await pilot.press(*(["backspace"] * 11), *"dead")
        await until(pilot, lambda: "no densities are imported" in screen_text(app))


# States ------------------------------------------------------------------------------------------------------------


async def test_what_is_not_there_is_asked_for_and_fills_in(place: Place) -> None:
    place.fill("L1")
    plan = head_plan(place)

    def compute(**fields: Any) -> dict[str, Any]:
        return {"job": 9, "state": "queued", "products": []}

    client = FakeClient(compute=compute)
    app = place.app(place.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        text = screen_text(app)
        assert "HEADS of L2" in text
        assert "h computes" in text
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: "compute" in client.ops(), "the service to be asked")
        fields = dict(client.calls[-1][1])
        assert (fields["analysis"], fields["layer"], fields["priority"]) == ("attention", 2, "screen")
        assert fields["definition"]["scale"] == "rms"
        client.queue.put_nowait(
            {"event": "progress", "job": 9, "state": "running", "fraction": 0.4, "now": "attention", "eta": 3}
        )
        await until(pilot, lambda: "heads 40 %, 3 s left" in screen_text(app), "progress")
        for seed, spec in enumerate((*plan.nulls, *plan.checks)):
            write_rows(place.cache, spec, arrays(HEADS, 200, seed, place.n))
        client.queue.put_nowait({"event": "product", "job": 9})
        await pilot.pause()
        assert not page.tables  # noise alone draws nothing
        write_rows(place.cache, plan.attention, arrays(HEADS, place.n, 1))
        client.queue.put_nowait({"event": "product", "job": 9})
        await until(pilot, lambda: page.tables, "the grids")
        await heads_page(pilot)
        assert "… not computed yet" in screen_text(app)  # what heads write
        write_rows(place.cache, plan.ov, ov_arrays(HEADS, place.n, 1))
        for spec in plan.ov_nulls:
            write_rows(place.cache, spec, ov_arrays(HEADS, 200, 2))
        client.queue.put_nowait({"event": "job", "job": 9, "state": "done"})
        await until(pilot, lambda: "copy score" in screen_text(app), "what heads write")
        await pilot.press("escape")
        await settled(pilot)
        assert "h computes" not in screen_text(app)
        assert "peak over noise in the same head" in screen_text(app)


async def test_a_later_layer_is_computed_by_its_key(paired: Place) -> None:
    client = FakeClient(compute=lambda **_: {"job": 3, "state": "queued", "products": []})
    app = paired.app(paired.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        await heads_page(pilot)
        assert "L computes heads of L3" in screen_text(app)
        await pilot.press("L")
        await until(pilot, lambda: "compute" in client.ops())
        assert client.calls[-1][1]["layer"] == 3
        await until(pilot, lambda: "L3: computing" in screen_text(app))


async def test_later_layers_say_that_they_see_the_direct_path_only(place: Place) -> None:
    place.fill("L1")
    fill_heads(place)
    fill_heads(place, layer=3)
    app = place.app(place.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        assert [t.layer for t in page.tables] == [2, 3]
        await pilot.press("down")
        assert page.spot.layer == 3
        assert "direct path only" in screen_text(app)
        await pilot.press("L")
        assert "every layer that can read it is here" in screen_text(app)


async def test_no_service_says_so(place: Place) -> None:
    place.fill("L1")
    app = place.app(place.address("L1", 5), FakeClient(refuse=ServiceError("no service is running")))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: "no service is running" in page.failure)
        await pilot.pause()
        assert "C asks again" in screen_text(app)


async def test_a_job_that_fails_or_is_cancelled_says_so(place: Place) -> None:
    place.fill("L1")
    client = FakeClient(compute=lambda **_: {"job": 9, "state": "queued", "products": []})
    app = place.app(place.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.job is not None)
        error = {"code": "WorkError", "found": "the worker ran out of memory", "expected": "", "do": ""}
        client.queue.put_nowait({"event": "job", "job": 9, "state": "failed", "error": error})
        await until(pilot, lambda: "out of memory" in screen_text(app))
        await pilot.press("C")
        await until(pilot, lambda: page.job is not None)
        assert client.ops().count("compute") == 2


async def test_no_head_reads_the_last_layer(tmp_path: Path) -> None:
    place = Place(tmp_path, layers=(3,))
    place.fill("L3")
    client = FakeClient(compute=lambda **_: {"job": 1, "state": "queued", "products": []})
    for size in ((120, 40), (80, 24)):
        app = place.app(place.address("L3", 5), client)
        async with app.run_test(size=size) as pilot:
            await settled(pilot)
            assert "no head reads the last layer’s stream" in screen_text(app)
            await pilot.press("h")
            await heads_page(pilot)
            assert "no head reads resid_post of layer 3" in screen_text(app)
            await pilot.press("L", "p", "enter", "e", "tab", "left", "down", "s", "n")
            await pilot.pause()
            assert client.ops() == []
            await pilot.press("escape")
            assert isinstance(app.screen, MainScreen)


async def test_a_row_without_numbers_says_why(tmp_path: Path) -> None:
    place = Place(tmp_path, layers=(1,))
    place.fill("L1", columns=columns_with(flags={9: schema.FLAG_BAD_DECODER}, bad=(9,)))
    gone = {(h, 9): np.nan for h in range(HEADS)}
    fill_heads(place, changes={"key.max": gone, "query.max": gone, "key.rms": gone, "query.rms": gone})
    app = place.app(place.address("L1", 9))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        assert "no head has a number for it" in screen_text(app)
        await pilot.press("h")
        await heads_page(pilot)
        text = screen_text(app)
        assert text.count("–   –") >= 2 * HEADS - 1
        assert "its decoder row holds NaN or infinity" in text


async def test_weights_that_cannot_be_planned_say_so(place: Place) -> None:
    place.fill("L1")
    (place.model / "config.json").write_text(
        json.dumps(json.loads((place.model / "config.json").read_text()) | {"num_key_value_heads": 7})
    )
    app = place.app(place.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.opened is not None
        shelf = main.opened.table.heads
        assert shelf is not None
        assert "7 key/value heads" in shelf.failures[2]
        await pilot.press("h")
        await heads_page(pilot)
        assert next(iter(shelf.failures.values()))[:20] in screen_text(app)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_hostile_tokens_stay_in_their_cells(tmp_path: Path, size: tuple[int, int]) -> None:
    from tests.tui.place import HOSTILE

    place = Place(tmp_path, n=300, layers=(1,))
    place.fill("L1", texts=HOSTILE)
    fill_heads(place)
    app = place.app(place.address("L1", 5))
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("h")
        await heads_page(pilot)
        for key in ("j", "right", "tab", "p", "j", "enter", "n", "n", "p"):
            await pilot.press(key)
            await pilot.pause()
            for strip in app.screen._compositor.render_strips():
                assert strip.cell_length == size[0]
                assert not any(ord(c) < 32 or c in "\x7f\x9b\u202e" for seg in strip for c in seg.text)


async def test_too_small_a_terminal_keeps_running(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        await heads_page(pilot)
        await pilot.resize_terminal(40, 10)
        await until(pilot, lambda: "60×20" in screen_text(app))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "QUERIES THAT LOOK FOR" in screen_text(app))


@pytest.mark.parametrize("keys", [("h",), ("h", "p")], ids=["grid", "head"])
def test_looks(paired: Place, snap_compare: Any, keys: tuple[str, ...]) -> None:
    async def before(pilot: Any) -> None:
        await settled(pilot)
        await pilot.press("h")
        await heads_page(pilot)
        await pilot.press(*keys[1:])
        await pilot.pause()

    assert snap_compare(paired.app(paired.address("L1", 5)), terminal_size=(120, 40), run_before=before)


def test_looks_on_the_card(paired: Place, snap_compare: Any) -> None:
    async def before(pilot: Any) -> None:
        await settled(pilot)

    assert snap_compare(paired.app(paired.address("L1", 5)), terminal_size=(120, 40), run_before=before)


async def test_nothing_is_asked_twice_while_it_is_under_way(place: Place) -> None:
    place.fill("L1")
    gate = asyncio.Event()

    async def slow() -> dict[str, Any]:
        await gate.wait()
        return {"job": 9, "state": "queued", "products": []}

    client = FakeClient(compute=lambda **_: slow())
    app = place.app(place.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: "compute" in client.ops())
        gate.set()
        await until(pilot, lambda: page.job is not None)
        await pilot.press("L")
        assert client.ops().count("compute") == 1


async def test_what_is_particular_to_the_heads_is_told(paired: Place) -> None:
    """GIVEN heads with q/k norms WHEN their page is open THEN it says so, in a few letters where it is narrow."""
    app = paired.app(paired.address("L1", 5))
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        screen = await heads_page(pilot)
        heads = screen.heads
        assert heads is not None and heads.plan is not None
        assert "q/k norms" not in " ".join(screen._meanings())
        facts = dataclasses.replace(heads.plan.facts, qk_norm="head")
        heads.plan = dataclasses.replace(heads.plan, facts=facts)
        long, _, short = screen._meanings()
        assert "per-feature normalised (q/k norms)" in long
        assert short.endswith("· q/k norms") and len(short) < 60
