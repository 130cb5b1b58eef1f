"""Find, edges, flow and a vector in the app: journeys by Pilot over a service that answers from a table."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tui.place import FakeClient, Place, screen_text, settled, until
from wbtui.errors import ServiceError, UsageError
from wbtui.features.table import FeatureTable
from wbtui.notes.store import NoteStore, Site, site_of
from wbtui.tui.draw.answer import cell, columns_for, detail_lines, header, row_line
from wbtui.tui.draw.line import text_of, width_of
from wbtui.tui.screens.answer import AnswerScreen
from wbtui.tui.screens.direction import DirectionScreen
from wbtui.tui.screens.flow import FlowScreen
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.screens.marked import SetScreen

SIZES = [(80, 24), (120, 40), (200, 50)]


def words(*texts: str) -> list[dict[str, Any]]:
    return [{"id": i, "text": t, "z": 5.0 - i} for i, t in enumerate(texts)]


def hit(model: str, sae: str, feature: int, score: float, rank: int, tail: float = 1e-6) -> dict[str, Any]:
    return {
        "address": f"{model}@{sae}#{feature}", "sae": sae, "layer": int(sae[1:]), "site": "resid_post",
        "feature": feature, "score": score, "cosine": score / 2, "z": score * 9, "tail": tail, "rank": rank,
        "ranks": [{"word": "word3", "sign": 1, "rank": rank}], "words": words("red", "blue"), "others": words("blue"),
        "z_max": 6.0,
    }  # fmt: skip


def edge(model: str, sae: str, feature: int, weight: float, via: str = "") -> dict[str, Any]:
    return {
        "address": f"{model}@{sae}#{feature}", "sae": sae, "layer": int(sae[1:]), "site": "resid_post",
        "feature": feature, "weight": weight, "along": weight, "share": abs(weight) / 100, "tail": 1e-4, "via": via,
        "words": words("green", "sea"),
    }  # fmt: skip


class Service(FakeClient):
    """Answers ``ask``; what was asked is in ``asked``."""

    def __init__(self, model: str) -> None:
        busy = ServiceError("nothing but questions is answered here")
        super().__init__(ask=self.ask, compute=lambda **_: busy, row=lambda **_: busy, page=lambda **_: busy)
        self.model = model
        self.asked: list[tuple[str, dict[str, Any], str]] = []
        self.gate: asyncio.Event | None = None

    async def ask(self, **fields: Any) -> dict[str, Any]:
        what, args, sae, ticket = fields["what"], fields["args"], fields["sae"], fields["ticket"]
        self.asked.append((what, args, sae))
        m = self.model
        if what == "find":
            if "nothing" in args["query"]:
                raise UsageError("no single token spells the word 'nothing'", "a word", 'take "noth"')
            layers = ["L0", "L1", "L2"] if args["all_layers"] else [sae]
            hits = [hit(m, s, 10 * n + i, 0.9 - 0.1 * i - 0.01 * n, 3 * i + 1, 10.0 ** -(6 - 2 * i))
                    for n, s in enumerate(layers) for i in range(3)]  # fmt: skip
            for s in layers:
                mine = [
                    {k: v for k, v in h.items() if k not in ("rank", "words", "others")} for h in hits if h["sae"] == s
                ]
                self.queue.put_nowait({"event": "part", "ticket": ticket, "part": {"sae": {"sae": s}, "hits": mine}})
            if self.gate is not None:
                await self.gate.wait()
            spelled = [{"word": "word3", "exact": False, "sign": 1, "tokens": [{"id": 3, "text": " word3"}]}]
            hits.sort(key=lambda h: -h["score"])
            return {"answer": {"query": args["query"], "words": spelled, "skipped": [], "position": None, "hits": hits,
                               "unmasked": False}}  # fmt: skip
        if what == "edges":
            f = args["feature"]
            up = [edge(m, "L0", f + 1, 0.5), edge(m, "L0", f + 2, -0.4)] if sae != "L0" else []
            part = {"total": 9.0, "count": 600, "saes": []}
            return {"answer": {
                "address": f"{m}@{sae}#{f}", "words": words("x"),
                "up": {**part, "edges": up, "absent": "" if up else "no SAE of an earlier place in the stream"},
                "down": {**part, "edges": [edge(m, "L2", 7, 0.3)], "absent": ""},
                "heads": {**part, "edges": [edge(m, "L2", 8, 0.2, "L2.H1")], "absent": "", "layer": 2},
            }}  # fmt: skip
        if what == "flow":
            nodes = [
                {"address": f"{m}@L{n}#{5 + n}", "sae": f"L{n}", "layer": n, "feature": 5 + n, "step": n - 1,
                 "cosine": None if n == 1 else 0.7 - 0.3 * (n == 2), "chance": 1e-9, "words": words("a", "b"),
                 "r": None if n == 0 else {"address": "", "cosine": 0.7, "chance": 1e-9}, "m": None, "a": None,
                 "class": "carried or processed", "held": n < 2}
                for n in range(3)
            ]  # fmt: skip
            return {"answer": {"address": f"{m}@L1#6", "nodes": nodes, "born": 0, "gone": 1, "class": "carried",
                               "ends": {"back": "first dictionary", "forward": "cut"}, "modules": [],
                               "thresholds": args["thresholds"]}}  # fmt: skip
        if what == "set":
            saes, rows = [m[0] for m in args["members"]], [m[1] for m in args["members"]]
            null = {kind: {"pair_p99": 0.2, "rank": 1.9, "n": 96} for kind in ("isotropic", "decoder_cov")}
            cosines = [[1.0 if i == j else 0.1 for j in rows] for i in rows]
            return {"answer": {"features": rows, "saes": saes, "absent": [], "absent_saes": [], "cosines": cosines,
                               "rank": 1.9, "null": null}}  # fmt: skip
        raise AssertionError(what)


async def page(pilot: Any, kind: type) -> Any:
    await until(pilot, lambda: isinstance(pilot.app.screen, kind) and not pilot.app.screen.pending, kind.__name__)
    await pilot.pause()
    return pilot.app.screen


async def type_in(pilot: Any, text: str) -> None:
    from textual.widgets import Input

    pilot.app.screen.query_one("#entry", Input).value = text
    await pilot.pause()


def marked_elsewhere(store: NoteStore, site: Site) -> dict[str, list[int]]:
    """Marks on disk of all SAEs but one."""
    found = {s.address.rpartition("@")[2]: store.load(s).marks.nonzero()[0].tolist() for s, _ in store.saes()
             if s.sae != site.sae}  # fmt: skip
    return {name: marks for name, marks in found.items() if marks}


@pytest.mark.parametrize("size", SIZES)
async def test_find_mark_export_and_open(
    ready: Place, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = Service(str(ready.model))
    app = ready.app(ready.address("L1"), service)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("f")
        await type_in(pilot, "w:word3")
        await pilot.press("enter")
        screen = await page(pilot, AnswerScreen)
        assert service.asked[-1] == ("find", {"query": "w:word3", "all_layers": False, "top": 200}, "L1")
        text = screen_text(app)
        assert "L1#0" in text and "“ word3”" in text and "rank" in text and "score▼" in text
        await pilot.press("A")
        screen = await page(pilot, AnswerScreen)
        assert service.asked[-1][1]["all_layers"] and len(screen.rows) == 9
        assert {row["sae"] for row in screen.rows} == {"L0", "L1", "L2"}
        scores = [row["score"] for row in screen.rows]
        assert scores == sorted(scores, reverse=True)
        await pilot.press("slash")
        await type_in(pilot, "rank<5 layer=1..2")
        await pilot.press("enter")
        assert [(r["sae"], r["rank"]) for r in screen.rows] == [("L1", 1), ("L2", 1), ("L1", 4), ("L2", 4)]
        await pilot.press("m", "down", "m")
        assert [(r["sae"], r["feature"]) for r in screen.rows if screen.marked(r)] == [("L1", 10), ("L1", 11)]
        assert "2 marked" in screen_text(app)
        # kept as marks of the features' own tables, here in the SAE that is open and (below) in another
        await until(pilot, lambda: screen.main.view.marks.numbers().tolist() == [10, 11], "the marks in the table")
        await pilot.press("home", "down", "m")
        other = NoteStore()
        site = site_of(screen.main.opened.table.origin)
        await until(pilot, lambda: marked_elsewhere(other, site) == {"L2": [20]}, "the mark in the other SAE")
        await pilot.press("home", "down", "m")
        await until(pilot, lambda: marked_elsewhere(other, site) == {}, "the mark is taken back")
        await pilot.press("x")
        await until(pilot, lambda: "wrote 2 marked rows" in screen.notice[0], "the file")
        (path,) = tmp_path.glob("*-find.csv")
        rows = list(csv.DictReader(path.open()))
        assert [r["address"].split("@")[1] for r in rows] == ["L1#10", "L1#11"]
        meta = json.loads(path.with_name(path.name + ".meta.json").read_text())
        assert meta["query"] == "w:word3" and "specific" not in meta["columns"] and "tail" in meta["columns"]
        await pilot.press("home", "down", "enter")
        main = await settled(pilot)
        await until(pilot, lambda: main.view.sae == "L2" and main.settled, "the feature")
        assert main.view.cursor == 20
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.view.sae == "L1" and main.settled, "back")


@pytest.mark.parametrize("size", SIZES)
async def test_find_mark_set_page_export(
    ready: Place, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole journey, in the SAE that is open and in another; marks made before are seen in the answer."""
    monkeypatch.chdir(tmp_path)
    app = ready.app(ready.address("L1"), Service(str(ready.model)))
    site = site_of(FeatureTable.open(ready.cache, ready.plan("L2")).origin)
    NoteStore().set_marks(site, [20], [])
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        main.set_view(replace(main.view, marks=main.view.marks.toggled(12)))
        await pilot.press("f")
        await type_in(pilot, "w:word3")
        await pilot.press("enter")
        screen = await page(pilot, AnswerScreen)
        await pilot.press("A")
        await page(pilot, AnswerScreen)
        marked = lambda: {(r["sae"], r["feature"]) for r in screen.found if screen.marked(r)}  # noqa: E731
        await until(pilot, lambda: marked() == {("L1", 12), ("L2", 20)}, "what was marked before")
        text = screen_text(app)
        assert "2 marked" in text
        assert [re.split(" +", line)[2] for line in text.splitlines() if "●" in line] == ["L2#20", "L1#12"], text
        await pilot.press("home", "M")  # one mark of each SAE: a set over both, each in its own words
        await until(pilot, lambda: isinstance(app.screen, SetScreen), "the set over both")
        sets = await page(pilot, SetScreen)
        assert {(p.label, p.rows) for p in sets.parts} == {("L1", (12,)), ("L2", (20,))}
        text = screen_text(app)
        assert "2 marked features of 2 SAEs" in text and "L1#12" in text and "L2#20" in text
        await pilot.press("escape")
        await pilot.press("slash")
        await type_in(pilot, "layer=1")
        await pilot.press("enter", "M")
        assert "two or more marked" in screen.notice[0]
        while (screen.rows[screen.at]["sae"], screen.rows[screen.at]["feature"]) != ("L1", 10):
            await pilot.press("down")
        await pilot.press("m", "up", "M")
        await until(pilot, lambda: isinstance(app.screen, SetScreen), "the set")
        sets = await page(pilot, SetScreen)
        assert sets.rows == [10, 12] and sets.opened.sae.name == "L1" and "2 marked features" in screen_text(app)
        await pilot.press("e")
        await until(pilot, lambda: sets.notice[0].startswith("wrote"), "the files")
        (features,) = tmp_path.glob("*features.csv")
        assert [r["address"].rpartition("@")[2] for r in csv.DictReader(features.open())] == ["L1#10", "L1#12"]
        assert len(list(tmp_path.glob("*cosines.csv"))) == len(list(tmp_path.glob("*.svg"))) == 1
        await pilot.press("escape")
        # the same in an SAE that is not open, with one mark from before
        await pilot.press("slash", "home", "ctrl+k")
        await type_in(pilot, "layer=2")
        await pilot.press("enter")
        while (screen.rows[screen.at]["sae"], screen.rows[screen.at]["feature"]) != ("L2", 21):
            await pilot.press("down")
        await pilot.press("m", "up", "M")
        await until(pilot, lambda: isinstance(app.screen, SetScreen), "the set of the other")
        sets = await page(pilot, SetScreen)
        assert sets.rows == [20, 21] and sets.opened.sae.name == "L2"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is main and main.view.sae == "L2" and main.settled, "its rows")
        assert sorted(main.rows.order.tolist()) == [20, 21] and main.view.filter == "id:20,21"
        await until(pilot, lambda: main.view.marks.numbers().tolist() == [20, 21], "both marks are kept")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.view.sae == "L1" and main.settled and not main.view.filter, "back")


