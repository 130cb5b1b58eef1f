"""One feature in a layer's heads, asked of the service: lists, what heads write, links, what is taken back."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.tui.heads_place import HEADS, fill_heads
from tests.tui.place import FakeClient, Place, screen_text, settled, until
from tests.tui.test_heads import PAIR, heads_page
from wbtui.errors import ServiceError, WorkError
from wbtui.tui.draw.heads_writes import Seen, distance_line, level
from wbtui.tui.draw.line import text_of
from wbtui.tui.head_pages import KEPT, HeadPages, Partner
from wbtui.tui.screens.heads import HeadsScreen
from wbtui.tui.screens.main import MainScreen

OFFSETS = [0, 1, 2, 4, 8]


def answer(feature: int, layer: int = 2, target: str | None = "L2", absent: bool = False) -> dict[str, Any]:
    """A page with numbers that tell where they come from."""

    def partners(h: int, side: str) -> list[dict[str, Any]]:
        first = 40 if side == "key" else 60
        return [
            {"feature": (77 if i == 0 and side == "key" and h == 1 else first + 10 * h + i), "score": 60.0 - i,
             "capped": None, "cosine": 0.5, "distance": [8.0 - i, 4.0, 2.0, -1.0, None]}
            for i in range(10)
        ]  # fmt: skip

    def listed(start: int, value: float) -> list[dict[str, Any]]:
        return [{"feature": start + i, "value": value - i / 100} for i in range(5)]

    ov = {
        "norm": 0.5,
        "copy": 0.25,
        "tokens": [{"id": 10 + i, "value": 1.0, "z": 9.5 - i} for i in range(6)],
        "against": [{"id": 20 + i, "value": -1.0, "z": -7.5 + i} for i in range(6)],
        "token_z": 9.5,
    }
    if target is not None:
        ov |= {"becomes": listed(300, 0.38), "readers": listed(210, 0.31)}
    heads = [
        {"head": h, "values": {}, "query": partners(h, "query"), "key": partners(h, "key"), "ov": ov}
        for h in range(HEADS)
    ]
    return {
        "feature": feature, "layer": layer, "absent": absent, "target": target, "offsets": OFFSETS,
        "heads": [] if absent else heads,
    }  # fmt: skip


def client_of(**more: Any) -> FakeClient:
    def page(**fields: Any) -> dict[str, Any]:
        return {"page": answer(fields["feature"], fields["layer"], fields["target"]), "provisional": True}

    return FakeClient(page=more.pop("page", page), compute=lambda **_: {"job": 1, "state": "queued", "products": []})


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """L1 with heads of layer 2, and L2, the SAE behind them. Read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("demanded"))
    place.fill("L1")
    place.fill("L2")
    fill_heads(place, changes=PAIR)
    return place


async def test_the_page_is_asked_for_and_drawn(paired: Place) -> None:
    client = client_of()
    app = paired.app(paired.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.pages.get(2, 5) is not None, "the page")
        fields = next(fields for op, fields in client.calls if op == "page")
        assert (fields["feature"], fields["layer"], fields["target"]) == (5, 2, "L2")
        assert (fields["definition"]["scale"], fields["tokens"]["kappa"]) == ("rms", 2.0)
        await until(pilot, lambda: page.targets.get("L2") is not None, "the target's words")
        await pilot.pause()
        text = screen_text(app)
        assert "the strongest 10 of all, then every query" in text
        assert "ATTENDING TO #5 IT WRITES" in text
        assert "word10 word11" in text and "9.5 z" in text
        assert "word20" in text and "7.5 z" in text
        assert "L2 #300 .38" in text and "L2 #210 .31" in text
        assert "by distance  0█ 1▄ 2▂ 4– 8–" in text
        assert page.listed[:3] == [77, 51, 52]
        await pilot.press("j", "j")  # into the list, then on
        assert page.spot.pick == 1
        assert "by distance  0█ 1▅ 2▃ 4– 8–" in screen_text(app)  # of the pair under the arrow: 7, 4, 2, -1


async def test_enter_opens_the_head_then_a_feature_then_what_it_becomes(paired: Place) -> None:
    app = paired.app(paired.address("L1", 5), client_of())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.pages.get(2, 5) is not None, "the page")
        await pilot.press("enter")
        assert page.spot.page == "head"
        assert "READS MOST AS KEY" in screen_text(app)
        await pilot.press("escape")
        assert (page.spot.page, page.spot.active) == ("grid", "grid")
        await pilot.press("j", "j", "enter")
        assert main.view.cursor == 51
        await until(pilot, lambda: page.pages.get(2, 51) is not None, "the partner's page")
        await pilot.press("left_square_bracket", "w", "j", "j")
        await pilot.pause()
        assert page.links[page.spot.link] == ("becomes", 302)
        assert "▸L2 #302" in screen_text(app)
        await pilot.press("j", "enter")  # readers come after the third of becomes
        await until(pilot, lambda: isinstance(app.screen, MainScreen) and main.view.sae == "L2", "the SAE behind")
        await settled(pilot)
        assert main.view.cursor == 210
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.view.sae == "L1", "the way back")


async def test_as_query_the_head_writes_the_partner_it_attends_to(paired: Place) -> None:
    client = client_of()
    app = paired.app(paired.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.pages.get(2, 5) is not None, "the page")
        await pilot.press("tab")
        await until(pilot, lambda: page.pages.get(2, 70) is not None, "the partner's page")
        await pilot.pause()
        assert page.listed[0] == 70
        assert "ATTENDING TO #70 IT WRITES" in screen_text(app)
        await pilot.press("j", "j")
        await until(pilot, lambda: page.pages.get(2, 71) is not None, "the next one's page")
        assert [f["feature"] for op, f in client.calls if op == "page"] == [5, 70, 71]


