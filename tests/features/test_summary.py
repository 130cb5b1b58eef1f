"""Summaries: shares, intervals, false-discovery rates, and their plain text."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.features import make
from wbtui.features import classes
from wbtui.features.summary import render, summary, wilson

TABLE = make.table(n=120, bad=(5, 50))
DATA = summary(TABLE)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (5, 10, 0.2366, 0.7634), (1, 100, 0.0018, 0.0545)],
)
def test_wilson_against_published_values(count, n, low, high):
    assert wilson(count, n) == pytest.approx((low, high), abs=1e-4)


def test_shares_count_finite_rows_only():
    own = DATA["sides"]["writes"]["features"]
    assert own["n"] == 118
    codes = TABLE.column("class")
    for code, name in enumerate(classes.CLASS_NAMES):
        assert own["classes"][name]["count"] == int((codes == code).sum())
    assert sum(item["count"] for item in own["classes"].values()) == 118
    assert own["readings"]["promotes"]["share"] == pytest.approx(float((codes > 0).sum() / 118))
    assert DATA["rows"]["nonfinite"] == 2


def test_every_null_is_judged_by_the_same_bars():
    noise = DATA["sides"]["reads"]["noise"]
    assert [(n["kind"], n["role"]) for n in noise] == [
        ("isotropic", "threshold"), ("decoder_cov", "threshold"), ("isotropic", "check"), ("decoder_cov", "check"),
        ("sign_flip", "control"),
    ]  # fmt: skip
    for item in noise:
        assert item["n"] == 300
        assert item["readings"]["promotes"]["share"] <= 0.04
    threshold = [n["readings"]["promotes"]["share"] for n in noise[:2]]
    assert min(threshold) <= 0.011  # the envelope lets 1 % of its own noise through


def test_false_discovery_rate_is_the_worst_fresh_null_over_the_features():
    side = DATA["sides"]["writes"]
    for name in ("semantic", "strict", "promotes"):
        own = side["features"]["readings"][name]
        fresh = max(n["readings"][name]["share"] for n in side["noise"] if n["role"] == "check")
        assert own["null_share"] == fresh
        assert own["fdr"] == pytest.approx(min(1.0, fresh / own["share"]))
        assert "seed 1" in own["fdr_of"]


def test_without_checks_the_threshold_nulls_judge_and_say_so():
    own = summary(make.table(checks=False))["sides"]["writes"]["features"]["readings"]["semantic"]
    assert "seed 0" in own["fdr_of"]


def test_a_summary_is_plain_json():
    assert json.loads(json.dumps(DATA, allow_nan=False)) == DATA


def test_plain_text_is_aligned_and_complete():
    text = render(DATA)
    lines = text.splitlines()
    assert lines[0].startswith("tiny@L0   definition folded · envelope · noise: 300 directions")
    block = lines[lines.index("writes (%)") + 1 : lines.index("writes (%)") + 8]
    assert len({len(line) for line in block[:7] if line}) == 1
    assert block[1].startswith("features")
    assert "reconstruction of arXiv 2601.22447" in text
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    "table",
    [
        make.FeatureTable.from_arrays({}, n=0),
        make.FeatureTable.from_arrays({}, n=4),
        make.FeatureTable.from_arrays(make.columns(4)),
        make.table(n=1),
    ],
)
def test_small_and_empty_tables_have_a_summary(table):
    data = summary(table)
    assert json.dumps(data, allow_nan=False)
    assert render(data)


def test_entropy_rule_has_its_own_shares():
    table = make.table(n=120)
    table.with_thresholds(dataclasses.replace(table.thresholds, rule="entropy"))
    data = summary(table)
    assert data["thresholds"]["rule"] == "entropy"
    assert "delta_h" in render(data)
    counts = data["sides"]["writes"]["features"]["classes"]
    assert counts["coherent"]["count"] == int(np.sum(table.column("class") == classes.COHERENT))
