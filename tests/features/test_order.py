"""Sorting: against Python's own sort, NaN last, ties by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.features import make
from wbtui.errors import UsageError
from wbtui.features import classes, derived
from wbtui.features import order as orders
from wbtui.features.order import order, sort_keys
from wbtui.features.query import parse
from wbtui.notes.kept import Kept

TABLE = make.table(n=90, bad=(5, 50))


def python_order(table, keys, rows):
    """Rows by Python's sort of tuples (absent?, value)."""

    def one(name, descending, row):
        if not table.known(name)[row]:
            return (1, 0.0)
        value = float(table.column(name)[row])
        return (0, -value if descending else value)

    return sorted(rows, key=lambda row: (*[one(name, down, row) for name, down in keys], row))


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [("z_max", True)],
        [("z_max", False)],
        [("class", True), ("evidence", False)],
        [("word_share", True), ("z_10", True)],
        [("word_share", False), ("overlap", True), ("lev", True)],
        [("semantic", True), ("semantic.reads", False)],
        [("masked_best_id", True), ("n_words", False)],
        [("id", True)],
        [("flags", True)],
        [("percentile:z_max", True)],
    ],
)
@pytest.mark.parametrize("subset", [None, list(range(1, 90, 2)), [], [5, 50], [7]])
def test_orders_as_python_does(keys, subset):
    rows = range(90) if subset is None else subset
    got = order(TABLE, keys, None if subset is None else np.array(subset, dtype=np.int64))
    assert got.tolist() == python_order(TABLE, keys, rows)


def test_by_word_is_alphabetical_with_absent_rows_last():
    got = order(TABLE, [("writes", False)]).tolist()
    first = [TABLE.column("writes.top_ids")[r, 0] for r in got]
    assert got[-2:] == [5, 50]
    words = [TABLE.vocab.text(int(t)).lstrip(" ").casefold() for t in first[:-2]]
    assert words == sorted(words)
    down = order(TABLE, [("writes", True)]).tolist()
    assert down[-2:] == [5, 50]
    assert TABLE.column("writes.top_ids")[down[0], 0] == first[-3]


@pytest.mark.parametrize("name", ["zzz", "writes.top_ids"])
def test_what_cannot_sort_is_refused(name):
    with pytest.raises(UsageError):
        order(TABLE, [(name, False)])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_a_filter_takes_its_rows_out_of_the_kept_order(share):
    mask = np.random.default_rng(3).random(90) < share
    for keys in ([("z_max", True)], [("class", True), ("evidence", False)], [("writes", False)], []):
        rows = np.flatnonzero(mask)
        want = [row for row in order(TABLE, keys) if mask[row]]
        assert order(TABLE, keys, mask).tolist() == order(TABLE, keys, rows).tolist() == want


@pytest.fixture
def sorts(monkeypatch):
    """How many times everything was sorted."""
    found = []

    def counted(keys, n):
        found.append(n)
        return sort_keys(keys, n)

    monkeypatch.setattr(orders, "sort_keys", counted)
    return found


def test_everything_is_sorted_once_until_something_changes(sorts):
    table = make.table(n=90)
    keys = [("z_max", True)]
    half = table.column("z_max") > 3
    assert half.sum() > 90 / orders.FEW
    whole = order(table, keys)
    assert not whole.flags.writeable and whole.dtype == np.int32
    assert order(table, keys) is whole
    order(table, keys, half)
    order(table, [("z_max", False)])
    order(table, keys)
    assert sorts == [90, 90], "one sort for each order, none for a filter"
    table.with_thresholds(table.thresholds.fix("writes.cos_tok", 0.5))
    order(table, keys)
    assert len(sorts) == 3, "another state of the table is sorted anew"
    for name in ("z_10", "lev", "kurt", "skew"):
        order(table, [(name, True)])
    assert len(table.orders) == orders.ORDERS_KEPT


