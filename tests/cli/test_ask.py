"""``find``, ``edges`` and ``flow`` on the command line, over the demo, the worker in this process."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Commands
from wbtui.service import engine
from wbtui.service.inprocess import InProcessWorker


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WorkerProcess", lambda device, work, *_: InProcessWorker("cpu", work))


def test_find_prints_json_files_and_filters(wbtui: Commands, tmp_path: Path) -> None:
    ran = wbtui("find", "demo", "w:{red,blue}", "--all-layers", "--top", "12", "--no-daemon")
    assert ran.code == 0 and '+ red: "red" " red" " Red"' in ran.err
    lines = ran.out.splitlines()
    assert lines[0].split()[:6] == ["feature", "score", "cos", "z", "tail", "rank"] and len(lines) == 13
    ran = wbtui("find", "demo", "w:{red,blue}", "--all-layers", "--top", "12", "--json", "--no-daemon")
    data = json.loads(ran.out)
    assert data["schema"] == "wbtui.find/1" and [s["sae"] for s in data["saes"]] == [f"L{n}" for n in range(6)]
    assert [h["address"] for h in data["hits"]] == [line.split()[0] for line in lines[1:]]
    path = tmp_path / "hits.csv"
    ran = wbtui(
        "find", "demo", "w:{red,blue}", "--all-layers", "--top", "12", "--where", "rank<=10 layer<4", "--sort", "rank",
        "-o", str(path), "--no-daemon",
    )  # fmt: skip
    assert ran.code == 0 and ran.out == ""
    rows = list(csv.DictReader(path.open()))
    kept = [h for h in data["hits"] if h["rank"] <= 10 and h["layer"] < 4]
    assert rows and [int(r["rank"]) for r in rows] == sorted(h["rank"] for h in kept)
    assert json.loads(rows[0]["words"]) and json.loads(rows[0]["words_ids"])
    assert json.loads((tmp_path / "hits.csv.meta.json").read_text())["query"] == "w:{red,blue}"


def test_edges_and_flow(wbtui: Commands, tmp_path: Path) -> None:
    ran = wbtui("edges", "demo@L3#212", "--top", "3", "--no-daemon")
    assert ran.code == 0 and ran.out.count("demo@L") == 10 and "heads of layer 4" in ran.out
    rows = tmp_path / "e.jsonl"
    assert wbtui("edges", "demo@L3#212", "--top", "3", "-o", str(rows), "--no-daemon").code == 0
    lists = [json.loads(line)["list"] for line in rows.read_text().splitlines()]
    assert lists == ["up"] * 3 + ["down"] * 3 + ["heads"] * 3
    ran = wbtui("flow", "demo@L3#212", "--svg", str(tmp_path / "f.svg"), "--json", "--no-daemon")
    found = json.loads(ran.out)
    assert [n["layer"] for n in found["nodes"]] == list(range(6)) and found["modules"] == []
    assert found["nodes"][3]["class"] in ("carried or processed", "newborn or unexplained")
    picture = (tmp_path / "f.svg").read_text()
    assert picture.startswith("<svg") and "demo@L3#212" in picture and picture.count("<rect") == 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("find", "demo@L3", "w:physicistx"), 'it splits into " ph"'),
        (("find", "demo", "w:red"), "no SAE; expected MODEL@SAE, or --all-layers"),
        (("find", "demo@L3", "red"), "query 'red'"),
        (("find", "demo@L3", "dir:v.npy"), "no stream position"),
        (("find", "demo@L3", "dir:short.npy@L3.resid_post"), "shape [5]; expected [192]"),
        (("find", "demo@L3", "w:red", "--sort", "size"), "no column 'size'"),
        (("find", "demo@L3", "w:red", "--where", "scor>1"), "no metric 'scor'"),
        (("edges", "demo@L3"), "no feature"),
        (("edges", "demo@L3#5000"), "0 to 1023"),
        (("flow", "demo@L3#5", "--r", "3"), "cosine from 0 to 1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_exit_2(
    wbtui: Commands,
    words: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.ones(192))
    np.save("short.npy", np.ones(5))
    ran = wbtui(*words, "--no-daemon")
    assert ran.code == 2 and says in ran.err and len(ran.err.splitlines()) == 1, ran.err
    assert ran.out == ""
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == [], "what no handler takes is printed: a second line"
