"""One line of the table: which columns, how wide, and a row's cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.cells import cell_len

from wbtui.display import fit, safe_token_text
from wbtui.features.names import resolve
from wbtui.tui.draw.line import Line
from wbtui.tui.draw.note import mark_of
from wbtui.tui.facts import REASONS, kind_text, listed, reason, state_of

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable
    from wbtui.tui.state import SortKey

GUTTER = 2
"""Cells before the first column: the cursor's arrow and the mark's dot."""
KIND_COLUMNS = {"writes.class": "writes", "reads.class": "reads", "against.class": "against"}
WORD_COLUMNS = {"writes": "writes", "against": "against", "reads": "reads"}
"""Columns of words: name -> side."""
SHORT = {
    "id": "#",
    "tags": "tags",
    "writes.class": "kind",
    "reads.class": "kind rd",
    "writes.z_max": "z",
    "writes.evidence": "evid",
    "writes.first_view": "first view",
    "writes.n_words": "words",
}
DECIMALS = {
    "z_max": 1, "z_10": 1, "z_min": 1, "evidence": 1, "kurt": 1, "n_eff": 0,
    "top_values": 3, "masked_best_value": 3, "mean": 3, "std": 3,
}  # fmt: skip
"""Decimals of metrics, the same in every row of a column; two where not named."""
_WHOLE = {"writes.n_words", "reads.n_words", "against.n_words", "overlap", "flags", "id"}


@dataclass(frozen=True)
class Cell:
    """A column as drawn."""

    name: str
    head: str
    width: int
    right: bool


TEXT_COLUMNS = {"tags": 14, "note": 24, "label": 28}
"""Texts of the user's own, and of others (imported), with their cells."""


