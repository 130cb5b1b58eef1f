"""``x``: write rows to a file; says what was written and where."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.store.keys import slug
from wbtui.tui import keymap
from wbtui.tui import state as st
from wbtui.tui.draw.line import Line, rule, wrap
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

FORMATS = ("csv", "jsonl", "parquet")
CHOICES = ("marked", "filtered", "all")


@dataclass(frozen=True)
class Wish:
    """What to write."""

    rows: str
    format: str
    columns: str
    """``usual`` (everything that a reader needs), or ``shown`` (the table's columns)."""
    path: str


def chosen_rows(wish: str, view: st.View, rows: st.Rows) -> np.ndarray:
    """Feature numbers: marked (in shown order where they are shown), the filter's result in its order, or all."""
    if wish == "all":
        return np.arange(rows.total)
    if wish == "filtered":
        return rows.order.astype(np.int64)
    marked = view.marks.numbers()
    places = rows.positions(marked)
    hidden = places < 0
    return np.concatenate([marked[~hidden][np.argsort(places[~hidden], kind="stable")], marked[hidden]])


def default_path(table: FeatureTable, wish: str, format: str) -> str:
    """A file name in the working folder that says what is in it."""
    model, sae = str(table.origin.model.get("name", "model")), str(table.origin.sae.get("name", "sae"))
    name = "-".join(slug(part, "")[:-1] for part in (model, sae))
    return f"{name}-{wish}.{format}"


def exported_columns(table: FeatureTable, view: st.View, width: int, which: str) -> list[str] | None:
    """Column names for a file; None for the usual ones."""
    if which == "usual":
        return None
    out: list[str] = []
    for name in st.shown_columns(view, width):
        out += [f"{name}.words"] if name in ("writes", "reads", "against") else [name]
    return out


class ExportScreen(WbScreen):
    """Rows, format, columns, path; Enter writes."""

    CONTEXT = "export"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("export")]
    AUTO_FOCUS = "#path"
    DEFAULT_CSS = """
    ExportScreen #bar { height: 1; }
    ExportScreen #prompt { width: 12; }
    ExportScreen #path { width: 1fr; }
    ExportScreen #head { height: 6; }
    """

    def __init__(self, table: FeatureTable, view: st.View, rows: st.Rows, width: int) -> None:
        super().__init__()
        self.table, self.view, self.rows, self.width = table, view, rows, width
        first = "marked" if view.marks.count else "filtered" if view.filter else "all"
        self.wish = Wish(first, "csv", "usual", default_path(table, first, "csv"))
        self.note: tuple[str, str] = ("", "dim")
        self.asked = ""
        """Path that exists and was warned about; Enter again writes over it."""
        self.writing = False

    def body(self) -> ComposeResult:
        """What, then where."""
        yield Card(id="head")
        with Horizontal(id="bar"):
            yield Lines(id="prompt")
            yield Input(value=self.wish.path, id="path", select_on_focus=False)
        yield Card(id="rest")

    def fit(self) -> None:
        """Draw."""
        head = self.query_one("#head", Card)
        counts = {wish: len(chosen_rows(wish, self.view, self.rows)) for wish in CHOICES}
        lines: list[Line] = [rule(head.inner_width, "EXPORT"), []]
        lines.append(_choice("rows", "F2", [(w, f"{w} {counts[w]:,}") for w in CHOICES], self.wish.rows))
        lines.append(_choice("format", "F3", [(f, f) for f in FORMATS], self.wish.format))
        columns = [("usual", "everything a reader needs"), ("shown", "the table's columns")]
        lines.append(_choice("columns", "F4", columns, self.wish.columns))
        head.set_lines(lines)
        self.query_one("#prompt", Lines).set_lines([[("  path      ", "dim")]])
        rest = self.query_one("#rest", Card)
        out: list[Line] = [[]]
        if self.note[0]:
            out += wrap(safe_token_text(self.note[0]).split(), rest.inner_width, self.note[1])
        else:
            words = (
                "definition, noise, thresholds and filter are written beside it (<file>.meta.json; in Parquet, inside)"
            )
            out += wrap(words.split(), rest.inner_width, "dim")
        rest.set_lines(out)

    def _set(self, wish: Wish) -> None:
        entry = self.query_one("#path", Input)
        usual = default_path(self.table, self.wish.rows, self.wish.format)
        self.wish = replace(wish, path=entry.value)
        if entry.value == usual:  # the user has not named a file: the name follows what is in it
            entry.value = default_path(self.table, wish.rows, wish.format)
            entry.cursor_position = len(entry.value)
        self.note, self.asked = ("", "dim"), ""
        self.fit()

    def action_rows(self) -> None:
        """Next choice of rows."""
        self._set(replace(self.wish, rows=_next(CHOICES, self.wish.rows)))

    def action_format(self) -> None:
        """Next format."""
        self._set(replace(self.wish, format=_next(FORMATS, self.wish.format)))

    def action_columns(self) -> None:
        """Usual or shown columns."""
        self._set(replace(self.wish, columns=_next(("usual", "shown"), self.wish.columns)))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        event.stop()
        self.action_write()

    def action_write(self) -> None:
        """Write, once more asked where the file exists."""
        if self.writing:
            return
        path = self.query_one("#path", Input).value.strip()
        rows = chosen_rows(self.wish.rows, self.view, self.rows)
        if not path:
            self.note = ("a path is needed", "error")
        elif len(rows) == 0:
            self.note = ({"marked": "nothing is marked", "filtered": "the filter lets nothing through"}.get(
                self.wish.rows, "there are no rows"), "error")  # fmt: skip
        elif Path(path).expanduser().exists() and self.asked != path:
            self.asked = path
            self.note = (f"{path} exists; Enter again writes over it", "warn")
        else:
            self.writing = True
            self.note = (f"writing {len(rows):,} features…", "dim")
            self.in_background(self._write, Path(path).expanduser(), rows, exclusive=True)
        self.fit()

    async def _write(self, path: Path, rows: np.ndarray) -> None:
        from wbtui.features.export import write

        columns = exported_columns(self.table, self.view, self.width, self.wish.columns)
        more = {
            "filter": self.view.filter if self.wish.rows == "filtered" else "",
            "sort": [list(key) for key in self.view.sort],
            "selection": self.wish.rows,
        }
        try:
            await asyncio.to_thread(write, self.table, rows, columns, self.wish.format, path, note=more)
        except (WbtuiError, OSError) as error:
            self.note = (error.line() if isinstance(error, WbtuiError) else str(error), "error")
            self.writing = False
            self.fit()
            return
        self.dismiss(f"wrote {len(rows):,} {'feature' if len(rows) == 1 else 'features'} to {path}")

    def action_back(self) -> None:
        """Leave without writing."""
        if not self.writing:
            self.dismiss("")


def _next(choices: tuple[str, ...], present: str) -> str:
    return choices[(choices.index(present) + 1) % len(choices)]


def _choice(name: str, key: str, choices: list[tuple[str, str]], chosen: str) -> Line:
    line: Line = [(f"  {name:<8}", "dim"), (f"{key} ", "key")]
    for value, words in choices:
        line.append((f" ({'•' if value == chosen else ' '}) {words} ", "strong" if value == chosen else "dim"))
    return line
