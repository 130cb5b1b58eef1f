"""A model's SAEs by depth: shares that are semantic, shares that take part in heads, how far heads reach; numpy only.

Every curve names how its threshold was set, and a threshold that would make it flat by definition is refused
(methods 1.1): the refusal is drawn in the curve's place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wbtui.errors import UsageError
from wbtui.features import depth
from wbtui.features.populations import Cut, quantile_cut
from wbtui.features.summary import summary
from wbtui.schema import SIDES
from wbtui.schema_attention import HEAD_SIDES

if TYPE_CHECKING:
    from wbtui.catalog.saes import SaeInfo
    from wbtui.features.heads import HeadTable
    from wbtui.features.table import FeatureTable

CUTS = ("null", "model quantile", "layer quantile")
"""Thresholds of "takes part in some head": the noise's 99th percentile; P75 over all layers; P75 of each layer alone,
which is refused."""
QUANTILE = 0.75
STREAM = ("resid_pre", "resid_mid", "resid_post")


def curve_of(saes: Sequence[SaeInfo], like: SaeInfo | None = None) -> list[SaeInfo]:
    """The SAEs of one depth curve: one kind (site, width, architecture), one at each layer, in order of depth.

    Args:
        like: its kind is taken, and itself at its layer; by default the kind with most layers.

    Where a layer has several, the canonical short name (``L3``) stays, else the shortest.
    """

    def kind(sae: SaeInfo) -> tuple[str, int, str]:
        return sae.site, sae.d_sae, sae.architecture

    kinds: dict[tuple[str, int, str], list[SaeInfo]] = {}
    for sae in saes:
        kinds.setdefault(kind(sae), []).append(sae)
    if not kinds:
        return []
    if like is not None and kind(like) in kinds:
        best = kinds[kind(like)]
    else:
        best = max(kinds.values(), key=lambda group: (len({s.layer for s in group}), group[0].site in STREAM))
    chosen: dict[int, SaeInfo] = {} if like is None or like not in best else {like.layer: like}
    for sae in sorted(best, key=lambda s: (s.name != f"L{s.layer}", len(s.name), s.name)):
        chosen.setdefault(sae.layer, sae)
    return [chosen[layer] for layer in sorted(chosen)]


@dataclass(frozen=True, eq=False)
class Layer:
    """One SAE of a curve and what is computed of it."""

    info: SaeInfo
    table: FeatureTable | None
    heads: HeadTable | None = None
    why: str = ""
    """Why there is no table, or no heads."""


@dataclass(frozen=True)
class Curve:
    """One measure over depth.

    Attributes:
        name: of the measure; unit: ``share`` or a number.
        profile: None where it is refused or nothing is computed; then ``why`` says which.
    """

    name: str
    unit: str
    how: str
    profile: depth.DepthProfile | None
    why: str = ""
    refused: bool = False


@dataclass(frozen=True, eq=False)
class Depth:
    """A model's SAEs by depth, for one statistic of heads and one threshold."""

    n_layers: int
    layers: tuple[Layer, ...]
    statistic: str
    cut: str
    curves: tuple[Curve, ...]
    variation: depth.VariationTest | None
    """CV over layers of the key side's layer mean against the query side's (methods 1.1 row 13)."""

    def head_shares(self, side: str) -> list[tuple[int, str, np.ndarray]]:
        """(reading layer, SAE, share of features beyond noise in each head [n_heads]), in order of depth."""
        return [
            (layer.heads.layer, layer.info.name,
             np.array([layer.heads.pairs(side, self.statistic, h).share for h in range(layer.heads.n_heads)]))
            for layer in self.layers if layer.heads is not None
        ]  # fmt: skip


def gather(layers: Sequence[Layer], n_layers: int, statistic: str = "rms", cut: str = CUTS[0]) -> Depth:
    """Every curve.

    Args:
        layers: one a layer, in order of depth.
        n_layers: of the model.
        statistic: of heads. cut: one of ``CUTS``, for the shares in heads.
    """
    curves = [_semantic(layers, side, n_layers) for side in SIDES]
    with_heads = [layer for layer in layers if layer.heads is not None and layer.heads.ready]
    for side in HEAD_SIDES:
        curves.append(_in_heads(with_heads, side, statistic, cut, n_layers))
    means = {side: [_mean_point(layer, side, statistic) for layer in with_heads] for side in HEAD_SIDES}
    for side in HEAD_SIDES:
        name = f"mean {statistic} in heads, as {side}"
        curves.append(_curve(name, "number", "no threshold: mean over features and heads",
                             means[side], Cut(math.nan, "fixed", "model", "none"), n_layers))  # fmt: skip
    first, second = (np.array([p.value for p in means[side]]) for side in ("key", "query"))
    variation = depth.compare_variation(first, second) if len(with_heads) > 1 else None
    return Depth(n_layers, tuple(layers), statistic, cut, tuple(curves), variation)


