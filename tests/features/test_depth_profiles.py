"""A model's SAEs by depth: which are chosen, what the curves hold, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.features import make
from wbtui.catalog.saes import SaeInfo
from wbtui.features.depth_profiles import CUTS, Curve, Layer, curve_of, gather
from wbtui.features.heads import HeadNull, HeadTable
from wbtui.features.summary import wilson
from wbtui.schema_attention import attention_columns

HEADS, N, NULL = 3, 400, 300


def sae(name: str, layer: int, site: str = "resid_post", d_sae: int = N) -> SaeInfo:
    return SaeInfo(name, name, "saelens", "standard", "", layer, site, 8, 8, d_sae, reader_layer=layer + 1)


def columns(n: int, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, n, (HEADS, n), dtype=np.int32) if c.dtype == "int32"
        else (scale * rng.gamma(4.0, 1.0, (HEADS, n))).astype(c.dtype)
        for name, c in attention_columns().items()
    }  # fmt: skip


def heads_of(layer: int, scale: float = 1.0) -> HeadTable:
    nulls = [HeadNull("isotropic", 0, columns(NULL, 2)), HeadNull("decoder_cov", 0, columns(NULL, 3))]
    checks = [HeadNull("isotropic", 1, columns(NULL, 4)), HeadNull("decoder_cov", 1, columns(NULL, 5))]
    return HeadTable.from_arrays(columns(N, 10 + layer, scale), nulls=nulls, checks=checks, layer=layer + 1)


def layers_of(count: int) -> list[Layer]:
    return [
        Layer(sae(f"L{i}", i), make.table(N, seed=i), heads_of(i, 1.0 + i / count)) for i in range(count)
    ]  # fmt: skip


def test_one_kind_one_sae_a_layer() -> None:
    saes = [sae("L0", 0), sae("L1", 1), sae("L1-seed2", 1), sae("L2-b", 2), sae("L2-long-name", 2), sae("L0-mlp", 0,
            "mlp_out"), sae("L1-wide", 1, d_sae=9 * N)]  # fmt: skip
    assert [s.name for s in curve_of(saes)] == ["L0", "L1", "L2-b"]
    assert [s.name for s in curve_of(saes, saes[2])] == ["L0", "L1-seed2", "L2-b"]
    assert [s.name for s in curve_of(saes, saes[6])] == ["L1-wide"]
    assert curve_of([]) == []


def by_name(found: Any) -> dict[str, Curve]:
    return {curve.name: curve for curve in found.curves}


def test_shares_in_heads_are_those_of_the_table() -> None:
    layers = layers_of(3)
    found = gather(layers, 6, "max")
    curve = by_name(found)["in some head as key, by max"]
    assert curve.profile is not None
    for layer, point in zip(layers, curve.profile.points, strict=True):
        assert layer.heads is not None
        share = layer.heads.any_head("key", "max")
        # by hand: the largest ratio over heads against the null's own 99th percentile of it
        bars = np.max([np.percentile(n.columns["key.max"], 99, axis=1) for n in layer.heads.nulls], axis=0)
        line = max(np.percentile((n.columns["key.max"] / bars[:, None]).max(0), 99) for n in layer.heads.nulls)
        over = (layer.heads.column("key.max") / bars[:, None]).max(0) > line
        assert (point.value, point.n) == (over.mean(), N) == (share.count / share.n, share.n)
        assert (point.low, point.high) == wilson(int(over.sum()), N)
        assert 0 <= point.null < 0.05
    assert curve.profile.shape.verdict == "too few layers for a shape"
    assert curve.profile.shape.quadratic is None


def test_a_quantile_of_each_layer_is_refused_and_of_all_layers_is_not() -> None:
    layers = layers_of(3)
    flat = by_name(gather(layers, 6, "rms", CUTS[2]))["in some head as query, by rms"]
    assert flat.refused and flat.profile is None
    assert "passes the same share of every layer" in flat.why
    pooled = by_name(gather(layers, 6, "rms", CUTS[1]))["in some head as query, by rms"]
    assert pooled.profile is not None and not pooled.refused
    values = [layer.heads.column("query.rms") for layer in layers if layer.heads is not None]
    bar = np.quantile(np.concatenate([v.ravel() for v in values]).astype(np.float64), 0.75)
    assert [p.value for p in pooled.profile.points] == [float((v > bar).any(0).mean()) for v in values]
    assert pooled.profile.points[0].null > 0.2  # the trap: noise passes it as well


def test_layer_means_and_their_variation() -> None:
    layers = layers_of(4)
    found = gather(layers, 6, "rms")
    curve = by_name(found)["mean rms in heads, as key"]
    assert curve.profile is not None and found.variation is not None
    means = np.array([layer.heads.column("key.rms").astype(np.float64).mean() for layer in layers if layer.heads])
    np.testing.assert_allclose(curve.profile.values, means, rtol=1e-6)
    assert all(p.low < p.value < p.high for p in curve.profile.points)
    assert found.variation.first == pytest.approx(means.std() / means.mean())
    assert found.variation.smallest_p == 1 / 2**4


def test_twelve_layers_have_a_shape() -> None:
    layers = layers_of(12)
    curve = by_name(gather(layers, 12, "rms"))["mean rms in heads, as query"]
    assert curve.profile is not None
    assert curve.profile.shape.verdict in ("U", "inverted U", "no clear shape")
    assert curve.profile.shape.quadratic is not None


def test_what_is_not_computed_leaves_gaps_and_says_so() -> None:
    layers = [dataclasses.replace(layer, table=None, heads=None) for layer in layers_of(2)]
    found = gather(layers, 6)
    assert all(curve.profile is None and not curve.refused for curve in found.curves)
    assert {curve.why for curve in found.curves} == {"not computed for any layer"}
    assert found.variation is None and found.head_shares("key") == []
    one = gather([layers_of(1)[0], layers[1]], 6)
    curve = by_name(one)["in some head as key, by rms"]
    assert curve.profile is not None and len(curve.profile.points) == 1


def test_the_map_is_the_share_beyond_each_heads_own_line() -> None:
    layers = layers_of(2)
    found = gather(layers, 6, "rms").head_shares("query")
    assert [(layer, name) for layer, name, _ in found] == [(1, "L0"), (2, "L1")]
    for (_, _, shares), layer in zip(found, layers, strict=True):
        assert layer.heads is not None
        bars = layer.heads.bars("query", "rms")
        np.testing.assert_allclose(shares, (layer.heads.column("query.rms") > bars[:, None]).mean(1))
