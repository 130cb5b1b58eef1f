"""Files of a population as drawn: counts per bin and group, statistics, the picture; with what the numbers mean."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.features.export import guard, provenance
from wbtui.features.glossary import explain
from wbtui.tui.crowd import NOISE, Crowd, Standing
from wbtui.tui.drawn_export import lines_csv, stem_of, write_together

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def bins_csv(crowd: Crowd) -> str:
    """``low,high,GROUP…``: counts per bin; the outermost bins, open, have no ``low`` and no ``high``."""
    bins = crowd.bins
    rows = []
    for i in range(bins.n):
        low = bins.text(i) if i else "0" if bins.log else ""
        high = bins.text(i + 1) if i < bins.n - 1 else ""
        rows.append([low, high, *(int(crowd.counts[g][i]) for g in crowd.drawn)])
    return lines_csv(["low", "high", *crowd.drawn], rows)


def statistics_csv(crowd: Crowd, line: Standing, mark: tuple[str, float]) -> str:
    """``statistic,group,against,value``: one number a line; empty where there is none."""
    rows: list[list[str]] = []

    def row(statistic: str, group: str, against: str, value: float | int) -> None:
        shown = "" if isinstance(value, float) and not math.isfinite(value) else repr(value)
        rows.append([statistic, guard(group), guard(against), shown])

    row("threshold", "", "", float(line.value))
    row("false_discovery", "all", NOISE, float(line.fdr))
    for group in crowd.drawn:
        for name, value in asdict(crowd.stats[group]).items():
            if name != "name":
                row(name, group, "", value)
        row("share_above_threshold", group, "", float(line.above.get(group, math.nan)))
    for effect in crowd.effects:
        for name in ("u", "delta", "ks", "median_ratio", "p75_difference"):
            row({"u": "mann_whitney_u", "delta": "cliffs_delta", "ks": "ks_distance"}.get(name, name),
                effect.a, effect.b, float(getattr(effect, name)))  # fmt: skip
    row("value", mark[0], "", float(mark[1]))
    row("share_below", mark[0], "all", crowd.percentile(mark[1]) if math.isfinite(mark[1]) else math.nan)
    return lines_csv(["statistic", "group", "against", "value"], rows)


def meta(table: FeatureTable, crowd: Crowd, line: Standing) -> dict[str, Any]:
    """What the numbers mean: definition, thresholds, groups, how the line was set."""
    note = {
        "metric": {"name": crowd.name, "meaning": explain(crowd.name).meaning},
        "groups": {"label": crowd.label, "names": list(crowd.groups), "how": crowd.split.how},
        "noise": [{"kind": kind, "n": len(values)} for kind, values in crowd.noise],
        "threshold": {
            "value": float(line.value) if math.isfinite(line.value) else None,
            "mode": "fixed" if line.moved else crowd.mode,
            "how": "by hand" if line.moved else crowd.how,
        },
        "same_list": crowd.circular,
    }
    return provenance(table, table.computed.nonzero()[0], [], note)


def write(
    folder: Path, table: FeatureTable, crowd: Crowd, line: Standing, mark: tuple[str, float], svg: str
) -> list[Path]:
    """Write all files under a name that none has yet.

    Returns:
        list: bins, statistics, picture, meaning.

    Raises:
        StoreError: the folder cannot be written.
    """
    texts = {".csv": bins_csv(crowd), ".statistics.csv": statistics_csv(crowd, line, mark), ".svg": svg}
    stem = stem_of(table, f"population-{crowd.name.replace(':', '-')}")
    return write_together(folder, stem, texts, meta(table, crowd, line))
