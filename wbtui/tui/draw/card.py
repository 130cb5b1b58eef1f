"""The card: one feature as a sentence, blocks of lines, each a pure function of the table, the row and a width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.cells import cell_len

from wbtui.definitions import RECONSTRUCTION
from wbtui.display import fit, safe_token_text
from wbtui.tui.draw.bars import bar
from wbtui.tui.draw.heads import HeadsLook, heads_block, heads_line
from wbtui.tui.draw.line import Line, cut, rule, spread, width_of, wrap
from wbtui.tui.draw.metrics import metrics_block
from wbtui.tui.draw.near import NearLook, elsewhere_block, elsewhere_line, nearest_here
from wbtui.tui.draw.note import mark_of, note_block, note_line
from wbtui.tui.draw.population import Population, place_text, population_block, population_line
from wbtui.tui.facts import (
    REASONS,
    ShownWord,
    class_of,
    envelope,
    listed,
    reason,
    says,
    state_of,
    value_of,
)
from wbtui.tui.plain import shown_text

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


FACTS_WIDTH = 80
"""Cells from which the line of WEIGHTS has room for its words."""


@dataclass(frozen=True)
class Look:
    """What a card is drawn with beside the table and the row."""

    marked: bool = False
    tokens: bool = False
    """Single tokens with ids in place of merged words."""
    layer: int | None = None
    """The SAE's layer, of ``layers``; early and late layers carry a warning."""
    layers: int = 0
    populations: Mapping[str, Population] = field(default_factory=dict)
    heads: HeadsLook = field(default_factory=HeadsLook)
    near: NearLook = field(default_factory=NearLook)
    unmasked: bool = False
    """A provisional row that was made before the token mask."""
    online: str = ""
    """The feature's page on Neuronpedia, where the SAE has one."""

    @property
    def early(self) -> bool:
        """What the first layer writes says little about prediction (methods 1.2)."""
        return self.layer == 0

    @property
    def late(self) -> bool:
        """What layers from the middle on read is weak evidence (methods 2.4)."""
        return self.layer is not None and self.layer * 2 >= self.layers > 1


def title(table: FeatureTable, row: int, width: int, look: Look) -> Line:
    """``#737  SET OF 9 WORDS`` and on the right what is special about the row."""
    plain = bool(reason(table, row)) or class_of(table, row) in ("", "none") or state_of(table, row) == "absent"
    left: Line = [(f"#{row}", "strong"), ("  ", "text"), (table.sentence(row), "dim" if plain else "strong")]
    right: Line = []
    if state_of(table, row) == "provisional":
        right.append(("~ provisional, unmasked" if look.unmasked else "~ provisional", "provisional"))
    if table.labels is not None and table.labels.stamp == (0, 0) and width >= 60:
        right.append(("  labels: none imported" if right else "labels: none imported", "faint"))
    if dot := mark_of(table, row, look.marked).strip():
        right += [(f"  {dot}" if right else dot, "mark")]
    return spread(left, right, width)


def sentence(table: FeatureTable, row: int, width: int, lines: int = 2, near: NearLook | None = None) -> list[Line]:
    """What the title rests on, in words, and the nearest feature of the same SAE."""
    if state_of(table, row) == "absent":
        return [[("its numbers are on their way", "dim")]]
    here = nearest_here(near, row) if near is not None else ""
    first = says(table, row)
    if here and cell_len(first) <= width < cell_len(f"{first} · {here}"):  # a line each
        return [*wrap(first.split(), width, "dim"), *wrap(here.split(), width, "dim")][:lines]
    return wrap([*first.split(), *(["·", *here.split()] if here else [])], width, "dim")[:lines]


def sae_notes(table: FeatureTable, width: int) -> list[Line]:
    """What a user of an SAE's numbers should know: another model's name, a convention that is not verified."""
    notes = table.plan.sae.notes if table.plan is not None else []
    return [cut([("! ", "warn"), (safe_token_text(note), "warn")], width) for note in notes[:3]]


def words_block(table: FeatureTable, row: int, width: int, count: int, *, tokens: bool = False) -> list[Line]:
    """WRITES as bars with the noise drawn in, AGAINST beside it where there is room for both."""
    if width >= 56 and not tokens:
        gap = 3
        left_width = (width - gap) * 34 // 62 + 1
        right_width = width - gap - left_width
        left = bars_of(table, row, "writes", left_width, count)
        right = bars_of(table, row, "against", right_width, count)
        height = max(len(left), len(right))
        out: list[Line] = [
            [*rule(left_width, "WRITES", "z"), ("─┬─", "rule"), *rule(right_width, "AGAINST", "z")],
        ]
        for i in range(height):
            a = cut(left[i], left_width) if i < len(left) else cut([], left_width)
            b = cut(right[i], right_width) if i < len(right) else cut([], right_width)
            out.append([*a, (" │ ", "rule"), *b])
        return out
    side_rows = [rule(width, "WRITES", "id · value · z" if tokens else "z")]
    side_rows += (
        tokens_of(table, row, "writes", width, count) if tokens else bars_of(table, row, "writes", width, count)
    )
    return side_rows


