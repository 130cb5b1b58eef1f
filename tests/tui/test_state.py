"""GIVEN a view and rows WHEN a key's function is applied THEN the next view: no terminal anywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from wbtui.tui import state as st

ROWS = st.Rows(np.array([30, 10, 50, 20, 40, 0, 60, 70, 80, 90]), 100)
VIEW = st.View("demo", "L3", cursor=30)


def test_move_stays_in_the_list_and_scrolls_as_little_as_it_must() -> None:
    view = st.move(VIEW, ROWS, 4, 3)
    assert (view.cursor, view.top) == (20, 0)
    view = st.move(view, ROWS, 4, 1)
    assert (view.cursor, view.top) == (40, 1)
    view = st.move(view, ROWS, 4, -3)
    assert (view.cursor, view.top) == (10, 1)
    assert st.move(view, ROWS, 4, -99).cursor == 30
    assert st.move(view, ROWS, 4, 99).cursor == 90


def test_page_moves_cursor_and_top_together() -> None:
    view = st.page(VIEW, ROWS, 4, 1)
    assert (view.cursor, view.top) == (20, 3)
    assert st.page(view, ROWS, 4, -1) == replace(VIEW, cursor=30, top=0)


def test_an_empty_list_moves_nowhere() -> None:
    none = st.Rows(np.zeros(0, dtype=np.int64), 100)
    for moved in (st.move(VIEW, none, 4, 1), st.page(VIEW, none, 4, 1), st.to_position(VIEW, none, 4, 3)):
        assert (moved.cursor, moved.top) == (30, 0)


def test_settle_keeps_feature_and_line_when_rows_arrive() -> None:
    view = st.move(VIEW, ROWS, 4, 4)  # feature 40, position 4, last line
    line = ROWS.position(view.cursor) - view.top
    more = st.Rows(np.array([1, 2, 3, 4, 5, 30, 10, 50, 20, 40, 0, 60, 70, 80, 90]), 100)
    after = st.settle(view, ROWS, more, 4)
    assert after.cursor == 40
    assert more.position(40) - after.top == line


def test_settle_takes_the_line_when_the_feature_has_gone() -> None:
    view = st.move(VIEW, ROWS, 4, 2)
    fewer = st.Rows(np.array([30, 10, 20, 40]), 100)
    assert st.settle(view, ROWS, fewer, 4).cursor == 20
    assert st.settle(view, ROWS, st.Rows(np.array([7]), 100), 4).cursor == 7


@given(
    some.permutations(list(range(20))),
    some.permutations(list(range(20))),
    some.integers(1, 12),
    some.integers(0, 19),
)
def test_the_cursor_is_always_in_sight_after_a_reorder(a: list[int], b: list[int], height: int, start: int) -> None:
    old, new = st.Rows(np.array(a), 20), st.Rows(np.array(b), 20)
    view = st.to_position(st.View("m", "s"), old, height, start)
    after = st.settle(view, old, new, height)
    assert after.cursor == view.cursor
    assert after.top <= new.position(after.cursor) < after.top + height
    assert 0 <= after.top <= max(0, 20 - height)


@given(some.integers(1, 30), some.integers(0, 9), some.integers(1, 30))
def test_a_resize_keeps_the_cursor_in_sight(height: int, position: int, new_height: int) -> None:
    view = st.to_position(VIEW, ROWS, height, position)
    after = st.resize(view, ROWS, new_height)
    assert after.cursor == view.cursor
    assert after.top <= ROWS.position(after.cursor) < after.top + new_height


def test_to_feature_hidden_by_the_filter_shows_its_card_only() -> None:
    assert st.to_feature(VIEW, ROWS, 4, 99).cursor == 99
    assert ROWS.position(99) == -1


def test_mark_toggles_and_steps_down() -> None:
    view = st.mark(VIEW, ROWS, 4)
    assert 30 in view.marks
    assert view.cursor == 10
    again = st.mark(replace(view, cursor=30), ROWS, 4)
    assert 30 not in again.marks
    assert again.marks.count == 0


def test_a_range_is_marked_in_shown_order_either_way() -> None:
    view = st.toggle_range(st.move(VIEW, ROWS, 4, 3), ROWS)
    view = st.move(view, ROWS, 4, -2)
    assert st.ranged(view, ROWS).tolist() == [10, 50, 20]
    done = st.toggle_range(view, ROWS)
    assert done.marks.numbers().tolist() == [10, 20, 50]
    assert done.anchor is None
    assert st.mark(view, ROWS, 4).marks == done.marks


def test_mark_all_marks_what_is_shown_and_unmark_clears() -> None:
    view = st.mark_all(VIEW, ROWS)
    assert view.marks.count == len(ROWS)
    assert st.unmark_all(view).marks.count == 0


def test_marks_are_values() -> None:
    a = st.Marks().toggled(5).toggled(70)
    b = st.Marks().toggled(70).toggled(5)
    assert a == b
    assert hash(a) == hash(b)
    assert a != a.toggled(5)
    with pytest.raises(ValueError):
        a.bits[0] = True


def test_sort_cycle_comes_round_and_leaves_own_orders() -> None:
    view = VIEW
    seen = []
    for _ in st.SORT_CYCLE:
        seen.append(view.sort)
        view = st.cycle_sort(view)
    assert view.sort == st.FIRST_SORT
    assert len(set(seen)) == len(st.SORT_CYCLE)
    assert st.cycle_sort(replace(VIEW, sort=(("lev", True),))).sort == st.FIRST_SORT


def test_sort_by_turns_round_and_adds() -> None:
    view = st.sort_by(VIEW, "lev")
    assert view.sort == (("lev", True),)
    assert st.sort_by(view, "lev").sort == (("lev", False),)
    both = st.sort_by(view, "writes.z_max", add=True)
    assert both.sort == (("lev", True), ("writes.z_max", True))
    assert st.sort_by(both, "writes.z_max", add=True).sort == (("lev", True), ("writes.z_max", False))
    assert st.reverse_sort(both).sort == (("lev", False), ("writes.z_max", False))


def test_columns_toggle_and_move_but_the_number_stays_first() -> None:
    shown = st.shown_columns(VIEW, 57)
    assert shown[0] == "id"
    view = st.toggle_column(VIEW, shown, "writes.lev")
    assert view.columns == (*shown, "writes.lev")
    assert st.toggle_column(view, view.columns, "writes.lev").columns == shown
    assert st.toggle_column(view, view.columns, "id").columns == view.columns
    assert st.move_column(view, view.columns, "writes.lev", -99).columns[1] == "writes.lev"
    assert st.move_column(view, view.columns, "id", 1).columns == view.columns


def test_escape_leaves_the_innermost_thing() -> None:
    view = replace(VIEW, picker=1, anchor=30, page="card", focus="card", filter="x")
    order = []
    for _ in range(4):
        view = st.escape(view)
        order.append((view.picker, view.anchor, view.page, view.filter))
    assert order == [
        (None, 30, "card", "x"),
        (None, None, "card", "x"),
        (None, None, "main", "x"),
        (None, None, "main", ""),
    ]


def test_history_walks_back_and_forward_with_filter_and_order() -> None:
    here = replace(VIEW, filter="semantic", cursor=50)
    there = replace(VIEW, sae="L4", cursor=7)
    history = st.History().visit(here)
    history, back = history.back(there)
    assert back == here
    history, forward = history.forward(here)
    assert forward == there
    assert history.forward(there)[1] is None
    assert st.History().back(here)[1] is None


def test_a_session_survives_and_nonsense_does_not_hurt() -> None:
    view = replace(VIEW, filter="z_max>6", sort=(("lev", False),), columns=("id", "writes"))
    assert st.from_session(st.to_session(view)) == replace(view, top=0)
    for junk in ({}, {"model": 1}, {"model": "m", "sae": "s", "feature": "x"}, {**st.to_session(view), "sort": [1]}):
        assert st.from_session(junk) is None


def test_null_comes_back_as_nan() -> None:
    back = st.with_nan({"a": None, "b": [1.0, None], "c": [[None]], "d": 3})
    assert np.isnan(back["a"])
    assert np.isnan(back["b"][1])
    assert np.isnan(back["c"][0][0])
    assert back["d"] == 3


@given(some.lists(some.integers(0, 199), unique=True), some.lists(some.integers(-3, 220), max_size=30))
def test_positions_are_found_wherever_one_looks(order: list[int], asked: list[int]) -> None:
    rows = st.Rows(np.array(order, dtype=np.int32), 200)
    want = [order.index(row) if row in order else -1 for row in asked]
    assert [rows.position(row) for row in asked] == want
    assert rows.positions(np.array(asked, dtype=np.int64)).tolist() == want
