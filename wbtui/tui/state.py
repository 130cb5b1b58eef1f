"""The view state: one frozen dataclass, and every key as a pure function from state to state.

Nothing here knows of a terminal. The cursor is a *feature*, not a line: whatever filter, order or arriving rows do, it
stays on its feature where that feature is still shown, and on the same line of the screen. History, session and links
are states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wbtui.tui.rowsets import Marks, Rows

__all__ = ["Marks", "Rows", "View"]

SortKey = tuple[str, bool]
"""A column's name and whether it falls (largest first)."""

FIRST_SORT: tuple[SortKey, ...] = (("writes.first_view", True),)
SORT_CYCLE: tuple[tuple[SortKey, ...], ...] = (
    FIRST_SORT,
    (("writes.evidence", True),),
    (("writes.z_max", True),),
    (("writes.n_words", True), ("writes.z_10", True)),
    (("reads.z_max", True),),
    (("id", False),),
)
DEFAULT_COLUMNS = ("id", "writes.class", "writes", "writes.z_max", "writes.evidence")
WIDE_COLUMNS = ("id", "writes.class", "writes", "writes.z_max", "writes.evidence", "reads", "reads.z_max", "selfcos")
WORD_COLUMNS = ("writes", "against", "reads")
MIN_WIDTH, MIN_HEIGHT = 60, 20
SPLIT_WIDTH = 100
"""Below the least size nothing is drawn but a line that says so; from ``SPLIT_WIDTH`` the card is beside the table."""


@dataclass(frozen=True)
class View:
    """All that decides what is on the main screen, the weights aside."""

    model: str
    sae: str
    cursor: int = 0
    """The feature under the cursor."""
    top: int = 0
    """Position (in shown order) of the first line of the table."""
    filter: str = ""
    sort: tuple[SortKey, ...] = FIRST_SORT
    columns: tuple[str, ...] = ()
    """Chosen columns; empty: those that fit the width."""
    marks: Marks = field(default_factory=Marks)
    anchor: int | None = None
    """Feature where a range began (``v``)."""
    page: str = "main"
    """``main``, ``card`` (the card on the whole screen) or ``compare`` (with the pinned feature)."""
    focus: str = "table"
    """``table`` or ``card``: who takes the arrow keys."""
    tokens: bool = False
    """Raw tokens with their ids in the card, in place of words."""
    card_top: int = 0
    extra: tuple[str, ...] = ()
    """Columns beside the usual ones because there is something to see in them (tags)."""
    picker: int | None = None
    """Column under the header picker, while it is open."""
    pin: tuple[str, str, int] | None = None
    """(model, SAE, feature) that is compared with."""


def start(model: str, sae: str, feature: int | None) -> View:
    """The state in which an address opens."""
    return View(model, sae, cursor=feature or 0)


def usual_start(model: str, sae: str, feature: int | None, usual: tuple[tuple[SortKey, ...], tuple[str, ...]]) -> View:
    """The same with the user's usual order and columns, where there are some."""
    first = start(model, sae, feature)
    return replace(first, sort=usual[0] or first.sort, columns=usual[1])


# Moving in the table ---------------------------------------------------------------------------------------------


def move(view: View, rows: Rows, height: int, delta: int) -> View:
    """Down by ``delta`` lines (up if negative)."""
    here = rows.position(view.cursor)
    return to_position(view, rows, height, (here if here >= 0 else view.top) + delta)


def page(view: View, rows: Rows, height: int, pages: float) -> View:
    """Down by ``pages`` screens; the table scrolls by as much as the cursor moves."""
    step = max(1, round(abs(pages) * max(1, height - 1))) * (1 if pages > 0 else -1)
    here = rows.position(view.cursor)
    shifted = replace(view, top=_clip_top(view.top + step, rows, height))
    return to_position(shifted, rows, height, (here if here >= 0 else view.top) + step)


def to_position(view: View, rows: Rows, height: int, position: int) -> View:
    """The cursor on a position of the shown order, the table scrolled as little as that needs."""
    if len(rows) == 0:
        return replace(view, top=0)
    position = min(max(position, 0), len(rows) - 1)
    top = min(max(view.top, position - height + 1), position)
    return replace(view, cursor=int(rows.order[position]), top=_clip_top(top, rows, height), card_top=0)


