"""``wbtui notes`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wbtui.cli import main
from wbtui.notes.store import NoteStore, Site

SITE = Site("m" * 64, "a" * 64, "demo@L3")


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data folder with one note."""
    for name in ("DATA", "CONFIG", "LOG"):
        monkeypatch.setenv(f"WBTUI_{name}_DIR", str(tmp_path / "here"))
    NoteStore().set_note(SITE, 7, "who?\nask Ann", "")
    NoteStore().set_tags(SITE, 7, ("todo",))
    return tmp_path


def test_list_export_import(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["demo@L3", "0", "1", "1", "aaaaaaaa"]
    assert main(["notes", "ls", "demo"]) == 0
    assert "demo@L3#7" in (listed := capsys.readouterr().out)
    assert "#todo" in listed
    out = data / "notes.json"
    assert main(["notes", "export", "-o", str(out)]) == 0
    assert main(["notes", "export"]) == 0
    assert json.loads(capsys.readouterr().out)["saes"] == json.loads(out.read_text())["saes"]

    monkeypatch.setenv("WBTUI_DATA_DIR", str(data / "there"))
    for notes in (1, 0):
        assert main(["notes", "import", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"features": 1, "marks": 0, "tags": notes, "notes": notes}
    assert NoteStore().load(SITE).notes == {7: "who?\nask Ann"}
    assert main(["notes", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(data / "there" / "notes.sqlite")


def test_errors_are_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "bad.json").write_text("{")
    for words, code in ((["import", str(data / "no")], 2), (["import", str(data / "bad.json")], 2)):
        assert main(["notes", *words]) == code
        assert capsys.readouterr().err.count("\n") == 1
    NoteStore().path.write_bytes(b"junk" * 3000)
    for words in (["ls"], ["export"], ["ls", "demo", "--json"]):
        assert main(["notes", *words]) == 1
        error = capsys.readouterr().err
        assert "damaged" in error
        assert error.count("\n") == 1