def layout(columns: Sequence[str], width: int, n: int) -> list[Cell]:
    """Give each column its cells; word columns share what is left, ``writes`` twice as much; a lone one takes all.

    Columns that do not fit are dropped from the right, words last.
    """
    columns = list(columns)
    while True:
        words = [c for c in columns if c in WORD_COLUMNS]
        fixed = {c: _fixed_width(c, n) for c in columns if c not in WORD_COLUMNS}
        left = width - GUTTER - sum(fixed.values()) - 2 * len(columns) + 1
        if left >= 12 * len(words) or len(fixed) <= 1:
            break
        columns.remove([c for c in columns if c in fixed and c != "id"][-1])
    shares = {c: 2 if c == "writes" else 1 for c in words}
    total = sum(shares.values())
    cells, used = [], 0
    for c in columns:
        if c in fixed:
            cells.append(Cell(c, head_of(c), fixed[c], c not in KIND_COLUMNS and c not in TEXT_COLUMNS))
        else:
            last = c == words[-1]
            wide = max(0, left - used if last else left * shares[c] // total)
            used += wide
            cells.append(Cell(c, head_of(c), wide, False))
    return cells


def head_of(name: str) -> str:
    """A column's short heading."""
    if name in SHORT:
        return SHORT[name]
    if name.startswith("head:"):
        return name.removeprefix("head:")
    side, dot, rest = name.partition(".")
    if dot and side in ("reads", "against"):
        return f"{ {'z_max': 'z'}.get(rest, rest) } {'rd' if side == 'reads' else 'ag'}".strip()
    return name.removeprefix("writes.").removesuffix(".writes")


def _fixed_width(name: str, n: int) -> int:
    if name == "id":
        return max(4, len(str(max(n - 1, 0))))
    if name in KIND_COLUMNS:
        return 7
    if name in TEXT_COLUMNS:
        return TEXT_COLUMNS[name]
    return max(4, min(cell_len(head_of(name)) + 1, 14))


def header(cells: Sequence[Cell], sort: Sequence[SortKey], picked: int | None) -> Line:
    """The heading; the columns that sort carry ▼ or ▲ (the second a smaller one), a picked one stands out."""
    order = {name: (at, falling) for at, (name, falling) in enumerate(sort)}
    line: Line = [(" " * (GUTTER + 1), "head")]
    for at, cell in enumerate(cells):
        arrow = ""
        if cell.name in order:
            arrow = (
                ("▼" if order[cell.name][1] else "▲")
                if order[cell.name][0] == 0
                else ("▾" if order[cell.name][1] else "▴")
            )
        text = (
            cell.head + arrow
            if cell_len(cell.head + arrow) <= cell.width
            else fit(cell.head, cell.width - len(arrow)) + arrow
        )
        text = text.rjust(cell.width) if cell.right else text.ljust(cell.width)
        role = "picked" if picked == at else "strong" if arrow else "head"
        line.append((text, role))
        line.append(("  " if at < len(cells) - 1 else "", "head"))
    return line


def row_line(table: FeatureTable, row: int, cells: Sequence[Cell], *, cursor: bool, marked: bool) -> Line:
    """One feature. ``…`` is on its way, ``–`` cannot be, ``~`` and italics are provisional."""
    state = state_of(table, row)
    base = "provisional" if state == "provisional" else "text" if state == "ready" else "faint"
    line: Line = [("▸" if cursor else " ", "strong"), (mark_of(table, row, marked), "mark"), (" ", "text")]
    why = reason(table, row) if state != "absent" else ""
    for at, cell in enumerate(cells):
        if cell.name == "id":
            line.append((str(row).rjust(cell.width), "strong" if cursor else "text" if state != "absent" else "dim"))
        elif cell.name in TEXT_COLUMNS:
            text = " ".join(table.text(cell.name, row).split())
            line.append(
                (fit(safe_token_text(text) if text else "", cell.width), "mark" if cell.name == "tags" else "dim")
            )
        elif state == "absent":
            line.append(("…".rjust(cell.width) if cell.right else fit("…", cell.width), "faint"))
        elif cell.name in KIND_COLUMNS:
            word = kind_text(table, row, KIND_COLUMNS[cell.name])
            text = ("~" if state == "provisional" else "") + word
            line.append((fit(text, cell.width), _kind_role(word, base)))
        elif cell.name in WORD_COLUMNS:
            line.extend(_words(table, row, WORD_COLUMNS[cell.name], cell.width, base, why))
        else:
            line.append((number(table, cell.name, row).rjust(cell.width)[: cell.width], base))
        line.append(("  " if at < len(cells) - 1 else "", "text"))
    return line


def _kind_role(word: str, base: str) -> str:
    if base == "provisional":
        return base
    return "dim" if word in ("none", "–") else "writes" if word.startswith("set") else "text"


def _words(table: FeatureTable, row: int, side: str, width: int, base: str, why: str) -> Line:
    if why and (side != "reads" or why in ("bad_decoder",)) and not (why == "no_reads" and side != "reads"):
        return [(fit(f"({REASONS[why][0]})", width), "dim")]
    if side == "reads" and why in ("no_reads", "bad_encoder", "zero_encoder"):
        return [(fit("–", width), "dim")]
    words = listed(table, row, side, min(10, width // 4 + 2))  # no more than could fit
    beyond = [w for w in words if not w.inside_null]
    if not beyond:
        return [(fit("(inside noise)", width), "dim")]
    line: Line = []
    left = width
    for at, word in enumerate(beyond):
        text = (" " if at else "") + word.text
        cells = cell_len(text)
        if cells > left:
            if left > 1:
                line.append((fit(text, left), base))
                left = 0
            break
        line.append((text, base))
        left -= cells
    if left:
        line.append((" " * left, base))
    return line


def number(table: FeatureTable, name: str, row: int) -> str:
    """A metric's value in few cells; ``–`` where there is none."""
    value = table.at(name, row)
    if getattr(value, "dtype", None) is not None and value.dtype.kind == "f":
        return format_value(name, value)  # which says what NaN is
    return format_value(name, value) if table.known_at(name, row) else "–"


LARGE = 200_000
"""Rows from which a derived column is not computed for the sake of one value on a list of metrics."""


def one_value(table: FeatureTable, name: str, row: int) -> str:
    """One row's value of any metric, without making a whole column of a large table; empty where it would need one."""
    known = resolve(name)
    if known.kind == "text":
        return safe_token_text(" ".join(table.text(known.base, row).split()) or "–")
    if known.kind == "class":
        return kind_text(table, row, known.side)
    if known.kind == "stored":
        value = np.asarray(table.cell(name, row))
        return format_value(name, value[()]) if table.available[row] else "–"
    return number(table, name, row) if table.n < LARGE else ""


def format_value(name: str, value: object) -> str:
    """One value of a metric as text: yes/no, whole, share or decimal."""
    if isinstance(value, str):
        return value
    if hasattr(value, "dtype") and value.dtype.kind in "USO":  # numpy text
        return str(value)
    if (hasattr(value, "dtype") and value.dtype.kind == "b") or isinstance(value, bool):
        return "yes" if value else "·"
    x = float(value)  # type: ignore[arg-type]
    if not math.isfinite(x):
        return "–"
    if name in _WHOLE or (hasattr(value, "dtype") and value.dtype.kind in "iu"):
        return str(int(x))
    if name == "density":
        return "0" if x == 0 else f"{x:.0e}".replace("e-0", "e-") if x < 0.01 else f"{x:.2f}".replace("0.", ".", 1)
    last = name.rsplit(".", 1)[-1]
    places = DECIMALS.get(last, 3 if name.startswith("null:") else 1 if name.startswith("percentile:") else 2)
    text = f"{x:.{places}f}" if abs(x) < 10_000 else f"{x:.3g}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") and places > 1 else text