async def test_what_the_cursor_has_left_is_taken_back(paired: Place) -> None:
    taken: list[int] = []

    async def never(feature: int) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            taken.append(feature)
            raise
        return {}

    client = client_of(page=lambda **fields: never(fields["feature"]))
    app = paired.app(paired.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: "page" in client.ops(), "the first")
        assert "the strongest of all are being computed…" in screen_text(app)
        assert "→" in text_of(page.lines(118, 30)[0]) or page.listed  # the stored list stands meanwhile
        await pilot.press("n")
        await until(pilot, lambda: client.ops().count("page") == 2, "the second")
        assert taken == [5]
        assert client.calls[-1][1]["feature"] == main.view.cursor
        await pilot.press("escape")
    assert sorted(taken) == sorted([5, main.view.cursor])


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (client_of(page=lambda **_: WorkError("the worker ran out of memory")), "the worker ran out of memory"),
        (client_of(page=lambda **f: {"page": answer(f["feature"], target=None)}), "no SAE stands on the stream"),
        (FakeClient(refuse=ServiceError("no service is running")), "the service is down"),
    ],
    ids=["failed", "no target", "no service"],
)
async def test_what_cannot_be_says_why(paired: Place, client: FakeClient, words: str) -> None:
    app = paired.app(paired.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: words in screen_text(app), words)
        assert 77 in page.listed  # what is stored can be read all the same


async def test_a_feature_without_direction_has_no_lists(paired: Place) -> None:
    client = client_of(page=lambda **f: {"page": answer(f["feature"], absent=True)})
    app = paired.app(paired.address("L1", 5), client)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.pages.get(2, 5) is not None, "the page")
        await pilot.press("w", "j", "enter")
        assert isinstance(app.screen, HeadsScreen | MainScreen)


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 50)])
async def test_it_fits_every_size(paired: Place, size: tuple[int, int]) -> None:
    app = paired.app(paired.address("L1", 5), client_of())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.pages.get(2, 5) is not None, "the page")
        for key in ("j", "j", "w", "j", "tab", "p", "tab", "p"):
            await pilot.press(key)
            await pilot.pause()
            for strip in app.screen._compositor.render_strips():
                assert strip.cell_length == size[0]
        if size[0] >= 80:
            assert "by distance" in screen_text(app)
            assert "becomes  L2 #300" in screen_text(app) or "becomes  ▸L2 #300" in screen_text(app)


async def test_the_export_holds_the_picture_and_what_was_computed(
    paired: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.chdir(tmp_path)
    app = paired.app(paired.address("L1", 5), client_of())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        await until(pilot, lambda: page.pages.get(2, 5) is not None, "the page")
        await pilot.press("e")
        await until(pilot, lambda: "wrote" in page.notice[0], "the files")
    assert {p.suffix for p in tmp_path.iterdir()} == {".csv", ".svg", ".json"}
    (svg,) = tmp_path.glob("*.svg")
    assert "LOOK" in svg.read_text() and "becomes" in svg.read_text()
    (meta,) = tmp_path.glob("*.meta.json")
    note = json.loads(meta.read_text())
    assert note["on_demand"]["heads"][1]["ov"]["becomes"][0]["feature"] == 300
    assert note["attention"][0]["per_feature_normalised"] is False


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_q_and_k_norms_are_named_at_every_size(paired: Place, size: tuple[int, int]) -> None:
    app = paired.app(paired.address("L1", 5), client_of())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("h")
        page = await heads_page(pilot)
        heads = page.heads
        assert heads is not None and heads.plan is not None
        assert "per-feature normalised" not in screen_text(app)
        facts = dataclasses.replace(heads.plan.facts, qk_norm="head")
        heads.plan = dataclasses.replace(heads.plan, normalised=True, facts=facts)
        page.draw()
        await pilot.pause()
        assert "per-feature normalised" in screen_text(app).splitlines()[0]


# Parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "top", "glyph"),
    [(8, 8, "█"), (4, 8, "▄"), (4.1, 8, "▅"), (0.01, 8, "▁"), (0, 8, "–"), (-3, 8, "–"), (float("nan"), 8, "–"),
     (1, 0, "–"), (1, -2, "–")],
)  # fmt: skip
def test_a_block_for_a_share(value: float, top: float, glyph: str) -> None:
    assert level(value, top) == glyph


def test_a_line_over_distance_stops_where_it_has_no_room() -> None:
    pair = Partner(1, 1.0, tuple(float(2**-i) for i in range(12)))
    seen = Seen(1, pair=pair, offsets=(0, *(2**i for i in range(11))))
    assert text_of(distance_line(seen, 30)) == "by distance  0█ 1▄ 2▂ 4▁ 8▁ "
    assert len(text_of(distance_line(seen, 52))) <= 52
    assert "learned positions" in text_of(distance_line(Seen(1, learned=True), 80))
    assert text_of(distance_line(Seen(1), 80)).strip() == "by distance  …"


def test_pages_are_kept_up_to_a_number() -> None:
    pages = HeadPages()
    pages.failures[2, 5] = "no"
    for feature in range(KEPT + 5):
        pages.put(2, feature, answer(feature))
    assert pages.get(2, 4) is None and pages.get(2, 5) is not None
    assert not pages.failures
    assert pages.missing(2, [5, 1, 1, 6]) == [1]
    assert pages.missing(3, [5]) == [5]
