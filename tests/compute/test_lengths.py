"""Row lengths kept on disk: the same as taken anew, and only while the files are what they were."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compute.test_questions import Place
from wbtui.compute import ask
from wbtui.compute.lengths import FOLDER
from wbtui.compute.weights import _RESIDENT


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path, "gpt2")
    old = time.time() - 100
    for file in made.model.rglob("*.safetensors"):
        os.utime(file, (old, old))
    return made


def written() -> None:
    for thread in threading.enumerate():
        if thread.name == "wbtui-lengths":
            thread.join()


def asked(place: Place, monkeypatch: pytest.MonkeyPatch, query: str = "w:cat") -> tuple[dict[str, Any], list[bool]]:
    """A service's first question: the answer, and whether each SAE's lengths were there."""
    known: list[bool] = []
    for name in ("score_rows", "score_columns"):
        plain = getattr(ask, name)

        def watched(*args: Any, plain: Any = plain, **options: Any) -> Any:
            known.append(options["lengths"] is not None)
            return plain(*args, **options)

        monkeypatch.setattr(ask, name, watched)
    _RESIDENT.clear()
    answer = place.ask("find", query=query, all_layers=True, top=100)
    written()
    monkeypatch.undo()
    return answer, known


def test_the_next_service_need_not_take_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for query in ("w:cat", "r:cat"):
        first, known = asked(place, monkeypatch, query)
        assert known and not any(known)
        again, known = asked(place, monkeypatch, query)
        assert known and all(known)
        assert again == first
    assert len(list((place.cache / FOLDER).iterdir())) == 5 + 4  # attn_out's encoder does not read the stream


def test_other_files_and_damage_are_seen(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = asked(place, monkeypatch)
    files = sorted((place.cache / FOLDER).iterdir())
    for file, end in zip(files, (b"", b"x" * 40, None), strict=False):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if end is None else whole[:-40] + end)
    again, known = asked(place, monkeypatch)
    assert known.count(False) == 3 and again == first
    assert all(asked(place, monkeypatch)[1])  # they were written anew
    moved = place.model / "saes" / "L0" / "sae_weights.safetensors"
    os.utime(moved, (1e9, 1e9))
    assert asked(place, monkeypatch)[1].count(False) == 1
    os.utime(moved)  # changed just now: another change could go unseen
    for _ in range(2):
        assert asked(place, monkeypatch)[1].count(False) == 1


def test_a_cache_that_cannot_be_written_costs_time_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = asked(place, monkeypatch)
    for file in (place.cache / FOLDER).iterdir():
        file.unlink()
    (place.cache / FOLDER).rmdir()
    (place.cache / FOLDER).write_bytes(b"")
    again, known = asked(place, monkeypatch)
    assert again == first and not any(known)
    assert np.isfinite([hit["score"] for hit in again["hits"]]).all()
