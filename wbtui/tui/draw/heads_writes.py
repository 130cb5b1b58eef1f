"""What a head writes when it attends to a feature: numbers, tokens, readers, becomes, the pair over distance. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from wbtui.features.heads import HeadTable
from wbtui.tui.draw.heads import feature_words
from wbtui.tui.draw.heads_numbers import number_line
from wbtui.tui.draw.line import Line, cut, rule, wrap
from wbtui.tui.facts import envelope
from wbtui.tui.head_pages import Partner, Written

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

LABEL = 9
TARGETS = 3
"""Features shown of each of readers and becomes; each is a link."""
_LEVELS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Seen:
    """The feature that the head attends to, and what is known of it.

    Attributes:
        feature: its number. written: None while it is not there. note: what stands in its place.
        target: the table of the SAE behind the heads, for words; None where it is not open.
        pair: the partner under the arrow, for the shape over distance; offsets: its offsets.
    """

    feature: int
    written: Written | None = None
    note: str = "…"
    target: FeatureTable | None = None
    pair: Partner | None = None
    offsets: tuple[int, ...] = ()
    learned: bool = False
    """Positions are learned: no shape over distance."""


def links_of(written: Written | None) -> list[tuple[str, int]]:
    """(list, feature of the target) of everything here that Enter opens."""
    if written is None:
        return []
    return [(name, f) for name in ("becomes", "readers") for f, _ in getattr(written, name)[:TARGETS]]


def writes_lines(
    table: FeatureTable, heads: HeadTable, head: int, seen: Seen, width: int, *, pick: int = -1, numbers: bool = True
) -> list[Line]:
    """The panel.

    Args:
        pick: which of :func:`links_of` the arrow stands at; -1: none.
        numbers: norm, gain and copy score from the stored product, each over its noise.
    """
    title = f"ATTENDING TO #{seen.feature} IT WRITES"
    out = [rule(width, title, "99 %   over        " if numbers else "")]
    if numbers:
        out += _stored(heads, seen.feature, head, width)
    written = seen.written
    if written is None:
        out += wrap(seen.note.split(), width, "dim")[:2] if seen.note else []
    else:
        out += [_tokens(table, written.tokens, "tokens", width), _tokens(table, written.against, "against", width)]
        out += _targets(written, seen, width, pick)
    out.append(distance_line(seen, width))
    return out


def _stored(heads: HeadTable, feature: int, head: int, width: int) -> list[Line]:
    if not heads.has_ov:
        return [[("… not computed yet", "dim")]]
    out = []
    for name, words in (("norm", "length"), ("gain", "gain"), ("copy", "copy score (cosine)")):
        value = float(heads.column(f"ov.{name}")[head, feature])
        out.append(number_line(words, value, float(heads.ov_bars(f"ov.{name}")[head]), math.nan, width))
    return out


def _tokens(table: FeatureTable, tokens: tuple[tuple[int, float], ...], name: str, width: int) -> Line:
    """``tokens   who  noted  born        8.1 z``; words inside the noise of tokens are dim."""
    line: Line = [(name.ljust(LABEL), "dim")]
    if not tokens or table.vocab is None:
        return [*line, ("–", "dim")]
    bars = envelope(table, "writes")
    best = abs(tokens[0][1])
    end = f" {best:.1f} z" if math.isfinite(best) else ""
    room = width - LABEL - len(end)
    for rank, (token, z) in enumerate(tokens):
        word = table.vocab.word(token)
        if cell_len(word) + 1 > room:
            break
        beyond = rank < len(bars) and abs(z) > bars[rank]
        line.append((word + " ", "text" if beyond else "dim"))
        room -= cell_len(word) + 1
    inside = not (len(bars) and best > bars[0])
    return [*cut(line, width - len(end)), (end, "dim" if inside else "strong")]


def _targets(written: Written, seen: Seen, width: int, pick: int) -> list[Line]:
    if written.target is None:
        return [cut([("becomes  ", "dim"), ("– no SAE stands on the stream behind this layer", "dim")], width)]
    out: list[Line] = []
    places = links_of(written)
    for name in ("becomes", "readers"):
        found = getattr(written, name)[:TARGETS]
        line: Line = [(name.ljust(LABEL), "dim")]
        if not found:
            why = "– its encoder does not read the stream" if name == "readers" else "–"
            out.append(cut([*line, (why, "dim")], width))
            continue
        texts = [f"{written.target} #{feature} {_share(value)} " for feature, value in found]
        left = width - LABEL - sum(cell_len(text) + 1 for text in texts) - 3
        for at, ((feature, _), text) in enumerate(zip(found, texts, strict=True)):
            here = places.index((name, feature)) == pick
            words = "" if seen.target is None or at else feature_words(seen.target, feature, left - 1)
            if cell_len(words) < 4:
                words = ""  # a letter or two of a word say nothing
            gap = "   " if words else " "
            line += [("▸" if here else "", "strong"), (text, "picked" if here else "text"), (words + gap, "dim")]
        out.append(cut(line, width))
    return out


def _share(value: float) -> str:
    """A cosine without its zero; larger numbers as they are."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def distance_line(seen: Seen, width: int) -> Line:
    """``by distance  0█ 1▇ 2▅ 4▃ 8▂ 16▁ 32– …``: the pair's score as the key stands further behind the query."""
    label = "by distance  "
    if seen.learned:
        return cut([(label, "dim"), ("– learned positions: features have no offset", "dim")], width)
    pair = seen.pair
    if pair is None or not pair.distance:
        return [(label, "dim"), ("…" if pair is None or not seen.offsets else "–", "dim")]
    line: Line = [(label, "dim")]
    top = max((v for v in pair.distance if math.isfinite(v)), default=0.0)
    for offset, value in zip(seen.offsets, pair.distance, strict=False):
        glyph = level(value, top)
        piece = f"{offset}{glyph} "
        if sum(cell_len(t) for t, _ in line) + len(piece) > width:
            break
        line.append((piece, "text" if glyph in _LEVELS[3:] else "dim"))
    return line


def level(value: float, top: float) -> str:
    """A block as high as the share of the largest; ``–`` at or below zero, or without a number."""
    if not math.isfinite(value) or value <= 0 or not top > 0:
        return "–"
    return _LEVELS[min(7, max(0, math.ceil(value / top * 8) - 1))]


def stability_line(heads: HeadTable, head: int, width: int) -> Line:
    """``keeps over distance  1 .99  2 .97  4 .93 …``: a head's own shape, over all pairs."""
    label = "all pairs’ scores over distance, cosine with Δ = 0   "
    found = heads.stability(head)
    if not found:
        return cut([(label, "dim"), ("– learned positions, or not computed", "dim")], width)
    line: Line = [(label if width >= 100 else "over distance  ", "dim")]
    for offset, value in found.items():
        piece = f"{offset} {value:.2f}".replace(" 0.", " .").replace(" -0.", " -.") + "  "
        if sum(cell_len(t) for t, _ in line) + len(piece) > width:
            break
        line.append((piece, "text" if value > 0.5 else "dim"))
    return line
