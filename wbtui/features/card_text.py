"""A feature as plain text for ``wbtui show``: the card without colours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len

from wbtui.definitions import RECONSTRUCTION
from wbtui.display import safe_token_text

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable
    from wbtui.features.words import Word

BAR = 24
HEADS = {
    "writes": "what it promotes: word, z, logit per unit of the decoder",
    "against": "what it suppresses: word, z, logit per unit of the decoder",
    "reads": "what its encoder answers to: word, z, embedding · encoder",
}
METRICS = ("z_max", "z_10", "delta_h", "cos_tok", "lev", "word_share")


def render(table: FeatureTable, row: int) -> str:
    """The feature's sentence, words with bars against the null's bar, metrics with their place in the null.

    Args:
        table: a finished table.
        row: the feature.
    """
    record = table.record(row)
    masked = table.masked_tokens()
    mask = f"mask {masked['total']:,} of {masked['of']:,} tokens" if masked else "no mask"
    lines = [
        f"{safe_token_text(record['address'])}  {table.sentence(row)}",
        f"  definition {table.origin.definition.name} · {table.thresholds.line()} · {mask}",
    ]
    for side, title in (("writes", "WRITES"), ("against", "AGAINST"), ("reads", "READS")):
        words = table.words(row, side, k=10 if side != "against" else 5)
        lines.append("")
        if not words:
            lines.append(f"{title}  – {_why_absent(record, side)}")
            continue
        lines.append(f"{title}  {HEADS[side]}")
        lines += _bars(words)
    lines.append("")
    lines.append(f"{'METRIC':<12}{'writes':>8}  {'':<38}{'reads':>8}")
    for metric in METRICS:
        cells = []
        for side in ("writes", "reads"):
            value = table.value(f"{side}.{metric}", row)
            shown = table.null_percentile(f"{side}.{metric}", row)[1]
            cells.append(f"{'–':>8}  {'':<38}" if math.isnan(value) else f"{value:8.3f}  {shown:<38}")
        lines.append(f"{metric:<12}{cells[0]}{cells[1]}".rstrip())
    data = record.get("data")
    if data is not None:
        lines += ["", "DATA  imported from files, not from weights"]
        lines += [f"  label: {x['text']}  ({x['author'] or x['method'] or x['origin']})" for x in data["labels"][:5]]
        if data["density"] is not None:
            lines.append(f"  density: {data['density']:.3g} of tokens" + (", dead" if data["dead"] else ""))
    kept = table.kept
    if kept.error:
        lines += ["", f"NOTE  cannot be read: {kept.error}"]
    elif kept.marked(table.n)[row] or row in kept.tags or row in kept.notes:
        mark = "marked  " if kept.marked(table.n)[row] else ""
        tags = " ".join("#" + safe_token_text(tag) for tag in kept.tags.get(row, ()))
        lines += ["", f"NOTE  {mark}{tags}".rstrip()]
        note = kept.notes.get(row, "")
        lines += [f"  {safe_token_text(line) if line else ''}".rstrip() for line in note.split("\n") if note]
    for warning in record.get("warnings") or []:
        lines.append(f"note: {warning}")
    lines.append(RECONSTRUCTION)
    return "\n".join(lines)


def _bars(words: list[Word]) -> list[str]:
    width = max(cell_len(w.text) for w in words)
    longest = max(abs(w.z) for w in words) or 1.0
    out = []
    for w in words:
        bar = ("░" if w.inside_null else "█") * max(1, round(BAR * abs(w.z) / longest))
        count = f"×{w.count}" if w.count > 1 else ""
        note = "  inside noise" if w.inside_null else ""
        pad = " " * (width - cell_len(w.text))
        out.append(f"  {w.text}{pad} {count:<3} {bar:<{BAR}} {w.z:6.1f} {w.value:9.3f}{note}")
    return out


def _why_absent(record: dict, side: str) -> str:
    found = record.get(side)
    if isinstance(found, dict) and found.get("absent"):
        return str(found["absent"])
    return "nothing here"
