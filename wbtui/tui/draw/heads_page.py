"""What stands under the grids of the Heads page: partners and numbers of one head, or a head's own page. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from wbtui.display import fit
from wbtui.features.heads import HeadTable, Part, Share, largest
from wbtui.tui.draw.heads import ARROWS, Spot, feature_words, ratio_text, shade, words_role
from wbtui.tui.draw.heads_numbers import value_text
from wbtui.tui.draw.heads_writes import stability_line
from wbtui.tui.draw.line import Line, cut, rule, wrap
from wbtui.tui.head_pages import HeadPage, Partner

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

SPLIT = 100
"""Width from which lists and numbers stand beside each other."""
BESIDE = 52
LISTED = 40


def partners(heads: HeadTable, row: int, spot: Spot, page: HeadPage | None = None) -> list[Partner]:
    """The list under the grid, strongest first: the strongest of all where the page of the feature is there, then those
    whose own peak it is (stored); without the page its own peak and these."""
    stored = heads.seekers(spot.head, spot.side, row, LISTED)
    exact = [] if page is None else page.partners(spot.head, spot.side)
    have = {p.feature for p in exact}
    return [*exact, *(Partner(feature, score) for feature, score in stored if feature not in have)]


def partner_lines(
    table: FeatureTable,
    heads: HeadTable,
    row: int,
    spot: Spot,
    width: int,
    height: int,
    page: HeadPage | None = None,
    note: str = "",
) -> list[Line]:
    """Partners of a feature in one head: number, words, score, score over the head's noise.

    Args:
        page: the feature's page, where it is there; note: why it is not.
    """
    name = f"L{heads.layer}.H{spot.head}"
    title, whose = {
        "key": (f"QUERIES THAT LOOK FOR #{row} in {name}", "every query whose own best key it is"),
        "query": (f"KEYS THAT #{row} LOOKS FOR in {name}", "every key whose own best query it is"),
    }[spot.side]
    out = [rule(width, title, "score  over noise")]
    found = partners(heads, row, spot, page)
    bar = float(heads.bars(spot.side, "max")[spot.head])
    if not found:
        why = "its direction is zero or not finite" if not _known(heads, row, spot) else "no partner"
        return [*out, [(f"– no number for it here: {why}", "dim")]]
    exact = 0 if page is None else len(page.partners(spot.head, spot.side))
    first = f"the strongest {exact} of all" if exact else "the strongest"
    what = f"  {first}, then {whose}" + (f" · {note}" if note and not exact else "")
    out.append(cut([(what, "dim")], width))
    bias = float(heads.column("key.prior")[spot.head, row]) if spot.side == "key" else 0.0
    with_bias = math.isfinite(bias) and bias != 0
    room = max(1, height - len(out) - with_bias)
    pick = spot.pick if spot.pick < len(found) else -1
    top = max(0, min(max(pick, 0) - room // 2, len(found) - room))
    for at, partner in enumerate(found[top : top + room], top):
        words = "itself" if partner.feature == row else None
        out.append(_pair(table, partner, partner.score / bar, width, words, at == pick, spot.active == "list"))
    if with_bias:
        words_width = width - 2 - 8 - 15 - 4
        line: Line = [("  b_q     ", "dim"), (fit("(bias: every query)", words_width), "dim")]
        out.append([*line, (f"    {bias:7.1f}       ", "dim")])
    return out


def _pair(
    table: FeatureTable, partner: Partner, ratio: float, width: int, words: str | None, picked: bool, active: bool
) -> Line:
    ink = "text" if ratio > 1 else "dim"
    words_width = width - 2 - 8 - 15 - 4
    words = feature_words(table, partner.feature, words_width) if words is None else words
    mark = "▸ " if picked and active else "▹ " if picked else "  "
    return [
        (mark, "strong"),
        (f"#{partner.feature}".ljust(8), "strong" if picked and active else ink),
        (fit(words, words_width), words_role(words, ratio > 1)),
        (f"    {partner.score:7.1f} ", ink),
        (f" {shade(ratio)}{ratio_text(ratio)}", "strong" if ratio > 1 else "dim"),
    ]


def _known(heads: HeadTable, row: int, spot: Spot) -> bool:
    return bool(np.isfinite(heads.column(f"{spot.side}.rms")[spot.head, row]))


# A head's own page ------------------------------------------------------------------------------------------------


def head_list(heads: HeadTable, spot: Spot) -> list[tuple[int, Part]]:
    """The features that the head reads most on the chosen side."""
    return heads.top(spot.head, spot.side, LISTED, spot.statistic)


def head_lines(table: FeatureTable, heads: HeadTable, spot: Spot, row: int, width: int, height: int) -> list[Line]:
    """The head: features it reads most as key and as query with their partners, what it writes most of, its shares."""
    sides = ("key", "query") if width >= SPLIT else (spot.side,)
    each = (width - 3 * (len(sides) - 1)) // len(sides)
    below = written_lines(table, heads, spot.head, row, width) if height >= 16 else []
    below.append(stability_line(heads, spot.head, width))
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
    out.append(
        cut([(f"{f'#{row}':<8}length {value_text(values[0])}   copy score {value_text(values[1])}", "dim")], width)
    )
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
