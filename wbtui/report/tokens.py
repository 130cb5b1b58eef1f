"""Experiment 1: which features promote or read particular tokens, layer by layer, with what noise gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbtui.features import depth
from wbtui.features.classes import CLASS_NAMES, SHOWN_NAMES
from wbtui.features.populations import Cut
from wbtui.features.summary import CONTROL, READINGS, share
from wbtui.report.data import ModelData, SaeData
from wbtui.schema import SIDES

Row = dict[str, Any]
SIDE_WORDS = {"writes": "writes (decoder–unembedding)", "reads": "reads (encoder–embedding)"}


def cut_of(data: ModelData) -> Cut:
    """How the labels' bars were set. Each SAE has its own nulls, so the bars are a layer's, but no share is fixed.

    A quantile counts as pooled over the model only where several SAEs are judged by the same numbers.
    """
    thresholds = data.curve[0].table.thresholds
    pooled = {sae.table.thresholds.quantiles for sae in data.curve}
    scope = "model" if thresholds.mode == "quantile" and len(pooled) == 1 < len(data.curve) else "layer"
    nulls = " + ".join(f"{n.n:,} {n.kind}" for n in thresholds.used)
    pool = f"rule {thresholds.rule}, {nulls} directions" if thresholds.mode == "null" else thresholds.line()
    return Cut(float("nan"), thresholds.mode, scope, pool)


def reading(sae: SaeData, side: str, name: str) -> dict[str, Any]:
    """A share of one SAE from its summary, with ``fdr`` and ``null_share`` where the side has them."""
    if side in SIDES:
        found: dict[str, Any] = sae.summary["sides"][side]["features"]["readings"][name]
        return found
    return {"fdr": None, "null_share": None, "fdr_of": None, **sae.summary[side][name]}


def share_rows(data: ModelData) -> list[Row]:
    """One row per SAE, side and reading, and pooled ones over the curve."""
    cut = cut_of(data)
    out: list[Row] = []
    for side in (*SIDES, "either", "both"):
        for name in READINGS:
            parts = [(sae, reading(sae, side, name)) for sae in data.saes]
            curve = [r for sae, r in parts if not sae.extra]
            pooled = share(sum(r["count"] for r in curve), sum(r["n"] for r in curve))
            for sae, r in [*parts, (None, {**pooled, **_pooled_null(curve, pooled)})]:
                control = _control(sae, side, name) if sae is not None else None
                out.append(
                    {
                        "sae": "all layers" if sae is None else sae.name,
                        "layer": None if sae is None else sae.info.layer,
                        "in_curve": sae is None or not sae.extra,
                        "side": side,
                        "reading": name,
                        "count": r["count"],
                        "n": r["n"],
                        "share": r["share"],
                        "low": r["low"] if r["n"] else None,
                        "high": r["high"] if r["n"] else None,
                        "null_share": r["null_share"],
                        "fdr": r["fdr"],
                        "null_of": r["fdr_of"],
                        "sign_flip_share": control,
                        "threshold": cut.mode,
                        "threshold_scope": cut.scope,
                        "threshold_pool": cut.pool,
                    }
                )
    return out


def _pooled_null(parts: list[dict[str, Any]], pooled: dict[str, Any]) -> dict[str, Any]:
    known = [r["null_share"] for r in parts if r["null_share"] is not None]
    null = float(np.mean(known)) if known and len(known) == len(parts) else None
    fdr = min(1.0, null / pooled["share"]) if null is not None and pooled["share"] else None
    return {"null_share": null, "fdr": fdr, "fdr_of": "mean over layers" if null is not None else None}


def _control(sae: SaeData, side: str, name: str) -> float | None:
    if side not in SIDES:
        return None
    found = [n for n in sae.summary["sides"][side]["noise"] if n["kind"] == CONTROL]
    return found[0]["readings"][name]["share"] if found else None


def class_rows(data: ModelData) -> list[Row]:
    """Class shares of features and of every noise, one row each."""
    out: list[Row] = []
    for sae in data.saes:
        for side in SIDES:
            item = sae.summary["sides"][side]
            for label, role, part in [
                ("features", "features", item["features"]),
                *((n["label"], n["role"], n) for n in item["noise"]),
            ]:
                shares = {
                    shown: part["classes"][name]["share"] for name, shown in zip(CLASS_NAMES, SHOWN_NAMES, strict=True)
                }
                out.append(
                    {
                        "sae": sae.name, "layer": sae.info.layer, "side": side, "population": label, "role": role,
                        "n": part["n"], **shares,
                    }
                )  # fmt: skip
    return out


def share_profile(data: ModelData, side: str, name: str) -> depth.DepthProfile:
    """The depth curve of a reading's share.

    Raises:
        UsageError: bars by a per-layer quantile.
    """
    points = []
    for sae in data.curve:
        r = reading(sae, side, name)
        null = float("nan") if r["null_share"] is None else r["null_share"]
        points.append(depth.share_point(sae.name, sae.info.layer, r["count"], r["n"], null))
    return depth.profile(f"{name} share, {side}", points, cut_of(data), data.model.n_layers)
