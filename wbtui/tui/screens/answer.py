"""``f`` and ``E``: the rows of a question, hits of a direction or edges of a feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from wbtui.address import Address, parse_address
from wbtui.display import safe_token_text
from wbtui.errors import Cancelled, UsageError, WbtuiError
from wbtui.features import answers
from wbtui.features.asking import parse
from wbtui.tui import keymap
from wbtui.tui.draw import frame
from wbtui.tui.draw.answer import (
    LISTS,
    columns_for,
    detail_lines,
    header,
    meaning_line,
    row_line,
    totals_line,
)
from wbtui.tui.draw.line import Line, cut, spread
from wbtui.tui.facts import meaning_of, short_name
from wbtui.tui.screens.answer_keep import AnswerKeep
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.screens.main_ask import absolute
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen

TOP = {"find": 200, "edges": 40}
DETAIL = 4
"""Lines under the list: a rule and what is known of the row."""


class AnswerScreen(AnswerKeep, WbScreen):
    """One question and its rows; ``find`` where there is a query, else the edges of a feature.

    Args:
        main: whose place is changed when a row is opened.
        opened: where the question starts.
        query: of find.
        all_layers: ask one SAE of every hook.
        feature: whose edges.
    """

    CONTEXT = "answer"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("answer")]
    AUTO_FOCUS = ""
    DEFAULT_CSS = """
    AnswerScreen #bar { height: 1; display: none; }
    AnswerScreen.-typing #bar { display: block; }
    AnswerScreen.-typing #status { display: none; }
    AnswerScreen #prompt { width: 3; }
    AnswerScreen #entry { width: 1fr; }
    """

    def __init__(
        self,
        main: MainScreen,
        opened: Opened,
        *,
        query: str = "",
        all_layers: bool = False,
        feature: int | None = None,
    ) -> None:
        super().__init__()
        self.main = main
        self.opened = opened
        self.query_text = query
        self.all_layers = all_layers
        self.place = Address(opened.model.name, opened.sae.name, feature)
        self.past: list[Address] = []
        self.future: list[Address] = []
        self.answer: dict[str, Any] | None = None
        self.found: list[answers.Row] = []
        """Rows as they came."""
        self.rows: list[answers.Row] = []
        """Rows filtered and in order."""
        self.at = 0
        self.top = 0
        self.sort, self.falling = ("", True) if self.edges else ("score", True)
        self.filter_text = ""
        self.only = ""
        """The one list of edges that is shown; empty: the strongest of each."""
        self.notice: tuple[str, str] = ("", "dim")
        self.pending = False
        """Whether the service is asked (tests and pictures wait for it)."""
        self.typing = ""
        self.tables, self.looked, self.kept = {}, set(), {}

    @property
    def edges(self) -> bool:
        """Whether rows are edges."""
        return not self.query_text

    # Layout -----------------------------------------------------------------------------------------------------------

    def body(self) -> ComposeResult:
        """Head, list, what is known of a row, last line."""
        yield Lines(id="crumb")
        yield Lines(id="status")
        with Horizontal(id="bar"):
            yield Lines(id="prompt")
            yield Input(id="entry", select_on_focus=False)
        yield Lines(id="rule")
        yield Card(id="list")

    def tail(self) -> ComposeResult:
        """The last line."""
        yield Lines(id="last")

    def on_mount(self) -> None:
        """Ask."""
        self.ask()

    def fit(self) -> None:
        """Draw for the present size; how many rows of each list there are depends on it."""
        if self.edges and self.found:
            self.rearrange()
        else:
            self.draw()

    # Asking -----------------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask the service; an earlier question is taken back."""
        self.answer, self.found, self.rows, self.at, self.top = None, [], [], 0, 0
        self.pending = True
        self.notice = ("", "dim")
        self.in_background(self._ask, group="ask", exclusive=True)
        self.draw()

    async def _ask(self) -> None:
        desk = self.wb.desk
        try:
            if self.edges:
                opened = await self.opened_at(self.place)
                args: dict[str, Any] = {"feature": self.place.feature, "top": TOP["edges"]}
                self.answer = await desk.ask(opened, "edges", args)
                self.found = list(answers.edge_rows(self.answer))
            else:
                args = {"query": absolute(parse(self.query_text)), "all_layers": self.all_layers, "top": TOP["find"]}
                self.answer = await desk.ask(self.opened, "find", args, self._part)
                self.found = list(self.answer["hits"])
            self.notice = ("", "dim")
        except Cancelled:
            return
        except WbtuiError as error:
            self.notice = (error.line(), "error")
        self.pending = False
        self.rearrange()

    def _part(self, part: dict[str, Any]) -> None:
        """One SAE's best rows are there: into the list at once."""
        self.found = answers.ordered([*self.found, *part["hits"]], "score", True)[: TOP["find"]]
        self.rearrange()

    # Rows -------------------------------------------------------------------------------------------------------------

    def rearrange(self) -> None:
        """Filter and order."""
        self.look()
        try:
            rows = answers.filtered(self.found, self.filter_text, self.tables)
        except UsageError as error:
            self.notice = (error.line(), "error")
            rows = self.rows
        else:
            if self.typing == "filter":
                self.notice = ("", "dim")
        if self.edges and self.only:
            rows = [row for row in rows if row["list"] == self.only]
        elif self.edges and not self.sort and not self.filter_text:
            each = max(3, self.height // len(LISTS))
            rows = [row for name in LISTS for row in [r for r in rows if r["list"] == name][:each]]
        under = self.key(self.rows[self.at]) if self.at < len(self.rows) and self.at else None
        self.rows = answers.ordered(rows, self.sort, self.falling) if self.sort else rows
        keys = [self.key(row) for row in self.rows]
        self.at = keys.index(under) if under in keys else 0
        self.draw()

    def key(self, row: answers.Row) -> tuple[str, str]:
        """A row, whatever the order."""
        return str(row["address"]), str(row.get("list", "")) + str(row.get("via", ""))

    @property
    def height(self) -> int:
        """Rows in sight."""
        return max(1, self.query_one("#list", Card).size.height - 1 - DETAIL)

    # Drawing ----------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Everything."""
        if self.small:
            return
        width = self.app.size.width
        name = short_name(self.opened.model.name)
        if self.edges:
            parts = [name, f"{self.place.sae}", f"#{self.place.feature}", "edges"]
        else:
            parts = [name, "all layers" if self.all_layers else self.opened.sae.name, f"find {self.query_text}"]
        self.query_one("#crumb", Lines).set_lines([frame.crumb(parts, meaning_of(self.opened.table), width)])
        self.query_one("#status", Lines).set_lines([self._status(width)])
        note = self.notice if self.notice[0] else ("", "dim")
        self.query_one("#rule", Lines).set_lines([frame.separator(width, None, note=note[0], role=note[1])])
        card = self.query_one("#list", Card)
        card.set_lines(self._lines(card.inner_width))
        self.query_one("#last", Lines).set_lines([self._last(width)])

    def _status(self, width: int) -> Line:
        if self.answer is None:
            text = "scoring every feature…" if self.pending else ""
            left: Line = [(f" {text}", "dim")]
        else:
            left = [(" " + (totals_line(self.answer) if self.edges else meaning_line(self.answer)), "text")]
        some = len(self.rows) < len(self.found)
        count = f"{len(self.rows):,} of {len(self.found):,} rows" if some else f"{len(self.found):,} rows"
        right: Line = [(f"  {count}", "text")]
        if self.filter_text:
            right.append((f"  / {safe_token_text(self.filter_text)}", "strong"))
        if marked := sum(map(self.marked, self.found)):
            right.append((f"  {marked} marked", "mark"))
        return spread(left, [*right, (" ", "text")], width)

    def _lines(self, width: int) -> list[Line]:
        height = self.height
        self.top = max(0, min(self.top, len(self.rows) - height))
        self.top = min(self.top, self.at) if self.at < self.top else max(self.top, self.at - height + 1)
        columns = columns_for(width, self.edges)
        out = [header(columns, width, self.edges, self.sort, self.falling)]
        for i in range(self.top, min(len(self.rows), self.top + height)):
            row = self.rows[i]
            marked, at = self.marked(row), i == self.at
            out.append(row_line(row, columns, width, at=at, marked=marked, edges=self.edges))
        if not self.rows and not self.pending:
            why = "no row passes the filter" if self.found else "nothing to show: the line above says why"
            out.append([(f"  {why}", "dim")])
        out += [[] for _ in range(height + 1 - len(out))]
        out.append([("─" * width, "rule")])
        if self.rows:
            out += detail_lines(self.rows[self.at], width, self.edges)
        return out

    def _last(self, width: int) -> Line:
        what = (
            "input-independent: what could flow, not what does; tails of either sign; dim: inside 1 % of noise"
            if self.edges
            else "exact over all features; rank: place of the words in the feature’s own list; dim: inside 1 % of noise"
        )
        if width < 112:
            what = (
                "what could flow, not what does; tails of either sign; dim: inside noise"
                if self.edges
                else "exact over all features; rank: place in its own list; dim: inside noise"
            )
        if self.answer is not None and self.answer.get("unmasked"):
            what = "without the token mask (not computed yet); " + what
        return cut([(" " + what, "dim")], width)

    # Keys -------------------------------------------------------------------------------------------------------------

    def _move(self, to: int) -> None:
        self.at = max(0, min(to, len(self.rows) - 1))
        self.draw()

    def action_down(self) -> None:
        """One down."""
        self._move(self.at + 1)

    def action_up(self) -> None:
        """One up."""
        self._move(self.at - 1)

    def action_page(self, sign: int) -> None:
        """A page."""
        self._move(self.at + sign * self.height)

    def action_edge(self, end: int) -> None:
        """First or last."""
        self._move(len(self.rows) - 1 if end else 0)

    def on_card_scrolled(self, message: Any) -> None:
        """The wheel."""
        self._move(self.at + message.lines)

    def action_open(self) -> None:
        """Go to the feature."""
        if self.rows:
            address = parse_address(str(self.rows[self.at]["address"]))
            self.app.pop_screen()
            self.main.visit(address)

    def action_edges(self) -> None:
        """The edges of the row's feature, on this page."""
        if not self.rows:
            return
        address = parse_address(str(self.rows[self.at]["address"]))
        if self.edges:
            self.past.append(self.place)
            self.future.clear()
            self._follow(address)
        else:
            self.app.push_screen(_Edges(self.main, self.opened, address))

    def _follow(self, address: Address) -> None:
        self.place = address
        self.ask()

    def action_history(self, step: int) -> None:
        """Back and forward among features whose edges were shown."""
        here, there = (self.past, self.future) if step < 0 else (self.future, self.past)
        if not self.edges or not here:
            self.notice = ("nowhere to go " + ("back to" if step < 0 else "forward to"), "dim")
            self.draw()
            return
        there.append(self.place)
        self._follow(here.pop())

    def action_layers(self) -> None:
        """One SAE or all layers."""
        if not self.edges:
            self.all_layers = not self.all_layers
            self.ask()

    def action_lists(self) -> None:
        """The strongest of every list, or one list alone."""
        if self.edges:
            names = ["", *LISTS]
            self.only = names[(names.index(self.only) + 1) % len(names)]
            self.at = 0
            self.rearrange()

    def action_sort(self) -> None:
        """The next column."""
        names = ["", *(answers.EDGES if self.edges else answers.FIND)]
        names = [n for n in names if n == "" or n in answers.NUMBERS or n in ("address", "words")]
        if not self.edges:
            names.remove("")
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self.falling = self.sort not in ("rank", "tail", "address", "words", "layer")
        self.notice = (f"sorted by {self.sort}" if self.sort else "up, down, heads: strongest first", "dim")
        self.rearrange()

    def action_reverse(self) -> None:
        """The other way round."""
        self.falling = not self.falling
        self.rearrange()

    def action_filter(self) -> None:
        """The filter bar."""
        self._open_bar("filter", " / ", self.filter_text)

    def action_ask(self) -> None:
        """Another question."""
        self._open_bar("ask", " ? ", self.query_text or self.main.last_question)

    def _open_bar(self, kind: str, prompt: str, text: str) -> None:
        self.typing = kind
        self.add_class("-typing")
        self.query_one("#prompt", Lines).set_lines([[(prompt, "strong")]])
        entry = self.query_one("#entry", Input)
        with entry.prevent(Input.Changed):
            entry.value = text
        entry.cursor_position = len(text)
        self.set_focus(entry)  # at once: keys that were typed ahead are its

    def _close_bar(self) -> None:
        self.typing = ""
        self.remove_class("-typing")
        self.set_focus(None)
        self.draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The filter works while it is typed."""
        event.stop()
        if self.typing == "filter":
            self.filter_text = event.value
            self.rearrange()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the bar."""
        event.stop()
        if self.typing == "filter":
            self._close_bar()
            return
        try:
            asked = parse(event.value)
            if asked.kind == "vector" and not asked.position:
                raise UsageError(f"{asked.path}: no stream position", "where it lives, @L3.resid_post behind it")
        except UsageError as error:
            self.notice = (error.line(), "error")
            self.draw()
            return
        self._close_bar()
        self.main.last_question = asked.text
        if self.edges:
            self.app.pop_screen()
            self.main.push_find(asked.text, all_layers=False)
            return
        self.query_text = asked.text
        self.ask()

    def action_glossary(self) -> None:
        """What the numbers mean."""
        from wbtui.tui.screens.direction import MeaningScreen

        self.app.push_screen(MeaningScreen(answers.EDGES if self.edges else answers.FIND))

    def action_back(self) -> None:
        """Stop typing, clear the filter, or leave; a question under way is taken back."""
        if self.typing:
            if self.typing == "filter":
                self.filter_text = ""
                self.rearrange()
            self._close_bar()
        elif self.pending and self.found:
            self.workers.cancel_group(self, "ask")
            self.pending = False
            self.notice = ("stopped: these are the SAEs that were scored", "warn")
            self.draw()
        elif self.filter_text:
            self.filter_text = ""
            self.rearrange()
        else:
            self.workers.cancel_group(self, "ask")
            self.app.pop_screen()


class _Edges(AnswerScreen):
    """Edges opened from a hit."""

    def __init__(self, main: MainScreen, opened: Opened, address: Address) -> None:
        super().__init__(main, opened, feature=address.feature)
        self.place = address
