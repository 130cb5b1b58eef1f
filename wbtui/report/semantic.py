"""Experiment 3: semantic against non-semantic features, in the weights and in the heads (methods 1.4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wbtui.analysis import populations as tests
from wbtui.features.depth import variation
from wbtui.features.populations import Grouping, Population, defines_label, grouping
from wbtui.report import attention
from wbtui.report.data import HEAD_SIDES, ModelData, SaeData

Row = dict[str, Any]
MAIN_LABELS = ("semantic.writes", "semantic.reads")
LABELS = (*MAIN_LABELS, "semantic.either", "semantic.both", "coherent.writes", "coherent.reads", "promotes.writes",
          "promotes.reads")  # fmt: skip
WEIGHT_METRICS = ("e_norm", "d_norm", "selfcos", "writes.z_10", "reads.z_10", "writes.cos_tok", "reads.cos_tok")
CONSTANT = 1e-3


def constant(values: np.ndarray) -> bool:
    """Whether a number does not vary (unit norms): there is nothing to compare."""
    values = values[np.isfinite(values)]
    return not len(values) or float(values.std()) <= CONSTANT * abs(float(values.mean()))


@dataclass(eq=False)
class HeadEffects:
    """One SAE's heads split by one label: every head's δ and D, and both under permuted labels.

    Attributes:
        values: [2 * n_heads, n], query heads first. labels: bool [n]; rows of unknown label are left out of both.
        permuted: bool [n_perm, n]. kept: rows of the dictionary that are compared. how: the label's thresholds.
    """

    sae: SaeData
    label: str
    how: str
    kept: np.ndarray
    statistic: str
    values: np.ndarray
    labels: np.ndarray
    permuted: np.ndarray

    def __post_init__(self) -> None:
        self.rows = len(self.values)

    @cached_property
    def ranked(self) -> tests.Ranked:
        """The values, ranked once."""
        return tests.Ranked(self.values)

    @cached_property
    def delta(self) -> np.ndarray:
        """[2 * n_heads]."""
        return self.ranked.delta(self.labels)[:, 0]

    @cached_property
    def ks(self) -> np.ndarray:
        """[2 * n_heads]."""
        return self.ranked.ks(self.labels)[:, 0]

    @cached_property
    def delta_null(self) -> np.ndarray:
        """[2 * n_heads, n_perm]."""
        return self.ranked.delta(self.permuted)

    @cached_property
    def ks_null(self) -> np.ndarray:
        """[2 * n_heads, n_perm]; costs a pass over every permutation."""
        return self.ranked.ks(self.permuted)

    @cached_property
    def matched(self) -> np.ndarray | None:
        """δ within deciles of the decoder norm: [2 * n_heads]; None for unit decoders."""
        by = np.asarray(self.sae.table.column("d_norm"), np.float64)[self.kept]
        return tests.matched_delta(self.values, self.labels, by)

    @cached_property
    def log_ratio(self) -> np.ndarray:
        """log(mean of members / mean of the rest): [2 * n_heads]."""
        return self._ratios(self.labels[None])[:, 0]

    @cached_property
    def log_ratio_null(self) -> np.ndarray:
        """[2 * n_heads, n_perm]."""
        return self._ratios(self.permuted)

    def _ratios(self, labels: np.ndarray) -> np.ndarray:
        values, finite = np.nan_to_num(self.values), np.isfinite(self.values).astype(np.float64)
        members = labels.T.astype(np.float64)
        inside = (values @ members) / (finite @ members)
        outside = (values @ (1 - members)) / (finite @ (1 - members))
        return np.asarray(np.log(inside / outside))

    def settle(self) -> HeadEffects:
        """Work everything out and let go of what is as large as the dictionary."""
        _ = self.delta, self.ks, self.delta_null, self.ks_null, self.log_ratio, self.log_ratio_null
        self.values, self.permuted, self.labels = np.empty((self.rows, 0)), np.empty((0, 0), bool), np.empty(0, bool)
        self.kept = np.empty(0, np.int64)
        del self.__dict__["ranked"]
        return self

    def side(self, side: str) -> slice:
        """Rows of one side."""
        half = self.rows // 2
        return slice(0, half) if side == "query" else slice(half, self.rows)


def head_effects(
    sae: SaeData, groups: Grouping, statistic: str, n_perm: int, seed: int, rows: np.ndarray | None = None
) -> HeadEffects | None:
    """A label's effects on all heads of an SAE; None where a group is empty.

    Args:
        rows: bool [n], a subset to compare within.
    """
    assert sae.heads is not None
    keep = groups.known if rows is None else groups.known & rows
    labels = groups.mask()[keep]
    if not labels.any() or labels.all():
        return None
    values = np.concatenate([sae.heads.values(f"{side}.{statistic}")[:, keep] for side in HEAD_SIDES])
    clusters = np.arange(len(keep)) if sae.families is None else sae.families
    clusters = np.unique(clusters[keep], return_inverse=True)[1]
    permuted = tests.permuted_labels(labels, clusters, n_perm, seed)
    return HeadEffects(sae, groups.name, groups.how, np.flatnonzero(keep), statistic, values, labels, permuted)


@dataclass(eq=False)
class Effects:
    """All of experiment 3's comparisons in heads, by label and statistic.

    Args:
        data: the report's data. n_perm, seed: of the permutation nulls.
    """

    data: ModelData
    n_perm: int = tests.N_PERM
    seed: int = 0

    def __post_init__(self) -> None:
        self._found: dict[str, list[HeadEffects]] = {}

    def each(self, label: str, statistic: str) -> Iterator[HeadEffects]:
        """One SAE of the curve after the other: those that have heads and both groups. Nothing is kept."""
        for k, sae in enumerate(self.data.with_heads):
            found = head_effects(sae, grouping(sae.table, label), statistic, self.n_perm, self.seed + k)
            if found is not None:
                yield found

    def of(self, label: str) -> list[HeadEffects]:
        """The main statistic under one label, kept without its values."""
        if label not in self._found:
            self._found[label] = [e.settle() for e in self.each(label, attention.MAIN)]
        return self._found[label]

    def phases(self) -> list[HeadEffects]:
        """Features that only the writes label calls semantic against those that only the reads label does."""
        if "phases" not in self._found:
            kept = []
            for k, sae in enumerate(self.data.with_heads):
                writes, reads = (grouping(sae.table, label) for label in MAIN_LABELS)
                rows = writes.known & reads.known & (writes.mask() != reads.mask())
                renamed = dataclasses.replace(writes, name="writes only", names=("writes only", "reads only"))
                found = head_effects(sae, renamed, attention.MAIN, self.n_perm, self.seed + k, rows)
                kept += [] if found is None else [found.settle()]
            self._found["phases"] = kept
        return self._found["phases"]


def pooled(effects: list[HeadEffects], what: str, sides: tuple[str, ...] = HEAD_SIDES) -> tests.Permuted | None:
    """The mean of δ or D over layers, heads and sides, with the same mean under permuted labels."""
    if not effects:
        return None
    parts, nulls = [], []
    for e in effects:
        values, null = (e.delta, e.delta_null) if what == "delta" else (e.ks, e.ks_null)
        for side in sides:
            parts.append(values[e.side(side)])
            nulls.append(null[e.side(side)])
    return tests.Permuted(float(np.nanmean(np.concatenate(parts))), np.nanmean(np.concatenate(nulls), axis=0))


def effect_rows(data: ModelData, effects: Effects) -> list[Row]:
    """One row per label, statistic, SAE, head and side: effect sizes first, then controls, then p-values.

    Controls and p-values are of the two main labels alone.
    """
    out: list[Row] = []
    for label in LABELS:
        for statistic in attention.STATISTICS if label in MAIN_LABELS else (attention.MAIN,):
            family: list[Row] = []
            p_values: list[tests.Test] = []
            for e in effects.each(label, statistic):
                for side in HEAD_SIDES:
                    for h, row in enumerate(range(*e.side(side).indices(e.rows))):
                        family.append(_head_row(e, side, h, row))
                        if label in MAIN_LABELS:
                            p_values.append(_controls(e, side, h, row, family[-1]))
            for found, test in zip(family, tests.adjust(p_values), strict=False):
                found |= {
                    "p_mann_whitney": test.p_mann_whitney, "p_ks": test.p_ks,
                    "q_mann_whitney": test.q_mann_whitney, "q_ks": test.q_ks, "bh_family": len(p_values),
                }  # fmt: skip
            out += family
    for label in MAIN_LABELS:
        for e in effects.of(label):
            nulls = {(side, h): e.ks_null[e.side(side)][h] for side in HEAD_SIDES for h in range(e.rows // 2)}
            for r in out:
                if (r["label"], r["statistic"], r["sae"]) == (label, attention.MAIN, e.sae.name):
                    r["ks_null_95"] = float(np.percentile(nulls[r["side"], r["head"]], 95))
    return out


def _head_row(e: HeadEffects, side: str, h: int, row: int) -> Row:
    assert e.sae.heads is not None
    low, high = np.percentile(e.delta_null[row], (2.5, 97.5))
    known = np.isfinite(e.values[row])
    return {
        "label": e.label, "statistic": e.statistic, "sae": e.sae.name, "sae_layer": e.sae.info.layer,
        "layer": e.sae.heads.layer, "head": h, "side": side, "n_semantic": int((known & e.labels).sum()),
        "n_other": int((known & ~e.labels).sum()), "delta": float(e.delta[row]), "ks": float(e.ks[row]),
        "delta_null_low": float(low), "delta_null_high": float(high),
        "label_how": e.how,
    }  # fmt: skip


def _controls(e: HeadEffects, side: str, h: int, row: int, found: Row) -> tests.Test:
    """The rest of a main label's row, into ``found``; and its p-values."""
    heads = e.sae.heads
    assert heads is not None
    values, labels = e.values[row], e.labels
    codes = np.where(labels, 0, 1).astype(np.int8)
    effect = Population(values).split(Grouping(e.label, ("a", "b"), codes, "")).effect()
    name = f"{side}.gain"
    gain = np.asarray(heads.columns[name][h], np.float64)[e.kept] if heads.has(name) else None
    apart = None if gain is None or e.statistic == "post" else tests.gain_split(values, gain, labels)
    found |= {
        "median_ratio": effect.median_ratio, "p75_difference": effect.p75_difference,
        "delta_matched_on_d_norm": None if e.matched is None else float(e.matched[row]),
        "delta_gain": None if apart is None else apart.gain,
        "delta_direction": None if apart is None else apart.direction,
    }  # fmt: skip
    return tests.test(f"{e.sae.name} {side} {h}", values[labels], values[~labels])


