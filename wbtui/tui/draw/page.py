"""The card on the whole screen: every list, every metric with its noise, at any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wbtui.definitions import RECONSTRUCTION
from wbtui.display import fit
from wbtui.tui.draw.card import (
    Look,
    bars_of,
    facts_block,
    labels_block,
    reads_note,
    sae_notes,
    sentence,
    title,
    tokens_of,
)
from wbtui.tui.draw.heads import heads_block
from wbtui.tui.draw.line import Line, cut, rule, wrap
from wbtui.tui.draw.metrics import metrics_block
from wbtui.tui.draw.near import elsewhere_block
from wbtui.tui.draw.note import note_block
from wbtui.tui.draw.population import population_block
from wbtui.tui.facts import REASONS, reason, state_of, value_of

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

LISTED = 20
"""Words or tokens of a list on the page."""


def page_lines(table: FeatureTable, row: int, width: int, look: Look) -> list[Line]:
    """All of a feature, to be scrolled."""
    crowds = look.populations
    out = [title(table, row, width, look), *sentence(table, row, width, lines=4, near=look.near)]
    if state_of(table, row) == "absent":
        return out
    if look.early:
        out.append([("early layer: what it writes says little about prediction", "dim")])
    out += sae_notes(table, width)
    if reason(table, row):
        return [*out, [], *facts_block(table, row, width, crowds)]
    late_words = " (late layer: weak evidence)" if look.late else ""
    sides = [("WRITES", "writes"), ("READS" + late_words, "reads"), ("AGAINST", "against")]
    at_once = 3 if width >= 132 else 2 if width >= 92 else 1
    out.append([])
    for start in range(0, len(sides), at_once):
        out += [*_beside(table, row, sides[start : start + at_once], width, look.tokens, at_once), []]
    if note := reads_note(table, row):
        out += [cut(note, width), []]
    if kept := note_block(table, row, width, lines=40):
        out += [*kept, []]
    if labels := labels_block(table, row, width, lines=9):
        out += [*labels, []]
    if heads := heads_block(table, row, width, look.heads, 16):
        out += [*heads, []]
    out += [*metrics_block(table, row, width, crowds), []]
    value = value_of(table, "writes.z_max", row)
    out += [*population_block(crowds.get("writes.z_max"), "writes.z_max", value, width), []]
    if near := elsewhere_block(look.near, row, width):
        out += [*near, []]
    if look.online:
        out += [cut([("NEURONPEDIA ", "head"), (look.online, "text"), ("   Y copies it", "dim")], width), []]
    out += [*facts_block(table, row, width, crowds), [], [(fit(RECONSTRUCTION, width), "faint")]]
    return out


def _list(table: FeatureTable, row: int, side: str, width: int, tokens: bool) -> list[Line]:
    if why := reason(table, row, side):
        return wrap(("– " + REASONS[why][1]).split(), width, "dim")
    if tokens:
        return tokens_of(table, row, side, width, LISTED)
    return bars_of(table, row, side, width, LISTED)


def _beside(
    table: FeatureTable, row: int, sides: Sequence[tuple[str, str]], width: int, tokens: bool, of: int
) -> list[Line]:
    """Lists side by side, ruled apart, each as wide as if there were ``of`` of them."""
    each = (width - 3 * (of - 1)) // of
    widths = [each] * len(sides)
    if len(sides) == of:
        widths[-1] = width - (each + 3) * (of - 1)
    bodies = [_list(table, row, side, own, tokens) for (_, side), own in zip(sides, widths, strict=True)]
    head: Line = []
    for at, ((name, _), own) in enumerate(zip(sides, widths, strict=True)):
        head += [*([("─┬─", "rule")] if at else []), *rule(own, name, "id · value · z" if tokens else "z")]
    out = [head]
    for i in range(max(len(body) for body in bodies)):
        line: Line = []
        for at, (body, own) in enumerate(zip(bodies, widths, strict=True)):
            line += [*([(" │ ", "rule")] if at else []), *cut(body[i] if i < len(body) else [], own)]
        out.append(line)
    return out