@pytest.mark.parametrize("name", ["marked", "tags", "note", "tagged", "noted"])
def test_what_the_user_keeps_makes_only_its_own_order_anew(sorts, name):
    table = make.table(n=90)
    order(table, [(name, True)])
    order(table, [("z_max", True)])
    order(table, [(name, True)])
    assert len(sorts) == 2
    bits = np.zeros(90, dtype=bool)
    bits[41] = True
    table.keep(Kept(bits, {41: ("todo",)}, {41: "why"}))
    assert order(table, [(name, True)])[0] == 41
    order(table, [("z_max", True)])
    assert len(sorts) == 3


def test_a_column_that_lands_apart_from_rows_makes_its_order_anew(sorts, monkeypatch):
    table = make.table(n=90)
    cosines = np.full(90, np.nan, np.float32)
    monkeypatch.setattr(derived, "near_column", lambda *_: cosines.copy())
    assert order(table, [("nn", True)]).tolist() == list(range(90))
    order(table, [("nn", True)])
    assert len(sorts) == 1, "the same numbers in another array are the same order"
    cosines[70] = 0.5
    assert order(table, [("nn", True)])[0] == 70
    assert len(sorts) == 2


few = st.sampled_from([0.0, -0.0, 1.0, 2.5, math.nan, math.inf, -math.inf])
keys_of = st.integers(0, 40).flatmap(
    lambda n: st.lists(
        st.one_of(
            hnp.arrays(np.float32, n, elements=st.one_of(few, st.floats(width=32))),
            hnp.arrays(np.float32, n, elements=few),
            hnp.arrays(np.int16, n, elements=st.integers(-2, 2)),
            hnp.arrays(np.int64, n, elements=st.integers(-2, 2)),
            hnp.arrays(np.int64, n, elements=st.sampled_from([-(2**62), -1, 0, 2**40, 2**62])),
            hnp.arrays(np.float64, n, elements=st.one_of(few, st.floats())),
            hnp.arrays(np.float16, n, elements=few),
            hnp.arrays(np.bool_, n),
        ),
        min_size=1,
        max_size=3,
    )
)


@given(keys_of)
@settings(max_examples=400, deadline=None)
def test_sort_keys_equals_python_on_any_arrays(keys):
    def one(key, i):
        value = key[i].item()
        return (1, 0.0) if math.isnan(value) else (0, value)

    want = sorted(range(len(keys[0])), key=lambda i: (*[one(key, i) for key in keys], i))
    assert sort_keys(keys, len(keys[0])).tolist() == want


def test_feature_numbers_take_no_memory_once_they_were_filtered_and_sorted_by():
    table = make.table(n=90)
    assert np.flatnonzero(parse("#>5 #<8").mask(table)).tolist() == [6, 7]
    assert order(table, [("id", True)])[:2].tolist() == [89, 88]
    assert (table.at("id", 3), table.value("id", 4), table.known_at("id", 5)) == (3, 4.0, True)
    assert "id" not in table._cache and table.column("id").dtype == np.int64
    assert table.known("id").all() and table.known("id").strides == (0,)
    with pytest.raises(UsageError):
        table.at("id", 90)


def test_the_first_order_is_the_same_whatever_the_block(monkeypatch):
    table = make.table(n=90, bad=(5, 50))
    whole, first = order(table, [("first_view", True)]), table.column("first_view")
    assert np.isnan(first).any() and len(set(first[~np.isnan(first)].tolist())) > 50
    monkeypatch.setattr(classes, "_BLOCK", 7)
    monkeypatch.setattr(orders, "BLOCK", 8)
    again = make.table(n=90, bad=(5, 50))
    assert np.array_equal(again.column("first_view"), first, equal_nan=True)
    assert order(again, [("first_view", True)]).tolist() == whole.tolist()
    keys = [first, np.arange(90, dtype=np.uint32) % 3, table.column("writes.z_max")]
    monkeypatch.undo()
    want = sort_keys(keys, 90).tolist()
    monkeypatch.setattr(orders, "BLOCK", 8)
    assert sort_keys(keys, 90).tolist() == want
