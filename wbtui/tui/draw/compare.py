"""Two features side by side on shared scales: their cosines, what they share, their lists, every number of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len

from wbtui.display import safe_token_text
from wbtui.tui.draw.card import Look, bars_of, list_line, reads_block, scale_of, sentence, title
from wbtui.tui.draw.line import Line, cut, rule, width_of
from wbtui.tui.draw.metrics import METRICS
from wbtui.tui.draw.near import cosine_text
from wbtui.tui.draw.population import Population
from wbtui.tui.facts import inside_level, reason, state_of, value_of

if TYPE_CHECKING:
    from wbtui.features.pair import PairCosines
    from wbtui.features.table import FeatureTable

SHARED = 20
"""Words of each list that are compared."""
SIDES = (("WRITES", "writes"), ("READS", "reads"), ("AGAINST", "against"))


@dataclass(frozen=True)
class Half:
    """One of the two."""

    table: FeatureTable
    row: int
    name: str
    """``L3 #737``, as it is: :attr:`shown` is for the screen."""
    look: Look = field(default_factory=Look)

    @property
    def shown(self) -> str:
        """The name, safe to draw."""
        return safe_token_text(self.name)


@dataclass(frozen=True)
class Between:
    """What stands between two features."""

    cosines: PairCosines | None = None
    """None while it is read."""
    noise: float = math.nan
    """99 % of random directions' best decoder cosine between the two SAEs; NaN where that is not computed."""
    same: bool = False
    """Whether both are one feature."""
    note: str = ""


def shared_words(a: Half, b: Half, side: str) -> list[str]:
    """Words beyond noise in both lists, as in the first one's order."""
    if any(state_of(h.table, h.row) == "absent" or reason(h.table, h.row, side) for h in (a, b)):
        return []
    lists = [[w for w in h.table.words(h.row, side, SHARED) if not w.inside_null] for h in (a, b)]
    vocab = a.table.vocab
    if vocab is None:
        return []
    word = vocab.word_ids
    theirs = {int(word[w.id]) for w in lists[1]}
    return [w.text for w in lists[0] if int(word[w.id]) in theirs]


def between_lines(a: Half, b: Half, between: Between, width: int) -> list[Line]:
    """Cosines, then the words that both write and that both read."""
    if between.same:
        return [[("both are this feature: move, and the other follows the cursor", "dim")]]
    found = between.cosines
    line: Line = [("cosine of decoders ", "dim"), (cosine_text(found.decoder) if found else "…", "strong")]
    if math.isfinite(between.noise):
        line.append((f" (99 % of noise {cosine_text(between.noise)})", "dim"))
    line += [("   of encoders ", "dim"), (cosine_text(found.encoder) if found else "…", "strong")]
    if between.note:
        line.append(("   " + between.note, "warn"))
    out = [cut(line, width)]
    for word, side in (("both write ", "writes"), ("both read  ", "reads")):
        text: Line = [(word, "dim")]
        for item in (shared := shared_words(a, b, side)):
            if width_of(text) + width_of([(item, "")]) + 2 > width:
                break
            text.append((item + "  ", "writes" if side == "writes" else "reads"))
        if shared:
            out.append(cut(text, width))
    if len(out) == 1:
        out.append([("no word beyond noise that both write or both read", "dim")])
    return out


def compare_lines(a: Half, b: Half, between: Between, width: int, height: int) -> list[Line]:
    """The pinned feature left (or above), the one under the cursor right (or below)."""
    out = between_lines(a, b, between, width)
    return [*out, *(_beside(a, b, width, height - len(out)) if width >= 96 else _stacked(a, b, width))]


def _joined(left: list[Line], right: list[Line], widths: tuple[int, int]) -> list[Line]:
    out: list[Line] = []
    for i in range(max(len(left), len(right))):
        one, two = (part[i] if i < len(part) else [] for part in (left, right))
        out.append([*cut(one, widths[0]), (" │ ", "rule"), *cut(two, widths[1])])
    return out


