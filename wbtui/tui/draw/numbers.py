"""What stands beside a population's drawing: sizes, medians, shares beyond the line, effect sizes, cautions."""

from __future__ import annotations

import math

from wbtui.display import fit
from wbtui.tui.crowd import NOISE, Crowd, Standing
from wbtui.tui.draw.histogram import number, percent, swatch
from wbtui.tui.draw.line import Line, cut, rule, wrap

BESIDE = 46
"""Cells of the tables beside the drawing."""


def groups_table(crowd: Crowd, line: Standing, width: int) -> list[Line]:
    """A line a group: how it is drawn, members, median, share above the line; then the false-discovery rate."""
    value = number(crowd.bins, line.value)
    name_width = max(8, width - 30)
    head = f"{'above ' + value:>12}"
    out: list[Line] = [cut([(f"{'GROUP':<{name_width + 2}}{'n':>8}{'median':>8}{head}", "head")], width)]
    for group in crowd.drawn:
        glyph, role = swatch(crowd, group)
        stats = crowd.stats[group]
        out.append(
            cut(
                [
                    (glyph, role), (" " + fit(group, name_width), "text"), (f"{stats.n:>8,}", "text"),
                    (number(crowd.bins, stats.median).rjust(8) if stats.n else f"{'–':>8}", "text"),
                    (percent(line.above.get(group, math.nan)).rjust(12), "strong"),
                ],
                width,
            )
        )  # fmt: skip
    rate = percent(line.fdr)
    words = f"false discovery above {value}"
    out.append(cut([(fit(words, width - len(rate) - 1) + " ", "dim"), (rate, "strong")], width))
    return out


def effects_table(crowd: Crowd, width: int) -> list[Line]:
    """A line a pair: Cliff's delta, Kolmogorov-Smirnov distance, ratio of medians, difference of upper quartiles.

    What has no room is left out from the right.
    """
    if not crowd.effects:
        return []
    longest = max(len(f"{e.a} : {e.b}") for e in crowd.effects)
    columns = [("Cliff δ", 8), ("KS D", 6), ("median", 7), ("ΔP75", 8)]
    while len(columns) > 2 and longest + sum(cells for _, cells in columns) > width:
        columns.pop()
    name_width = width - sum(cells for _, cells in columns)
    heads = "".join(f"{name:>{cells}}" for name, cells in columns)
    out: list[Line] = [cut([(f"{'EFFECT':<{name_width}}{heads}", "head")], width)]
    for effect in crowd.effects:
        ratio = f"×{effect.median_ratio:.2f}" if math.isfinite(effect.median_ratio) else "–"
        if len(ratio) > 6:
            ratio = f"×{effect.median_ratio:.2g}"
        texts = (_signed(effect.delta), _plain(effect.ks), ratio, _difference(crowd, effect.p75_difference))
        line: Line = [(fit(f"{effect.a} : {effect.b}", name_width), "text")]
        for at, ((_, cells), text) in enumerate(zip(columns, texts, strict=False)):
            line.append((text.rjust(cells), "strong" if at == 0 else "text"))
        out.append(cut(line, width))
    return out


def _signed(x: float) -> str:
    return f"{x:+.2f}".replace("+0.", "+.").replace("-0.", "−.").replace("-", "−") if math.isfinite(x) else "–"


def _plain(x: float) -> str:
    return (f"{x:.2f}".removeprefix("0") if x < 1 else f"{x:.2f}") if math.isfinite(x) else "–"


def _difference(crowd: Crowd, x: float) -> str:
    if not math.isfinite(x):
        return "–"
    decimals = 3 if crowd.bins.log else len(crowd.bins.texts[0].partition(".")[2]) + (0 if crowd.bins.whole else 1)
    return f"{x:+.{min(decimals, 4)}f}".replace("-", "−")


def notes(crowd: Crowd, width: int) -> list[Line]:
    """What to beware of."""
    out: list[str] = []
    if crowd.circular:
        out.append("labels come from the list that this metric measures: a difference is no news")
    if NOISE in crowd.drawn and len(crowd.noise) > 1:
        out.append(
            "noise is drawn and compared over its kinds together; share above, false discovery: the stronger kind's"
        )
    if crowd.groups == ("all",):
        out.append("no labels yet: they are judged against the noise, which is not computed")
    if crowd.unlabelled:
        out.append(f"{crowd.unlabelled:,} features with a value have no label and are left out")
    if crowd.hidden:
        out.append(f"{crowd.hidden:,} values at or below 0 have no place on a logarithmic axis; statistics hold them")
    return [line for text in out for line in wrap(text.split(), width, "dim", indent="  ")]


def beside(crowd: Crowd, line: Standing, mark: tuple[str, float], width: int, height: int) -> list[Line]:
    """Tables one under the other, as many whole ones as the height holds."""
    blocks = [groups_table(crowd, line, width), effects_table(crowd, width), feature_lines(crowd, mark, width)]
    blocks.append(notes(crowd, width))
    out: list[Line] = []
    for block in blocks:
        if block and len(out) + len(block) + bool(out) <= height:
            out += [*([[]] if out else []), *block]
    return out


def feature_lines(crowd: Crowd, mark: tuple[str, float], width: int) -> list[Line]:
    """The feature among all and among noise."""
    name, value = mark
    out = [rule(width, name)]
    if not math.isfinite(value):
        return [*out, [("no value here", "dim")]]
    out.append(cut([(number(crowd.bins, value), "strong"), (", above ", "dim"),
                    (percent(crowd.percentile(value), 1), "strong"), (" of all features", "dim")], width))  # fmt: skip
    if crowd.noise:
        reach = [(1 + int((v >= value).sum())) / (1 + len(v)) for _, v in crowd.noise]
        out.append(cut([("reached by ", "dim"), (percent(max(reach), 1), "strong"), (" of noise", "dim")], width))
    return out


def caution(crowd: Crowd, width: int) -> Line:
    """The first note on one line; empty where there is none."""
    lines = notes(crowd, 10_000)
    return cut(lines[0], width) if lines else []


def under(crowd: Crowd, line: Standing, width: int, height: int) -> list[Line]:
    """Tables side by side, for narrow terminals; what has no room is left out from the right and the bottom."""
    left_width = min(46, (width - 3) // 2 + 1) if width >= 78 else width
    left = groups_table(crowd, line, left_width)
    if width < 78:
        return left[:height]
    right_width = width - left_width - 3
    right = effects_table(crowd, right_width)
    out: list[Line] = []
    for i in range(min(height, max(len(left), len(right)))):
        a = left[i] if i < len(left) else []
        b = right[i] if i < len(right) else []
        out.append([*cut(a, left_width), (" │ ", "rule"), *cut(b, right_width)])
    return out
