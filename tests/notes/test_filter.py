"""Marks, tags and notes in filters, columns, orders and files, against plain Python."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from tests.features import make
from wbtui.errors import UsageError
from wbtui.features.export import write
from wbtui.features.order import order
from wbtui.features.query import QueryError, parse
from wbtui.features.table import FeatureTable
from wbtui.notes.kept import Kept

N = 30


@pytest.fixture
def table() -> FeatureTable:
    table = FeatureTable.from_arrays(make.columns(N, 200, seed=3))
    bits = np.zeros(8, dtype=bool)
    bits[[2, 7]] = True
    notes = {2: "Who does it look for?", 29: 'say "when"\nand why'}
    table.keep(Kept(bits, {2: ("people", "todo"), 5: ("Todo",), 40: ("todo",)}, notes))
    return table


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("marked", [2, 7]), ("marked=no id:0..8", [0, 1, 3, 4, 5, 6, 8]), ("tag:todo", [2, 5]), ("tag:#PEOPLE", [2]),
        ("tag:tod", []), ("tag:*", [2, 5]), ("tagged !marked", [5]), ("note:who", [2]), ('note:"LOOK for"', [2]),
        ("note:*", [2, 29]), ("noted marked", [2]), ("!tag:todo marked", [7]), ("tag:people | note:when", [2, 29]),
    ],
)  # fmt: skip
def test_filters(table: FeatureTable, text: str, rows: list[int]) -> None:
    query = parse(text)
    assert np.flatnonzero(query.mask(table)).tolist() == rows
    assert np.flatnonzero(parse(str(query)).mask(table)).tolist() == rows, "what it says of itself parses back"


@pytest.mark.parametrize(("text", "words"), [("tag:", "tag:todo"), ("note: x", "note:word"), ("tags=todo", "tag:todo")])
def test_errors_say_how(table: FeatureTable, text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        parse(text)


def test_the_words_note_and_tags_alone_are_text() -> None:
    assert str(parse("note")) == '"note"'
    assert str(parse("tags")) == '"tags"'


def test_a_filter_that_finds_no_tag_names_those_there(table: FeatureTable) -> None:
    assert "people" in parse("tag:peopel").why_empty(table)


def test_notes_that_cannot_be_read_are_an_error_and_not_an_empty_list(table: FeatureTable) -> None:
    table.keep(Kept(error="locked"))
    for text in ("marked", "tag:todo", "!note:x"):
        with pytest.raises(UsageError, match="locked"):
            parse(text).mask(table)


def test_sorting_by_tags_puts_those_without_last(table: FeatureTable) -> None:
    assert order(table, [("tags", False)])[:3].tolist() == [2, 5, 0]
    assert order(table, [("tags", True)])[:3].tolist() == [5, 2, 0]
    assert order(table, [("marked", True), ("id", True)])[:3].tolist() == [7, 2, 29]


def test_they_are_columns_of_a_file(table: FeatureTable) -> None:
    out = io.StringIO()
    write(table, [2, 3, 29], ["id", "marked", "tags", "note"], "csv", out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [(r["marked"], r["tags"]) for r in rows] == [("true", "people todo"), ("false", ""), ("false", "")]
    assert rows[2]["note"] == 'say "when"\nand why'
