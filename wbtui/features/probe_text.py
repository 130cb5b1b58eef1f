"""The card of a user's direction as plain text, for the command line and the app."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from wbtui.definitions import named_definition
from wbtui.display import safe_token_text
from wbtui.features.answers import tail_text, value, words_text
from wbtui.features.card_text import render
from wbtui.features.probe import RANKED, direction_table, places

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def table_of(answer: dict[str, Any], population: FeatureTable | None, definition: Any) -> FeatureTable:
    """The direction as a table of one row."""
    meant = named_definition(definition) if isinstance(definition, str) else definition
    return direction_table(
        answer["columns"], meant, name=answer["position"],
        vocab=None if population is None else population.vocab,
        thresholds=None if population is None else population.thresholds,
    )  # fmt: skip


def direction_lines(answer: dict[str, Any], population: FeatureTable | None, definition: Any, vector: str) -> list[str]:
    """The card of a direction as plain text: words, metrics with their places, heads, neighbours."""
    table = table_of(answer, population, definition)
    lines = render(table, 0).splitlines()
    lines[0] = f"{safe_token_text(vector)} at {answer['position']}  {table.sentence(0)}  length {answer['norm']:.4g}"
    mask = "without the token mask, which is not computed yet" if answer.get("unmasked") else "tokens masked as always"
    if table.origin.definition.mask is None:
        mask = "no mask"
    lines[1] = f"  definition {table.origin.definition.name} · {table.thresholds.line()} · {mask}"
    sae = safe_token_text(answer["sae"] or "")
    if population is not None:
        ranks = places(table, population)
        of = int(population.computed.sum())
        where = f"{sae}, {of:,} features" + ("" if of else ": not computed, so no places")
        lines += ["", f"AMONG {where}: share of its features below, per cent"]
        for metric in RANKED:
            pair = [ranks[f"{side}.{metric}"] for side in ("writes", "reads")]
            shown = ["–" if math.isnan(v) else f"{v:.1f}" for v in pair]
            lines.append(f"{metric:<12}{shown[0]:>8} {shown[1]:>8}")
    for name, title in (("neighbours", "NEIGHBOURS  by decoder cosine"), ("readers", "READERS  by encoder cosine")):
        if answer[name]:
            lines += ["", f"{title}, {sae}"]
        for hit in answer[name]:
            words = words_text(hit["words"])
            tail = tail_text(value(hit, "tail"))
            name = safe_token_text(hit["address"])
            name += " " * (18 - cell_len(name))
            lines.append(f"  {name} {hit['score']:+.3f}  tail {tail:>7}  {words}")
    heads = answer["heads"]
    title = "HEADS" if heads["layer"] is None else f"HEADS of L{heads['layer']}"
    lines += ["", f"{title}  peak score as query and as key, with the feature that causes it"]
    if heads["absent"]:
        lines.append(f"  – {heads['absent']}")
    for head in heads["heads"]:
        parts = []
        for side in ("query", "key"):
            best = head[side][0] if head[side] else None
            peak = "–" if best is None else f"{best['score']:.1f} ← #{best['feature']}"
            parts.append(f"{side} {peak}")
        lines.append(f"  H{head['head']}  " + "   ".join(f"{part:<24}" for part in parts).rstrip())
    return lines
