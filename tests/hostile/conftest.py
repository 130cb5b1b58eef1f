"""The hostile place, computed once in a run, and a machine of its own for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.hostile.made import Hostile
from tests.once import made_once


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    """Every product over hostile tokens and names; read it, do not change it."""
    place = Hostile(tmp_path_factory.mktemp("hostile"))

    def compute(folder: Path) -> None:
        place.compute()
        shutil.copytree(place.cache, folder, dirs_exist_ok=True)

    shutil.copytree(made_once(tmp_path_factory, "hostile-cache", compute), place.cache, dirs_exist_ok=True)
    return place


@pytest.fixture
def hostile(made: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hostile:
    """The place, with hostile labels, notes and tags in a data folder of this test's own."""
    for name in ("WBTUI_SAE_ROOTS", "HUGGINGFACE_HUB_CACHE", "NO_COLOR", "TMUX", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("DATA", "CONFIG", "LOG", "RUNTIME"):
        monkeypatch.setenv(f"WBTUI_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("WBTUI_CACHE_DIR", str(made.cache))
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(made.model.parent))
    monkeypatch.chdir(tmp_path)
    made.keep()
    return made
