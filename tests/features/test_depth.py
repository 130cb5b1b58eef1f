"""Depth profiles: hand cases, refusals, and what noise does to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbtui.errors import UsageError
from wbtui.features.depth import (
    TOO_FEW,
    LayerPoint,
    compare_variation,
    contrast,
    profile,
    quadratic,
    shape,
    share_point,
    thirds,
    variation,
)
from wbtui.features.populations import Cut
from wbtui.features.summary import wilson

NOISE = Cut(float("nan"), "null", "layer", "99th percentile of noise")


def _points(values):
    return [LayerPoint(f"L{i}", i, v) for i, v in enumerate(values)]


def test_a_per_layer_quantile_draws_no_curve():
    flat = Cut(1.0, "quantile", "layer", "quantile 0.75 of L3")
    with pytest.raises(UsageError, match="per-layer quantile"):
        profile("share", _points([0.25] * 6), flat, 6)
    pooled = Cut(1.0, "quantile", "model", "quantile 0.75 of all layers")
    assert profile("share", _points([0.1, 0.4]), pooled, 6).values.tolist() == [0.1, 0.4]


def test_points_are_ordered_and_two_saes_at_one_layer_are_refused():
    got = profile("x", [LayerPoint("b", 2, 0.2), LayerPoint("a", 0, 0.1), LayerPoint("c", 1, float("nan"))], NOISE, 3)
    assert [p.label for p in got.points] == ["a", "b"]
    with pytest.raises(UsageError, match="two SAEs"):
        profile("x", [LayerPoint("b", 2, 0.2), LayerPoint("c", 2, 0.1)], NOISE, 3)


def test_share_points_carry_the_wilson_interval():
    point = share_point("L0", 0, 30, 100, null=0.01)
    assert (point.value, point.low, point.high) == (0.3, *wilson(30, 100))
    assert np.isnan(share_point("L0", 0, 0, 0).value)


def test_thirds():
    assert thirds(np.arange(6), 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert thirds(np.arange(4), 4).tolist() == [0, 1, 1, 2]  # a layer on the border is in the middle
    assert thirds(np.array([0, 25]), 26).tolist() == [0, 2]


def test_contrast_by_hand():
    found = contrast(np.array([3.0, 3, 1, 1, 5, 5]), np.arange(6), 6)
    assert found is not None
    assert (found.value, found.low, found.high, found.layers) == (3.0, 3.0, 3.0, (2, 2, 2))
    assert contrast(np.array([1.0, 2.0]), np.array([0, 5]), 6) is None


def test_few_layers_have_no_shape_but_a_contrast():
    found = profile("x", _points([3, 3, 1, 1, 5, 5]), NOISE, 6).shape
    assert (found.verdict, found.quadratic) == (TOO_FEW, None)
    assert found.contrast is not None and found.contrast.value == 3
    assert quadratic(np.arange(11.0), np.arange(11), 11) is None


def test_shapes_at_twelve_layers():
    t = np.arange(12) / 11
    for sign, verdict in ((1, "U"), (-1, "inverted U")):
        found = shape(0.5 + sign * (t - 0.5) ** 2, np.arange(12), 12)
        assert found.verdict == verdict
        assert found.quadratic is not None
        assert found.quadratic.c == pytest.approx(sign) and found.quadratic.r2 == pytest.approx(1)
        assert found.quadratic.a == pytest.approx(0.5 + sign * 0.25) and found.quadratic.b == pytest.approx(-sign)


def test_a_slope_is_no_u():
    assert shape(np.arange(24.0), np.arange(24), 24).verdict == "no clear shape"


def test_noise_is_rarely_called_a_shape():
    rng = np.random.default_rng(3)
    called = sum(shape(rng.standard_normal(30), np.arange(30), 30).verdict != "no clear shape" for _ in range(200))
    assert called / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200) + 0.03  # a bootstrap of ten is a little narrow


@given(st.lists(st.floats(0, 1), min_size=3, max_size=30), st.integers(0, 5))
def test_the_contrast_lies_in_its_interval_and_is_repeatable(values, seed):
    layers = np.arange(len(values))
    found = contrast(np.array(values), layers, len(values), seed)
    if found is not None:
        assert found == contrast(np.array(values), layers, len(values), seed)
        assert found.low - 1e-9 <= found.high
        assert min(values) - max(values) - 1e-9 <= found.value <= max(values) - min(values) + 1e-9


def test_variation_by_hand():
    assert variation(np.array([1.0, 3.0])) == pytest.approx(0.5)
    assert variation(np.array([2.0, 2.0, np.nan])) == 0
    assert np.isnan(variation(np.array([1.0])))


def test_the_side_that_varies_more_is_found_and_scale_does_not_matter():
    steady, wild = np.array([1.0, 1.1, 0.9, 1.0, 1.05, 0.95]), np.array([10.0, 40, 5, 60, 8, 30])
    found = compare_variation(wild, steady)
    assert found.difference > found.null_high > 0
    assert found.p == pytest.approx(2 / 64, abs=2 / 64) and found.smallest_p == 1 / 64
    back = compare_variation(steady, wild)
    assert back.difference == pytest.approx(-found.difference) and back.p >= 63 / 64
    assert compare_variation(100 * wild, steady).difference == pytest.approx(found.difference)


def test_equal_sides_show_nothing():
    rng = np.random.default_rng(1)
    reached = sum(compare_variation(rng.random(8) + 1, rng.random(8) + 1).p <= 0.05 for _ in range(200))
    assert reached / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert np.isnan(compare_variation(np.array([1.0]), np.array([2.0])).difference)


def test_many_layers_are_sampled_with_a_seed():
    rng = np.random.default_rng(2)
    a, b = rng.random(26) + 1, rng.random(26) + 1
    assert compare_variation(a, b) == compare_variation(a, b)
    assert compare_variation(a, b).smallest_p == 1 / 4096
