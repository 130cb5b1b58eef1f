"""Notes on disk: they persist, merge, and never vanish: read-only, locked, damaged, newer, killed, two at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wbtui.errors import StoreError, UsageError
from wbtui.notes.exchange import export_data, import_data, import_file
from wbtui.notes.kept import clean_note, parse_tags
from wbtui.notes.store import NoteStore, Site, joined

A = Site("m" * 64, "a" * 64, "demo@L3")
B = Site("m" * 64, "b" * 64, "demo@L4")


@pytest.fixture
def store(tmp_path: Path) -> NoteStore:
    """A file that is not there yet."""
    return NoteStore(tmp_path / "data" / "notes.sqlite", wait=0.05)


def filled(store: NoteStore) -> NoteStore:
    store.set_marks(A, [3, 70_000], [])
    store.set_tags(A, 3, parse_tags("todo, #people"))
    store.set_note(A, 3, "professions\nwho?", "")
    store.set_note(B, 3, "other", "")
    return store


def test_reading_where_there_is_nothing_makes_nothing(store: NoteStore) -> None:
    assert store.load(A).marks.sum() == 0
    assert store.saes() == []
    assert not store.path.parent.exists()


def test_what_is_kept_is_there_for_the_next_program_by_fingerprint_not_by_name(store: NoteStore) -> None:
    filled(store)
    renamed = Site(A.model, A.sae, "./copy@./sae")
    kept = NoteStore(store.path).load(renamed)
    assert np.flatnonzero(kept.marks).tolist() == [3, 70_000]
    assert kept.tags == {3: ("people", "todo")}
    assert kept.notes == {3: "professions\nwho?"}
    assert NoteStore(store.path).load(B).notes == {3: "other"}
    assert [(s.address, c) for s, c in store.saes()] == [
        ("demo@L3", {"marks": 2, "tags": 1, "notes": 1}),
        ("demo@L4", {"marks": 0, "tags": 0, "notes": 1}),
    ]


def test_taking_back(store: NoteStore) -> None:
    filled(store)
    store.set_marks(A, [], [3])
    store.set_tags(A, 3, ())
    assert store.set_note(A, 3, "  ", "professions\nwho?") == ""
    kept = store.load(A)
    assert np.flatnonzero(kept.marks).tolist() == [70_000]
    assert not kept.tags
    assert not kept.notes


def test_a_note_changed_by_another_is_kept_beside_ones_own(store: NoteStore) -> None:
    filled(store)
    NoteStore(store.path).set_note(A, 3, "theirs", "professions\nwho?")
    assert store.set_note(A, 3, "mine", "professions\nwho?") == "theirs\n\nmine"
    NoteStore(store.path).set_note(A, 3, "again", "theirs\n\nmine")
    assert store.set_note(A, 3, "", "theirs\n\nmine") == "again", "emptying an older text takes no newer one away"


def test_a_folder_that_cannot_be_written_says_so_and_what_is_there_stays_readable(
    store: NoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store)
    real = sqlite3.connect

    def read_only(name: str, **more: object) -> sqlite3.Connection:
        db = real(name, **more)  # type: ignore[call-overload]
        db.execute("PRAGMA query_only = ON")
        return db

    monkeypatch.setattr(sqlite3, "connect", read_only)  # root writes anywhere: permissions prove nothing here
    with pytest.raises(StoreError) as caught:
        store.set_note(A, 9, "x", "")
    assert "cannot be written" in caught.value.line()
    assert store.load(A).notes == {3: "professions\nwho?"}


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StoreError, match="notes.sqlite"):
        NoteStore(tmp_path / "data" / "notes.sqlite").set_marks(A, [1], [])


def test_a_lock_that_is_not_let_go_is_named(store: NoteStore) -> None:
    filled(store)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for use in (lambda: store.set_marks(A, [5], []), lambda: store.load(A)):
        with pytest.raises(StoreError, match="in use by another program"):
            use()
    other.execute("ROLLBACK")
    other.close()
    store.set_marks(A, [5], [])
    assert 5 in np.flatnonzero(store.load(A).marks)


@pytest.mark.parametrize("bad", [b"not a database at all" * 999, b"\0" * 20_000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_damaged_file_is_named_and_left_as_it_is(store: NoteStore, bad: bytes) -> None:
    filled(store)
    store.path.write_bytes(bad)
    uses = (
        lambda: store.load(A),
        lambda: store.set_note(A, 3, "new", ""),
        store.saes,
        lambda: store.set_marks(A, [1], []),
    )
    for use in uses:
        with pytest.raises(StoreError, match="damaged") as caught:
            use()
        assert "move it aside" in caught.value.line()
        assert "\n" not in caught.value.line()
    assert store.path.read_bytes() == bad, "nothing is written to what is not understood"


def test_a_page_torn_off_is_found_by_the_check(store: NoteStore) -> None:
    filled(store)
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-4096] + b"\xff" * 4096)
    assert store.check() != "ok"


def test_files_of_others_and_of_later_versions_are_refused(store: NoteStore) -> None:
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as db:
        db.execute("CREATE TABLE x (y)")
    db.close()
    with pytest.raises(StoreError, match="another program"):
        store.set_marks(A, [1], [])
    store.path.unlink()
    filled(store)
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StoreError, match="update wbtui"):
        store.load(A)


def _write_many(path: Path, first: int) -> None:
    store = NoteStore(path, wait=60)
    for n in range(12):
        store.set_marks(A, [first + n], [])
        store.set_note(A, first + n, f"note {first + n}", "")


def test_two_programs_at_once_lose_nothing(store: NoteStore) -> None:
    context = multiprocessing.get_context("fork")
    ours = [context.Process(target=_write_many, args=(store.path, start)) for start in (0, 100)]
    for process in ours:
        process.start()
    for process in ours:
        process.join(60)
        assert process.exitcode == 0
    wanted = [*range(12), *range(100, 112)]
    kept = store.load(A)
    assert np.flatnonzero(kept.marks).tolist() == wanted
    assert sorted(kept.notes) == wanted


def _die_inside(path: Path) -> None:
    with NoteStore(path).batch() as take:
        take(A, 5, marked=True, note="never committed")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_what_was_there(store: NoteStore) -> None:
    filled(store)
    process = multiprocessing.get_context("fork").Process(target=_die_inside, args=(store.path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert store.load(A).notes == {3: "professions\nwho?"}
    assert store.check() == "ok"
    store.set_note(A, 5, "after", "")
    assert store.load(A).notes[5] == "after"


# -- in and out --------------------------------------------------------------------------------------------------------


def test_export_and_import_go_round_and_twice_is_as_good_as_once(store: NoteStore, tmp_path: Path) -> None:
    data = export_data(filled(store))
    assert json.loads(json.dumps(data)) == data
    other = NoteStore(tmp_path / "other.sqlite")
    assert import_data(other, data) == {"features": 3, "marks": 2, "tags": 1, "notes": 2}
    assert export_data(other)["saes"] == data["saes"], "times of notes too"
    assert import_data(other, data) == {"features": 3, "marks": 0, "tags": 0, "notes": 0}
    assert export_data(other)["saes"] == data["saes"]
    assert [s["address"] for s in export_data(store, "demo@L4")["saes"]] == ["demo@L4"]
    assert len(export_data(store, "demo")["saes"]) == 2
    assert export_data(store, "dem")["saes"] == []


def test_import_keeps_both_where_notes_differ(store: NoteStore) -> None:
    data = export_data(filled(store))
    store.set_note(A, 3, "changed here", "professions\nwho?")
    assert import_data(store, data)["notes"] == 1
    assert store.load(A).notes[3] == "changed here\n\nprofessions\nwho?"
    assert import_data(store, data)["notes"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema="wbtui.notes/9"),
        lambda d: d.update(saes=3),
        lambda d: d["saes"].append(3),
        lambda d: d["saes"][1].update(sae=""),
        lambda d: d["saes"][1]["features"].append({"feature": -1}),
        lambda d: d["saes"][1]["features"][0].update(note=5),
        lambda d: d["saes"][1]["features"][0].update(tags=["a b"]),
        lambda d: d["saes"][1]["features"][0].update(feature=True),
        lambda d: d["saes"][1]["features"][0].update(marked=1),
    ],
)
def test_a_wrong_file_changes_nothing_at_all(store: NoteStore, tmp_path: Path, change: object) -> None:
    data = export_data(filled(store))
    change(data)  # type: ignore[operator]
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(data))
    empty = NoteStore(tmp_path / "empty.sqlite")
    with pytest.raises(UsageError, match=r"wrong\.json"):
        import_file(empty, file)
    assert empty.saes() == []


texts = st.text(max_size=40)
tags = st.lists(st.sampled_from(["todo", "people", "Ä", "x-1"]), max_size=3)
entries = st.lists(st.tuples(st.integers(0, 9), st.booleans(), tags, texts), max_size=8)


@settings(max_examples=10, deadline=None)
@given(entries, entries)
def test_any_import_adds_and_is_idempotent(tmp_path_factory: pytest.TempPathFactory, one: list, two: list) -> None:
    store = NoteStore(tmp_path_factory.mktemp("notes") / "n.sqlite")

    def data(rows: list) -> dict:
        features = [{"feature": f, "marked": m, "tags": t, "note": n} for f, m, t, n in rows]
        return {
            "schema": "wbtui.notes/1",
            "saes": [{"model": A.model, "sae": A.sae, "address": A.address, "features": features}],
        }

    import_data(store, data(one))
    import_data(store, data(two))
    before = store.load(A)
    for f, m, t, n in [*one, *two]:
        assert not m or before.marked(10)[f]
        assert set(t) <= set(before.tags.get(f, ()))
        assert clean_note(n) in before.notes.get(f, "")
    assert import_data(store, data([*one, *two]))["notes"] == 0
    after = store.load(A)
    assert (after.notes, after.tags) == (before.notes, before.tags)
    assert (after.marked(10) == before.marked(10)).all()


@given(texts, texts)
def test_joining_holds_both(a: str, b: str) -> None:
    assert a in joined(a, b)
    assert b in joined(a, b)


@pytest.mark.parametrize("bad", ["a:b", 'x"y', "x" * 41, "a(b", "\x1b[31m", "a\u202eb"])
def test_what_is_no_tag(bad: str) -> None:
    with pytest.raises(UsageError, match="tag"):
        parse_tags(bad)