def _curve(
    name: str, unit: str, how: str, points: Sequence[depth.LayerPoint], cut: Cut, n_layers: int, why: str = ""
) -> Curve:
    if not points:
        return Curve(name, unit, how, None, why or "not computed for any layer")
    try:
        return Curve(name, unit, how, depth.profile(name, points, cut, n_layers))
    except UsageError as error:
        return Curve(name, unit, how, None, error.line(), refused=True)


def _semantic(layers: Sequence[Layer], side: str, n_layers: int) -> Curve:
    points, tables = [], []
    for layer in layers:
        if layer.table is None or not layer.table.thresholds.ready:
            continue
        found = summary(layer.table)["sides"][side]
        reading = found["features"]["readings"]["semantic"]
        if reading["n"]:
            null = math.nan if reading["null_share"] is None else float(reading["null_share"])
            points.append(depth.share_point(layer.info.name, layer.info.layer, reading["count"], reading["n"], null))
            tables.append(layer.table)
    name = f"semantic by what it {side}"
    if not tables:
        return Curve(name, "share", "", None, "not computed for any layer")
    thresholds = tables[0].thresholds
    pooled = {table.thresholds.quantiles for table in tables}
    scope = "model" if thresholds.mode == "quantile" and len(pooled) == 1 < len(tables) else "layer"
    cut = Cut(math.nan, thresholds.mode, scope, thresholds.line())
    return _curve(name, "share", thresholds.line(), points, cut, n_layers)


def _in_heads(layers: Sequence[Layer], side: str, statistic: str, how: str, n_layers: int) -> Curve:
    name = f"in some head as {side}, by {statistic}"
    heads = [layer.heads for layer in layers if layer.heads is not None]
    if how == "null":
        points = []
        for layer, table in zip(layers, heads, strict=True):
            found = table.any_head(side, statistic)
            points.append(depth.share_point(layer.info.name, layer.info.layer, found.count, found.n, found.null))
        words = "99 % of the noise’s own maximum over heads, in each layer"
        return _curve(name, "share", words, points, Cut(math.nan, "null", "layer", words), n_layers)
    samples = [table.column(f"{side}.{statistic}") for table in heads]
    scope = "model" if how == "model quantile" else "layer"
    pool = f"features × heads of {f'{len(heads)} layers' if scope == 'model' else 'each layer alone'}, {side} side"
    cut = quantile_cut(samples, QUANTILE, scope=scope, pool=pool)
    points = []
    for layer, table, values in zip(layers, heads, samples, strict=True):
        known = np.isfinite(values).any(0)
        own = cut.value if scope == "model" else float(np.nanquantile(values, QUANTILE))
        with np.errstate(invalid="ignore"):
            over = (values > own).any(0) & known
            nulls, _ = table.judges
            noise = [float((np.asarray(n.columns[f"{side}.{statistic}"]) > own).any(0).mean()) for n in nulls]
        points.append(
            depth.share_point(
                layer.info.name, layer.info.layer, int(over.sum()), int(known.sum()), max(noise, default=math.nan)
            )
        )
    return _curve(name, "share", f"P75 of {pool}: it ranks, it proves nothing", points, cut, n_layers)


def _mean_point(layer: Layer, side: str, statistic: str) -> depth.LayerPoint:
    """Mean over features and heads, with the 95 % interval of the mean over features; the noise's own mean."""
    assert layer.heads is not None
    values = np.asarray(layer.heads.column(f"{side}.{statistic}"), np.float64)
    known = np.isfinite(values).all(0)
    each = values[:, known].mean(0)
    mean = float(each.mean()) if len(each) else math.nan
    half = 1.96 * float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    noise = [float(np.nanmean(np.asarray(n.columns[f"{side}.{statistic}"], np.float64))) for n in layer.heads.nulls]
    null = max(noise, default=math.nan)
    return depth.LayerPoint(layer.info.name, layer.info.layer, mean, mean - half, mean + half, len(each), null)
