"""The report's Markdown page."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbtui import __version__
from wbtui.definitions import RECONSTRUCTION
from wbtui.display import safe_token_text
from wbtui.features.depth import DepthProfile
from wbtui.report import attention, tokens
from wbtui.report.data import HEAD_SIDES, ModelData
from wbtui.report.hypotheses import Hypothesis
from wbtui.schema import SIDES

Row = dict[str, Any]


def page(
    data: ModelData,
    judged: list[Hypothesis],
    tables: dict[str, list[Row]],
    pictures: list[str],
    settings: dict[str, Any],
) -> str:
    """The whole page."""
    name = safe_token_text(data.model.name)
    parts = [
        f"# {name}: what its SAE features write, read and attend to, from the weights alone",
        f"*{RECONSTRUCTION[0].upper()}{RECONSTRUCTION[1:]}. No activations were used. wbtui {__version__}, definition "
        f"`{data.definition}`; products, thresholds and fingerprints in `report.json`.*",
        f"Model: `{name}` ({data.model.model_type}, {data.model.n_layers} layers, {data.model.n_heads} heads, "
        f"width {data.model.d_model:,}, {data.model.d_vocab:,} tokens, "
        f"{'tied' if data.model.tied else 'untied'} embeddings). SAEs: "
        + ", ".join(f"`{s.name}` ({s.info.d_sae:,} features at `{s.info.hook_name}`)" for s in data.saes)
        + ".",
        *data.warnings,
        "## The reported findings as hypotheses",
        "Numbers are rows of the project's list of findings; “A” stands in the paper's abstract, “3P” in third-party "
        "summaries only. An effect is *confirmed* beyond its null, *opposite* beyond it on the other side. Effect "
        "sizes come first: with thousands of features every p-value is small.",
        _hypotheses(judged),
        "## 1. Which features write or read particular tokens",
        _first(data),
        _picture("e1_shares.svg", pictures, "Share of features by layer"),
        _shares_table(tables["e1_shares.csv"]),
        _shapes([tokens.share_profile(data, side, "semantic") for side in SIDES]),
        _picture("e1_classes.svg", pictures, "Classes of features and of noise"),
        "## 2. How features take part in attention",
        *_second(data, tables, pictures),
        "## 3. Semantic against non-semantic features",
        *_third(data, tables, pictures, settings),
        "## Files",
        "\n".join(f"- `{file}`" for file in sorted([*tables, *pictures, "report.json"])),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _first(data: ModelData) -> str:
    return (
        "A feature is *semantic* when words stand beyond the noise of random directions: one word, or several that "
        "belong together (*strict* counts only the latter; *promotes* also counts several unlike words). "
        f"Threshold: {tokens.cut_of(data).line()}. FDR is the share of fresh noise over the share of features. The "
        "sign-flip control has the dictionary's covariance with its directions destroyed."
    )


def _second(data: ModelData, tables: dict[str, list[Row]], pictures: list[str]) -> list[str]:
    if not data.with_heads:
        reasons = sorted({f"{s.name}: {s.no_heads}" for s in data.curve})
        return ["No attention products: " + "; ".join(reasons) + "."]
    missing = [f"{s.name}: {s.no_heads}" for s in data.curve if s.heads is None]
    some = data.with_heads[0].heads
    assert some is not None
    rows = [r for r in tables["e2_layers.csv"] if r["statistic"] == attention.MAIN]
    table = [
        [
            "SAE",
            "read by",
            "side",
            "in some head, %",
            "95 %",
            "noise, %",
            "above pooled P75 in some head, %",
            "noise, %",
        ]
    ]
    for sae in data.with_heads:
        for side in HEAD_SIDES:
            null, pooled = (
                next(r for r in rows if r["sae"] == sae.name and r["side"] == side and r["threshold"] == how)
                for how in ("null", "quantile")
            )
            table.append(
                [
                    sae.name,
                    f"L{null['layer']}",
                    side,
                    _percent(null["share"]),
                    _interval(null),
                    _percent(null["null_share"]),
                    _percent(pooled["share"]),
                    _percent(pooled["null_share"]),
                ]
            )
    pools = "; ".join(f"{side}: {attention.pooled_cut(data, side).line()}" for side in HEAD_SIDES)
    return [
        f"Participation is the pre-softmax root mean square score over all partner features ({some.note}). "
        f"*In some head*: {attention.any_cut(data).line()}. The pooled quantile is {pools}; with several heads even "
        "noise passes it often, so it ranks and proves nothing. `post` in the CSV files is over features, not "
        "positions: concentration of the softmax over key features (query side), mass received from all query features "
        "(key side); nothing in the model computes it." + (f" Without heads: {'; '.join(missing)}." if missing else ""),
        _picture("e2_heads.svg", pictures, "Features beyond noise by head"),
        _markdown(table),
        _picture("e2_depth.svg", pictures, "Features in some head by layer"),
        _shapes([attention.any_profile(data, side) for side in HEAD_SIDES]),
    ]


def _third(data: ModelData, tables: dict[str, list[Row]], pictures: list[str], settings: dict[str, Any]) -> list[str]:
    out = [
        "Two labellings: by writes (decoder–unembedding) and by reads (encoder–embedding). δ is Cliff's delta (> 0: "
        "semantic larger), D the Kolmogorov–Smirnov distance. Numbers that a label is made of are marked *circular* in "
        "`e3_populations.csv` and not shown here.",
        _picture("e3_populations.svg", pictures, "Semantic against other features"),
        _population_table(tables["e3_populations.csv"]),
    ]
    if not data.with_heads:
        return out
    rows = [r for r in tables["e3_effects.csv"] if r["statistic"] == attention.MAIN]
    table = [["label", "side", "heads", "mean δ", "δ > 0", "δ beyond 95 % of permuted", "mean δ of gain",
              "mean δ of direction", "mean D", "BH q ≤ 0.05"]]  # fmt: skip
    for label in ("semantic.writes", "semantic.reads"):
        for side in HEAD_SIDES:
            part = [r for r in rows if r["label"] == label and r["side"] == side]
            if part:
                table.append(
                    [label, side, str(len(part)), _signed(_mean(part, "delta")), str(sum(r["delta"] > 0 for r in part)),
                     str(sum(not r["delta_null_low"] <= r["delta"] <= r["delta_null_high"] for r in part)),
                     _signed(_mean(part, "delta_gain")), _signed(_mean(part, "delta_direction")),
                     f"{_mean(part, 'ks'):.3f}", str(sum(r["q_mann_whitney"] <= 0.05 for r in part))]
                )  # fmt: skip
    matched = [r for r in rows if r.get("delta_matched_on_d_norm") is not None]
    norm = (
        "δ matched on deciles of the decoder norm is in `e3_effects.csv`."
        if matched
        else "Decoders have unit norm, so there is no norm to match on."
    )
    searched = [s.families for s in data.with_heads if s.families is not None]
    families = (
        f"near-duplicates (decoder cosine > 0.7) move whole: "
        f"{sum(int((np.bincount(f) > 1).sum()) for f in searched):,} "
        f"families, the largest of {max(int(np.bincount(f).max()) for f in searched):,} features"
        if searched
        else "features move one by one (near-duplicates were not searched), which makes these bands too narrow"
    )
    return [
        *out,
        _picture("e3_effects.svg", pictures, "Effect of the semantic label in every head"),
        _markdown(table),
        f"Permutation nulls: {settings['n_perm']} label permutations, {families}. A head's δ splits into its *gain* "
        "part (length of the projection alone) and its *direction* part (participation per unit of gain). "
        + norm
        + " Benjamini–Hochberg runs over layers × heads × sides of one label and statistic, on scipy's Mann–Whitney "
        "p-values; permutation tails never enter it.",
        _picture("e3_variation.svg", pictures, "Participation over depth, query against key"),
        "Layer means of mean |score| are equal on both sides by construction (rows and columns of one matrix), and RMS "
        "nearly so; only quartile and peak can tell the sides apart.",
    ]


def _hypotheses(judged: list[Hypothesis]) -> str:
    table = [["#", "finding", "how we read it", "our effect size", "its null", "verdict", "remark"]]
    cuts = list(dict.fromkeys(h.threshold for h in judged if h.threshold))
    before = None
    for h in judged:
        effect = "–" if h.value is None or not np.isfinite(h.value) else f"{h.effect}: {_value(h)}"
        first = (f"{h.row} ({h.evidence})", h.statement) if (h.row, h.statement) != before else ("", "")
        before = (h.row, h.statement)
        mark = f" [{cuts.index(h.threshold) + 1}]" if h.threshold else ""
        table.append([*first, h.reading + mark, effect, h.null or "–", f"**{h.verdict}**", h.remark])
    notes = [f"[{k + 1}] threshold: {cut}." for k, cut in enumerate(cuts)]
    return _markdown(table) + ("\n\n" + "  \n".join(notes) if notes else "")


def _value(h: Hypothesis) -> str:
    assert h.value is not None
    if h.effect.startswith("share"):
        return f"{100 * h.value:.1f} %"
    unsigned = any(word in h.effect for word in ("ratio", "KS distance", "standard deviation"))
    return format(h.value, ".3f" if unsigned else "+.3f").replace("-", "−")


def _shares_table(rows: list[Row]) -> str:
    table = [["SAE", "side", "semantic, %", "95 %", "noise, %", "FDR, %", "sign-flip, %", "strict, %", "promotes, %"]]
    for r in (r for r in rows if r["reading"] == "semantic" and r["side"] in SIDES):
        others = {o["reading"]: o for o in rows if o["sae"] == r["sae"] and o["side"] == r["side"]}
        star = "" if r["in_curve"] else " ◇"
        table.append(
            [
                r["sae"] + star,
                r["side"],
                _percent(r["share"]),
                _interval(r),
                _percent(r["null_share"], 2),
                _percent(r["fdr"]),
                _percent(r["sign_flip_share"], 2),
                _percent(others["strict"]["share"]),
                _percent(others["promotes"]["share"]),
            ]
        )
    table[1:] = sorted(table[1:], key=lambda row: row[1] != "writes")
    return _markdown(table)


def _population_table(rows: list[Row]) -> str:
    table = [
        [
            "label",
            "metric",
            "n",
            "median",
            "others' median",
            "ratio",
            "P75 difference",
            "δ",
            "mean δ within layers",
            "D",
            "above pooled P75, %",
        ]
    ]
    for r in rows:
        if r["sae"] != "all layers" or r["delta"] is None or r["metric_defines_label"]:
            continue
        if r["label"] not in ("semantic.writes", "semantic.reads"):
            continue
        other = next(
            o
            for o in rows
            if (o["metric"], o["label"], o["sae"]) == (r["metric"], r["label"], r["sae"])
            and o["group"].startswith("not ")
        )
        table.append(
            [
                r["label"],
                r["metric"],
                f"{r['n']:,} / {other['n']:,}",
                f"{r['median']:.3g}",
                f"{other['median']:.3g}",
                f"{r['median_ratio']:.2f}",
                f"{r['p75_difference']:+.3g}".replace("-", "−"),
                _signed(r["delta"]),
                _signed(r["mean_delta_over_layers"]),
                f"{r['ks']:.2f}",
                f"{_percent(r['above_pooled_p75'])} / {_percent(other['above_pooled_p75'])}",
            ]
        )
    pooled = "Pooled over the SAEs of the curve; group / others."
    layers = "Where the pooled δ and the mean δ within layers differ, layers differ, not features."
    return f"{_markdown(table)}\n\n{pooled} {layers}"


def _shapes(profiles: list[DepthProfile]) -> str:
    lines = []
    for p in profiles:
        c, q = p.shape.contrast, p.shape.quadratic
        numbers = (
            ""
            if c is None
            else f" Outer thirds − middle third: {_signed(c.value, 3)} ({_signed(c.low, 3)} … {_signed(c.high, 3)})."
        )
        fit = "" if q is None else f" Quadratic fit: curvature {_signed(q.c, 3)}, R² {q.r2:.2f}."
        lines.append(f"- Depth shape of *{p.name}*: {p.shape.verdict}.{numbers}{fit}")
    return "\n".join(lines)


def _picture(file: str, pictures: list[str], words: str) -> str:
    return f"![{words}]({file})" if file in pictures else ""


def _markdown(table: list[list[str]]) -> str:
    if len(table) < 2:
        return ""
    safe = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in table]
    lines = ["| " + " | ".join(row) + " |" for row in safe]
    return "\n".join([lines[0], "|" + " --- |" * len(table[0]), *lines[1:]])


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}"


def _interval(row: Row) -> str:
    return "–" if row["low"] is None else f"{100 * row['low']:.1f}–{100 * row['high']:.1f}"


def _signed(value: float, digits: int = 2) -> str:
    return "–" if not np.isfinite(value) else f"{value:+.{digits}f}".replace("-", "−")


def _mean(rows: list[Row], name: str) -> float:
    values = [r[name] for r in rows if r[name] is not None and np.isfinite(r[name])]
    return float(np.mean(values)) if values else float("nan")