async def test_card_up_up_back(ready: Place) -> None:
    service = Service(str(ready.model))
    app = ready.app(ready.address("L2", 30), service)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("enter", "E")  # from the card
        screen = await page(pilot, AnswerScreen)
        assert service.asked[-1][:2] == ("edges", {"feature": 30, "top": 40}) and screen.rows[0]["list"] == "up"
        text = screen_text(app)
        assert "▲ up" in text and "▼ head" in text and "L2.H1" in text and "what could flow" in text
        await pilot.press("E")  # up: the edges of the first edge, at L0
        await until(pilot, lambda: not screen.pending and screen.place.sae == "L0", "the feature above")
        assert service.asked[-1] == ("edges", {"feature": 31, "top": 40}, "L0")
        assert "no SAE of an earlier place" in screen_text(app)
        await pilot.press("E")
        await until(pilot, lambda: not screen.pending and screen.place.sae == "L2", "the one below")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: not screen.pending and screen.place.sae == "L0", "back once")
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: not screen.pending and screen.place.feature == 30, "back twice")
        await pilot.press("enter")
        await until(pilot, lambda: app.main is not None and app.main.view.sae == "L0", "the feature")
        main = app.main
        assert main is not None
        assert main.view.cursor == 31


async def test_layers_stream_in_and_escape_keeps_them(ready: Place) -> None:
    service = Service(str(ready.model))
    service.gate = asyncio.Event()
    app = ready.app(ready.address("L1"), service)
    async with app.run_test(size=(100, 30)) as pilot:
        main = await settled(pilot)
        main.push_find("w:word3", all_layers=True)
        await until(pilot, lambda: isinstance(app.screen, AnswerScreen) and len(app.screen.rows) == 9, "parts")
        screen = app.screen
        assert isinstance(screen, AnswerScreen) and screen.pending and "scoring" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: not screen.pending, "the stop")
        assert len(screen.rows) == 9 and "stopped" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, MainScreen), "out")


