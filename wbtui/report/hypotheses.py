"""The paper's reported findings (methods 1.1) as hypotheses: our effect size, its null, and what follows. All computed.

Verdicts: ``confirmed``; ``not confirmed`` (inside its null); ``opposite`` (beyond its null on the other side);
``cannot be told`` with the reason. The findings are known from abstracts and third-party summaries only, so each row
says how we read it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wbtui.analysis.populations import Permuted
from wbtui.features import depth
from wbtui.features.populations import grouping
from wbtui.features.summary import wilson
from wbtui.report import attention, semantic, tokens
from wbtui.report.data import HEAD_SIDES, ModelData

CONFIRMED, NOT, OPPOSITE, UNKNOWN = "confirmed", "not confirmed", "opposite", "cannot be told"
LABEL_WORDS = {"semantic.writes": "labels by writes", "semantic.reads": "labels by reads"}
QUARTER = (0.20, 0.30)
NO_HEADS = "attention is not computed for this model's SAEs"


@dataclass(frozen=True)
class Hypothesis:
    """One finding tested. ``row``: its number in methods 1.1; ``evidence``: how well the finding itself is known."""

    row: int
    evidence: str
    statement: str
    reading: str
    effect: str
    value: float | None
    null: str
    verdict: str
    pool: str
    remark: str = ""
    threshold: str = ""
    """How the labels or participations counted here were decided; empty where nothing is counted."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; a value that is not finite is null."""
        out = asdict(self)
        if self.value is not None and not np.isfinite(self.value):
            out["value"] = None
        return out


def judge(found: Permuted, *, direction: bool = True) -> str:
    """Against 95 % of the permuted values: beyond above, beyond below (where a direction is claimed), or inside."""
    low, high = found.interval()
    if found.value > high:
        return CONFIRMED
    return OPPOSITE if direction and found.value < low else NOT


def _null(found: Permuted, n_perm: int, *, signed: bool = True) -> str:
    form = "+.3f" if signed else ".3f"
    low, high = (_minus(format(v, form)) for v in found.interval())
    return f"{low} … {high} (95 % of {n_perm} label permutations)"


def _minus(text: str) -> str:
    return text.replace("-", "−")


def hypotheses(data: ModelData, effects: semantic.Effects) -> list[Hypothesis]:
    """Every row, in the order of methods 1.1."""
    return [
        *_quarter(data),
        *_participation(data),
        *_profiles(data, effects),
        *_depth(data),
        *_phases(data, effects),
        *_variation(data),
        *_magnitude(data, effects),
        *_llama(data, effects),
    ]


def _layers(data: ModelData, heads: bool = False) -> str:
    saes = data.with_heads if heads else data.curve
    return f"{len(saes)} SAEs ({', '.join(s.name for s in saes)})"


def _quarter(data: ModelData) -> list[Hypothesis]:
    rows = [r for r in tokens.share_rows(data) if r["sae"] == "all layers" and r["side"] == "writes"]
    own = next(r for r in rows if r["reading"] == "semantic")
    if own["share"] is None:
        return []
    inside = own["high"] >= QUARTER[0] and own["low"] <= QUARTER[1]
    others = ", ".join(f"{r['reading']} {100 * r['share']:.1f} %" for r in rows if r["reading"] != "semantic")
    null = "unknown" if own["null_share"] is None else f"{100 * own['null_share']:.2f} % of fresh random directions"
    return [
        Hypothesis(
            3, "A", "about 1/4 of features directly predict output tokens",
            f"pooled semantic share on the writes side between {QUARTER[0]:.0%} and {QUARTER[1]:.0%} (bounds are ours)",
            f"share (95 %: {100 * own['low']:.1f}–{100 * own['high']:.1f} %)", own["share"], null,
            CONFIRMED if inside else NOT, _layers(data),
            f"other readings: {others}; a P75 cut would give 1/4 by definition", tokens.cut_of(data).line(),
        )
    ]  # fmt: skip


