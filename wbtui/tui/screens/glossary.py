"""``D``: what every number means, with the value that the feature under the cursor has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wbtui.definitions import RECONSTRUCTION
from wbtui.display import fit
from wbtui.features.glossary import OURS, glossary
from wbtui.tui.draw.card import tokens_of
from wbtui.tui.draw.line import Line, rule, wrap
from wbtui.tui.draw.rows import one_value
from wbtui.tui.facts import state_of
from wbtui.tui.screens.reading import ReadingScreen

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


class GlossaryScreen(ReadingScreen):
    """Every metric in a line or two.

    Args:
        heads_first: what heads and depth are told in stands before the metrics of features.
    """

    def __init__(self, table: FeatureTable | None, row: int, *, heads_first: bool = False) -> None:
        super().__init__()
        self.table = table
        self.row = row
        self.heads_first = heads_first

    def lines(self, width: int) -> list[Line]:
        """Definition and bars, then metric by metric, then the tokens as they are."""
        width = min(width, 130)
        table = self.table
        here = table is not None and 0 <= self.row < table.n and state_of(table, self.row) != "absent"
        out: list[Line] = [[("WHAT THE NUMBERS MEAN", "strong")], [(RECONSTRUCTION, "dim")], []]
        if table is not None:
            out += self._settings(table, width)
        if self.heads_first:
            out += [*self._heads(width), []]
        value_width = 10 if here else 0
        out.append(rule(width, "METRIC", f"#{self.row}" if here else ""))
        for entry in glossary():
            value = ""
            if here and table is not None and not entry.name.endswith(("_ids", "_values", "word_z", "top_cos")):
                value = one_value(table, entry.name, self.row)
            named = [] if entry.source == OURS else [f"[{entry.source}]"]  # the title says what is ours
            body = wrap([*entry.meaning.split(), *named], width - 26 - value_width, "text") or [[]]
            first: Line = [(fit(entry.name, 24) + "  ", "key"), *body[0]]
            used = 26 + sum(len(t) for t, _ in body[0])
            if value:
                first += [(value.rjust(max(1, width - used)), "strong")]
            out.append(first)
            out += [[(" " * 26, "text"), *line] for line in body[1:]]
        if not self.heads_first:
            out += [[], *self._heads(width)]
        out += [[], *self._questions(width)]
        if here and table is not None:
            for side in ("writes", "reads"):
                out += [[], rule(width, f"TOKENS THAT IT {side.upper()}, spaces shown as ␣", "id · score · z")]
                out += tokens_of(table, self.row, side, width, int(table.origin.definition.k_show))
        return out

    @staticmethod
    def _questions(width: int) -> list[Line]:
        from wbtui.features.glossary_questions import OURS as WBTUI
        from wbtui.features.glossary_questions import questions_glossary

        out = [rule(width, "FIND, EDGES, FLOW, MATCH, SET", "input-independent")]
        for entry in questions_glossary():
            named = [] if entry.source == WBTUI else [f"[{entry.source}]"]
            body = wrap([*entry.meaning.split(), *named], width - 26, "text") or [[]]
            out.append([(fit(entry.name, 24) + "  ", "key"), *body[0]])
            out += [[(" " * 26, "text"), *line] for line in body[1:]]
        return out

    @staticmethod
    def _heads(width: int) -> list[Line]:
        from wbtui.features.glossary_heads import heads_glossary

        out = [rule(width, "HEADS AND DEPTH")]
        for entry in heads_glossary():
            named = [] if entry.source == OURS else [f"[{entry.source}]"]
            body = wrap([*entry.meaning.split(), *named], width - 26, "text") or [[]]
            out.append([(fit(entry.name, 24) + "  ", "key"), *body[0]])
            out += [[(" " * 26, "text"), *line] for line in body[1:]]
        return out

    @staticmethod
    def _settings(table: FeatureTable, width: int) -> list[Line]:
        definition = table.origin.definition
        mask = definition.mask
        centred = "tokens centred" if definition.center_tokens else "tokens not centred"
        masked = "none"
        if mask is not None:
            masked = (
                f"tokens with {mask.count} or more neighbours at cosine above {mask.cut:g}, special and padded ones"
            )
        facts = [
            ("definition", f"{definition.name}: unembedding {definition.unembed}, {centred}, κ = {definition.kappa:g}"),
            ("mask", masked),
            ("bars", table.thresholds.line()),
        ]  # fmt: skip
        bars = table.thresholds.side("writes")
        facts += [(f"bar {name}", how) for name, how in bars.how.items() if name in ("word_z", "cos_tok", "lev")]
        out: list[Line] = []
        for name, words in facts:
            body = wrap(words.split(), width - 14)
            out.append([(fit(name, 14), "dim"), *(body[0] if body else [])])
            out += [[(" " * 14, "text"), *line] for line in body[1:]]
        return [*out, []]
