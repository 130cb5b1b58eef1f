"""``c``: choose, move and sort by columns; a filter at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from wbtui.display import fit
from wbtui.errors import UsageError
from wbtui.features.glossary import explain
from wbtui.tui import keymap
from wbtui.tui import state as st
from wbtui.tui.draw.line import Line, cut
from wbtui.tui.draw.rows import one_value
from wbtui.tui.facts import state_of
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

WORDS = {
    "writes": "the words it pushes up, strongest first",
    "against": "the words it pushes down",
    "reads": "the words whose embeddings its encoder points at",
}


def _group(name: str) -> int:
    """Writes first, then whole rows, reads, against, and what joins sides."""
    for place, side in enumerate(("writes", "", "reads", "against", "either", "both")):
        if side and (name.startswith(side + ".") or name.endswith("." + side)):
            return place
    return 1


class ChooseScreen(WbScreen):
    """Every column there is; those that are shown come first, in their order."""

    CONTEXT = "columns"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("columns")]
    AUTO_FOCUS = "#entry"
    DEFAULT_CSS = """
    ChooseScreen #bar { height: 1; }
    ChooseScreen #prompt { width: 11; }
    ChooseScreen #entry { width: 1fr; }
    """

    def __init__(self, table: FeatureTable, view: st.View, width: int, done: Callable[[st.View], None]) -> None:
        super().__init__()
        self.table = table
        self.view = view
        self.width = width
        self.done = done
        self.at = 0
        self.text = ""

    def body(self) -> ComposeResult:
        """Filter, then the list."""
        with Horizontal(id="bar"):
            yield Lines(id="prompt")
            yield Input(id="entry", placeholder="type to find a metric", select_on_focus=False)
        yield Card(id="list")

    @property
    def shown(self) -> tuple[str, ...]:
        """Columns in the table now."""
        return st.shown_columns(self.view, self.width)

    @property
    def names(self) -> list[str]:
        """What the list holds, filtered."""
        rest = [n for n in (*WORDS, *sorted(self.table.names(), key=_group)) if n not in self.shown]
        names = [*self.shown, *rest]
        wanted = self.text.casefold().split()
        return [n for n in names if all(w in n.casefold() or w in self._meaning(n).casefold() for w in wanted)]

    @staticmethod
    def _meaning(name: str) -> str:
        if name in WORDS:
            return WORDS[name]
        try:
            entry = explain(name)
        except UsageError:
            return ""
        return entry.meaning

    def fit(self) -> None:
        """Draw."""
        self.query_one("#prompt", Lines).set_lines([[(" COLUMNS / ", "strong")]])
        card = self.query_one("#list", Card)
        names = self.names
        self.at = max(0, min(self.at, len(names) - 1))
        height = max(1, card.size.height - 1)
        top = max(0, min(self.at - height // 2, len(names) - height))
        lines: list[Line] = [[(f"  {'':<4} {'column':<24} {'this one':>10}  meaning", "head")]]
        sort = dict(self.view.sort)
        here = 0 <= self.view.cursor < self.table.n and state_of(self.table, self.view.cursor) != "absent"
        for n, name in enumerate(names[top : top + height], start=top):
            arrow = ("▼" if sort[name] else "▲") if name in sort else " "
            box = "[x]" if name in self.shown else "[ ]"
            value = one_value(self.table, name, self.view.cursor) if here and name not in WORDS else ""
            lines.append(
                cut(
                    [
                        ("▸ " if n == self.at else "  ", "strong"),
                        (f"{box}{arrow} ", "mark" if name in self.shown else "dim"),
                        (fit(name, 24), "strong" if n == self.at else "text"),
                        (value.rjust(11) + "  ", "text"),
                        (self._meaning(name), "dim"),
                    ],
                    card.inner_width,
                )
            )
        card.set_lines(lines if names else [[("  no metric holds that", "dim")]])

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter at once."""
        self.text, self.at = event.value, 0
        self.fit()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter toggles."""
        self.action_show()

    def _change(self, view: st.View, follow: str | None = None) -> None:
        self.view = view
        self.done(view)
        if follow is not None and follow in self.names:
            self.at = self.names.index(follow)
        self.fit()

    def named(self) -> str | None:
        names = self.names
        return names[self.at] if names else None

    def action_show(self) -> None:
        """Show or hide."""
        if (name := self.named()) is not None:
            self._change(st.toggle_column(self.view, self.shown, name), name)

    def action_shift(self, delta: int) -> None:
        """Left or right."""
        if (name := self.named()) is not None:
            self._change(st.move_column(self.view, self.shown, name, delta), name)

    def action_sort(self) -> None:
        """Sort by it."""
        if (name := self.named()) is not None:
            self._change(st.sort_by(self.view, name, rising_first=name in ("id", *WORDS)))

    def action_reset(self) -> None:
        """The usual columns."""
        self._change(replace(self.view, columns=()))

    def action_down(self) -> None:
        """Down."""
        self.at += 1
        self.fit()

    def action_up(self) -> None:
        """Up."""
        self.at -= 1
        self.fit()

    def action_back(self) -> None:
        """Done."""
        self.app.pop_screen()
