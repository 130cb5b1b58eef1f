"""The report's figures. Each returns the SVG's text and the rows that it draws; told apart without colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from wbtui.definitions import RECONSTRUCTION
from wbtui.features.populations import BINS, Cut, Population, grouping, shared_bins
from wbtui.report import attention, semantic, tokens
from wbtui.report.data import HEAD_SIDES, ModelData, SaeData
from wbtui.report.svg import Drawing, Panel, Style
from wbtui.schema import SIDES

Row = dict[str, Any]
Figure = tuple[str, list[Row]]
WIDTH = 720.0
SOLID = Style("#000", mark="circle")
DASHED = Style("#444", dash="5 3", mark="square")
DOTTED = Style("#777", dash="1.5 2.5", mark="triangle")
NOISE = Style("#999", dash="7 2 1.5 2", width=1.1, mark="cross")
PHASES = {"semantic.writes": "labels by writes", "semantic.reads": "labels by reads"}
_CLASSES = (("set", "#000"), ("one", "url(#diagonal)"), ("mix", "url(#dots)"), ("none", "#fff"))


def _panels(count: int, left: float = 52, gap: float = 62, right: float = 12) -> list[tuple[float, float]]:
    width = (WIDTH - left - right - gap * (count - 1)) / count
    return [(left + k * (width + gap), width) for k in range(count)]


def _layer_axis(n_layers: int) -> tuple[tuple[float, float], list[tuple[float, str]]]:
    every = max(1, -(-n_layers // 12))
    return (-0.5, n_layers - 0.5), [(float(k), str(k)) for k in range(0, n_layers, every)]


def _nice_top(value: float) -> float:
    for step in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0):
        if value <= step * 0.98:
            return step
    return 1.0


def _footer(drawing: Drawing, y: float, text: str) -> None:
    drawing.note(14, y, f"{text} {RECONSTRUCTION[0].upper()}{RECONSTRUCTION[1:]}.", WIDTH - 28)


def shares(data: ModelData) -> Figure:
    """Share of features over depth, three readings per side, with noise's own share."""
    d = Drawing(WIDTH, 304, f"{data.model.name}: share of features that write or read particular tokens, by layer")
    rows = [r for r in tokens.share_rows(data) if r["side"] in SIDES and r["sae"] != "all layers"]
    readings = (("promotes", DOTTED), ("semantic", SOLID), ("strict", DASHED))
    top = _nice_top(max((r["high"] or 0) for r in rows))
    extras = [r for r in rows if not r["in_curve"] and r["reading"] == "semantic" and r["share"] is not None]
    extras = [r for r in extras if {o["side"] for o in extras if o["sae"] == r["sae"]} == set(SIDES)]
    xlim, xticks = _layer_axis(data.model.n_layers)
    words = {"promotes": "set, one word or mix", "semantic": "set or one word", "strict": "set only"}
    d.legend(
        52, 20, [*((words[name], style) for name, style in readings), ("noise (fresh directions), set or one", NOISE)]
    )
    for (x, w), side in zip(_panels(2), SIDES, strict=True):
        p = Panel(d, x, 58, w, 178, xlim, (0, top))
        p.frame(tokens.SIDE_WORDS[side], "layer of the SAE", "% of features", xticks=xticks, percent=True)
        for k, (name, style) in enumerate(readings):
            profile = tokens.share_profile(data, side, name)
            points = profile.points
            p.series(
                [q.layer for q in points], [q.value for q in points], style, [q.low for q in points],
                [q.high for q in points], shift=(k - 1) * min(3.0, 0.2 * p.step),
            )  # fmt: skip
            if name == "semantic":
                p.series([q.layer for q in points], [q.null for q in points], NOISE)
        for r in extras:
            if r["side"] == side:
                d.mark(p.px(float(r["layer"])) + 9, p.py(r["share"]), Style("#000", mark="diamond", hollow=True))
    beside = ", ".join(
        f"{r['sae']} {100 * r['share']:.1f} / {100 * o['share']:.1f} %"
        for r, o in zip(*([r for r in extras if r["side"] == side] for side in SIDES), strict=True)
    )
    pool = tokens.cut_of(data).line()
    _footer(
        d, 284, f"Bars: 95 % Wilson intervals.{f' ◇ beside the curve: {beside}.' if beside else ''} Threshold: {pool}."
    )
    return d.svg(), rows