def scale_of(table: FeatureTable, row: int, side: str, count: int) -> float:
    """The z that fills a bar: the list's largest, or the noise's where that is larger."""
    words = listed(table, row, side, count)
    level = envelope(table, side)[:1]
    largest = max((w.z for w in words if math.isfinite(w.z)), default=1.0)
    return max(largest, float(level[0]) if len(level) and math.isfinite(level[0]) else 0.0)


def bars_of(
    table: FeatureTable, row: int, side: str, width: int, count: int, *, full: float | None = None
) -> list[Line]:
    """A side's words as bars of z; the line of the noise stands where the list sinks into it.

    ``full`` is the z that fills a bar, by default :func:`scale_of`.
    """
    words = listed(table, row, side, count)
    if not words:
        return wrap(("– " + _why_empty(table, row, side)).split(), width, "dim")
    levels = envelope(table, side)
    full = scale_of(table, row, side, count) if full is None else full
    name_width = min(max(8, max(cell_len(w.text) for w in words)), max(8, width * 2 // 5))
    bar_width = max(0, width - name_width - 1 - 5)
    sign = -1 if side == "against" else 1
    role = {"writes": "writes", "against": "against", "reads": "reads"}[side]
    out: list[Line] = []
    drawn_line = False
    for rank, word in enumerate(words):
        level = float(levels[rank]) if rank < len(levels) else math.nan
        if word.inside_null and not drawn_line:
            out.append(_noise_line(width, level, sign, all_inside=rank == 0))
            drawn_line = True
        ink = "dim" if word.inside_null else "text"
        out.append(
            [
                (fit(word.text, name_width) + " ", ink),
                *bar(word.z, full, bar_width, level, role),
                (f"{sign * word.z:5.1f}", ink),
            ]
        )
    return out


def _noise_line(width: int, level: float, sign: int, *, all_inside: bool) -> Line:
    text = " all inside noise " if all_inside else " 99 % of noise "
    value = f" {sign * level:.1f}" if math.isfinite(level) else ""
    dashes = max(0, width - cell_len(text) - len(value) - 2)
    return cut([("┄┄", "faint"), (text, "dim"), ("┄" * dashes, "faint"), (value, "dim")], width)


def tokens_of(table: FeatureTable, row: int, side: str, width: int, count: int) -> list[Line]:
    """Single tokens: text with its spaces visible, id, value, z."""
    base, listing = ("writes", "bottom") if side == "against" else (side, "top")
    ids = table.cell(f"{base}.{listing}_ids", row)[:count]
    values = table.cell(f"{base}.{listing}_values", row)[:count]
    mean, std = value_of(table, f"{base}.mean", row), value_of(table, f"{base}.std", row)
    out: list[Line] = []
    room = max(8, width - 26)
    for token, value in zip(ids, values, strict=True):
        if token < 0:
            break
        z = (float(value) - mean) / std if std > 0 else math.nan
        out.append(
            [
                (fit(token_text(table, int(token)), room), "text"),
                (f"{int(token):>8}", "dim"),
                (f"{float(value):>10.3f}", "text"),
                (f"{z:>7.1f}", "text"),
            ]
        )
    return out or wrap(("– " + _why_empty(table, row, side)).split(), width, "dim")


def token_text(table: FeatureTable, token: int) -> str:
    """A token with its spaces made visible, safe."""
    if table.vocab is None:
        return f"#{token}"
    return shown_text(safe_token_text(table.vocab.text(token)).replace(" ", "␣"))


def _why_empty(table: FeatureTable, row: int, side: str) -> str:
    why = reason(table, row, "reads" if side == "reads" else "writes")
    return REASONS[why][1] if why else "no list"


def reads_block(table: FeatureTable, row: int, width: int, *, lines: int = 2, late: bool = False) -> list[Line]:
    """READS: the words whose embeddings the encoder points at; faded inside their noise."""
    head = rule(width, "READS", "late layer: weak evidence · z" if late else "z")
    why = reason(table, row, "reads")
    if why:
        return [head, *wrap(("– " + REASONS[why][1]).split(), width, "dim")[:2]]
    words = listed(table, row, "reads", 12)
    if not words:
        return [head, [("– no list", "dim")]]
    inside = words[0].inside_null
    body = _flow(words, width - 6, lines)
    z = f"{words[0].z:5.1f}"
    body[0] = spread(body[0], [(z, "dim" if inside else "text")], width)
    if inside:
        body.append([("all inside 99 % of noise", "dim")])
    else:
        note = reads_note(table, row)
        body += [cut(note, width)] if note else []
    return [head, *body]


def reads_note(table: FeatureTable, row: int) -> Line:
    """``≡`` where the strongest token of both sides is the same (methods 1.2: identity, not prediction)."""
    if bool(table.at("same", row)):
        return [("≡ ", "reads"), ("writes what it reads: identity more than prediction", "dim")]
    return []


def _flow(words: list[ShownWord], width: int, lines: int) -> list[Line]:
    """Words one after another over a few lines, those inside the noise dimmed."""
    out: list[Line] = [[]]
    used = 0
    for word in words:
        text = fit(word.text, width).rstrip() if cell_len(word.text) > width else word.text
        cells = cell_len(text) + (2 if out[-1] else 0)
        if used + cells > width:
            if len(out) == lines:
                break
            out.append([])
            used, cells = 0, cell_len(text)
        if out[-1]:
            out[-1].append(("  ", "text"))
        out[-1].append((text, "dim" if word.inside_null else "reads"))
        used += cells
    return out


def card_lines(table: FeatureTable, row: int, width: int, height: int, look: Look) -> list[Line]:
    """The card beside the table: blocks from most to least telling, as many whole ones as the height holds."""
    head = [title(table, row, width, look), *sentence(table, row, width, near=look.near)]
    if state_of(table, row) == "absent":
        return head
    if look.early:
        head.append([("early layer: what it writes says little about prediction", "dim")])
    head += sae_notes(table, width)
    bottom: Line = [(fit(RECONSTRUCTION, width), "faint")]
    reads = reads_block(table, row, width, late=look.late)
    crowd = population_block(
        look.populations.get("writes.z_max"), "writes.z_max", value_of(table, "writes.z_max", row), width
    )
    elsewhere = elsewhere_block(look.near, row, width)
    extra = [*labels_block(table, row, width), *facts_block(table, row, width, look.populations)]
    metrics = metrics_block(table, row, width, look.populations)
    note = note_block(table, row, width)
    heads = heads_block(table, row, width, look.heads, 8 if height >= 40 else 4)
    others = (head, reads, heads, crowd, elsewhere, extra, note)
    room = height - sum(map(len, others)) - 4
    with_metrics = room >= len(metrics) + (5 if heads else 8)
    count = max(4, min(20, room - (len(metrics) if with_metrics else 0)))
    blocks = [
        words_block(table, row, width, count, tokens=look.tokens),
        reads,
        heads,
        crowd,
        *([metrics] if with_metrics else []),
        elsewhere,
        extra,
    ]
    out = list(head)
    height -= len(note)
    for block in blocks:
        if len(out) + len(block) + 1 > height:
            break
        out += block
    spare = height - 1 - len(out)
    return [*out, *([[]] * spare), *note, bottom] if spare >= 0 else [*out, *note]


def labels_block(table: FeatureTable, row: int, width: int, lines: int = 2) -> list[Line]:
    """LABELS: what others said of the feature, from imported files; nothing where no labels are imported."""
    book = table.labels
    if book is None or book.stamp == (0, 0):
        return []
    density = value_of(table, "density", row)
    found = book.of(row)
    fired = "" if math.isnan(density) else "dead in it" if density == 0 else f"density {density:.2g}"
    out = [rule(width, "LABELS", " · ".join(part for part in ("data, from files", fired) if part))]
    for label in found[:lines]:
        who = " ".join(safe_token_text(part) for part in (label.author or label.method, label.origin) if part)
        room = width - cell_len(who) - 2 if cell_len(who) < width // 3 else width
        line: Line = [(fit(shown_text(safe_token_text(label.text)), room).rstrip(), "text")]
        out.append(spread(line, [(who, "dim")], width) if room < width else cut(line, width))
    if not found:
        out.append([("– none for this feature", "dim")])
    elif len(found) > lines:
        out.append([(f"and {len(found) - lines} more: ⏎ page", "dim")] if lines < 9 else [])
    return out


def labels_line(table: FeatureTable, row: int, width: int) -> Line:
    """``labels  “…” · density 1e-3``: one line of :func:`labels_block`, empty where nothing is imported."""
    book = table.labels
    if book is None or book.stamp == (0, 0):
        return []
    found = book.of(row)
    text = shown_text(safe_token_text(found[0].text)) if found else "– none for this feature"
    density = value_of(table, "density", row)
    fired = "" if math.isnan(density) else "dead in that data" if density == 0 else f"density {density:.2g}"
    right: Line = [(f"  data · {fired}" if fired else "  data", "dim")]
    return spread([("labels  ", "head"), (text, "text" if found else "dim")], right, width)


def facts_block(
    table: FeatureTable, row: int, width: int, populations: Mapping[str, Population] | None = None
) -> list[Line]:
    """Norms, alignment and what the mask took; behind each number the share of the SAE's features that lie below.

    Where the words do not fit beside the numbers, they stand in the rule.
    """
    line: Line = []
    long = width >= FACTS_WIDTH
    names = ("norm of decoder", "of encoder", "cosine of both") if long else ("dec", "enc", "cos")
    for name, column in zip(names, ("d_norm", "e_norm", "selfcos"), strict=True):
        value = value_of(table, column, row)
        crowd = (populations or {}).get(column)
        line += [
            (("   " if long else "  ") if line else "", "text"),
            (name + " ", "dim"),
            (format(value, ".2f") if math.isfinite(value) else "–", "text"),
        ]
        if crowd is not None and math.isfinite(value):
            line.append((f" ({place_text(crowd.above(value))})", "dim"))
    words = "above % of all in brackets" if long else "norms, cosine of both (above % of all)"
    out = [rule(width, "WEIGHTS", words), cut(line, width)]
    masked = value_of(table, "writes.n_masked_above", row)
    best = value_of(table, "writes.masked_best_id", row)
    if masked >= 1 and best >= 0:
        text = f"mask hides {int(masked)} above the tenth, best {token_text(table, int(best))}"
        out.append([(fit(text, width), "dim")])
    return out


def short_card(table: FeatureTable, row: int, width: int, height: int, look: Look) -> list[Line]:
    """The card under the table (narrow terminals): one line a block, the last ones go first."""
    out = [title(table, row, width, look)]
    if state_of(table, row) == "absent":
        return [*out, *sentence(table, row, width)]
    why = reason(table, row)
    if why:
        return [*out, *sentence(table, row, width)]
    out += sae_notes(table, width)[: 1 if height >= 5 else 0]
    makers: list[Callable[[], Line]] = [
        lambda: list_line(table, row, "writes", width),
        lambda: list_line(table, row, "reads", width, note="late layer: weak" if look.late else ""),
        lambda: population_line(look.populations.get("writes.z_max"), value_of(table, "writes.z_max", row), width),
        lambda: list_line(table, row, "against", width),
        lambda: cut([("weights ", "head"), *_weights(table, row)], width),
    ]
    order = [0, 3, 1, 2, 4] if height >= 6 else [0, 1, 2, 3, 4]
    if look.heads.heads is not None or look.heads.note:
        makers.append(lambda: heads_line(table, row, width, look.heads))
        order.insert(3 if height >= 6 else 2, 5)
    if look.near.tables:
        makers.append(lambda: elsewhere_line(look.near, row, width))
        order.insert(4, len(makers) - 1)
    if table.labels is not None and table.labels.stamp != (0, 0):
        makers.append(lambda: labels_line(table, row, width))
        order.insert(2, len(makers) - 1)
    note = note_line(table, row, width)
    out += [makers[i]() for i in order[: max(0, height - len(out) - bool(note))]]
    if note:
        out.append(note)
    if len(out) < height:
        out.append([(fit(RECONSTRUCTION, width), "faint")])
    return out


def _weights(table: FeatureTable, row: int) -> Line:
    out: Line = []
    for name, column in (("decoder", "d_norm"), ("encoder", "e_norm"), ("cosine", "selfcos")):
        value = value_of(table, column, row)
        out += [(f"{name} ", "dim"), (f"{value:.2f}   " if math.isfinite(value) else "–   ", "text")]
    return out


def list_line(table: FeatureTable, row: int, side: str, width: int, note: str = "") -> Line:
    """A side's words beyond noise on one line."""
    head: Line = [(f"{side:<8}", "head")]
    why = reason(table, row, "reads" if side == "reads" else "writes")
    if why:
        return cut([*head, ("– " + REASONS[why][1], "dim")], width)
    words = listed(table, row, side, 10)
    beyond = [w for w in words if not w.inside_null]
    if not beyond:
        return cut([*head, ("(inside noise)", "dim")], width)
    sign = -1 if side == "against" else 1
    right: Line = [(f" {note}", "dim")] if note else []
    line = head
    for word in beyond:
        piece: Line = [(word.text + " ", "text"), (f"{sign * word.z:.1f}  ", "dim")]
        if width_of(line) + width_of(piece) + width_of(right) - 2 > width:
            break
        line = [*line, *piece]
    return spread(line, right, width)
