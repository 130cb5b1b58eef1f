"""``?``: what one looks at in five lines, then every key."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from rich.cells import cell_len

from wbtui.display import fit
from wbtui.tui import keymap
from wbtui.tui.draw.line import Line, rule, width_of, wrap
from wbtui.tui.screens.main_states import FIRST_RUN
from wbtui.tui.screens.reading import ReadingScreen

INTRODUCTION = (
    "A sparse autoencoder (SAE) describes a model's inner stream as a sum of features. Each feature has a decoder row, "
    "the direction it writes, and an encoder column, the direction that makes it fire.",
    "WRITES: tokens whose logits the decoder row pushes up; AGAINST: those it pushes down; READS: tokens whose "
    "embeddings the encoder points at. All of it comes from weights alone: no text was run.",
    "z counts standard deviations over the vocabulary. What random directions reach as well is drawn light (░) and "
    "called noise; only what stands beyond 99 % of noise is solid (█) and counted as a word.",
    "set n: n words that belong together · one: a single word · mix n: n words that do not look alike · "
    "none: nothing beyond noise. ≡ marks a feature that writes what it reads.",
    "… is on its way, – cannot be, ~ is provisional (one feature computed alone, until its block is there).",
)
FILTERS = (
    ("physicist", "rows whose ten strongest written tokens hold this text; “two words” in quotes"),
    ("reads:paris  against:the", "the same on the other sides; token:x is exactly that word"),
    ("z_max>6  n_words>=3  reads.cos_tok>.3", "numbers: = != < <= > >=, every metric of D"),
    ("semantic  coherent  same  kind=set", "yes-or-nos and classes; semantic = one or set"),
    ("percentile:z_max>99  null:z_max<.01", "place among the features, share of noise that reaches it"),
    ("head:L4.H2  head:L4.H2.key", "led by that head: its strongest in L4, on either side or as key, beyond noise"),
    ("head:L4.H2>1.5", "its ratio to noise in that head, strongest or not"),
    ("dead  density<1e-4", "imported data (`wbtui labels import`); an error where there is none"),
    ("#120  id:100..199", "numbers of features"),
    ("marked  tag:todo  note:word", "what you keep: marks, tags, notes; tag:* is any tag"),
    ("a b   a | b   !a   ( )", "both, either, not, grouping"),
)
PANELS = {"card": "THE CARD HAS THE KEYS · Tab gives them back to the table", "page": "THE PAGE OF ONE FEATURE"}
"""Heading over the keys of a panel that has some of its own."""
COLUMN, GAP = 88, 4
"""Two columns stand side by side where each is at least so wide."""


class HelpScreen(ReadingScreen):
    """All keys, from the key map: those of the panel that has them first.

    Args:
        context: the screen from which help was asked for.
        panel: its panel that has the keys: ``table``, ``card``, ``page``, or nothing.
    """

    def __init__(self, context: str = "main", panel: str = "") -> None:
        super().__init__()
        self.context = context
        self.panel_asked = panel

    def lines(self, width: int) -> list[Line]:
        """What to do first, the keys that hold here, what one sees, all other keys, the filter language; where there is
        room, what comes after the keys that hold here stands beside them."""
        title: list[Line] = [[("wbtui", "strong"), ("  what SAE features do, read from the weights alone", "dim")], []]
        two = width >= 2 * COLUMN + GAP
        column = (width - GAP) // 2 if two else min(width, 112)
        groups = list(keymap.groups(self.context))
        here = len({key.group for key in keymap.current().get(self.context, ())})
        wide = max(12, *(cell_len(key.shown) for _, keys in groups for key in keys)) + 2
        first = self._first(groups[:here], wide, column)
        sees, filters = self._sees(column), self._filters(column)
        others = [[rule(column, name.upper()), *self._keys(keys, wide, column), []] for name, keys in groups[here:]]
        if not two:
            return [*title, *first, *sees, *itertools.chain(*others), *filters]
        left: list[Line] = []
        right: list[Line] = []
        for group in others:
            (left if len(left) <= len(right) else right).extend(group)
        return [*title, *_beside(first, [*sees, *filters], column), [], *_beside(left, right, column)]

    def _first(self, here: list[tuple[str, list[keymap.Key]]], wide: int, width: int) -> list[Line]:
        """What to do first, and the keys that hold here."""
        out: list[Line] = []
        if self.context in ("main", "start"):
            out += [line for text in FIRST_RUN for line in wrap(("· " + text).split(), width, "text", "  ")]
            out.append([])
        if self.panel_asked in PANELS:
            out.append(rule(width, PANELS[self.panel_asked]))
            out += self._keys(keymap.panel_keys(self.panel_asked), wide, width)
            out.append([])
        for heading, keys in here:
            out += [rule(width, f"{heading.upper()} · here"), *self._keys(keys, wide, width), []]
        return out

    @staticmethod
    def _sees(width: int) -> list[Line]:
        out = [rule(width, "WHAT ONE SEES")]
        for paragraph in INTRODUCTION:
            out += wrap(paragraph.split(), width, "text")
        return [*out, []]

    @staticmethod
    def _filters(width: int) -> list[Line]:
        out = [rule(width, "FILTER LANGUAGE")]
        for example, words in FILTERS:
            if width >= 100:
                body = wrap(words.split(), width - 42)
                out.append([(fit(example, 42), "key"), *body[0]])
                out += [[(" " * 42, "text"), *line] for line in body[1:]]
            else:
                out.append([(example, "key")])
                out += [[("   ", "text"), *line] for line in wrap(words.split(), width - 3, "dim")]
        return out

    @staticmethod
    def _keys(keys: Iterable[keymap.Key], wide: int, width: int) -> list[Line]:
        out: list[Line] = []
        for key in keys:
            body = wrap(key.tooltip.split(), width - wide)
            out.append([(fit(key.shown, wide), "key"), *body[0]])
            out += [[(" " * wide, "text"), *line] for line in body[1:]]
        return out


def _beside(left: list[Line], right: list[Line], column: int) -> list[Line]:
    """Two columns, the longer one's rest beside nothing."""
    nothing: Line = []
    return [
        [*a, (" " * (column - width_of(a) + GAP), "text"), *b] if b else a
        for a, b in itertools.zip_longest(left, right, fillvalue=nothing)
    ]