def _participation(data: ModelData) -> list[Hypothesis]:
    statement = "features take part in attention, with depth-dependent structure"
    if not data.with_heads:
        return [
            _untold(4, "A", statement, "share of features in some head above noise; its spread over layers", NO_HEADS)
        ]
    out = []
    for side in HEAD_SIDES:
        parts = [attention.any_head(sae, side) for sae in data.with_heads]
        count, n = sum(p[0] for p in parts), sum(p[1] for p in parts)
        noise = np.array([p[2] for p in parts])
        low, high = wilson(count, n)
        known = bool(np.isfinite(noise).all()) and n > 0
        null = float(noise.mean()) if known else float("nan")
        verdict = UNKNOWN if not known else CONFIRMED if low > noise.max() else OPPOSITE if high < noise.min() else NOT
        cut = attention.any_cut(data).line()
        out.append(
            Hypothesis(
                4, "A", statement, f"more features than noise are in some head, {side} side (pre-softmax RMS)",
                f"share in some head (95 %: {100 * low:.1f}–{100 * high:.1f} %)", count / n if n else None,
                f"{100 * null:.1f} % of fresh random directions" if known else "no fresh null", verdict,
                _layers(data, True), "", cut,
            )
        )  # fmt: skip
        spread, reach = _spread(parts)
        told = len(parts) > 1 and np.isfinite(reach)
        out.append(
            Hypothesis(
                4,
                "A",
                statement,
                f"the share in some head differs between layers, {side} side",
                "standard deviation over layers",
                spread if told else None,
                f"≤ {reach:.3f} (95 % of 1,000 draws with one share for all layers)"
                if told
                else "fewer than two layers",
                UNKNOWN if not told else CONFIRMED if spread > reach else NOT,
                _layers(data, True),
                ", ".join(
                    f"{s.name} {100 * p[0] / p[1]:.1f} %" for s, p in zip(data.with_heads, parts, strict=True) if p[1]
                ),
                cut,
            )
        )
    return out


def _spread(parts: list[tuple[int, int, float]]) -> tuple[float, float]:
    """Standard deviation of shares over layers, and its 95 % when features are dealt to layers at random."""
    counts, sizes = np.array([p[0] for p in parts]), np.array([p[1] for p in parts])
    if not sizes.all():
        return float("nan"), float("nan")
    drawn = np.random.default_rng(0).multivariate_hypergeometric(sizes, int(counts.sum()), size=1000)
    return float((counts / sizes).std()), float(np.percentile((drawn / sizes).std(1), 95))


def _profiles(data: ModelData, effects: semantic.Effects) -> list[Hypothesis]:
    statement = "semantic and non-semantic populations have distinct profiles in attention circuits"
    out = []
    for label in semantic.MAIN_LABELS:
        reading = f"distributions of RMS participation differ, {LABEL_WORDS[label]}"
        found = semantic.pooled(effects.of(label), "ks") if data.with_heads else None
        if found is None:
            out.append(_untold(5, "A", statement, reading, NO_HEADS))
            continue
        remark = f"one-sided tail {found.tail:.3f}; mean over layers × heads × sides"
        out.append(
            Hypothesis(
                5,
                "A",
                statement,
                reading,
                "mean KS distance",
                found.value,
                _null(found, effects.n_perm, signed=False),
                judge(found, direction=False),
                _layers(data, True),
                remark,
                tokens.cut_of(data).line(),
            )
        )
    return out


def _depth(data: ModelData) -> list[Hypothesis]:
    statement = "the depth profile of the counted features is U- or inverted-U-shaped"
    profiles = [tokens.share_profile(data, side, "semantic") for side in ("writes", "reads")]
    if data.with_heads:
        profiles += [attention.any_profile(data, side) for side in HEAD_SIDES]
    out = []
    for found in profiles:
        shape = found.shape
        c = shape.contrast
        if shape.verdict == depth.TOO_FEW:
            verdict, remark = (
                UNKNOWN,
                f"{depth.TOO_FEW}: {len(found.points)} of the {depth.MIN_LAYERS_FOR_SHAPE} needed",
            )
        else:
            verdict = CONFIRMED if shape.verdict in ("U", "inverted U") else NOT
            q = shape.quadratic
            remark = shape.verdict + (f"; curvature {q.c:+.3f}, R² {q.r2:.2f}" if q is not None else "")
        out.append(
            Hypothesis(
                11,
                "3P",
                statement,
                found.name,
                "outer thirds − middle third",
                None if c is None else c.value,
                "no third without a layer"
                if c is None
                else _minus(f"{c.low:+.3f} … {c.high:+.3f}") + " (95 %, layers resampled)",
                verdict,
                f"{len(found.points)} layers of {data.model.n_layers}",
                remark,
                found.cut.line(),
            )
        )
    return out


def _phases(data: ModelData, effects: semantic.Effects) -> list[Hypothesis]:
    statement = "two phases: encoder–embedding and decoder–unembedding"
    counts = np.zeros(3, dtype=np.int64)
    for sae in data.curve:
        writes, reads = (grouping(sae.table, label) for label in semantic.MAIN_LABELS)
        known = writes.known & reads.known
        a, b = writes.mask() & known, reads.mask() & known
        counts += [int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())]
    overlap = f"of {counts.sum():,} features that either phase labels, {counts[0]:,} are in both"
    reading = "the two labellings pick populations that differ in attention (writes only against reads only)"
    found = semantic.pooled(effects.phases(), "ks") if data.with_heads else None
    if found is None:
        return [_untold(12, "3P", statement, reading, NO_HEADS if not data.with_heads else "a group is empty", overlap)]
    return [
        Hypothesis(
            12,
            "3P",
            statement,
            reading,
            "mean KS distance",
            found.value,
            _null(found, effects.n_perm, signed=False),
            judge(found, direction=False),
            _layers(data, True),
            overlap,
            tokens.cut_of(data).line(),
        )
    ]


