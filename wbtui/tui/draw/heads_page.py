"""What stands under the grids of the Heads page: partners and numbers of one head, or a head's own page. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from wbtui.display import fit
from wbtui.features.heads import STATISTIC_WORDS, STATISTICS, HeadTable, Part, Share, largest
from wbtui.tui.draw.heads import ARROWS, Spot, feature_words, ratio_text, shade, words_role
from wbtui.tui.draw.line import Line, cut, rule, wrap

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

SPLIT = 100
"""Width from which lists and numbers stand beside each other."""
BESIDE = 52
LISTED = 40
_OVER_FEATURES = {
    "query": (("top1", "mass of the best key"), ("top5", "mass of the five best"), ("conc", "concentration")),
    "key": (("received", "mass received as key"), ("prior", "score by query bias")),
}


def partners(heads: HeadTable, row: int, spot: Spot) -> list[tuple[int, float]]:
    """(feature, score) of the list under the grid, strongest first."""
    return heads.seekers(spot.head, spot.side, row, LISTED)


def partner_lines(
    table: FeatureTable, heads: HeadTable, row: int, spot: Spot, width: int, height: int, *, active: bool = True
) -> list[Line]:
    """Partners of a feature in one head: number, words, score, score over the head's noise."""
    name = f"L{heads.layer}.H{spot.head}"
    title, what = {
        "key": (f"QUERIES THAT LOOK FOR #{row} in {name}", "the strongest, then every query whose own best key it is"),
        "query": (f"KEYS THAT #{row} LOOKS FOR in {name}", "the strongest, then every key whose own best query it is"),
    }[spot.side]
    out = [rule(width, title, "score  over noise")]
    found = partners(heads, row, spot)
    bar = float(heads.bars(spot.side, "max")[spot.head])
    if not found:
        why = "its direction is zero or not finite" if not _known(heads, row, spot) else "no partner"
        return [*out, [(f"– no number for it here: {why}", "dim")]]
    out.append(cut([(f"  {what}", "dim")], width))
    room = max(1, height - len(out))
    top = max(0, min(spot.pick - room // 2, len(found) - room))
    for at, (feature, score) in enumerate(found[top : top + room], top):
        ratio = score / bar
        ink = "text" if ratio > 1 else "dim"
        right: Line = [
            (f"{score:7.1f} ", ink),
            (f" {shade(ratio)}{ratio_text(ratio)}", "strong" if ratio > 1 else "dim"),
        ]
        words_width = width - 2 - 8 - 15 - 4
        words = "itself" if feature == row else feature_words(table, feature, words_width)
        out.append(
            [
                ("▸ " if active and at == spot.pick else "  ", "strong"),
                (f"#{feature}".ljust(8), "strong" if active and at == spot.pick else ink),
                (fit(words, words_width), words_role(words, ratio > 1)),
                ("    ", "text"),
                *right,
            ]
        )
    return out


def _known(heads: HeadTable, row: int, spot: Spot) -> bool:
    return bool(np.isfinite(heads.column(f"{spot.side}.rms")[spot.head, row]))


def number_lines(heads: HeadTable, row: int, spot: Spot, width: int, height: int) -> list[Line]:
    """Every statistic of one feature in one head with the noise's line, then what the head writes of it."""
    h, side = spot.head, spot.side
    out = [rule(width, f"#{row} IN L{heads.layer}.H{h} AS {side.upper()}", "99 %   over  above ")]
    for name in STATISTICS:
        value = float(heads.column(f"{side}.{name}")[h, row])
        level = float(heads.bars(side, name)[h])
        about = " ≈" if heads.estimated(name) else ""
        above = heads.percentile(side, h, row, name)
        out.append(_number(STATISTIC_WORDS[name] + about, value, level, above, width))
    mean = heads.stream_mean(side)[h]
    if math.isfinite(mean):
        out.append(_number("stream’s mean (b_dec)", math.nan, math.nan, math.nan, width, ratio=mean))
    listed = partners(heads, row, spot) if side == "query" else []
    seen = row if side == "key" else listed[min(spot.pick, len(listed) - 1)][0] if listed else None
    if seen is not None:
        out += ov_lines(heads, seen, h, width)
    out.append(rule(width, "SOFTMAX OVER FEATURES, not positions", ""))
    for name, words in _OVER_FEATURES[side]:
        value = float(heads.column(f"{side}.{name}")[h, row])
        out.append(_plain(words, value, width))
    return out[:height]


def ov_lines(heads: HeadTable, row: int, head: int, width: int) -> list[Line]:
    """Norm, gain and copy score of what the head writes when it attends to the feature."""
    out = [rule(width, f"IT WRITES, ATTENDING TO #{row}", "99 %   over        ")]
    if not heads.has_ov:
        return [*out, [("… not computed yet", "dim")]]
    for name, words in (("norm", "length"), ("gain", "gain"), ("copy", "copy score (cosine)")):
        value = float(heads.column(f"ov.{name}")[head, row])
        out.append(_number(words, value, float(heads.ov_bars(f"ov.{name}")[head]), math.nan, width))
    return out


def _number(words: str, value: float, level: float, above: float, width: int, ratio: float = math.nan) -> Line:
    ratio = ratio if math.isfinite(ratio) else value / level
    ink = "text" if ratio > 1 else "dim"
    tail = f"{_value(level):>7}{ratio_text(ratio):>7}" + (f"{above:5.1f} %" if math.isfinite(above) else "       ")
    return [(fit(words, width - 30), ink), (f"{_value(value):>8}", "strong" if ratio > 1 else ink), (tail + " ", "dim")]


def _plain(words: str, value: float, width: int) -> Line:
    return cut([(fit(words, max(8, width - 30)), "dim"), (f"{_value(value):>8}", "dim")], width)


def _value(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


# A head's own page ------------------------------------------------------------------------------------------------


def head_list(heads: HeadTable, spot: Spot) -> list[tuple[int, Part]]:
    """The features that the head reads most on the chosen side."""
    return heads.top(spot.head, spot.side, LISTED, spot.statistic)


def head_lines(table: FeatureTable, heads: HeadTable, spot: Spot, row: int, width: int, height: int) -> list[Line]:
    """The head: features it reads most as key and as query with their partners, what it writes most of, its shares."""
    sides = ("key", "query") if width >= SPLIT else (spot.side,)
    each = (width - 3 * (len(sides) - 1)) // len(sides)
    below = written_lines(table, heads, spot.head, row, width) if height >= 16 else []
    room = height - len(below)
    columns = [_reads(table, heads, spot, side, each, room) for side in sides]
    out: list[Line] = []
    for i in range(room):
        line: Line = []
        for at, column in enumerate(columns):
            line += [*([(" │ ", "rule")] if at else []), *cut(column[i] if i < len(column) else [], each)]
        out.append(line)
    return [*out, *below]


def _reads(table: FeatureTable, heads: HeadTable, spot: Spot, side: str, width: int, height: int) -> list[Line]:
    on = side == spot.side
    title = f"READS MOST AS {side.upper()}"
    out = [rule(width, title, "over noise", title_role="strong" if on else "head")]
    pairs = heads.pairs(side, spot.statistic, spot.head)
    out.append(cut([(share_words(pairs, "features"), "dim")], width))
    found = heads.top(spot.head, side, LISTED, spot.statistic)
    room = max(1, height - len(out))
    pick = spot.pick if on else -1
    top = max(0, min(pick - room // 2, len(found) - room)) if on else 0
    words_width = max(8, (width - 2 - 7 - 6 - 10) // 2)
    for at, (feature, part) in enumerate(found[top : top + room], top):
        ink = "text" if part.beyond else "dim"
        partner = ""
        if part.partner >= 0:
            its = "itself" if part.partner == feature else feature_words(table, part.partner, words_width)
            partner = f"{ARROWS[side]} #{part.partner} {its}"
        left = width - 2 - 7 - words_width - 1 - 6
        words = feature_words(table, feature, words_width)
        out.append(
            [
                ("▸ " if at == pick else "  ", "strong"),
                (f"#{feature}".ljust(7), "strong" if at == pick else ink),
                (fit(words, words_width) + " ", words_role(words, part.beyond)),
                (fit(partner, left), "dim"),
                (f" {shade(part.ratio)}{ratio_text(part.ratio)}", "strong" if part.beyond else "dim"),
            ]
        )
    return out


def written_lines(table: FeatureTable, heads: HeadTable, head: int, row: int, width: int) -> list[Line]:
    """The features whose attention the head turns into most, and those that it copies most."""
    out = [rule(width, "WRITES MOST, ATTENDING TO", "length and copy score: times the 99 % of noise in this head")]
    if not heads.has_ov:
        return [*out, [("… not computed yet", "dim")]]
    for name, words in (("norm", "length"), ("copy", "copy")):
        values, bar = heads.column(f"ov.{name}")[head].astype(np.float64), float(heads.ov_bars(f"ov.{name}")[head])
        line: Line = [(f"{words:<8}", "dim")]
        for feature in largest(values, 6).tolist():
            ratio = values[feature] / bar
            text = f"#{feature} {feature_words(table, feature, 12)} "
            if sum(cell_len(t) for t, _ in line) + cell_len(text) + 7 > width:
                break
            line += [(text, "text"), (f"{ratio:.1f}   ", "strong" if ratio > 1 else "dim")]
        out.append(cut(line, width))
    values = [float(heads.column(f"ov.{n}")[head, row]) for n in ("norm", "copy")]
    out.append(cut([(f"{f'#{row}':<8}length {_value(values[0])}   copy score {_value(values[1])}", "dim")], width))
    return out


def share_words(share: Share, of: str) -> str:
    """``4.1 % of 4,096 pairs beyond noise; fresh noise 1.0 %``."""
    if not share.n:
        return f"no {of}"
    noise = f"{'fresh noise' if share.fresh else 'the same noise'} {share.null * 100:.1f} %"
    return f"{share.share * 100:.1f} % of {share.n:,} {of} beyond; {noise if math.isfinite(share.null) else 'no noise'}"


def waiting_lines(note: str, role: str, width: int) -> list[Line]:
    """The page while there are no numbers."""
    out: list[Line] = [[]]
    out += [[("  ", "text"), *line] for line in wrap(note.split(), width - 4, role)]
    return out