def population_rows(data: ModelData) -> list[Row]:
    """Groups of numbers of the weights and of each side's heads: a row per SAE (and pooled), label, metric, group."""
    out: list[Row] = []
    for label in (*LABELS, "writes.class", "reads.class"):
        groups = [(sae, grouping(sae.table, label)) for sae in data.curve]
        for metric in WEIGHT_METRICS:
            parts = [(sae.name, sae.info.layer, g, sae.table.column(metric)) for sae, g in groups]
            out += _metric_rows(metric, label, parts, defines_label(metric, label))
        for side in HEAD_SIDES if data.with_heads else ():
            name = f"{side}.{attention.MAIN}"
            parts = [
                (sae.name, sae.info.layer, g, np.nanmean(sae.heads.values(name), axis=0))
                for sae, g in groups
                if sae.heads is not None
            ]
            out += _metric_rows(f"{name}, mean over heads", label, parts, False)
    return out


def _metric_rows(metric: str, label: str, parts: list[Any], circular: bool) -> list[Row]:
    parts = [p for p in parts if not constant(np.asarray(p[3], np.float64))]
    if not parts:
        return []
    names = parts[0][2].names
    codes = np.concatenate([p[2].codes for p in parts])
    values = np.concatenate([np.asarray(p[3], np.float64) for p in parts])
    known = values[(codes >= 0) & np.isfinite(values)]
    bar = float(np.quantile(known, 0.75)) if len(known) else float("nan")
    everything = Grouping(label, names, codes, "")
    out: list[Row] = []
    within = layer_deltas(parts)
    for sae, layer, g, column in [*parts, ("all layers", None, everything, values)]:
        split = Population(column).split(g)
        beyond = split.beyond(bar)
        for k, name in enumerate(names):
            stats = split.stats(k)
            effect = split.effect(0, 1) if k == 0 and len(names) == 2 else None
            out.append(
                {
                    "metric": metric,
                    "label": label,
                    "sae": sae,
                    "layer": layer,
                    "group": name,
                    "n": stats.n,
                    "mean": stats.mean,
                    "std": stats.std,
                    "p25": stats.p25,
                    "median": stats.median,
                    "p75": stats.p75,
                    "p90": stats.p90,
                    "above_pooled_p75": beyond[k][0] / stats.n if stats.n else None,
                    "pooled_p75": bar,
                    "pooled_p75_pool": f"{len(known):,} features of {len(parts)} layers (quantile)",
                    "delta": effect.delta if effect else None,
                    "mean_delta_over_layers": within if effect and layer is None else None,
                    "ks": effect.ks if effect else None,
                    "median_ratio": effect.median_ratio if effect else None,
                    "p75_difference": effect.p75_difference if effect else None,
                    "metric_defines_label": circular,
                }
            )
    return out


