"""What makes the app quick, by what it does rather than by a clock: frames, cards made ahead, places opened early."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from textual.screen import Screen

from benchmarks.app import FRAME_END, Terminal, build
from tests.tui.place import Place, settled, until
from wbtui.definitions import TokensDefinition
from wbtui.errors import UsageError
from wbtui.tui import run
from wbtui.tui import state as st
from wbtui.tui.app import WbtuiApp
from wbtui.tui.data import Early, arrange, open_address
from wbtui.tui.draw.card import card_lines
from wbtui.tui.draw.line import text_of
from wbtui.tui.screens import main as main_module
from wbtui.tui.screens.main import MainScreen
from wbtui.tui.widgets.card import Card


def card_of(main: Any) -> str:
    return text_of(main.query_one("#card", Card).lines[0])


async def test_the_card_is_in_the_cursors_frame_unless_keys_wait(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        monkeypatch.setattr(main, "_card_drawn", 0.0)
        main.action_down()
        assert f"#{main.view.cursor} " in card_of(main), "in the same step, before anything is painted"
        shown = main.view.cursor
        drawn: list[int] = []
        draw_card = main.draw_card
        monkeypatch.setattr(main, "draw_card", lambda *a: (drawn.append(main.view.cursor), draw_card(*a))[1])
        for _ in range(40):  # keys come faster than cards
            main.action_down()
        assert len(drawn) <= 2 and main.view.cursor != shown
        last = main.view.cursor
        await until(pilot, lambda: f"#{last} " in card_of(main), "the card of the last row")
        assert len(drawn) <= 3 and drawn[-1] == last
        with monkeypatch.context() as busy:
            busy.setattr(WbtuiApp, "message_queue_size", property(lambda self: 5))
            main._card_drawn = 0.0
            main.action_up()
            assert f"#{last} " in card_of(main), "more keys wait: they go first"
            up = main.view.cursor
        await until(pilot, lambda: f"#{up} " in card_of(main), "and the card follows")


async def test_a_filter_draws_the_card_again_only_where_the_cursor_had_to_move(
    ready: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        drawn: list[int] = []
        draw_card = main.draw_card

        def seen(*a: Any) -> None:
            drawn.append(main.view.cursor)
            draw_card(*a)

        monkeypatch.setattr(main, "draw_card", seen)
        here = main.view.cursor
        main.set_view(st.set_filter(main.view, f"#>={here}"))
        await until(pilot, lambda: main.arranged.filter == f"#>={here}", "the filter")
        assert main.view.cursor == here and not drawn, "the same feature of the same numbers"
        main._card_drawn = 0.0
        main.set_view(st.set_filter(main.view, f"#>{here}"))
        await until(pilot, lambda: drawn, "another feature under the cursor")
        assert main.view.cursor != here and drawn[-1] == main.view.cursor
        assert f"#{main.view.cursor} " in card_of(main)


async def test_cards_made_ahead_are_those_that_would_be_drawn(ready: Place) -> None:
    app = ready.app(ready.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("j", "j")
        await until(pilot, lambda: len(main._ahead) >= 3 and main._ahead_timer is None, "cards made ahead")
        here = main.rows.position(main.view.cursor)
        rows = {key[2]: lines for key, lines in main._ahead.items()}
        assert {int(main.rows.order[at]) for at in (here - 1, here + 1)} <= set(rows)
        card = main.query_one("#card", Card)
        assert main.opened is not None
        for row, lines in rows.items():
            assert lines == card_lines(
                main.opened.table, row, card.inner_width, card.outer_size.height, main._look(row)
            )
        made = rows[int(main.rows.order[here + 1])]
        await pilot.press("j")
        assert card.lines[: len(made)] == made
        main.draw()
        assert not main._ahead, "whatever may change a card makes all anew"


async def test_a_tag_is_on_a_card_that_was_made_ahead(place: Place) -> None:
    place.fill("L1")
    app = place.app(place.address("L1"))
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("j", "k")
        await until(pilot, lambda: main._ahead_timer is None and bool(main._ahead), "cards made ahead")
        await pilot.press("j", "t", *"todo", "enter")
        await until(pilot, lambda: bool(main.opened and main.opened.table.kept.tags), "the tag")
        tagged = main.view.cursor
        await pilot.press("k", "j")
        await until(pilot, lambda: main.view.cursor == tagged and "todo" in str(main.query_one("#card", Card).lines))


def test_a_place_is_opened_early_with_its_order(ready: Place) -> None:
    address = ready.address("L1")
    early = Early(address, ready.cache, TokensDefinition(), "", st.FIRST_SORT)
    opened = early.result()
    assert list(opened.table.orders) == [st.FIRST_SORT], "the first rows need no sort any more"
    anew = open_address(address, ready.cache, TokensDefinition())
    rows = arrange(anew.table, "", st.FIRST_SORT).rows
    assert rows is not None
    assert opened.table.orders[st.FIRST_SORT][1].tolist() == rows.order.tolist()
    wrong = Early(ready.address("L1", ready.n), ready.cache, TokensDefinition(), "", st.FIRST_SORT)
    with pytest.raises(UsageError, match="feature"):
        wrong.result()


async def test_the_app_takes_what_was_opened_early(ready: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    app = ready.app(ready.address("L1"))
    assert app.address is not None
    app.early = Early(app.address, ready.cache, TokensDefinition(), "", st.FIRST_SORT)
    opened = app.early.result()
    monkeypatch.setattr(main_module, "open_address", None)
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        assert main.opened is opened and app.early is None
        await pilot.press("j")


@pytest.mark.parametrize("size", [(120, 40), (30, 8)])
async def test_nothing_is_drawn_before_the_first_rows_and_everything_with_them(
    ready: Place, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bool] = []
    refresh = Screen._compositor_refresh
    monkeypatch.setattr(
        Screen, "_compositor_refresh", lambda self: (drawn.append(self._repaint_required), refresh(self))[1]
    )
    app = ready.app(ready.address("L1"))
    assert app.address is not None
    app.early = Early(app.address, ready.cache, TokensDefinition(), "", st.FIRST_SORT)
    held: list[object] = []
    arranged = MainScreen.on_rows_arranged

    def seen(self: MainScreen, message: Any) -> None:
        held.append((self._held, len([1 for screen in app.screen_stack if screen is self])))
        drawn.clear()
        arranged(self, message)

    monkeypatch.setattr(MainScreen, "on_rows_arranged", seen)
    monkeypatch.setattr(main_module, "HELD", 60.0)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: held and drawn, "the first picture")
        assert held[0] == (True, 1) and len(app.screen_stack) == 1, "no blank screen was laid out under it"
        assert app.main is not None and not app.main._held
        until_drawn = app.main._compositor._dirty_regions
        await until(pilot, lambda: not until_drawn, "all of it")


async def test_a_place_that_does_not_open_is_not_waited_for_in_the_dark(
    ready: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "HELD", 60.0)
    app = ready.app(ready.address("L1"))
    wrong = ready.address("L1", ready.n)
    app.address = wrong
    app.early = Early(wrong, ready.cache, TokensDefinition(), "", st.FIRST_SORT)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.main is not None and app.main.failure, "why it does not open")
        assert app.main is not None and not app.main._held


def test_memory_is_given_back_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    told: list[tuple[int, int]] = []

    class Library:
        def __init__(self, name: object) -> None: ...

        def mallopt(self, option: int, value: int) -> int:
            told.append((option, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    run.return_memory()
    assert {option for option, _ in told} == {run.M_MMAP_THRESHOLD, run.M_TRIM_THRESHOLD, run.M_ARENA_MAX}
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    run.return_memory()


def test_in_a_terminal_a_move_is_short_and_the_cursor_stops_with_the_keys(tmp_path: Path) -> None:
    address, cache = build(tmp_path, 512)
    terminal = Terminal(address, cache, (120, 40))
    try:
        terminal.until(b"512 features")
        terminal.quiet()
        terminal.key(b"j")
        terminal.key(b"j")
        sizes = [sum(size for _, size in terminal.key(b"j")) for _ in range(3)]
        assert sorted(sizes)[1] <= 1500, "two lines of the table and another feature's card"
        os.write(terminal.fd, b"j" * 25)
        terminal.quiet()
        last = terminal.output.rsplit("▸".encode(), 1)[1]
        assert last.count(FRAME_END) <= 2, "after the last move at most the card follows"
        before = terminal.shown().splitlines()
        row = next(line for line in before if line.startswith("▸"))
        assert f"#{row.split()[1]} " in terminal.shown().splitlines()[3], "the card is the last row's"
        os.write(terminal.fd, b"\x0c")
        terminal.quiet()
        assert terminal.shown().splitlines() == before, "drawn again, all of it the same"
    finally:
        terminal.close()
