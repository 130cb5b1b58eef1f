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
from wbtui.compute.weights import _RESIDENT
from wbtui.store.cache import disk_usage, gc
from wbtui.store.places import LENGTHS


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
    assert len(list((place.cache / LENGTHS).iterdir())) == 5 + 4  # attn_out's encoder does not read the stream


def test_other_files_and_damage_are_seen(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = asked(place, monkeypatch)
    files = sorted((place.cache / LENGTHS).iterdir())
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


def test_they_are_counted_and_go_when_their_files_do(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(place, monkeypatch)
    folder = place.cache / LENGTHS
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    usage = disk_usage(place.cache)
    assert usage.lengths == sum(sizes.values()) > 0 and usage.total >= usage.lengths + usage.products
    assert gc(place.cache).temporaries == 0 and {file.name for file in folder.iterdir()} == set(sizes)
    saes = sorted((place.model / "saes").glob("*/sae_weights.safetensors"))
    os.utime(saes[0], (1e9, 1e9))
    saes[1].unlink()
    stray = folder / "0.safetensors"
    stray.write_bytes(b"no header")
    (folder / "elsewhere").symlink_to(saes[2])
    would = gc(place.cache, dry_run=True)
    assert would.temporaries == 3 and stray.exists()
    assert gc(place.cache).temporaries == 3 and not stray.exists() and (folder / "elsewhere").is_symlink()
    (folder / "elsewhere").unlink()
    left = {file.name for file in folder.iterdir()}
    assert left < set(sizes) and len(left) == len(sizes) - 2
    assert would.temporary_bytes == sum(sizes[name] for name in set(sizes) - left) + 9


def test_a_cache_that_cannot_be_written_costs_time_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = asked(place, monkeypatch)
    for file in (place.cache / LENGTHS).iterdir():
        file.unlink()
    (place.cache / LENGTHS).rmdir()
    (place.cache / LENGTHS).write_bytes(b"")
    again, known = asked(place, monkeypatch)
    assert again == first and not any(known)
    assert np.isfinite([hit["score"] for hit in again["hits"]]).all()