def classes(data: ModelData) -> Figure:
    """Class shares of every SAE and of noise as hatched bars."""
    rows = [r for r in tokens.class_rows(data) if r["role"] in ("features", "check", "control")]
    bars: list[tuple[str, str, str | None]] = [(sae.name, "features", sae.name) for sae in data.saes]
    bars += [("sign-flip control", "control", None), ("noise", "check", None)]
    height = 17.0
    total = 58 + len(bars) * height + 72
    d = Drawing(WIDTH, total, f"{data.model.name}: classes of features and of noise")
    at = 110.0
    for name, fill in _CLASSES:
        d.rect(at, 12, 16, 10, fill, "#000")
        words = {"set": "set of alike words", "one": "one word", "mix": "unlike words", "none": "nothing beyond noise"}
        d.text(at + 21, 21, words[name])
        at += 150
    for (x, w), side in zip(_panels(2, left=110, gap=24), SIDES, strict=True):
        p = Panel(d, x, 52, w, len(bars) * height, (0, 1), (0, 1))
        for k, (name, role, of) in enumerate(bars):
            found = [r for r in _pick(rows, side, role, of) if r["set"] is not None]
            y = 52 + k * height + 2
            if side == SIDES[0]:
                d.text(x - 6, y + 10, name, anchor="end")
            start = x
            for cls, fill in _CLASSES:
                share = float(np.mean([r[cls] for r in found])) if found else 0.0
                d.rect(start, y, share * w, height - 4, fill, "#000")
                start += share * w
            if not found:
                d.text(x + 4, y + 10, "no such side", size=8.5, colour="#444")
        p.frame(tokens.SIDE_WORDS[side], "% of rows", yticks=[], percent=True, grid=False,
                xticks=[(t, f"{100 * t:g}") for t in (0, 0.25, 0.5, 0.75, 1)])  # fmt: skip
    _footer(d, total - 30, f"Noise and control: mean over SAEs (and seeds). Threshold: {tokens.cut_of(data).line()}.")
    return d.svg(), rows


def _pick(rows: list[Row], side: str, role: str, sae: str | None = None) -> list[Row]:
    return [r for r in rows if r["side"] == side and r["role"] == role and (sae is None or r["sae"] == sae)]


