"""A row by itself says what the whole column says of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.features import make
from wbtui.features import lone
from wbtui.features.names import scalar_names
from wbtui.features.table import FeatureTable
from wbtui.features.thresholds import Thresholds
from wbtui.tui import state as st
from wbtui.tui.data import arrange

N = 90
BAD = (3, 17, 40)


def same(a: object, b: object) -> bool:
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and (np.array_equal(x, y) or (x.dtype.kind == "f" and bool(np.isnan(x) & np.isnan(y))))


@pytest.mark.parametrize("rule", ["envelope", "entropy"])
@pytest.mark.parametrize("nulls", [True, False])
def test_every_column_by_the_row_is_the_whole_column(monkeypatch: pytest.MonkeyPatch, rule: str, nulls: bool) -> None:
    def fresh() -> FeatureTable:
        table = make.table(N, bad=BAD)
        table.with_thresholds(Thresholds(rule=rule, nulls=table.thresholds.nulls if nulls else ()))
        if not nulls:
            table.thresholds = Thresholds(rule=rule)
        return table

    whole = fresh()
    monkeypatch.setattr(lone, "WHOLE", 0)
    by_row = fresh()
    alone = 0
    for name in scalar_names():
        if lone.stands_alone(by_row, lone_name(name)):
            alone += 1
        monkeypatch.setattr(lone, "WHOLE", 10**9)
        column, known = whole.column(name), whole.known(name)
        values = [whole.value(name, row) for row in range(N)] if column.dtype.kind in "fiub" else []
        monkeypatch.setattr(lone, "WHOLE", 0)
        for row in range(N):
            assert same(by_row.at(name, row), column[row]), (name, row)
            assert by_row.known_at(name, row) == bool(known[row]), (name, row)
            if values:
                got = by_row.value(name, row)
                assert got == values[row] or (math.isnan(got) and math.isnan(values[row])), (name, row)
    assert alone > 30, "most derived columns have a row of their own"


def lone_name(name: str) -> object:
    from wbtui.features.names import resolve

    return resolve(name)


def test_a_large_table_opens_without_judging_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone, "WHOLE", 10)
    table = make.table(N)
    arrange(table, "", st.FIRST_SORT, st.DEFAULT_COLUMNS)
    for row in range(5):
        table.kind(row), table.sentence(row), table.value("writes.evidence", row)
    assert not any(len(v) == N for v in table._cache.values() if isinstance(v, np.ndarray))
    assert "classes:writes" not in table._cache


def test_other_bars_judge_the_lone_row_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lone, "WHOLE", 0)
    table = make.table(N)
    before = [table.at("writes.class", row) for row in range(N)]
    table.with_thresholds(table.thresholds.fix("writes.word_z", -100.0))
    after = [int(table.at("writes.class", row)) for row in range(N)]
    assert before != after
    assert after == table.column("writes.class").tolist()
