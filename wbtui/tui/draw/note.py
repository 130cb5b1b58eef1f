"""NOTE: what the user keeps of a feature: tags and a note, as lines of the card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from wbtui.display import fit, safe_token_text
from wbtui.tui.draw.line import Line, cut, rule, spread, wrap
from wbtui.tui.plain import shown_text

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def mark_of(table: FeatureTable, row: int, marked: bool) -> str:
    """``●`` marked, ``○`` tagged or noted, ``◉`` both."""
    kept = row in table.kept.tags or row in table.kept.notes
    return ("◉" if kept else "●") if marked else "○" if kept else " "


def tags_text(table: FeatureTable, row: int) -> str:
    """``#people #todo``, safe; empty without tags."""
    return " ".join("#" + shown_text(safe_token_text(tag)) for tag in table.kept.tags.get(row, ()))


def note_lines(text: str, width: int) -> list[Line]:
    """A note's text over as many lines as it takes, its own line ends kept."""
    out: list[Line] = []
    for paragraph in text.split("\n"):
        words = [shown_text(safe_token_text(word)) for word in paragraph.split()]
        # a word longer than the line is broken, not cut: the card shows all of a note
        pieces = [word[at : at + width] for word in words for at in range(0, len(word), max(1, width))]
        out += wrap(pieces, width) or [[]]
    return out


def note_block(table: FeatureTable, row: int, width: int, lines: int = 3) -> list[Line]:
    """NOTE with its tags; nothing where nothing is kept."""
    tags, text = tags_text(table, row), table.kept.notes.get(row, "")
    if not tags and not text:
        return []
    out = [rule(width, "NOTE", fit(tags, min(cell_len(tags), width // 2)) if tags else "")]
    body = note_lines(text, width) if text else []
    if len(body) > lines:
        body = [*body[: lines - 1], spread(body[lines - 1], [(f" … {len(body) - lines} more: ⏎ page", "dim")], width)]
    return out + body


def note_line(table: FeatureTable, row: int, width: int) -> Line:
    """``note  …  #people`` on one line; nothing where nothing is kept."""
    tags, text = tags_text(table, row), table.kept.notes.get(row, "")
    if not tags and not text:
        return []
    shown = shown_text(safe_token_text(" ".join(text.split()))) if text else ""
    right: Line = [(" " + tags, "mark")] if tags else []
    return cut(spread([(f"{'note':<8}", "head"), (shown, "text")], right, width), width)
