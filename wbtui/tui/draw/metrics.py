"""The evidence metrics in a table: value, place among all, share of noise that reaches it, level of the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wbtui.tui.draw.bars import spark
from wbtui.tui.draw.line import Line, cut, width_of
from wbtui.tui.draw.population import Population, merged, place, place_text
from wbtui.tui.facts import inside_level, null_share, value_of

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

METRICS = (
    ("z_max", "strongest token, standard deviations", ".1f"),
    ("z_10", "tenth token", ".1f"),
    ("delta_h", "entropy below a Gaussian's, nats", ".2f"),
    ("cos_tok", "likeness of the top ten, embeddings", ".2f"),
    ("lev", "likeness of the top ten, spelling", ".2f"),
)
"""Evidence metrics: name, words, format."""
SPARK = 20


def metrics_block(
    table: FeatureTable,
    row: int,
    width: int,
    populations: Mapping[str, Population],
    sides: tuple[str, ...] = ("writes", "reads"),
) -> list[Line]:
    """One line a metric; what lies beyond 99 % of noise stands out. Histogram and words follow where they fit."""
    if width < 10 + 24 * len(sides):
        sides = sides[:1]
    with_level = width >= 10 + 31 * len(sides)
    head: Line = [(f"{'METRIC':<9}", "head")]
    for side in sides:
        head += [(f"{side:>8}", "head"), (f"{'place':>7}", "head"), (f"{'noise ≥':>9}", "head")]
        head += [(f"{'99 %':>7}", "head")] if with_level else []
    left = width - width_of(head)
    with_spark, with_words = left >= SPARK + 3, left >= SPARK + 3 + 40
    if with_spark:
        head.append(("   among all".ljust(SPARK + 3), "head"))
    out = [cut([*head, (" " + "─" * max(0, width - width_of(head) - 1), "rule")], width)]
    for name, words, how in METRICS:
        line: Line = [(f"{name:<9}", "text")]
        for side in sides:
            value, level = value_of(table, f"{side}.{name}", row), inside_level(table, side, name)
            beyond = math.isfinite(value) and math.isfinite(level) and value > level
            among = populations.get(f"{side}.{name}")
            place_ = place_text(among.above(value)) if among is not None and math.isfinite(value) else "–"
            line.append((_number(value, how).rjust(8), "strong" if beyond else "dim"))
            line.append((place_.rjust(7), "text" if beyond else "dim"))
            line.append((null_share(table, f"{side}.{name}", row).rjust(9), "text" if beyond else "dim"))
            if with_level:
                line.append((_number(level, how).rjust(7), "dim"))
        crowd = populations.get(f"writes.{name}")
        if with_spark and crowd is not None:
            line += [("   ", "text"), *_marked(crowd, value_of(table, f"writes.{name}", row))]
        if with_words:
            line.append(("   " + words, "dim"))
        out.append(cut(line, width))
    return out


def _number(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "–"


def _marked(crowd: Population, value: float) -> Line:
    """All features' histogram on one line, the row's place marked in it."""
    shares = crowd.shares["semantic"] * crowd.counts["semantic"] + crowd.shares["other"] * crowd.counts["other"]
    text = spark(merged(shares, SPARK)).ljust(SPARK)
    if not math.isfinite(value):
        return [(text, "dim")]
    at = place(crowd, value, SPARK)
    return [(text[:at], "dim"), ("▲", "strong"), (text[at + 1 :], "dim")]
