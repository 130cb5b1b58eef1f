"""What the explorer's benchmark judges: the last byte, no answer, options of one benchmark."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks import __main__ as suite
from benchmarks.app import invented
from benchmarks.explorer import FILTER, missed, series, table
from wbtui import schema
from wbtui.definitions import TokensDefinition, to_json

WELL = {"first_ms": 1.0, "last_ms": 4.0, "last_ms_p95": 4.0, "last_ms_worst": 6.0, "first_bytes": 100, "bytes": 900}
GOOD = {
    "floor_mb": 50.0,
    "empty_mb": 20.0,
    "fastdatatable": {},
    "DataTable": {},
    "explorer": {
        "131072": {
            "mount_ms": 400,
            "answered_ms": 410,
            "empty_mounts": [290, 300, 380],
            "cursor": WELL,
            "page": WELL,
            "sort": WELL,
            "filter_key": WELL,
            "held": {"cursor_stands_after_ms": 5.0, "card_stands_after_ms": 5.0},
            "anonymous_mb": 60.0,
        }
    },
}


def test_all_aims_met_is_said_and_drawn():
    assert missed(GOOD) == []
    assert "| an empty Textual app, with numpy | 300 | – | – | – | – | 0 |" in table(GOOD)
    assert "| explorer, 131,072 | 400 | 4.0 · 900 | 4.0 · 900 | 4 | 4 (6) | +10 |" in table(GOOD)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("cursor", "last_ms"), 5.1, "cursor_ms 5.1"),
        (("cursor", "bytes"), 1501, "cursor_bytes 1501"),
        (("cursor", "last_ms"), math.nan, "cursor_ms nan"),
        (("page", "last_ms"), 21.0, "page_ms 21"),
        (("filter_key", "last_ms"), 17.0, "filter_ms 17"),
        (("held", "cursor_stands_after_ms"), 17.0, "held_ms 17"),
        (("held", "cursor_stands_after_ms"), None, "held_ms no answer"),
        (("mount_ms",), 501, "mount_ms 501"),
        (("answered_ms",), 501, "answered_ms 501"),
        (("answered_ms",), None, "answered_ms no answer"),
        (("anonymous_mb",), 81.0, "memory_mb 31"),
    ],
)
def test_one_aim_missed_is_named_by_its_last_byte(where, value, said):
    result = json.loads(json.dumps(GOOD))
    place = result["explorer"]["131072"]
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = value
    assert [line.partition(": ")[2].partition(",")[0] for line in missed(result)] == [said]


def test_options_go_to_the_one_benchmark_that_is_named(monkeypatch):
    ran = []

    class Done:
        returncode = 7

    monkeypatch.setattr(suite.subprocess, "run", lambda command, check: ran.append(command[1:]) or Done)
    assert suite.main(["explorer", "--features", "1024", "2048"]) == 7
    assert ran == [["-m", "benchmarks.explorer", "--features", "1024", "2048"]]


def test_shards_of_the_invented_sae_differ():
    columns = {name: schema.tokens_columns()[name] for name in ("writes.top_ids", "writes.word_z", "d_norm")}
    a, b = (invented(8, 100, columns, to_json(TokensDefinition()), seed) for seed in (0, 512))
    assert not any(np.array_equal(a[name], b[name]) for name in columns)


def test_every_key_of_the_filter_counts_and_one_without_an_answer_is_the_worst(monkeypatch):
    answers = {b"w": (1.0, 9.0, 10, 20), b"o": (math.nan, math.nan, 0, 0), b"r": (1.0, 3.0, 10, 20)}
    monkeypatch.setattr("benchmarks.explorer.pressed", lambda terminal, key, quiet: answers[key])
    assert math.isnan(series(None, [b"w", b"o", b"r"])["last_ms_worst"])
    assert series(None, [b"w", b"r", b"r"])["last_ms_worst"] == 9.0
    assert missed(GOOD) == [] and FILTER


async def test_rows_match_at_each_key_of_the_filter_or_it_is_none_yet(ready):
    from wbtui.definitions import TokensDefinition
    from wbtui.errors import WbtuiError
    from wbtui.features.query import parse
    from wbtui.tui.data import open_address

    table_ = open_address(ready.address("L1"), ready.cache, TokensDefinition()).table
    for k in range(1, len(FILTER) + 1):
        typed = FILTER[:k].replace("5000", "50").replace("500", "5")
        try:
            assert parse(typed).mask(table_).any(), typed
        except WbtuiError:
            assert typed[-1] in "#>"
