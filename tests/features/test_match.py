"""Lists, shares and classes of a match, by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.features import make
from wbtui.definitions import MatchDefinition
from wbtui.errors import StoreError, UsageError
from wbtui.features.match import Matching, Split, class_differences, summary
from wbtui.features.match_files import write


def matching() -> Matching:
    """Five features against six: one mutual pair, a split in two, a lost one, one without a direction, two new ones."""
    nan = np.nan
    return Matching(
        {
            "a.id": np.array([2, 0, 3, 1, -1], np.int32),
            "a.cos": np.array([0.95, 0.8, 0.75, 0.3, nan], np.float32),
            "b.id": np.array([1, 3, 0, 1, 1, 3], np.int32),
            "b.cos": np.array([0.8, 0.3, 0.95, 0.7, 0.6, 0.1], np.float32),
            "null.isotropic.a": np.array([0.1, 0.2, 0.3, 0.75], np.float32),
            "null.decoder_cov.a": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        },
        "tiny@L0",
        "tiny@L0-b",
    )


def test_lists() -> None:
    m = matching()
    assert m.mutual.tolist() == [True, True, False, True, False]
    assert m.matched().tolist() == [0, 1]
    assert m.matched(0.9).tolist() == [0]
    assert m.lost().tolist() == [3]
    assert m.new().tolist() == [5, 1, 4]
    assert m.splits() == [Split(1, (0, 3), (pytest.approx(0.8), pytest.approx(0.7)))]
    assert [s.children for s in m.splits(0.5)] == [(0, 3, 4)]
    assert m.merges(0.7) == []
    assert m.splits(0.99) == []
    assert m.rows("splits")[0]["b"] == [0, 3]
    with pytest.raises(UsageError, match="one of matched, lost, new, splits"):
        m.rows("gone")


def test_shares_stand_beside_those_of_random_directions() -> None:
    shares = matching().shares("a")
    assert shares["n"] == 4
    assert shares["above"] == {"0.7": 0.75, "0.9": 0.25}
    assert shares["mutual"] == {"any": 0.75, "0.7": 0.5, "0.9": 0.25}
    assert shares["random"]["isotropic"]["above"] == {"0.7": 0.25, "0.9": 0.0}
    assert shares["random"]["decoder_cov"]["above"] == {"0.7": 0.0, "0.9": 0.0}
    assert matching().shares("b")["mutual"]["any"] == 0.5
    assert matching().tail(0.5) == pytest.approx(2 / 5)


def test_classes_and_files(tmp_path: Path) -> None:
    table = make.table(n=6)
    five = make.table(n=5, seed=3)
    m = matching()
    found = class_differences(m, five, table)
    a, b = five.column("writes.class"), table.column("writes.class")
    assert found["kept"] == pytest.approx(np.mean([a[0] == b[2], a[1] == b[0]]))
    assert sum(found["a"].values()) == pytest.approx(1, abs=1e-5)
    plan = SimpleNamespace(
        definition=MatchDefinition(), product=SimpleNamespace(key="k"), warnings=("two models, x and y",)
    )
    whole = summary(m, plan, (five, table), control=m)
    assert whole["counts"] == {"mutual": 3, "matched": 2, "lost": 1, "new": 3, "splits": 1, "merges": 0}
    assert whole["control"]["from_a"]["above"]["0.7"] == 0.75
    files = write(tmp_path / "out", m, whole, (five, table))
    assert {f.name for f in files} == {"matched.csv", "lost.csv", "new.csv", "splits.csv", "match.json"}
    assert json.loads((tmp_path / "out" / "match.json").read_text())["warnings"] == ["two models, x and y"]
    with (tmp_path / "out" / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["a"], r["b"], r["cos"]) for r in rows] == [("tiny@L0#1", "tiny@L0-b#0", "0.8"),
                                                           ("tiny@L0#1", "tiny@L0-b#3", "0.7")]  # fmt: skip
    assert rows[0]["a_words"]
    with pytest.raises(StoreError):
        write(tmp_path / "out" / "match.json", m, whole)


def test_a_match_of_another_version_is_refused() -> None:
    with pytest.raises(StoreError, match=r"b\.id"):
        Matching({name: np.zeros(1) for name in ("a.cos", "a.id", "b.cos")}, "a", "b")