def layer_deltas(parts: list[Any]) -> float:
    """Mean over layers of δ within each; pooled values also show what differs between layers.

    Args:
        parts: (SAE's name, layer, its groups, its values) of each layer.
    """
    found = [Population(column).split(groups).effect(0, 1).delta for _, _, groups, column in parts]
    known = [d for d in found if np.isfinite(d)]
    return float(np.mean(known)) if known else float("nan")


def weight_effect(data: ModelData, metric: str, label: str, n_perm: int, seed: int = 0) -> tests.Permuted | None:
    """Mean over layers of δ of a number of the weights, also under permuted labels; None where it is constant."""
    values, nulls = [], []
    for k, sae in enumerate(data.curve):
        column, groups = np.asarray(sae.table.column(metric), np.float64), grouping(sae.table, label)
        keep = groups.known & np.isfinite(column)
        labels = groups.mask()[keep]
        if constant(column) or not labels.any() or labels.all():
            continue
        clusters = np.arange(len(column)) if sae.families is None else sae.families
        clusters = np.unique(clusters[keep], return_inverse=True)[1]
        ranked = tests.Ranked(column[keep])
        values.append(ranked.delta(labels)[0, 0])
        nulls.append(ranked.delta(tests.permuted_labels(labels, clusters, n_perm, seed + k))[0])
    return tests.Permuted(float(np.mean(values)), np.mean(nulls, axis=0)) if values else None


def variation_rows(data: ModelData) -> list[Row]:
    """Coefficient of variation over layers of the layer mean, per statistic and side (methods 1.3)."""
    out: list[Row] = []
    for statistic in (*attention.PRE_SOFTMAX, "mean_abs"):
        for side in HEAD_SIDES:
            if all(s.heads is not None and s.heads.has(f"{side}.{statistic}") for s in data.with_heads):
                means = attention.layer_means(data, side, statistic)
                by_sae = {s.name: float(m) for s, m in zip(data.with_heads, means, strict=True)}
                out.append({"statistic": statistic, "side": side, "cv": variation(means), **by_sae})
    return out
