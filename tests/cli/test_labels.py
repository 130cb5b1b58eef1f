"""``wbtui labels`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Commands


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WBTUI_DATA_DIR", str(tmp_path / "data"))


def test_import_list_filter_show_remove(wbtui: Commands, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("feature,label,density\n120,a kind of place,0.01\n121,,0\n")
    ran = wbtui("labels", "import", "demo@L3", str(file))
    assert ran.code == 0, ran.err
    assert "1 labels new, 0 there already; 2 densities" in ran.out
    assert "0 labels new, 1 there already" in wbtui("labels", "import", "demo@L3", str(file)).out
    assert json.loads(wbtui("labels", "ls", "--json").out)[0]["address"] == "demo@L3"
    assert "mine.csv" in wbtui("labels", "ls", "demo@L3").out
    assert "label: a kind of place" in wbtui("show", "demo@L3#120", "--no-compute").out
    record = json.loads(wbtui("show", "demo@L3#121", "--json", "--no-compute").out)
    assert record["data"]["dead"] is True
    words = ("export", "demo@L3", "--columns", "id,label", "--no-daemon", "-q")
    assert wbtui(*words, "--where", "label:place").out == "id,label\n120,a kind of place\n"
    assert wbtui(*words, "--where", "dead").out == "id,label\n121,\n"
    assert "3 labels and densities removed" in wbtui("labels", "rm", "demo@L3").out
    assert json.loads(wbtui("labels", "ls", "--json").out) == []


HOSTILE = "\x1b]0;pwned\x07\u202e\u200b\x9b"


def test_names_of_files_cannot_reach_the_terminal(wbtui: Commands, tmp_path: Path) -> None:
    file = tmp_path / f"{HOSTILE}.csv"
    file.write_text(f"feature,label\n120,a {HOSTILE} place\n")
    assert wbtui("labels", "import", "demo@L3", str(file)).code == 0
    shown = wbtui("show", "demo@L3#120", "--no-compute").out
    assert "label: a " in shown
    refused = wbtui("labels", "import", "demo@L3", str(tmp_path / f"gone{HOSTILE}.csv"))
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "pwned" in refused.err
    for text in (shown, refused.err):
        assert not set(HOSTILE) & set(text) - set("]0;pwned")


def test_refusals_are_one_line(wbtui: Commands, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("id,label\n5000,x\n")
    ran = wbtui("labels", "import", "demo@L3", str(file))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "5000" in ran.err
    assert "demo@L3" in ran.err
    for name, code in (("nothing.csv", 2), ("labels.txt", 2)):
        (tmp_path / "labels.txt").write_text("x")
        ran = wbtui("labels", "import", "demo@L3", str(tmp_path / name))
        assert (ran.code, len(ran.err.splitlines())) == (code, 1)
    (tmp_path / "batch-0.jsonl").write_text(
        '{"modelId": "gpt2-small", "layer": "3-res", "index": "1", "description": "x"}\n'
    )
    ran = wbtui("labels", "import", "demo@L3", str(tmp_path / "batch-0.jsonl"))
    assert (ran.code, "gpt2-small" in ran.err, "demo@L3" in ran.err) == (2, True, True)
