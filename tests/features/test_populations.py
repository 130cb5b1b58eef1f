"""Live population statistics: hand cases, then scipy and numpy as oracles, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.features import make
from wbtui.errors import UsageError
from wbtui.features.populations import (
    Cut,
    Grouping,
    Population,
    compare,
    defines_label,
    fdr,
    from_flag,
    grouping,
    null_cut,
    quantile_cut,
    shared_bins,
)


def _split(values, labels, known=None):
    labels = np.asarray(labels, bool)
    return Population(np.asarray(values, float)).split(from_flag("yes", labels, known, "by hand"))


def test_hand_case_with_a_tie():
    # a = 1, 3, 3; b = 2, 3: pairs won 0+0, half 0+1/2, ... U = (0) + (1 + .5) + (1 + .5) = 3 of 6
    split = _split([1, 3, 3, 2, 3], [1, 1, 1, 0, 0])
    effect = split.effect()
    assert (effect.n_a, effect.n_b, effect.u, effect.delta) == (3, 2, 3.0, 0.0)
    assert effect.ks == pytest.approx(1 / 3)
    assert effect.median_ratio == pytest.approx(3 / 2.5)
    assert effect.p75_difference == pytest.approx(3 - 2.75)
    assert split.beyond(2) == ((2, 3), (1, 2))
    assert split.beyond(3) == ((0, 3), (0, 2))


def test_complete_separation_and_sign():
    up = _split([1, 2, 3, 4], [0, 0, 1, 1]).effect()
    assert (up.delta, up.ks) == (1.0, 1.0)
    down = _split([1, 2, 3, 4], [1, 1, 0, 0]).effect()
    assert (down.delta, down.ks) == (-1.0, 1.0)


def test_what_is_not_finite_or_not_known_is_in_no_group():
    values = [1, np.nan, 3, np.inf, 5, 7]
    split = _split(values, [1, 1, 0, 0, 1, 0], known=np.array([1, 1, 1, 1, 1, 0], bool))
    assert (split.n(0), split.n(1)) == (2, 1)
    assert split.effect().u == 1.0  # 1 loses to 3, 5 wins
    assert split.pooled.tolist() == [1, 3, 5]


def test_an_empty_group_has_no_effect():
    split = _split([1, 2], [0, 0])
    assert np.isnan(split.effect().delta) and np.isnan(split.stats("yes").mean)
    assert split.stats("not yes").n == 2
    assert np.isnan(split.ecdf(0, np.array([1.0]))).all()
    assert split.beyond(0) == ((0, 0), (2, 2))
    empty = _split([], [])
    assert empty.beyond(0) == ((0, 0), (0, 0)) and np.isnan(empty.effect().ks)


VALUES = st.lists(
    st.one_of(st.integers(-4, 4).map(float), st.floats(-1e6, 1e6, width=32), st.just(float("nan"))),
    min_size=2,
    max_size=60,
)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # scipy's p-value of a single value
@given(st.data())
def test_equals_scipy_and_numpy(data):
    values = np.array(data.draw(VALUES))
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    split = _split(values, labels)
    a, b = (values[mask & np.isfinite(values)] for mask in (labels, ~labels))
    for name, want in (("yes", a), ("not yes", b)):
        got = split.stats(name)
        assert got.n == len(want)
        if len(want):
            figures = [want.mean(), want.std(), *np.percentile(want, (25, 50, 75, 90))]
            assert [got.mean, got.std, got.p25, got.median, got.p75, got.p90] == pytest.approx(
                figures, rel=1e-9, abs=1e-6
            )
    if not len(a) or not len(b):
        return
    effect = split.effect()
    assert effect.u == stats.mannwhitneyu(a, b, method="asymptotic").statistic
    assert effect.delta == pytest.approx(2 * effect.u / (len(a) * len(b)) - 1)
    assert effect.ks == pytest.approx(stats.ks_2samp(a, b, method="asymp").statistic, abs=1e-12)
    assert effect.p75_difference == pytest.approx(np.percentile(a, 75) - np.percentile(b, 75), rel=1e-9, abs=1e-6)
    if np.median(b):
        assert effect.median_ratio == pytest.approx(np.median(a) / np.median(b), rel=1e-9)
    swapped = split.effect(1, 0)
    assert swapped.delta == pytest.approx(-effect.delta) and swapped.ks == pytest.approx(effect.ks)
    cut = float(np.median(a))
    assert split.beyond(cut)[0][0] == (a > cut).sum()
    assert split.ecdf(1, np.array([cut]))[0] == pytest.approx((b <= cut).mean())


@given(st.lists(st.integers(-3, 9).map(float), min_size=1, max_size=50), st.integers(1, 20), st.booleans())
def test_histograms_share_bins_and_lose_nothing(values, bins, log):
    values = np.array(values)
    labels = np.arange(len(values)) % 3 == 0
    edges = shared_bins([values], bins, log)
    counts = _split(values, labels).histogram(edges)
    assert counts.shape == (2, bins)
    for row, mask in zip(counts, (labels, ~labels), strict=True):
        assert row.tolist() == np.histogram(values[mask], edges.edges)[0].tolist()
    assert counts.sum() == ((values > 0).sum() if log else len(values))


def test_classes_are_groups_too():
    table = make.table()
    groups = grouping(table, "writes.class")
    split = Population(table.column("writes.z_max")).split(groups)
    assert sum(split.n(g) for g in range(4)) == table.n
    assert split.n("coherent") == int(table.column("coherent.writes").sum())


def test_groups_of_a_table_follow_its_thresholds_and_say_so():
    table = make.table(bad=(5,))
    groups = grouping(table, "semantic.either")
    assert groups.names == ("semantic.either", "not semantic.either")
    assert groups.codes[5] == -1
    assert np.array_equal(groups.mask(), table.column("semantic.either"))
    assert "noise: 300 directions" in groups.how and "over layer (tiny@L0)" in groups.how
    table.with_thresholds(table.thresholds.fix("writes.word_z", 0.0))
    assert "by hand" in grouping(table, "semantic.writes").how
    with pytest.raises(UsageError, match="no label"):
        grouping(table, "z_max")


def test_labels_of_another_length_are_refused():
    with pytest.raises(UsageError):
        Population(np.arange(3.0)).split(Grouping("x", ("a", "b"), np.zeros(2, np.int8), ""))


def test_cuts_say_how_they_were_set():
    pooled = quantile_cut([np.arange(100.0), np.array([np.nan])], 0.75, scope="model", pool="all layers")
    assert pooled.value == pytest.approx(74.25) and not pooled.flat_by_definition
    assert pooled.line() == "74.25, quantile over model: quantile 0.75 of 100 values, all layers"
    assert quantile_cut([np.arange(9.0)], 0.5, scope="layer", pool="L0").flat_by_definition
    noise = null_cut([np.arange(101.0), np.arange(201.0)], 99, scope="layer", pool="two nulls")
    assert noise.value == pytest.approx(198) and noise.mode == "null"
    assert np.isnan(null_cut([], 99, scope="layer", pool="nothing").value)
    with pytest.raises(UsageError):
        Cut(1.0, "guess", "layer", "")


def test_fdr_is_noise_over_features():
    assert fdr(np.array([1.0, 2, 3, 4]), np.array([0.0, 0, 0, 3.5]), 3) == pytest.approx(1.0)
    assert fdr(np.array([1.0, 2, 3, 4]), np.array([0.0, 0, 0, 2.5]), 2) == pytest.approx(0.5)
    assert fdr(np.array([1.0, 2, 3, 4]), np.array([0.0, 5.0]), 3) == 1.0
    assert np.isnan(fdr(np.array([1.0]), np.array([1.0]), 9))
    assert np.isnan(fdr(np.array([1.0]), np.array([]), 0))


@given(VALUES, VALUES)
def test_samples_compare_as_groups_do(a, b):
    a, b = np.array(a), np.array(b)
    effect = compare(a, b)
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if len(a) and len(b):
        assert effect.u == stats.mannwhitneyu(a, b, method="asymptotic").statistic


def test_what_makes_a_label_does_not_test_it():
    assert defines_label("writes.z_max", "semantic.writes") and defines_label("reads.lev", "semantic.either")
    assert defines_label("against.z_max", "semantic.writes") and defines_label("overlap", "semantic.reads")
    assert not defines_label("reads.z_max", "semantic.writes") and not defines_label("e_norm", "semantic.writes")
