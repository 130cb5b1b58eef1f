"""Marks that last, tags, notes: from key to disk and back, and what happens where the disk says no."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from textual.widgets import Input

from tests.tui.place import HOSTILE, Place, screen_text, settled, until
from tests.tui.test_journeys import type_text
from wbtui.cli import main as main_command
from wbtui.errors import UsageError
from wbtui.notes.store import NoteStore, Site, site_of
from wbtui.tui.app import WbtuiApp
from wbtui.tui.data import load_session
from wbtui.tui.keeper import Keeper
from wbtui.tui.rowsets import Marks
from wbtui.tui.run import usual_view
from wbtui.tui.screens.main import MainScreen


def kept_on_disk(main: MainScreen) -> Any:
    assert main.opened is not None
    return NoteStore().load(site_of(main.opened.table.origin))


async def test_marks_tags_and_notes_are_there_the_next_time(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        first = main.view.cursor
        await pilot.press("m", "g")
        await pilot.press("t")
        await type_text(pilot, "todo, people")
        await pilot.press("enter")
        await until(pilot, lambda: main.typing == "")
        await pilot.press("a")
        await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        await type_text(pilot, "who")
        await pilot.press("ctrl+j")
        await type_text(pilot, "jq?")
        await pilot.press("enter")
        await until(pilot, lambda: main.editor is None)
        await settled(pilot)
        text = screen_text(app)
        assert "NOTE" in text
        assert "#people #todo" in text
        assert "jq?" in text
        assert sum(line[1:2] == "◉" for line in text.splitlines()) == 1, "marked and noted"
        await pilot.press("q")
    kept = kept_on_disk(main)
    assert np.flatnonzero(kept.marks).tolist() == [first]
    assert kept.tags == {first: ("people", "todo")}
    assert kept.notes == {first: "who\njq?"}

    again = ready.app(ready.address("L1", first))
    async with again.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.view.marks.numbers().tolist() == [first]
        assert "#people #todo" in screen_text(again)
        await pilot.press("slash")
        await type_text(pilot, "tag:todo note:who marked")
        await until(pilot, lambda: len(main.rows) == 1)
        await pilot.press("enter", "m")
        await until(pilot, lambda: len(main.rows) == 0)
        await until(pilot, lambda: "no row has marked" in screen_text(again), "why nothing matches")


async def test_another_sae_has_its_own(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("m")
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L2" and main.settled)
        assert main.view.marks.count == 0
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L1" and main.settled)
        assert main.view.marks.count == 1


async def test_a_range_is_tagged_at_once_beside_what_it_has(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(80, 24)) as pilot:
        main = await settled(pilot)
        rows = main.rows.order[:3].tolist()
        for keys, text in ((("g",), "one"), (("v", "j", "j"), "two")):
            await pilot.press(*keys, "t")
            await type_text(pilot, text)
            await pilot.press("enter")
            await until(pilot, lambda: main.typing == "")
        assert kept_on_disk(main).tags == {rows[0]: ("one", "two"), rows[1]: ("two",), rows[2]: ("two",)}
        assert main.view.anchor is None
        await pilot.press("t")
        await type_text(pilot, "a:b")
        await pilot.press("enter")
        await pilot.pause()
        assert main.typing == "tag", "what is no tag stays in the bar"
        assert "a:b" in main.query_one("#entry", Input).value


async def test_a_note_that_cannot_be_kept_stays_in_the_editor_and_is_rescued_at_the_end(
    ready: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        app.keeper.store.wait = 0.05
        await pilot.press("m")
        await until(pilot, lambda: NoteStore().path.exists() and app.keeper.owed == 0)
        other = sqlite3.connect(NoteStore().path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await pilot.press("m")
        await until(pilot, lambda: "1 marks are not on disk" in screen_text(app))
        await pilot.press("a")
        await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        await type_text(pilot, "dear")
        await pilot.press("enter")
        await until(pilot, lambda: "in use by another program" in screen_text(app))
        assert main.editor is not None
        assert main.editor.text == "dear"
        await pilot.press("ctrl+q")
    assert "wbtui-unsaved-notes.jsonl" in app.last_words
    assert "not kept" in app.last_words
    assert '"note": "dear"' in (tmp_path / "data" / "wbtui-unsaved-notes.jsonl").read_text()
    other.execute("ROLLBACK")
    other.close()


async def test_leaving_an_edited_note_is_asked_twice_and_quitting_keeps_it(ready: Place) -> None:
    app = ready.app(ready.address(feature=7))
    async with app.run_test(size=(80, 24)) as pilot:
        main = await settled(pilot)
        await pilot.press("a")
        await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        await type_text(pilot, "x")
        await pilot.press("escape")
        await pilot.pause()
        assert main.editor is not None
        assert "Esc again" in screen_text(app)
        await pilot.press("escape")
        await until(pilot, lambda: main.editor is None)
        assert kept_on_disk(main).notes == {}
        await pilot.press("a")
        await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        await type_text(pilot, "y")
        await pilot.press("ctrl+c")
    assert kept_on_disk(main).notes == {7: "y"}


async def test_two_apps_at_once_see_each_others_notes_and_lose_none(ready: Place) -> None:
    app = ready.app(ready.address(feature=7))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        site = site_of(main.opened.table.origin)  # type: ignore[union-attr]
        await pilot.press("a")
        await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
        NoteStore().set_note(site, 7, "theirs", "")
        NoteStore().set_marks(site, [9], [])
        await type_text(pilot, "mine")
        await pilot.press("enter")
        await until(pilot, lambda: main.editor is None)
        await settled(pilot)
        assert "both are kept" in screen_text(app)
        assert kept_on_disk(main).notes == {7: "theirs\n\nmine"}
        assert main.view.marks.numbers().tolist() == [9]


async def test_damaged_notes_are_one_line_and_the_app_works(ready: Place) -> None:
    NoteStore().path.parent.mkdir(parents=True)
    NoteStore().path.write_bytes(b"no database" * 400)
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert "damaged" in screen_text(app).splitlines()[-1]
        await pilot.press("slash")
        await type_text(pilot, "tag:todo")
        await until(pilot, lambda: main.arranged is not None and "cannot be read" in main.arranged.error)
        await pilot.press("escape", "j", "m")
        await until(pilot, lambda: "not on disk" in screen_text(app))
        assert main.view.marks.count == 1
    assert NoteStore().path.read_bytes() == b"no database" * 400


async def test_back_and_forward_restore_filter_sort_cursor_panel(ready: Place) -> None:
    app = ready.app(ready.address())
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("s", "slash")
        await type_text(pilot, "n_words>0")
        await pilot.press("enter", "j", "j")
        await settled(pilot)
        await pilot.press("i", "tab")
        here = main.view
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L2" and main.settled)
        await pilot.press("slash", "end", "ctrl+u")
        await type_text(pilot, "z_max>0")
        await pilot.press("enter", "r", "enter")
        await settled(pilot)
        there = main.view
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L1" and main.settled)
        assert main.view == here
        assert (here.focus, here.tokens, here.filter) == ("card", True, "n_words>0")
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L2" and main.settled)
        assert main.view == there
        assert there.page == "card"


async def test_quit_and_resume(ready: Place) -> None:
    app = ready.app(ready.address())
    app.remember = True
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("s", "slash")
        await type_text(pilot, "n_words>0")
        await pilot.press("enter", "j", "j", "enter")
        await settled(pilot)
        left = main.view
        await pilot.press("q")
    again = WbtuiApp(
        None, cache=ready.cache, definition=ready.definition, remember=False, resume=load_session(),
        make_client=app.desk._make,
    )  # fmt: skip
    async with again.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        for name in ("model", "sae", "cursor", "filter", "sort", "columns", "page", "focus"):
            assert getattr(main.view, name) == getattr(left, name), name


async def test_hostile_notes_and_tags_reach_no_screen_raw(ready: Place, capsys: pytest.CaptureFixture[str]) -> None:
    app = ready.app(ready.address(feature=7))
    note = "\n".join([*HOSTILE, "[/foo] [b]x[/b]", "y" * 500])
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        site = site_of(main.opened.table.origin)  # type: ignore[union-attr]
        NoteStore().set_note(site, 7, note, "")
        NoteStore().add_tags(site, [7], ["[red]", "東京", "e\u0301", "=1+1"])  # as an import from elsewhere might bring
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L2" and main.settled)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: main.opened is not None and main.opened.sae.name == "L1" and main.settled)
        for size in ((120, 40), (80, 24), (200, 50)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
            for key in ("enter", "pagedown", "escape", "t", "escape", "a"):
                await pilot.press(key)
                if key == "a":
                    await until(pilot, lambda: main.editor is not None and main.editor.area.has_focus)
                await pilot.pause()
                for line in screen_text(app).splitlines():
                    raw = [c for c in line if unicodedata.category(c) == "Cc" or c in "\u202e\u200b\u2028"]
                    assert not raw or key == "a", (key, line)
                    assert not {c for c in raw if c != "\u200b"}, (key, line)
                    assert cell_len(line) == size[0] or key == "a", (key, line)
            await pilot.press("escape")
            await until(pilot, lambda: main.editor is None)
    assert app._exception is None
    assert main_command(["notes", "ls", str(site.address).partition("@")[0]]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "#東京" in out


def test_the_last_word_on_a_mark_counts(tmp_path: Path) -> None:
    keeper = Keeper(NoteStore(tmp_path / "n.sqlite"))
    site = Site("m", "s", "x@y")
    states = [Marks(), Marks().with_rows(np.arange(5)), Marks().with_rows(np.array([1, 2, 9])), Marks()]
    for old, new in itertools.pairwise(states):
        keeper.owe(site, old, new)
    assert keeper.owed == 6
    asyncio.run(keeper.flush())
    assert keeper.owed == 0
    assert keeper.store.load(site).marks.sum() == 0
    keeper.owe(site, Marks(), states[2])
    asyncio.run(keeper.close())
    assert np.flatnonzero(keeper.store.load(site).marks).tolist() == [1, 2, 9]


async def test_a_table_opens_in_the_users_own_order(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WBTUI_SORT", "-evidence,id")
    monkeypatch.setenv("WBTUI_COLUMNS", "z_max,writes,marked")
    usual = usual_view()
    assert usual == ((("writes.evidence", True), ("id", False)), ("id", "writes.z_max", "writes", "marked"))
    app = ready.app(ready.address(), usual=usual)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.view.sort == usual[0]
        assert [cell.name for cell in main.table_view.cells] == ["id", "writes.z_max", "writes", "marked"]
    monkeypatch.setenv("WBTUI_SORT", "evidenze")
    with pytest.raises(UsageError, match="setting sort"):
        usual_view()
