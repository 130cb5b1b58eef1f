"""A file that could not be written is refused before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Commands
from wbtui.cli.common import check_out
from wbtui.errors import StoreError


@pytest.mark.parametrize(
    "words",
    [
        ("export", "demo@L0", "-o", "no/f.csv"), ("export", "demo@L0", "--vectors", "no/f.safetensors"),
        ("export", "demo@L0#3", "--format", "lm-eval", "-o", "no/f.pt"),
        ("export", "demo@L0", "--format", "lm-eval", "-o", "file/dir"), ("export", "demo@L0", "-o", "there"),
        ("find", "demo@L0", "w:London", "-o", "no/f.csv"), ("edges", "demo@L0#3", "-o", "no/f.csv"),
        ("flow", "demo@L0#3", "--svg", "no/f.svg"), ("match", "demo@L0", "L1", "-o", "file/dir"),
        ("report", "demo", "-o", "file/dir"), ("screenshot", "-o", "no/f.svg"),
    ],
)  # fmt: skip
def test_no_work_for_what_cannot_be_written(
    words: tuple[str, ...], wbtui: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN an SAE of which nothing is computed WHEN the place is not there THEN one line, and nothing was begun."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "there").mkdir()

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    for name in ("cli.compute.run", "cli.ask.ask", "tui.run.make_screenshot"):
        monkeypatch.setattr(f"wbtui.{name}", begun)
    ran = wbtui(*words)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1), ran.err
    assert words[-1] in ran.err and "expected a" in ran.err
    assert sorted(p.name for p in tmp_path.iterdir() if p.name in ("no", "file", "there")) == ["file", "there"]
    assert (tmp_path / "file").read_text() == "kept"


def test_what_can_be_written_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("")
    for path in (Path("f.csv"), Path("old.csv"), tmp_path / "f.csv"):
        check_out(path)
    for path in (Path("new"), Path("new/deeper"), tmp_path, Path(".")):
        check_out(path, folder=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.csv"]
    monkeypatch.setattr(os, "access", lambda *_: False)
    for folder in (False, True):
        with pytest.raises(StoreError, match="no right to write"):
            check_out(tmp_path / "f", folder=folder)