async def test_what_goes_wrong_is_said_and_the_bar_stays(ready: Place) -> None:
    service = Service(str(ready.model))
    app = ready.app(ready.address("L1"), service)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        for key, text, says in (
            ("f", "w:{a", "a set of words"), ("f", "dir:v.npy", "no stream position"),
            ("f", "london", "one of w:London"),
        ):  # fmt: skip
            await pilot.press(key)
            await type_in(pilot, text)
            await pilot.press("enter")
            assert says in main.notice[0] and main.typing == "ask"
            await pilot.press("escape")
        await pilot.press("slash")
        await type_in(pilot, "w:nothing")
        assert main.view.filter == "" and "finds by direction" in screen_text(app)
        await pilot.press("enter")
        screen = await page(pilot, AnswerScreen)
        assert "no single token" in screen.notice[0] and screen.rows == [] and "no single token" in screen_text(app)
        await pilot.press("f")
        await type_in(pilot, "w:word3")
        await pilot.press("enter")
        await until(pilot, lambda: not screen.pending and len(screen.rows) == 3, "another question")
        await pilot.press("slash")
        await type_in(pilot, "scor>1")
        assert "no metric 'scor'" in screen.notice[0]
        await pilot.press("escape", "D")
        await until(pilot, lambda: "WHAT THE COLUMNS MEAN" in screen_text(app), "the meanings")


