"""The main screen's page: where its parts stand, and the lines around table and card. Pure.

The app's widgets draw with it, and so does the picture that stands before the app is loaded (:mod:`wbtui.tui.first`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.display import safe_token_text
from wbtui.tui import state as st
from wbtui.tui.draw import frame
from wbtui.tui.draw.card import card_lines, short_card
from wbtui.tui.draw.heads import WHAT, HeadsLook
from wbtui.tui.draw.near import NearLook
from wbtui.tui.facts import meaning_of, short_name

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable
    from wbtui.tui.data import Opened
    from wbtui.tui.draw.card import Look
    from wbtui.tui.draw.line import Line

HEAD, FOOT, SHARES = 3, 2, 3
"""Lines above table and card, under them, and of the class shares under the table where the card is beside it."""


@dataclass(frozen=True)
class Parts:
    """Cells of table and card at a size of the terminal."""

    split: bool
    """Whether the card stands beside the table."""
    table: tuple[int, int]
    card: tuple[int, int]
    """Width, height."""


def parts(width: int, height: int) -> Parts:
    """Where table and card stand; the terminal must not be too small."""
    body = height - HEAD - FOOT
    if width >= st.SPLIT_WIDTH:
        card = max(52, min(92, width * 52 // 100))
        return Parts(True, (width - card, body - SHARES), (card, body))
    card = max(6, min(11, (height - 6) * 2 // 5 + 1))
    return Parts(False, (width, max(3, body - card)), (width, card))


def crumb_line(view: st.View, opened: Opened | None, width: int) -> Line:
    """Line 1: where one is, and what the numbers mean."""
    site = f"{opened.sae.name} {opened.sae.site}" if opened else view.sae
    meaning = meaning_of(opened.table) if opened else None
    return frame.crumb([short_name(view.model), site, f"#{view.cursor}"], meaning, width)


def status_line(view: st.View, rows: st.Rows, table: FeatureTable | None, width: int) -> Line:
    """Line 2: filter, counts, order, marks."""
    return frame.status(
        filter=view.filter,
        shown=len(rows),
        total=table.n if table is not None else 0,
        computed=int(np.count_nonzero(table.computed)) if table is not None else 0,
        sort=view.sort,
        marked=view.marks.count,
        ranged=len(st.ranged(view, rows)),
        width=width,
    )


def shares_lines(summary: Mapping[str, Any] | None, left: int) -> list[Line]:
    """The class shares under a table ``left`` cells wide, with the rule that parts them from it."""
    lines: list[Line] = [[("─" * (left - 1) + "┤", "rule")], *frame.shares(summary, max(0, left - 1))]
    return [[*frame.cut(line, left - 1), ("│", "rule")] if i else line for i, line in enumerate(lines)]


def last_line(
    opened: Opened | None,
    width: int,
    *,
    failure: str = "",
    job: Mapping[str, Any] | None = None,
    service: str = "unknown",
    devices: Sequence[Mapping[str, Any]] = (),
) -> Line:
    """The last line: memory, what is ready, what runs, the service."""
    said: list[tuple[str, str]] = []
    if memory := frame.memory_text(devices):
        said.append((memory, "dim"))
    if opened is None:
        said.append(("opening…" if not failure else "nothing open", "dim"))
    elif not opened.missing:
        said.append(("tokens ready", "dim"))
    elif job is not None and job.get("state") in ("queued", "running"):
        said.append((frame.job_text(job), "text"))
    else:
        words = ", ".join(frame.ANALYSES.get(name, name) for name in opened.missing)
        said.append((f"not computed yet: {words}", "dim" if service in ("starting", "up") else "warn"))
    if opened is not None and not opened.writable:
        said.append(("cache read-only", "warn"))
    words, role = frame.SERVICE_WORDS[service]
    said.append((words, role if opened is None or opened.missing else "dim"))
    return frame.state_line(said, width)


def small_card(
    table: FeatureTable, row: int, width: int, height: int, look: Look, summary: Mapping[str, Any] | None
) -> list[Line]:
    """The card under the table, the rule with the class shares above it."""
    return [under_rule(width, summary), *short_card(table, row, width, height - 1, look)]


def under_rule(width: int, summary: Mapping[str, Any] | None) -> Line:
    """The rule between table and card."""
    return frame.separator(width, None, note=frame.share_note(summary))


def first_card(table: FeatureTable, row: int, width: int, height: int, look: Look, split: bool) -> list[Line]:
    """A card of which nothing is known beside its row."""
    return card_lines(table, row, width, height, look) if split else small_card(table, row, width, height, look, None)


def first_view(view: st.View, rows: st.Rows, height: int, at_top: bool) -> st.View:
    """The view on the first rows that come: on the row at the top, or where its cursor was."""
    if at_top and len(rows):
        return st.to_position(view, rows, height, 0)
    return st.settle(view, st.Rows(np.zeros(0, dtype=np.int64), 0), rows, height)


def heads_look(opened: Opened | None, seen: bool) -> HeadsLook:
    """What the card draws of heads, or the words in their place; ``seen``: it is known what there is."""
    shelf = opened.table.heads if opened is not None else None
    if shelf is None:
        return HeadsLook()
    if shelf.absent:
        return HeadsLook(note="– no head reads the last layer’s stream: only the unembedding follows")
    first = shelf.first
    if not seen or first is None:
        return HeadsLook(note="…", layer=first)
    if first in shelf.failures:
        return HeadsLook(note="– " + safe_token_text(shelf.failures[first]), role="warn", layer=first)
    heads = shelf.peek()
    if heads is None or not heads.ready:
        return HeadsLook(note=f"h computes {WHAT}", layer=first)
    return HeadsLook(heads, layer=first)


def near_look(opened: Opened | None, seen: bool) -> NearLook:
    """What the card draws of near features, or the words in their place; ``seen`` as for heads."""
    shelf = opened.table.neighbours if opened is not None else None
    if opened is None or shelf is None:
        return NearLook()
    tables = tuple(shelf.tables())
    if tables:
        return NearLook(tables, opened.sae.layer)
    if not seen:
        return NearLook(note="…", layer=opened.sae.layer)
    if shelf.failure:
        return NearLook(note="– " + safe_token_text(shelf.failure), role="warn", layer=opened.sae.layer)
    return NearLook(note="~ computes the nearest features, here and in other layers", layer=opened.sae.layer)