def to_feature(view: View, rows: Rows, height: int, feature: int) -> View:
    """The cursor on a feature, a third down the screen if it was not in sight; off the list if the filter hides it."""
    position = rows.position(feature)
    if position < 0:
        return replace(view, cursor=feature, card_top=0)
    if view.top <= position < view.top + height:
        return to_position(view, rows, height, position)
    return replace(view, cursor=feature, top=_clip_top(position - height // 3, rows, height), card_top=0)


def settle(view: View, old: Rows | None, new: Rows, height: int) -> View:
    """After the shown rows changed: the cursor keeps its feature and its line; where the feature has gone, its line."""
    position = new.position(view.cursor)
    if not old and position >= 0 and view.top <= position < view.top + height:
        return replace(view, top=_clip_top(view.top, new, height))  # a place that one comes back to
    old_position = -1 if old is None else old.position(view.cursor)
    line = old_position - view.top if old_position >= 0 else 0
    if position >= 0:
        line = line if 0 <= line < height else height // 3
        return replace(view, top=_clip_top(position - line, new, height))
    if len(new) == 0:
        return replace(view, top=0)
    return to_position(replace(view, top=0), new, height, max(line, 0) if view.top == 0 else 0)


def resize(view: View, rows: Rows, height: int) -> View:
    """After the table's height changed: the cursor stays in sight."""
    position = rows.position(view.cursor)
    if position < 0:
        return replace(view, top=_clip_top(view.top, rows, height))
    top = min(max(view.top, position - height + 1), position)
    return replace(view, top=_clip_top(top, rows, height))


def _clip_top(top: int, rows: Rows, height: int) -> int:
    return max(0, min(top, len(rows) - height))


# Marks -----------------------------------------------------------------------------------------------------------


def mark(view: View, rows: Rows, height: int) -> View:
    """``m``: mark or unmark the feature and step down; with a range open, mark the range and close it."""
    if view.anchor is not None:
        return replace(view, marks=view.marks.with_rows(ranged(view, rows)), anchor=None)
    if rows.position(view.cursor) < 0:
        return view
    return move(replace(view, marks=view.marks.toggled(view.cursor)), rows, height, 1)


def toggle_range(view: View, rows: Rows) -> View:
    """``v``: open a range at the cursor, or mark the open one."""
    if view.anchor is None:
        return replace(view, anchor=view.cursor) if rows.position(view.cursor) >= 0 else view
    return replace(view, marks=view.marks.with_rows(ranged(view, rows)), anchor=None)


def ranged(view: View, rows: Rows) -> np.ndarray:
    """The features between the range's start and the cursor, both included; empty without a range."""
    if view.anchor is None:
        return np.zeros(0, dtype=np.int64)
    a, b = rows.position(view.anchor), rows.position(view.cursor)
    if a < 0 or b < 0:
        return np.zeros(0, dtype=np.int64)
    return rows.order[min(a, b) : max(a, b) + 1]


def mark_all(view: View, rows: Rows) -> View:
    """``*``: mark every row the filter lets through."""
    return replace(view, marks=view.marks.with_rows(rows.order), anchor=None)


def unmark_all(view: View) -> View:
    """``u``."""
    return replace(view, marks=Marks(), anchor=None)


# Filter, sort, columns -------------------------------------------------------------------------------------------


def set_filter(view: View, text: str) -> View:
    """What stands in the filter bar, stripped."""
    return replace(view, filter=text.strip(), anchor=None)


def cycle_sort(view: View) -> View:
    """``s``: the next of the usual orders; from an order of the user's own, the first."""
    at = SORT_CYCLE.index(view.sort) if view.sort in SORT_CYCLE else -1
    return replace(view, sort=SORT_CYCLE[(at + 1) % len(SORT_CYCLE)])


def sort_by(view: View, name: str, *, rising_first: bool = False, add: bool = False) -> View:
    """Sort by a column; again: the other way round. ``add`` keeps the present keys and puts this one last."""
    present = dict(view.sort)
    if add:
        if name in present:
            return replace(view, sort=tuple((n, not d if n == name else d) for n, d in view.sort))
        return replace(view, sort=(*view.sort, (name, not rising_first)))
    if len(view.sort) == 1 and name in present:
        return replace(view, sort=((name, not present[name]),))
    return replace(view, sort=((name, not rising_first),))


def reverse_sort(view: View) -> View:
    """``r``: every key the other way round."""
    return replace(view, sort=tuple((name, not falling) for name, falling in view.sort))


def toggle_column(view: View, shown: Iterable[str], name: str) -> View:
    """Show a column that was hidden, hide one that was shown; the number stays."""
    columns = list(shown)
    if name == "id":
        return view
    columns = [c for c in columns if c != name] if name in columns else [*columns, name]
    return replace(view, columns=tuple(columns))


def move_column(view: View, shown: Iterable[str], name: str, delta: int) -> View:
    """A shown column further left or right; the number stays first."""
    columns = list(shown)
    if name not in columns or name == "id":
        return view
    at = columns.index(name)
    columns.insert(min(max(1, at + delta), len(columns) - 1), columns.pop(at))
    return replace(view, columns=tuple(columns))


def shown_columns(view: View, width: int) -> tuple[str, ...]:
    """The columns to draw at a table's width: the chosen ones, or the usual; evidence goes first when it narrows."""
    if view.columns:
        return view.columns
    if width >= 100:
        return (*WIDE_COLUMNS, *view.extra)
    if width >= 76:
        return (*DEFAULT_COLUMNS, *view.extra)
    return DEFAULT_COLUMNS if width >= 50 else DEFAULT_COLUMNS[:-1]


# Pages -----------------------------------------------------------------------------------------------------------


def open_page(view: View) -> View:
    """Enter: the card on the whole screen."""
    return replace(view, page="card", focus="card", card_top=0)


def pin(view: View) -> View:
    """``p``: pin the feature under the cursor and compare with it."""
    return compare(replace(view, pin=(view.model, view.sae, view.cursor)))


def compare(view: View) -> View:
    """``P``: the comparison with the pinned feature, where one is pinned."""
    return replace(view, page="compare", focus="table", card_top=0) if view.pin is not None else view


def unpin(view: View) -> View:
    """No comparison any more."""
    return replace(view, pin=None, page="main" if view.page == "compare" else view.page)


def escape(view: View) -> View:
    """Esc: leave the innermost thing: header picker, range, card page, card focus, then the filter."""
    if view.picker is not None:
        return replace(view, picker=None)
    if view.anchor is not None:
        return replace(view, anchor=None)
    if view.page != "main":
        return replace(view, page="main", focus="table", card_top=0)
    if view.focus != "table":
        return replace(view, focus="table", card_top=0)
    return replace(view, filter="")


def toggle_focus(view: View) -> View:
    """Tab."""
    return replace(view, focus="card" if view.focus == "table" else "table")


def scroll_card(view: View, delta: int, lines: int, height: int) -> View:
    """The card's own scrolling, where it is longer than its place."""
    return replace(view, card_top=max(0, min(view.card_top + delta, lines - height)))


def move_picker(view: View, columns: tuple[str, ...], delta: int) -> View:
    """The header picker one column on; it opens on the column that sorts."""
    if view.picker is None:
        first = view.sort[0][0] if view.sort else ""
        return replace(view, picker=columns.index(first) if first in columns else 0)
    return replace(view, picker=(view.picker + delta) % len(columns))


# History and session ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """Where one was (``[``) and where one came back from (``]``)."""

    past: tuple[View, ...] = ()
    future: tuple[View, ...] = ()

    def visit(self, leaving: View) -> History:
        """Before a jump: remember the place that is left."""
        if self.past and _same_place(self.past[-1], leaving):
            return History(self.past, ())
        return History((*self.past[-99:], leaving), ())

    def back(self, here: View) -> tuple[History, View | None]:
        """The place before, and the history from there."""
        if not self.past:
            return self, None
        return History(self.past[:-1], (here, *self.future)), self.past[-1]

    def forward(self, here: View) -> tuple[History, View | None]:
        """The inverse of :meth:`back`."""
        if not self.future:
            return self, None
        return History((*self.past, here), self.future[1:]), self.future[0]


def _same_place(a: View, b: View) -> bool:
    return (a.model, a.sae, a.cursor, a.filter, a.sort) == (b.model, b.sae, b.cursor, b.filter, b.sort)


def to_session(view: View) -> dict[str, Any]:
    """What is remembered between sessions, as JSON data."""
    return {
        "model": view.model,
        "sae": view.sae,
        "feature": view.cursor,
        "filter": view.filter,
        "sort": [list(key) for key in view.sort],
        "columns": list(view.columns),
        "page": view.page,
        "focus": view.focus,
        "tokens": view.tokens,
        "pin": list(view.pin) if view.pin is not None else None,
    }


def from_session(data: dict[str, Any]) -> View | None:
    """The inverse of :func:`to_session`; None for anything that is not one."""
    try:
        return View(
            model=str(data["model"]),
            sae=str(data["sae"]),
            cursor=int(data["feature"]),
            filter=str(data["filter"]),
            sort=tuple((str(name), bool(falling)) for name, falling in data["sort"]) or FIRST_SORT,
            columns=tuple(str(name) for name in data["columns"]),
            page=str(data["page"]) if data.get("page") in ("card", "compare") else "main",
            focus="card" if data.get("focus") == "card" else "table",
            tokens=bool(data.get("tokens")),
            pin=_pin(data.get("pin")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _pin(data: Any) -> tuple[str, str, int] | None:
    if data is None:
        return None
    model, sae, row = data
    return str(model), str(sae), int(row)


def with_nan(columns: dict[str, Any]) -> dict[str, Any]:
    """A row as it came over the wire, where JSON has no NaN: None becomes NaN again, in lists too."""

    def back(value: Any) -> Any:
        if value is None:
            return float("nan")
        return [back(v) for v in value] if isinstance(value, list) else value

    return {name: back(value) for name, value in columns.items()}