def heads(data: ModelData) -> Figure:
    """Layer × head: share of features beyond the head's own noise, both sides."""
    rows = [
        r for r in attention.head_rows(data)
        if r["statistic"] == attention.MAIN and any(s.name == r["sae"] for s in data.with_heads)
    ]  # fmt: skip
    saes = data.with_heads
    n_heads = max(s.heads.n_heads for s in saes if s.heads)
    cell = 26.0 if len(saes) <= 16 else 13.0
    d = Drawing(WIDTH, 44 + len(saes) * cell + 52, f"{data.model.name}: features beyond noise, by head")
    top = max((r["share"] or 0) for r in rows) or 1
    for (x, w), side in zip(_panels(2, left=92, gap=70), HEAD_SIDES, strict=True):
        d.text(x, 22, f"as {side}: % beyond the head's noise", size=11, bold=True)
        wide = w / n_heads
        for i, sae in enumerate(saes):
            y = 44 + i * cell
            assert sae.heads is not None
            d.text(x - 6, y + cell / 2 + 3.5, f"L{sae.heads.layer} ← {sae.name}", size=9.5, anchor="end")
            for r in (r for r in rows if r["side"] == side and r["sae"] == sae.name):
                share = r["share"] or 0.0
                grey = round(255 - 205 * share / top)
                d.rect(x + r["head"] * wide, y, wide, cell, f"rgb({grey},{grey},{grey})", "#fff")
                if wide >= 24 and cell >= 20:
                    colour = "#fff" if grey < 140 else "#000"
                    text = f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:.0f}"
                    d.text(
                        x + (r["head"] + 0.5) * wide, y + cell / 2 + 3.5, text, size=9, anchor="middle", colour=colour
                    )
        for h in range(0, n_heads, max(1, n_heads // 8)):
            d.text(x + (h + 0.5) * wide, 40, f"H{h}", size=9, anchor="middle")
    null = [r["null_share"] for r in rows if r["null_share"] is not None]
    numbered = cell >= 20 and _panels(2, left=92, gap=70)[0][1] / n_heads >= 24
    scale = "" if numbered else f"Darkest cell: {100 * top:.1f} %, white: 0 %. "
    fresh = f"fresh noise: {100 * float(np.mean(null)):.1f} % on average." if null else "no fresh noise."
    _footer(
        d, 44 + len(saes) * cell + 22,
        f"{scale}Pre-softmax RMS over partners; a row is the layer that reads ← the SAE it reads. "
        f"Threshold: null over layer: {rows[0]['threshold_pool']}; {fresh}",
    )  # fmt: skip
    return d.svg(), rows


def any_head(data: ModelData) -> Figure:
    """Share of features in at least one head, over depth, with noise's own."""
    d = Drawing(WIDTH, 288, f"{data.model.name}: share of features in some head, by layer")
    rows = [r for r in attention.layer_rows(data) if r["threshold"] == "null"]
    statistics = (("rms", SOLID, "root mean square"), ("p75", DASHED, "upper quartile"), ("max", DOTTED, "peak"))
    d.legend(52, 20, [*((words, style) for _, style, words in statistics), ("noise (fresh directions), RMS", NOISE)])
    top = _nice_top(max((r["high"] or 0) for r in rows))
    xlim, xticks = _layer_axis(data.model.n_layers)
    for (x, w), side in zip(_panels(2), HEAD_SIDES, strict=True):
        p = Panel(d, x, 58, w, 160, xlim, (0, top))
        p.frame(f"as {side}", "layer of the SAE", "% in some head", xticks=xticks, percent=True)
        for k, (statistic, style, _) in enumerate(statistics):
            points = attention.any_profile(data, side, statistic).points
            p.series(
                [q.layer for q in points], [q.value for q in points], style, [q.low for q in points],
                [q.high for q in points], shift=(k - 1) * min(3.0, 0.2 * p.step),
            )  # fmt: skip
            if statistic == attention.MAIN:
                p.series([q.layer for q in points], [q.null for q in points], NOISE)
    _footer(d, 266, f"Bars: 95 % Wilson intervals. Threshold: {attention.any_cut(data).line()}.{_unread(data)}")
    return d.svg(), rows


def _column(sae: SaeData, metric: str) -> np.ndarray:
    side, _, base = metric.partition(".")
    if sae.heads is not None and side in HEAD_SIDES:
        return sae.heads.strongest(f"{side}.{base}")
    return np.asarray(sae.table.column(metric), np.float64)


def _noise(saes: list[SaeData], metric: str) -> np.ndarray:
    parts = [s.heads.strongest(metric, n.columns) for s in saes if s.heads for n in s.heads.nulls]
    return np.concatenate(parts) if parts else np.empty(0)


def populations(data: ModelData) -> Figure:
    """Histograms: semantic, other and noise, of head participation (or the encoder norm while there is none)."""
    shown = [f"{side}.{attention.MAIN}" for side in HEAD_SIDES] if data.with_heads else ["e_norm", "selfcos"]
    words = {
        "query.rms": "as query: strongest head, RMS / noise's 99 %",
        "key.rms": "as key: strongest head, RMS / noise's 99 %",
        "e_norm": "norm of the encoder column",
        "selfcos": "cosine of encoder and decoder",
    }
    saes = data.with_heads or data.curve
    d = Drawing(WIDTH, 62 + 2 * 218 + 26, f"{data.model.name}: semantic against other features")
    plain = [Style(s.colour, s.dash, s.width) for s in (SOLID, DASHED, NOISE)]
    names = [("semantic", plain[0]), ("not semantic", plain[1])]
    d.legend(52, 20, [*names, *([("noise (random directions)", plain[2])] if data.with_heads else [])])
    rows: list[Row] = []
    for i, label in enumerate(semantic.MAIN_LABELS):
        groups = [grouping(s.table, label) for s in saes]
        for (x, w), metric in zip(_panels(len(shown)), shown, strict=True):
            values = np.concatenate([_column(s, metric) for s in saes])
            noise = _noise(saes, metric)
            log = metric != "selfcos"
            merged = type(groups[0])(label, groups[0].names, np.concatenate([g.codes for g in groups]), "")
            split = Population(values).split(merged)
            few = int(np.sqrt(max(min(split.n(0), split.n(1)), 1)))  # fewer bins where a group is small
            bins = shared_bins([_middle(values), _middle(noise)], min(BINS, max(20, few)), log)
            counts = split.histogram(bins)
            heights = [counts[g] / max(split.n(g), 1) for g in (0, 1)]
            heights.append(np.histogram(noise, bins.edges)[0] / max(len(noise), 1))
            top = max(float(h.max()) for h in heights) * 1.12 or 1.0
            p = Panel(d, x, 62 + i * 218, w, 150, (float(bins.edges[0]), float(bins.edges[-1])), (0, top), log)
            p.frame(PHASES[label], words[metric], "% of group", percent=True, grid=False)
            p.steps(bins.edges, heights[0], plain[0], fill="#ccc")
            p.steps(bins.edges, heights[1], plain[1])
            if len(noise):
                p.steps(bins.edges, heights[2], plain[2])
            bar = float(np.quantile(split.pooled, 0.75))
            p.vertical(bar, "P75", Style("#000", "2 2", 0.8))
            effect, beyond = split.effect(), split.beyond(bar)
            within = semantic.layer_deltas([("", 0, g, _column(t, metric)) for g, t in zip(groups, saes, strict=True)])
            for k, line in enumerate((
                f"δ = {effect.delta:+.2f} · D = {effect.ks:.2f}".replace("-", "−"),
                f"δ within layers = {within:+.2f}".replace("-", "−"),
                f"n = {effect.n_a:,} / {effect.n_b:,}",
                f"above P75: {100 * beyond[0][0] / max(beyond[0][1], 1):.0f} % / "
                f"{100 * beyond[1][0] / max(beyond[1][1], 1):.0f} %",
            )):  # fmt: skip
                d.text(x + w - 4, 62 + i * 218 + 24 + 12 * k, line, size=9, anchor="end")
            rows += [
                {"label": label, "metric": metric, "bin_low": bins.edges[k], "bin_high": bins.edges[k + 1],
                 "semantic": int(counts[0][k]), "other": int(counts[1][k]),
                 "noise": int(np.histogram(noise, bins.edges)[0][k])}
                for k in range(len(bins.edges) - 1)
            ]  # fmt: skip
    cut = Cut(float("nan"), "quantile", "model", "0.75 of what is drawn, both groups")
    _footer(
        d,
        62 + 2 * 218 - 2,
        f"Pooled over {', '.join(s.name for s in saes)}; axis cut at 0.1 and 99.9 %. P75: {cut.line()}. "
        f"Labels: {tokens.cut_of(data).line()}.",
    )
    return d.svg(), rows


def _unread(data: ModelData) -> str:
    """Which SAEs of the curve no head reads."""
    names = [s.name for s in data.curve if s.heads is None]
    return f" No heads: {', '.join(names)}." if names else ""


def _middle(values: np.ndarray) -> np.ndarray:
    """What lies between the 0.1 and 99.9 percentiles, so that single values do not stretch an axis."""
    values = values[np.isfinite(values)]
    if not len(values):
        return values
    low, high = np.percentile(values, (0.1, 99.9))
    return values[(values >= low) & (values <= high)]


def effects(data: ModelData, found: semantic.Effects) -> Figure:
    """Cliff's δ of every head by layer, with the band of permuted labels."""
    d = Drawing(WIDTH, 62 + 2 * 205 + 26, f"{data.model.name}: effect of the semantic label in every head")
    d.legend(52, 20, [("one head", Style("#000", width=0, mark="circle", hollow=True)),
                      ("mean of the layer's heads", Style("#000", width=0, mark="square"))])  # fmt: skip
    d.rect(330, 12, 20, 9, "#ddd")
    d.text(355, 20, "95 % of permuted labels (a single head)")
    xlim, xticks = _layer_axis(data.model.n_layers)
    rows: list[Row] = []
    for label in semantic.MAIN_LABELS:
        for e in found.of(label):
            for side in HEAD_SIDES:
                for h, k in enumerate(range(*e.side(side).indices(e.rows))):
                    low, high = np.percentile(e.delta_null[k], (2.5, 97.5))
                    rows.append(
                        {
                            "label": label,
                            "side": side,
                            "sae": e.sae.name,
                            "sae_layer": e.sae.info.layer,
                            "head": h,
                            "delta": float(e.delta[k]),
                            "null_low": float(low),
                            "null_high": float(high),
                        }
                    )
    reach = max((max(abs(r["delta"]), r["null_high"], -r["null_low"]) for r in rows), default=0.5)
    top = _nice_top(reach)
    for i, label in enumerate(semantic.MAIN_LABELS):
        for (x, w), side in zip(_panels(2), HEAD_SIDES, strict=True):
            p = Panel(d, x, 62 + i * 205, w, 138, xlim, (-top, top))
            here = [r for r in rows if r["label"] == label and r["side"] == side]
            for layer in sorted({r["sae_layer"] for r in here}):
                at = [r for r in here if r["sae_layer"] == layer]
                low, high = np.mean([r["null_low"] for r in at]), np.mean([r["null_high"] for r in at])
                half = min(11.0, 0.45 * p.step)
                d.rect(p.px(layer) - half, p.py(float(high)), 2 * half, p.py(float(low)) - p.py(float(high)), "#ddd")
            p.frame(f"{PHASES[label]}, as {side}", "layer of the SAE", "Cliff's δ", xticks=xticks, grid=False)
            d.line(x, p.py(0), x + w, p.py(0), Style("#000", "2 2", 0.7))
            for layer in sorted({r["sae_layer"] for r in here}):
                at = [r for r in here if r["sae_layer"] == layer]
                for k, r in enumerate(at):
                    spread = (k - (len(at) - 1) / 2) * min(4.0, min(18.0, 0.7 * p.step) / max(len(at), 1))
                    style = Style("#000" if len(at) <= 8 else "#777", mark="circle", hollow=True)
                    d.mark(p.px(layer) + spread, p.py(r["delta"]), style, 2.4 if len(at) <= 8 else 1.2)
                mean = float(np.mean([r["delta"] for r in at]))
                d.mark(p.px(layer), p.py(mean), Style("#000", mark="square"), 3.4)
    _footer(
        d,
        62 + 2 * 205 - 2,
        f"δ > 0: semantic features have the larger RMS participation. {found.n_perm} permutations, near-duplicates "
        f"(decoder cosine > 0.7) whole. Labels: {tokens.cut_of(data).line()}.",
    )
    return d.svg(), rows


def variation(data: ModelData) -> Figure:
    """Layer means relative to their mean over layers, query and key side."""
    d = Drawing(WIDTH, 256, f"{data.model.name}: participation over depth, query against key")
    d.legend(52, 20, [("as query", SOLID), ("as key", DASHED)])
    saes = data.with_heads
    layers = [float(s.info.layer) for s in saes]
    means = {
        (statistic, side): attention.layer_means(data, side, statistic)
        for statistic in attention.PRE_SOFTMAX
        for side in HEAD_SIDES
    }
    relative = {key: m / m.mean() for key, m in means.items()}
    low = min(float(r.min()) for r in relative.values())
    high = max(float(r.max()) for r in relative.values())
    pad = 0.1 * (high - low or 1)
    xlim, xticks = _layer_axis(data.model.n_layers)
    rows: list[Row] = []
    words = {"rms": "root mean square", "p75": "upper quartile", "max": "peak"}
    for (x, w), statistic in zip(_panels(3, gap=40), attention.PRE_SOFTMAX, strict=True):
        p = Panel(d, x, 58, w, 138, xlim, (low - pad, high + pad))
        p.frame(words[statistic], "layer of the SAE", "layer mean / mean" if statistic == "rms" else "", xticks=xticks)
        for side, style in zip(HEAD_SIDES, (SOLID, DASHED), strict=True):
            values = relative[statistic, side]
            p.series(layers, [float(v) for v in values], style)
            cv = float(values.std() / values.mean())
            d.text(x + w, 39 + 11 * HEAD_SIDES.index(side), f"CV as {side} {cv:.3f}", size=9, anchor="end")
            rows += [
                {"statistic": statistic, "side": side, "sae": s.name, "sae_layer": s.info.layer, "layer_mean": float(m),
                 "relative": float(v), "cv": cv}
                for s, m, v in zip(saes, means[statistic, side], values, strict=True)
            ]  # fmt: skip
    _footer(d, 244, "Means over features and heads; both sides' mean squares are equal by construction (left panel).")
    return d.svg(), rows