def _head(half: Half, width: int, mark: str) -> list[Line]:
    name = half.shown
    first = title(half.table, half.row, width - width_of([(name + "  ", "")]) - 2, half.look)
    return [[(mark + " ", "mark"), (name + "  ", "strong"), *first[1:]], *sentence(half.table, half.row, width, 1)]


def _beside(a: Half, b: Half, width: int, height: int) -> list[Line]:
    each = (width - 3) // 2
    widths = (each, width - 3 - each)
    out = _joined(_head(a, widths[0], "▪"), _head(b, widths[1], "▸"), widths)
    if any(state_of(h.table, h.row) == "absent" for h in (a, b)):
        return out
    numbers = numbers_block(a, b, width)
    reads = [reads_block(h.table, h.row, w, lines=1 if height < 30 else 2) for h, w in zip((a, b), widths, strict=True)]
    room = max(3, height - len(out) - len(numbers) - max(map(len, reads)) - 1)
    count = min(20, room - 1)
    full = max(scale_of(h.table, h.row, "writes", count) for h in (a, b))
    heads = [rule(w, "WRITES", "z, one scale") for w in widths]
    bars = [bars_of(h.table, h.row, "writes", w, count, full=full) for h, w in zip((a, b), widths, strict=True)]
    out += _joined([heads[0], *bars[0][:count]], [heads[1], *bars[1][:count]], widths)
    out += _joined(reads[0], reads[1], widths)
    return [*out, *numbers]


def _stacked(a: Half, b: Half, width: int) -> list[Line]:
    out: list[Line] = []
    for half, mark in ((a, "▪"), (b, "▸")):
        out += _head(half, width, mark)[:1]
        if state_of(half.table, half.row) == "absent":
            continue
        out += [list_line(half.table, half.row, side, width) for side in ("writes", "reads")]
    if any(state_of(h.table, h.row) == "absent" for h in (a, b)):
        return out
    return [*out, *numbers_block(a, b, width)]


NUMBERS = (
    *((f"writes.{name}", name, how) for name, _, how in METRICS),
    *((f"reads.{name}", f"reads {name}", how) for name, _, how in METRICS[:1]),
    ("d_norm", "norm of decoder", ".2f"),
    ("e_norm", "norm of encoder", ".2f"),
    ("selfcos", "cosine of both", ".2f"),
)


def numbers_block(a: Half, b: Half, width: int) -> list[Line]:
    """Every number of both: value, place among all of its SAE, whether it is inside noise."""
    head: Line = [(f"{'METRIC':<16}", "head")]
    for half in (a, b):
        head.append((_end(half.shown, 18), "head"))
    long = "   place: share of its SAE that lies below"
    head.append((long if width_of(head) + len(long) <= width else "   %: of its SAE below", "dim"))
    out = [cut(head, width)]
    for name, words, how in NUMBERS:
        line: Line = [(f"{words:<16}", "text")]
        for half in (a, b):
            line += number_cell(half.table, half.row, name, how, half.look.populations, 18)
        out.append(cut(line, width))
    return out


def _end(text: str, width: int) -> str:
    """A name's end, flush right in so many cells."""
    while cell_len(text) > width:
        text = text[1:]
    return " " * (width - cell_len(text)) + text


def number_cell(
    table: FeatureTable, row: int, name: str, how: str, populations: Mapping[str, Population], width: int
) -> Line:
    """``9.4   98.7 %``: a value and its place; ``░`` and dimmed where it lies inside noise."""
    value = value_of(table, name, row)
    if not math.isfinite(value):
        return [("–".rjust(width), "dim")]
    side, _, metric = name.rpartition(".")
    level = inside_level(table, side, metric) if side else math.nan
    inside = math.isfinite(level) and value <= level
    crowd = populations.get(name)
    place = f"{crowd.above(value) * 100:5.1f} %" if crowd is not None else ""
    text = f"{'░ ' if inside else ''}{format(value, how)} {place:>8}"
    return [(text.rjust(width), "dim" if inside else "text")]


def title_line(a: Half, b: Half, width: int) -> Line:
    """The rule over the comparison."""
    return rule(width, f"COMPARE  {a.shown} : {b.shown}", "p pins the other · < > follows it over layers")
