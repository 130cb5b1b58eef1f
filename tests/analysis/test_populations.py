"""E3's tests: against scipy, under shuffled labels, and the families of near-duplicates that permute whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wbtui.analysis.populations import (
    Permuted,
    Ranked,
    adjust,
    families,
    gain_split,
    matched_delta,
    permutations,
    permuted_labels,
)
from wbtui.analysis.populations import test as p_values
from wbtui.errors import WorkError


@given(st.data())
def test_ranked_statistics_equal_scipy(data):
    n = data.draw(st.integers(4, 40))
    cell = st.one_of(st.integers(0, 3).map(float), st.floats(-9, 9), st.just(float("nan")))
    values = np.array(data.draw(st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=3)))
    labels = np.array(data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=3)))
    ranked = Ranked(values)
    delta, ks = ranked.delta(labels), ranked.ks(labels)
    for i, row in enumerate(values):
        for j, label in enumerate(labels):
            a, b = (row[mask & np.isfinite(row)] for mask in (label, ~label))
            if not len(a) or not len(b):
                assert np.isnan(delta[i, j]) and np.isnan(ks[i, j])
                continue
            u = stats.mannwhitneyu(a, b, method="asymptotic").statistic
            assert delta[i, j] == pytest.approx(2 * u / (len(a) * len(b)) - 1, abs=1e-12)
            assert ks[i, j] == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)


def test_p_values_are_scipys_and_constant_data_says_nothing():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(50) + 0.5, np.append(rng.standard_normal(70), np.nan)
    found = p_values("h", a, b)
    assert found.p_mann_whitney == stats.mannwhitneyu(a, b[:-1], method="asymptotic").pvalue
    assert found.p_ks == stats.ks_2samp(a, b[:-1], method="asymp").pvalue
    flat = p_values("h", np.ones(5), np.ones(7))
    assert (flat.delta, flat.p_mann_whitney, flat.p_ks) == (0, 1, 1)
    assert np.isnan(p_values("h", np.ones(5), np.array([])).p_ks)


def test_benjamini_hochberg_by_hand():
    rng = np.random.default_rng(0)
    tests = [p_values(str(k), rng.standard_normal(40) + k / 4, rng.standard_normal(40)) for k in range(4)]
    p = np.array([t.p_mann_whitney for t in tests])
    order = np.argsort(p)
    q = np.minimum.accumulate((p[order] * 4 / np.arange(1, 5))[::-1])[::-1]
    want = np.empty(4)
    want[order] = np.minimum(q, 1)
    assert [t.q_mann_whitney for t in adjust(tests)] == pytest.approx(want.tolist())


def test_absent_comparisons_do_not_count_in_benjamini_hochberg():
    rng = np.random.default_rng(0)
    one = p_values("x", rng.standard_normal(9), rng.standard_normal(9))
    none = p_values("y", np.array([]), np.ones(3))
    adjusted = adjust([none, one])
    assert adjusted[1].q_mann_whitney == one.p_mann_whitney and np.isnan(adjusted[0].q_ks)


def test_a_permutation_tail_never_enters_benjamini_hochberg():
    with pytest.raises(WorkError, match="Permuted"):
        adjust([Permuted(0.1, np.zeros(200))])  # type: ignore[list-item]


def test_shuffled_labels_are_rejected_as_often_as_promised():
    # 6 correlated heads × 2 sides of 200 features; the share of 120 shuffles with ANY rejection (methods 1.4)
    rng = np.random.default_rng(7)
    common = rng.standard_normal(200)
    heads = np.exp(0.7 * common + 0.7 * rng.standard_normal((12, 200)))
    labels = np.arange(200) < 60
    rejected = {"mann_whitney": 0, "ks": 0}
    shuffles = 120
    for _ in range(shuffles):
        shuffled = rng.permutation(labels)
        found = adjust([p_values(str(h), row[shuffled], row[~shuffled]) for h, row in enumerate(heads)])
        for kind in rejected:
            rejected[kind] += any(getattr(t, f"q_{kind}") <= 0.05 for t in found)
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / shuffles)
    assert max(rejected.values()) / shuffles <= limit
    true = adjust([p_values(str(h), row[common > 0.5], row[common <= 0.5]) for h, row in enumerate(heads)])
    assert all(t.q_mann_whitney <= 0.05 for t in true)  # and it does find what is there


def test_families_are_chains_of_near_duplicates():
    base = torch.eye(4)
    near = base[0] + 0.5 * base[1]  # cosine 0.894 with the first
    rows = torch.stack([base[0], base[2], near, 3 * base[2], torch.zeros(4), base[3], torch.full((4,), torch.nan)])
    assert families(rows).tolist() == [0, 1, 0, 1, 2, 3, 4]
    assert families(rows, cut=0.95).tolist() == [0, 1, 2, 1, 3, 4, 5]


def test_families_do_not_depend_on_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.standard_normal((60, 3))).float()
    whole = families(rows, 0.95)
    monkeypatch.setattr("wbtui.analysis.populations._BLOCK", 7)
    assert np.array_equal(families(rows, 0.95), whole)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 3))
def test_permutations_use_every_label_once_and_keep_families_together(sizes, seed):
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = list(permutations(clusters, 5, seed))
    for p in found:
        assert sorted(p.tolist()) == list(range(len(clusters)))
    if len(set(sizes)) == 1:  # equal sizes: a family's labels land on one family
        for p in found:
            for k in range(len(sizes)):
                assert len(set(clusters[p[clusters == k]].tolist())) == 1
    assert np.array_equal(found, list(permutations(clusters, 5, seed)))


def test_whole_families_keep_the_promise_where_single_rows_break_it():
    # families share value and label: 95 % of permuted δ must cover what independent families give
    rng = np.random.default_rng(5)
    runs, outside = 200, {"whole": 0, "single": 0}
    for run in range(runs):
        sizes = rng.integers(1, 7, 60)
        clusters = np.repeat(np.arange(60), sizes)
        values = np.repeat(rng.standard_normal(60), sizes) + 0.05 * rng.standard_normal(len(clusters))
        labels = np.repeat(rng.random(60) < 0.4, sizes)
        ranked = Ranked(values)
        observed = ranked.delta(labels)[0, 0]
        for name, groups in (("whole", clusters), ("single", np.arange(len(clusters)))):
            null = ranked.delta(permuted_labels(labels, groups, 100, run))[0]
            low, high = Permuted(observed, null).interval()
            outside[name] += not low <= observed <= high
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert outside["single"] / runs > 0.15
    assert outside["whole"] / runs <= limit + 0.02  # 100 permutations place the 2.5 % bounds a little inside


def test_tails_count_the_observed():
    found = Permuted(2.0, np.array([0.0, 1.0, 2.0]))
    assert found.tail == 0.5 and found.lower_tail == 1.0 and found.centre == 1.0
    assert Permuted(9.0, np.zeros(199)).tail == 1 / 200


def test_matching_removes_what_the_norm_explains():
    rng = np.random.default_rng(0)
    norm = rng.random(4000) + 0.5
    labels = rng.random(4000) < norm - 0.5
    values = norm + 0.02 * rng.standard_normal(4000)
    plain = Ranked(values).delta(labels)[0, 0]
    matched = matched_delta(values, labels, norm)
    assert plain > 0.4 and matched is not None and abs(matched[0]) < 0.12
    assert matched_delta(values, labels, np.ones(4000)) is None


def test_matching_finds_an_effect_within_the_deciles():
    rng = np.random.default_rng(0)
    norm, labels = rng.random(1000) + 0.5, rng.random(1000) < 0.3
    matched = matched_delta(labels + rng.random(1000), labels, norm)
    assert matched is not None and matched.tolist() == [1.0]


def test_matching_by_hand():
    # two parts of 2 and 3: a wins 1 of 1 pair, then 1 of 2; 1 - 0 + 1 - 1 over 3 pairs
    values = np.array([[5.0, 1, 4, 3, 9], [1, 5, 4, 3, 9], [np.nan, 5, 4, 3, 9]])
    labels, norm = np.array([1, 0, 1, 0, 0], bool), np.array([1.0, 1, 2, 2, 2])
    found = matched_delta(values, labels, norm, parts=2)
    assert found is not None and found.tolist() == pytest.approx([1 / 3, -1 / 3, 0])


def test_gain_and_direction_are_told_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(600) < 200
    gain = np.exp(rng.standard_normal(600) + 1.0 * labels)
    found = gain_split(gain * np.exp(0.3 * rng.standard_normal(600)), gain, labels)
    assert found.gain > 0.4 and found.participation > 0.4 and abs(found.direction) < 0.15