def _variation(data: ModelData) -> list[Hypothesis]:
    statement = "key-based attention weights vary more across layers than query-based ones"
    out = []
    for statistic in attention.PRE_SOFTMAX:
        reading = f"coefficient of variation over layers of the layer mean, {statistic}"
        if not data.with_heads:
            out.append(_untold(13, "3P", statement, reading, NO_HEADS))
            continue
        key, query = (attention.layer_means(data, side, statistic) for side in ("key", "query"))
        found = depth.compare_variation(key, query)
        if not np.isfinite(found.difference):
            only = f"heads of {found.n_layers} layer{'s' * (found.n_layers != 1)}: no variation over layers to compare"
            out.append(_untold(13, "3P", statement, reading, only))
            continue
        if found.smallest_p > 0.05:
            verdict, why = UNKNOWN, f"{found.n_layers} layers can give no p below {found.smallest_p:.2f}"
        else:
            beyond = found.difference > found.null_high, found.difference < found.null_low
            verdict, why = CONFIRMED if beyond[0] else OPPOSITE if beyond[1] else NOT, f"tail {found.p:.3f}"
        remark = f"CV key {found.first:.3f}, query {found.second:.3f}; {why}"
        if statistic == "rms":
            remark += ". Both sides share one mean square by construction: a weak test"
        out.append(
            Hypothesis(
                13,
                "3P",
                statement,
                reading,
                "CV key − CV query",
                found.difference,
                _minus(f"{found.null_low:+.4f} … {found.null_high:+.4f}") + " (95 %, sides exchanged within layers)",
                verdict,
                _layers(data, True),
                remark,
            )
        )
    return out


def _magnitude(data: ModelData, effects: semantic.Effects) -> list[Hypothesis]:
    statement = "semantic features have larger weight magnitudes than non-semantic ones"
    out = []
    for label in semantic.MAIN_LABELS:
        for side in HEAD_SIDES:
            reading = f"RMS participation on the {side} side, {LABEL_WORDS[label]}"
            found = semantic.pooled(effects.of(label), "delta", (side,)) if data.with_heads else None
            if found is None:
                out.append(_untold(14, "3P", statement, reading, NO_HEADS))
                continue
            deltas = np.concatenate([e.delta[e.side(side)] for e in effects.of(label)])
            remark = f"δ > 0 in {int((deltas > 0).sum())} of {len(deltas)} heads, " + _minus(
                f"{deltas.min():+.2f} … {deltas.max():+.2f}"
            )
            out.append(
                Hypothesis(14, "3P", statement, reading, "mean Cliff's δ", found.value, _null(found, effects.n_perm),
                           judge(found), _layers(data, True), remark, tokens.cut_of(data).line())
            )  # fmt: skip
        weights = semantic.weight_effect(data, "e_norm", label, effects.n_perm, effects.seed)
        reading = f"norm of the encoder column, {LABEL_WORDS[label]}"
        if weights is None:
            out.append(_untold(14, "3P", statement, reading, "the encoders have one norm, or a group is empty"))
        else:
            out.append(
                Hypothesis(14, "3P", statement, reading, "mean Cliff's δ over layers", weights.value,
                           _null(weights, effects.n_perm), judge(weights), _layers(data),
                           "within layers", tokens.cut_of(data).line())
            )  # fmt: skip
    return out


def _llama(data: ModelData, effects: semantic.Effects) -> list[Hypothesis]:
    statement = "Llama-3.1 has clearly higher mean attention weights in the decoder–unembedding phase"
    reading = "mean RMS participation of features labelled by writes only over those labelled by reads only"
    is_llama = data.model.model_type == "llama"
    parts = effects.phases() if data.with_heads else []
    if not parts:
        return [_untold(15, "3P", statement, reading, NO_HEADS if not data.with_heads else "a group is empty")]
    null = np.mean(np.concatenate([e.log_ratio_null for e in parts]), axis=0)
    found = Permuted(float(np.mean(np.concatenate([e.log_ratio for e in parts]))), null)
    low, high = (float(np.exp(v)) for v in found.interval())
    return [
        Hypothesis(
            15, "3P", statement, reading, "ratio of means (geometric over layers × heads × sides)",
            float(np.exp(found.value)), f"{low:.3f} … {high:.3f} (95 % of {effects.n_perm} label permutations)",
            judge(found) if is_llama else UNKNOWN, _layers(data, True),
            "" if is_llama else f"a claim about Llama-3.1; this is {data.model.model_type}"
            f" (as a claim about it: {judge(found)})",
            tokens.cut_of(data).line(),
        )
    ]  # fmt: skip


def _untold(row: int, evidence: str, statement: str, reading: str, why: str, remark: str = "") -> Hypothesis:
    return Hypothesis(
        row, evidence, statement, reading, "", None, "", UNKNOWN, "", f"{why}. {remark}".strip(". ") + "."
    )
