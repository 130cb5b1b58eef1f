"""One SAE in numbers: class shares of its features and of noise in the same classes, and how the bars were set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.definitions import RECONSTRUCTION, to_json
from wbtui.display import safe_token_text
from wbtui.features import classes
from wbtui.features.noise import NullSample, Read
from wbtui.schema import SIDES

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

SCHEMA = "wbtui.summary/1"
READINGS = ("semantic", "strict", "promotes")
_Z95 = 1.959963984540054
CONTROL = "sign_flip"


def wilson(count: int, n: int) -> tuple[float, float]:
    """95 % binomial interval of a share (Wilson), 0…1; (0, 1) without rows."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = count / n, _Z95 * _Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (0.0 if count == 0 else max(0.0, centre - half)), (1.0 if count == n else min(1.0, centre + half))


def share(count: int, n: int) -> dict[str, Any]:
    """A share with its interval; null without rows."""
    low, high = wilson(count, n)
    return {"count": count, "n": n, "share": count / n if n else None, "low": low, "high": high}


def summary(table: FeatureTable) -> dict[str, Any]:
    """Class shares of features and of every null and check, with false-discovery rates, as plain JSON data.

    Shares are over rows whose class is known: stored, finite, of non-zero norm. FDR = noise share / feature share, with
    the largest share among fresh null seeds where those are there (``fdr_of`` says which), else among the nulls that
    set the bars. The sign-flip control is shown apart: it is no threshold and no false-discovery rate.
    """
    fresh = [n for n in table.checks if n.kind != CONTROL]
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "address": table.origin.address(),
        "model": dict(table.origin.model),
        "sae": dict(table.origin.sae),
        "definition": to_json(table.origin.definition),
        "note": RECONSTRUCTION,
        "thresholds": table.thresholds.to_json(),
        "line": table.thresholds.line(),
        "rows": _rows(table),
        "mask": {side: counts for side in SIDES if (counts := table.masked_tokens(side)) is not None},
        "sides": {},
        "either": {name: _reading(table, f"{name}.either") for name in READINGS},
        "both": {name: _reading(table, f"{name}.both") for name in READINGS},
        "same_top_token": _reading(table, "same"),
    }
    for side in SIDES:
        done = table.computed
        own = _population(
            table, side, table.column(f"{side}.class")[done], table.column(f"unclear.{side}")[done],
            table.column(f"{side}.evidence")[done],
        )  # fmt: skip
        noise = [
            {"kind": n.kind, "seed": n.seed, "label": n.label, "role": role, **_noise(table, side, n)}
            for role, samples in (("threshold", table.thresholds.used), ("check", table.checks))
            for n in samples
        ]
        for item in noise:
            if item["kind"] == CONTROL:
                item["role"] = "control"
        judges = [n for n in noise if n["role"] == ("check" if fresh else "threshold") and n["n"]]
        for name in READINGS:
            own["readings"][name].update(_fdr(own["readings"][name], name, judges))
        out["sides"][side] = {"features": own, "noise": noise}
    from wbtui.features.heads_record import add_to

    add_to(out, table)
    return out


def _rows(table: FeatureTable) -> dict[str, int]:
    done = table.computed
    return {
        "n": table.n,
        "computed": int(done.sum()),
        "provisional": len(table.provisional),
        **{name: int((table.column(name) & done).sum()) for name in ("nonfinite", "zero", "no_reads")},
    }


def _reading(table: FeatureTable, name: str) -> dict[str, Any]:
    known = table.known(name) & table.computed
    return share(int((table.column(name) & known).sum()), int(known.sum()))


def _population(
    table: FeatureTable, side: str, codes: np.ndarray, unclear: np.ndarray, evidence: np.ndarray
) -> dict[str, Any]:
    known = codes != classes.UNKNOWN
    n = int(known.sum())
    with np.errstate(invalid="ignore"):
        strong = int((evidence[known] > 1).sum())
    return {
        "n": n,
        "classes": {name: share(int((codes == code).sum()), n) for code, name in enumerate(classes.CLASS_NAMES)},
        "readings": {name: share(int(classes.flag(codes, name).sum()), n) for name in READINGS},
        "unclear": share(int((unclear & known).sum()), n),
        "evidence_above_1": share(strong, n) if table.thresholds.side(side).units else None,
    }