@pytest.mark.parametrize("size", SIZES)
async def test_flow_thresholds_and_going_there(
    ready: Place, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = Service(str(ready.model))
    app = ready.app(ready.address("L1", 6), service)
    async with app.run_test(size=size) as pilot:
        main = await settled(pilot)
        await pilot.press("W")
        screen = await page(pilot, FlowScreen)
        text = screen_text(app)
        assert "L0#5" in text and "▸r 0.50" in text and "carried or processed" in text and "╎" in text
        await pilot.press("tab", "right")
        await until(pilot, lambda: service.asked[-1][1].get("thresholds") == {"r": 0.5, "m": 0.3, "a": 0.25}, "m")
        await until(pilot, lambda: not screen.pending, "the answer")
        await pilot.press("x")
        await until(pilot, lambda: "wrote" in screen.notice[0], "the files")
        assert len(list(tmp_path.glob("*-flow.svg"))) == len(list(tmp_path.glob("*-flow.json"))) == 1
        await pilot.press("up", "enter")
        await until(pilot, lambda: main.view.sae == "L0" and main.view.cursor == 5, "the node")


async def test_a_vector_without_a_position_is_asked_for_it_and_its_page_says_errors(ready: Place) -> None:
    def refuse(**fields: Any) -> Any:
        assert fields["what"] == "direction" and fields["args"]["at"] == "L1.resid_post"
        assert Path(fields["args"]["path"]).is_absolute()
        return UsageError("v.npy: the zero vector", "a direction")

    app = ready.app(ready.address("L1"), FakeClient(ask=refuse))
    async with app.run_test(size=(100, 30)) as pilot:
        main = await settled(pilot)
        await pilot.press("colon")
        await type_in(pilot, "dir:v.npy")
        await pilot.press("enter")
        assert "no stream position" in main.notice[0]
        await type_in(pilot, "dir:v.npy@L1.resid_post")
        await pilot.press("enter")
        await page(pilot, DirectionScreen)
        assert "zero vector" in screen_text(app)


@pytest.mark.parametrize("width", [78, 100, 118, 198])
@pytest.mark.parametrize("edges", [False, True])
def test_lines_fit_whatever_is_missing(width: int, edges: bool) -> None:
    rows = [hit("m", "L1", 7, 0.5, 3), edge("m", "L2", 123456, -1.0, "L12.H31")]
    row = {**rows[edges], "list": "heads"}
    bare = {**row, "words": [], "others": [], "tail": None, "rank": None, "cosine": None, "share": None, "ranks": []}
    columns = columns_for(width, edges)
    for found in (row, bare):
        line = row_line(found, columns, width, at=True, marked=True, edges=edges)
        assert width_of(line) == width and text_of(line).startswith("▸●")
        assert all(width_of(part) == width for part in detail_lines(found, width, edges))
    assert width_of(header(columns, width, edges, columns[0], True)) == width
    assert cell(bare, "rank") == cell(bare, "tail") == "–" and cell(row, "tail") in ("1e-6", "1e-4")
