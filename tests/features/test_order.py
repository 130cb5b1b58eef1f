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
from wbtui.features.order import order, sort_keys

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


few = st.sampled_from([0.0, -0.0, 1.0, 2.5, math.nan, math.inf, -math.inf])
keys_of = st.integers(0, 40).flatmap(
    lambda n: st.lists(
        st.one_of(
            hnp.arrays(np.float32, n, elements=st.one_of(few, st.floats(width=32))),
            hnp.arrays(np.float32, n, elements=few),
            hnp.arrays(np.int16, n, elements=st.integers(-2, 2)),
            hnp.arrays(np.int64, n, elements=st.integers(-2, 2)),
        ),
        min_size=1,
        max_size=3,
    )
)


@given(keys_of)
@settings(max_examples=400, deadline=None)
def test_sort_keys_equals_python_on_any_arrays(keys):
    def one(key, i):
        value = float(key[i])
        return (1, 0.0) if math.isnan(value) else (0, value)

    want = sorted(range(len(keys[0])), key=lambda i: (*[one(key, i) for key in keys], i))
    assert sort_keys(keys, len(keys[0])).tolist() == want