def _noise(table: FeatureTable, side: str, sample: NullSample) -> dict[str, Any]:
    bars, thresholds = table.thresholds.side(side), table.thresholds
    read: Read = sample.read(side)
    codes, _ = classes.classify(read, bars, thresholds.rule, thresholds.concentration)
    return _population(table, side, codes, classes.unclear(read, bars), classes.evidence(read, bars.units))


def _fdr(own: dict[str, Any], name: str, judges: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not judges:
        return {"fdr": None, "fdr_of": None, "null_share": None}
    worst = max(judges, key=lambda item: item["readings"][name]["share"])
    null_share = worst["readings"][name]["share"]
    fdr = min(1.0, null_share / own["share"]) if own["share"] else None
    return {"fdr": fdr, "fdr_of": worst["label"], "null_share": null_share}


def render(data: dict[str, Any]) -> str:
    """A summary as plain text with aligned columns, at most 100 cells wide."""
    rows = data["rows"]
    lines = [
        f"{safe_token_text(data['address'])}   definition {data['definition']['name']} · {data['line']}",
        f"{rows['n']:,} features, {rows['computed']:,} computed, "
        f"{rows['nonfinite']:,} not finite, {rows['zero']:,} zero",
    ]
    for side, counts in data["mask"].items():
        estimated = " (estimated)" if counts["estimated"] else ""
        lines.append(f"mask, {side}: {counts['total']:,} of {counts['of']:,} tokens{estimated}")
    header = ("", "rows", "set", "one", "mix", "none", "semantic", "95 %", "FDR", "strict", "promotes")
    for side, item in data["sides"].items():
        own = item["features"]
        cells = [header, _line("features", own)]
        cells += [_line(f"{n['role']}: {n['label']}", n) for n in item["noise"]]
        lines += ["", f"{side} (%)", *_align(cells)]
        if own["readings"]["semantic"]["fdr_of"]:
            lines.append(f"FDR of semantic against {own['readings']['semantic']['fdr_of']}")
    lines += ["", *_bars(data["thresholds"]), "", data["note"]]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _line(name: str, item: dict[str, Any]) -> tuple[str, ...]:
    shares = {key: value["share"] for key, value in item["classes"].items()}
    semantic = item["readings"]["semantic"]
    interval = f"{100 * semantic['low']:.1f}–{100 * semantic['high']:.1f}" if item["n"] else "–"
    return (
        name, f"{item['n']:,}", *(_percent(shares[k]) for k in ("coherent", "single", "diffuse", "none")),
        _percent(semantic["share"]), interval, _percent(semantic.get("fdr")),
        _percent(item["readings"]["strict"]["share"]), _percent(item["readings"]["promotes"]["share"]),
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _align(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]


def _bars(thresholds: dict[str, Any]) -> list[str]:
    out = [f"thresholds: rule {thresholds['rule']}, mode {thresholds['mode']}"]
    for side in SIDES:
        bars = thresholds[side]
        names = (
            ("cos_tok", "lev") if thresholds["rule"] == "envelope" else (thresholds["concentration"], "cos_tok", "lev")
        )
        parts = [
            f"{name} {'–' if bars[name] is None else format(bars[name], '.3f')} ({bars['how'][name]})" for name in names
        ]
        if thresholds["rule"] == "envelope":
            first = bars["word_z"][0]
            parts.insert(0, f"word_z 1st {'–' if first is None else format(first, '.2f')} ({bars['how']['word_z']})")
        out += [f"  {side}: {part}" if i == 0 else f"  {' ' * len(side)}  {part}" for i, part in enumerate(parts)]
    return out
