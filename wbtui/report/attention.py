"""Experiment 2: how many features take part in which heads, by null and by pooled quantile."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbtui.features import depth
from wbtui.features.populations import Cut, quantile_cut
from wbtui.features.summary import share
from wbtui.report.data import HEAD_SIDES, HeadValues, ModelData, SaeData

Row = dict[str, Any]
PRE_SOFTMAX = ("rms", "p75", "max")
STATISTICS = (*PRE_SOFTMAX, "post")
"""``post`` is over features, not positions (nothing in the model computes it): concentration as query, mass received as
key."""
MAIN = "rms"


def _heads(sae: SaeData) -> HeadValues:
    assert sae.heads is not None
    return sae.heads


def head_rows(data: ModelData) -> list[Row]:
    """One row per SAE, head, side and statistic: features beyond the head's own bar, and fresh noise beyond it."""
    out: list[Row] = []
    for sae in (s for s in data.saes if s.heads is not None):
        heads = _heads(sae)
        for side in HEAD_SIDES:
            for statistic in STATISTICS:
                name = f"{side}.{statistic}"
                values, bars = heads.values(name), heads.bars(name)
                noise = [(heads.values(name, c.columns) > bars[:, None]).mean(1) for c in heads.checks]
                for h in range(heads.n_heads):
                    known = values[h][np.isfinite(values[h])]
                    beyond = share(int((known > bars[h]).sum()), len(known))
                    out.append(
                        {
                            "sae": sae.name,
                            "sae_layer": sae.info.layer,
                            "layer": heads.layer,
                            "head": h,
                            "side": side,
                            "statistic": statistic,
                            "count": beyond["count"],
                            "n": beyond["n"],
                            "share": beyond["share"],
                            "low": beyond["low"],
                            "high": beyond["high"],
                            "null_share": _worst([float(part[h]) for part in noise]),
                            "mean": float(known.mean()) if len(known) else None,
                            "median": float(np.median(known)) if len(known) else None,
                            "p75": float(np.percentile(known, 75)) if len(known) else None,
                            "threshold": "null",
                            "threshold_scope": "layer",
                            "bar": float(bars[h]),
                            "threshold_pool": f"99th percentile of {heads.null_words} through this head, larger kind",
                        }
                    )
    return out


def _worst(values: list[float]) -> float | None:
    return max(values) if values else None


def any_head(sae: SaeData, side: str, statistic: str = MAIN) -> tuple[int, int, float]:
    """(features in some head, features, fresh noise's share); the bar is the null's 99 % of the maximum over heads."""
    heads = _heads(sae)
    name = f"{side}.{statistic}"
    bar = heads.any_bar(name)
    strongest = heads.strongest(name)
    known = strongest[np.isfinite(strongest)]
    noise = _worst([float((heads.strongest(name, c.columns) > bar).mean()) for c in heads.checks])
    return int((known > bar).sum()), len(known), float("nan") if noise is None else noise


def any_cut(data: ModelData) -> Cut:
    """How "takes part in some head" was decided."""
    words = _heads(data.with_heads[0]).null_words
    return Cut(
        float("nan"), "null", "layer",
        f"99th percentile of the maximum over heads (each in units of its own 99 %) of {words} through the same heads",
    )  # fmt: skip


def any_profile(data: ModelData, side: str, statistic: str = MAIN) -> depth.DepthProfile:
    """Share of features in some head, by the layer that the SAE is at."""
    points = []
    for sae in data.with_heads:
        count, n, null = any_head(sae, side, statistic)
        points.append(depth.share_point(sae.name, sae.info.layer, count, n, null))
    name = f"in some head, {side} side, {statistic}"
    return depth.profile(name, points, any_cut(data), data.model.n_layers)


def pooled_cut(data: ModelData, side: str, statistic: str = MAIN) -> Cut:
    """P75 over features, heads and layers of one side (methods 1.3); a quantile: it ranks, it proves nothing."""
    samples = [_heads(s).values(f"{side}.{statistic}") for s in data.with_heads]
    pool = f"features × heads × {len(samples)} layers, {side} side"
    return quantile_cut(samples, 0.75, scope="model", pool=pool)


def layer_rows(data: ModelData) -> list[Row]:
    """One row per SAE of the curve, side and statistic: features in at least one head, by null and by pooled P75."""
    out: list[Row] = []
    for side in HEAD_SIDES:
        for statistic in STATISTICS:
            pooled = pooled_cut(data, side, statistic)
            for sae in data.with_heads:
                heads = _heads(sae)
                count, n, null = any_head(sae, side, statistic)
                values = heads.values(f"{side}.{statistic}")
                with np.errstate(invalid="ignore"):
                    over = np.asarray((values > pooled.value).any(0))[np.isfinite(values).any(0)]
                    noise = [
                        float((heads.values(f"{side}.{statistic}", c.columns) > pooled.value).any(0).mean())
                        for c in heads.checks
                    ]
                for cut, got, got_null in (
                    (any_cut(data), share(count, n), None if np.isnan(null) else null),
                    (pooled, share(int(over.sum()), len(over)), _worst(noise)),
                ):
                    out.append(
                        {
                            "sae": sae.name, "sae_layer": sae.info.layer, "layer": heads.layer, "side": side,
                            "statistic": statistic, "share": got["share"], "count": got["count"], "n": got["n"],
                            "low": got["low"], "high": got["high"], "null_share": got_null,
                            "layer_mean": float(np.nanmean(values)),
                            "threshold": cut.mode, "threshold_scope": cut.scope, "threshold_pool": cut.pool,
                        }
                    )  # fmt: skip
    return out


def layer_means(data: ModelData, side: str, statistic: str = MAIN) -> np.ndarray:
    """Mean over features and heads at each layer of the curve with heads: [layers]."""
    return np.array([float(np.nanmean(_heads(s).values(f"{side}.{statistic}"))) for s in data.with_heads])
