"""Numbers of one feature in one head, each with the noise's line. Pure."""

from __future__ import annotations

import math

from wbtui.display import fit
from wbtui.features.heads import STATISTIC_WORDS, STATISTICS, HeadTable
from wbtui.tui.draw.heads import Spot, ratio_text
from wbtui.tui.draw.line import Line, cut, rule

_OVER_FEATURES = {
    "query": (("top1", "mass of the best key"), ("top5", "mass of the five best"), ("conc", "concentration")),
    "key": (("received", "mass received as key"), ("prior", "score by query bias")),
}
"""What is said of pairs through the softmax, side by side."""


def number_lines(heads: HeadTable, row: int, spot: Spot, width: int) -> list[Line]:
    """Every statistic of one feature in one head with the noise's line."""
    h, side = spot.head, spot.side
    out = [rule(width, f"#{row} IN L{heads.layer}.H{h} AS {side.upper()}", "99 %   over  above ")]
    for name in STATISTICS:
        value = float(heads.column(f"{side}.{name}")[h, row])
        level = float(heads.bars(side, name)[h])
        about = " ≈" if heads.estimated(name) else ""
        above = heads.percentile(side, h, row, name)
        out.append(number_line(STATISTIC_WORDS[name] + about, value, level, above, width))
    mean = heads.stream_mean(side)[h]
    if math.isfinite(mean):
        out.append(number_line("stream’s mean (b_dec)", math.nan, math.nan, math.nan, width, ratio=mean))
    return out


def softmax_lines(heads: HeadTable, row: int, spot: Spot, width: int) -> list[Line]:
    """The quantities that run over features: nothing in the model computes them (methods 1.3)."""
    out = [rule(width, "SOFTMAX OVER FEATURES, not positions", "")]
    for name, words in _OVER_FEATURES[spot.side]:
        out.append(_plain(words, float(heads.column(f"{spot.side}.{name}")[spot.head, row]), width))
    return out


def number_line(words: str, value: float, level: float, above: float, width: int, ratio: float = math.nan) -> Line:
    """``rms           12.3     7.4    1.7  98.1 %``: value, the noise's 99 %, value over it, features below."""
    ratio = ratio if math.isfinite(ratio) else value / level
    ink = "text" if ratio > 1 else "dim"
    tail = f"{value_text(level):>7}{ratio_text(ratio):>7}" + (f"{above:5.1f} %" if math.isfinite(above) else "       ")
    return [
        (fit(words, width - 30), ink),
        (f"{value_text(value):>8}", "strong" if ratio > 1 else ink),
        (tail + " ", "dim"),
    ]


def _plain(words: str, value: float, width: int) -> Line:
    return cut([(fit(words, max(8, width - 30)), "dim"), (f"{value_text(value):>8}", "dim")], width)


def value_text(value: float) -> str:
    """A number in few digits, ``–`` where there is none."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
