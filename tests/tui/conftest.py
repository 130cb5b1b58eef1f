"""Places that the tests of the app share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tui.place import HOSTILE, Place


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own caches, sessions and services stay out of the tests."""
    for name in ("WBTUI_SAE_ROOTS", "WBTUI_MODEL_ROOTS", "HUGGINGFACE_HUB_CACHE", "NO_COLOR", "TMUX", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("CACHE", "DATA", "CONFIG", "LOG", "RUNTIME"):
        monkeypatch.setenv(f"WBTUI_{name}_DIR", str(tmp_path / name.lower()))


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Everything of L1 and L2 computed, L0 not; read it, do not change it."""
    place = Place(tmp_path_factory.mktemp("ready"))
    place.fill("L1")
    place.fill("L2")
    return place


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """L1 computed over tokens that break screens."""
    place = Place(tmp_path_factory.mktemp("hostile"), n=300, layers=(1,))
    place.fill("L1", texts=HOSTILE)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Nothing computed."""
    return Place(tmp_path)
