"""The main screen: a table that can be queried, one card beside or under it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from textual import events
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.timer import Timer

from wbtui.address import Address
from wbtui.catalog.neuronpedia import page_for
from wbtui.errors import WbtuiError
from wbtui.tui import keymap
from wbtui.tui import messages as say
from wbtui.tui import state as st
from wbtui.tui.data import Arranged, Opened, arrange, open_address, why_empty
from wbtui.tui.draw import frame
from wbtui.tui.draw import main as drawn
from wbtui.tui.draw.card import Look, card_lines, short_card
from wbtui.tui.draw.line import Line
from wbtui.tui.draw.page import page_lines
from wbtui.tui.draw.population import Population
from wbtui.tui.facts import state_of
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.screens.main_actions import MainActions
from wbtui.tui.screens.main_ask import MainAsk
from wbtui.tui.screens.main_keep import MainKeep
from wbtui.tui.screens.main_near import TABLE_SHARE, MainNear
from wbtui.tui.screens.main_states import empty_lines, first_run_lines, waiting_lines
from wbtui.tui.screens.main_work import MainWork
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.feature_table import FeatureTableView
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.binding import BindingType
    from textual.widget import AwaitMount

CARD_EVERY = 0.05
"""Seconds between two cards while keys come fast; a slow line would else fall behind the cursor."""
AHEAD_REST = 0.03
"""Seconds of rest before the next cards are made ahead."""
HELD = 0.25
"""Seconds that the first picture may wait for its rows: an empty one before it is drawn for nothing."""
HELD_OVER_PICTURE = 10.0
"""The same where a picture with the rows stands already."""
BAR_REST = 0.3
"""Seconds after the first picture at which the filter bar is made, where no key asked for it before."""
HINT_REST = 0.15
"""Seconds without another keystroke after which it is looked up why nothing matches."""
NO_ROWS = st.Rows(np.zeros(0, dtype=np.int64), 0)


class MainScreen(MainActions, MainAsk, MainKeep, MainNear, MainWork, WbScreen):
    """Draws a :class:`wbtui.tui.state.View`; keys replace it by another."""

    CONTEXT = "main"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("main")]
    AUTO_FOCUS = ""
    DEFAULT_CSS = """
    MainScreen #bar { height: 1; display: none; }
    MainScreen.-typing #bar { display: block; }
    MainScreen.-typing #status { display: none; }
    MainScreen #prompt { width: 3; }
    MainScreen #entry { width: 1fr; }
    MainScreen #answer { width: 28; }
    MainScreen #body { height: 1fr; layout: horizontal; }
    MainScreen #left { width: 1fr; height: 1fr; }
    MainScreen #shares { height: 3; }
    MainScreen { layers: base above; }
    MainScreen #intro { layer: above; dock: bottom; height: 6; margin-bottom: 2; }
    """

    def __init__(
        self,
        address: Address,
        view: st.View | None = None,
        usual: tuple[tuple[st.SortKey, ...], tuple[str, ...]] = ((), ()),
    ) -> None:
        super().__init__()
        self.address = address
        self.view = view or st.usual_start(address.model, address.sae or "", address.feature, usual)
        self.rows = NO_ROWS
        self.opened: Opened | None = None
        self.history = st.History()
        self.populations: dict[str, Population] = {}
        self.summary: dict[str, Any] | None = None
        self.notice: tuple[str, str] = ("", "dim")
        self.arranged: Arranged | None = None
        self.follow_top = address.feature is None and view is None
        """Until the first key the cursor stays on the first row, whichever feature comes to stand there."""
        self.typing: str = ""
        """``filter`` or ``jump`` while the bar is open."""
        self.failure = ""
        self.row_failure = {}
        self.unmasked: set[int] = set()
        self.heads_seen = False
        self.cosines = {}
        self.job: dict[str, Any] | None = None
        self._ticket = 0
        self._arranging = False
        self._fresh = False
        """Whether rows of a place just opened are not on screen yet."""
        self._held = False
        """Whether nothing is drawn yet, as the first rows are about to come."""
        self._made = -1
        self._making = False
        self._card_drawn = 0.0
        self._ahead: dict[tuple[object, ...], list[Line]] = {}
        """Cards made before they are asked for; gone at whatever may change a card beside the cursor."""
        self._ahead_timer: Timer | None = None
        self._card_timer: Timer | None = None
        self._bar: AwaitMount | None = None
        self._refresh_timer: Timer | None = None

    # Layout ---------------------------------------------------------------------------------------------------------

    def body(self) -> ComposeResult:
        """Head, table and card, last line."""
        yield Lines(id="crumb")
        yield Lines(id="status")
        yield Lines(id="rule")
        with Container(id="body"):
            with Vertical(id="left"):
                yield FeatureTableView(id="table")
                yield Lines(id="shares")
            yield Card(id="card")
        if self.wb.first_run:
            yield Card(id="intro")

    def bar(self) -> AwaitMount:
        """The line that takes text, made at the first asking; to be awaited before it is used."""
        if self._bar is None:
            from textual.widgets import Input

            entry = Input(id="entry", select_on_focus=False)
            entry.cursor_blink = False
            line = Horizontal(Lines(id="prompt"), entry, Lines(id="answer"), id="bar")
            self._bar = self.mount(line, after="#status")
        return self._bar

    def tail(self) -> ComposeResult:
        """The last line."""
        yield Lines(id="last")

    def on_key(self, event: events.Key) -> None:
        """The header picker takes its keys before anyone else."""
        if self.pick(event.key):
            event.stop()
            event.prevent_default()

    def on_mount(self) -> None:
        """Open what was asked for."""
        self.place()  # at once: rows may be here before the first layout is, and would be drawn for another one
        if self.wb.early is not None:
            self._held = True
            self.set_timer(HELD if not self.wb.drawn_before else HELD_OVER_PICTURE, self.let_go)
        self.open(self.address, self.view, at_top=self.follow_top)

    def _compositor_refresh(self) -> None:
        """Textual's drawing; what it is kept from stays marked as to be drawn."""
        if self._held:
            self._dirty_widgets.clear()
        else:
            super()._compositor_refresh()

    def let_go(self) -> None:
        """Draw, from now on."""
        if self._held:
            self._held = False
            self.wb.let_keys_in()
            self._compositor_refresh()

    @property
    def keys_context(self) -> str:
        """The page, the comparison and the note editor have keys of their own."""
        if self.typing == "note":
            return "note"
        return {"card": "page", "compare": "compare"}.get(self.view.page, "main")

    @property
    def panel(self) -> str:
        """The panel that has the keys."""
        return "page" if self.view.page == "card" else self.view.focus

    @property
    def settled(self) -> bool:
        """Whether what is on screen is all that is there (pictures and tests wait for it)."""
        ready = self.opened is not None and self.arranged is not None and self._made == self.opened.table.version
        ready = ready and self.heads_seen and self.near_seen and not self.pinning
        return bool(ready) and self._card_timer is None and self._refresh_timer is None

    @property
    def table_view(self) -> FeatureTableView:
        """The table."""
        return self.query_one("#table", FeatureTableView)

    @property
    def height_rows(self) -> int:
        """Rows of the table in sight."""
        return self.table_view.page_height

    @property
    def split(self) -> bool:
        """Whether the card stands beside the table."""
        return self.app.size.width >= st.SPLIT_WIDTH

    def place(self) -> None:
        """Sizes of table and card for the terminal's size and the page."""
        width, height = self.app.size
        body, left, card = self.query_one("#body"), self.query_one("#left"), self.query_one("#card", Card)
        table = self.table_view
        shares = self.query_one("#shares", Lines)
        full = self.view.page == "card"
        left.display = not full
        table.divider = self.split
        if full:
            card.styles.width, card.styles.height = "1fr", "1fr"
            return
        shares.display = self.split and self.view.page == "main"
        if self.view.page == "compare":
            table.divider = False
            body.styles.layout = "vertical"
            card.styles.width = "1fr"
            left.styles.height = max(4, (height - 5) // TABLE_SHARE)
            card.styles.height = "1fr"
            return
        parts = drawn.parts(width, height)
        if parts.split:
            body.styles.layout = "horizontal"
            card.styles.width = parts.card[0]
            card.styles.height = "1fr"
            left.styles.height = "1fr"
        else:
            body.styles.layout = "vertical"
            card.styles.width = "1fr"
            card.styles.height = parts.card[1]
            left.styles.height = parts.table[1]

    def fit(self) -> None:
        """After a resize: place, then draw once the new sizes are known."""
        self.place()
        self.call_after_refresh(self._fitted)

    def _fitted(self) -> None:
        if self.small:
            return
        self.view = st.resize(self.view, self.rows, self.height_rows)
        self.place_editor()
        self.draw()

    # Opening --------------------------------------------------------------------------------------------------------

    def open(self, address: Address, view: st.View, *, at_top: bool = False) -> None:
        """Open an address in a thread; the view is shown when it is there, ``at_top`` on whichever row comes first."""
        self.in_background(self._open, address, view, at_top, group="open", exclusive=True)

    async def _open(self, address: Address, view: st.View, at_top: bool) -> None:
        try:
            early, self.wb.early = self.wb.early, None
            if early is not None and early.address == address:
                opened = await asyncio.to_thread(early.result)
            else:
                opened = await asyncio.to_thread(
                    open_address, address, self.wb.cache, self.wb.definition, self.wb.keeper.store
                )
        except (WbtuiError, OSError) as error:
            line = error.line() if isinstance(error, WbtuiError) else f"{address}: {error}"
            self.post_message(say.OpenFailed(str(address), line))
            return
        self.post_message(say.AddressOpened(opened, view, at_top))

    def on_address_opened(self, message: say.AddressOpened) -> None:
        """Show it; then, with the picture on screen, ask for what is missing."""
        opened = message.opened
        self.opened, self.rows, self.arranged = opened, NO_ROWS, None
        self.follow_top = message.at_top
        self.populations, self.summary, self._made, self.failure, self.job = {}, None, -1, "", None
        self.row_failure = {}
        self.unmasked = set()
        self.heads_seen = False
        self.near_seen = self.near_asked = False
        self.view = message.view
        self.taken(opened.table.kept)
        self.place()
        self.draw_keys()
        self._fresh = True
        self.rearrange()

    def _after_first_picture(self) -> None:
        if self.opened is None:
            return
        self.set_timer(BAR_REST, self.bar)
        self.make_background()
        self.look_for_heads()
        self.look_for_near()
        if self.opened.missing:
            self.ask_compute("screen")
        else:
            self.in_background(self.wb.desk.look, group="look")

    def on_open_failed(self, message: say.OpenFailed) -> None:
        """Say why; what was open stays open."""
        self.let_go()
        self.failure = message.line if self.opened is None else ""
        self.notify_line(message.line, "error")
        self.draw()

    # Rows -----------------------------------------------------------------------------------------------------------

    def rearrange(self) -> None:
        """Apply filter and order in a thread, one at a time: what is typed meanwhile is done next, all but the last
        left out."""
        if self.opened is None:
            return
        self._ticket += 1
        if not self._arranging:
            self._arranging = True
            self.in_background(self._arrange, group="arrange")

    async def _arrange(self) -> None:
        ticket = -1
        try:
            while ticket != self._ticket and self.opened is not None:
                ticket, view = self._ticket, self.view
                if not (tables := self.query("#table")):  # the app ends; its widgets have gone before this
                    return
                columns = st.shown_columns(view, tables.first().outer_size.width)
                arranged = await asyncio.to_thread(arrange, self.opened.table, view.filter, view.sort, columns)
                self.post_message(say.RowsArranged(arranged, ticket))
        finally:
            self._arranging = False

    def on_rows_arranged(self, message: say.RowsArranged) -> None:
        """Take the new order; the cursor keeps its feature and its line."""
        if message.ticket != self._ticket:
            return
        if self._held:
            self._held = False
            self.wb.let_keys_in()
            self.refresh()  # all that was kept from the screen, whatever these rows change
        before, cursor = self.arranged, self.view.cursor
        self.arranged = message.arranged
        rows = message.arranged.rows
        if rows is not None:
            old, self.rows = self.rows, rows
            if old is NO_ROWS:
                self.view = drawn.first_view(self.view, rows, self.height_rows, self.follow_top)
            elif self.follow_top and len(self.rows):
                self.view = st.to_position(self.view, self.rows, self.height_rows, 0)
            else:
                self.view = st.settle(self.view, old, self.rows, self.height_rows)
            if not len(rows) and message.arranged.filter:
                self.in_background(self._hint, message.arranged, group="hint", exclusive=True)
        if self.small or before is None or before.version != message.arranged.version:
            self.draw()
        else:  # other rows of the same numbers: the card is as it was, unless the cursor had to go elsewhere
            self.draw_frame()
            self.draw_table()
            if self.view.cursor != cursor:
                self.draw_card_soon()
        if self._fresh:  # nothing that is not seen yet may keep the first picture waiting
            self._fresh = False
            self.call_after_refresh(self._after_first_picture)
        else:
            self.make_background()

    async def _hint(self, arranged: Arranged) -> None:
        """Where nothing matches and no more is typed for a moment: what would have matched."""
        await asyncio.sleep(HINT_REST)
        if self.opened is None or self.arranged is not arranged:
            return
        hint = await asyncio.to_thread(why_empty, self.opened.table, arranged.filter)
        if hint and self.arranged is arranged:
            self.arranged = replace(arranged, hint=hint)
            self.draw_table()

    def on_cosines_read(self, message: say.CosinesRead) -> None:
        """Draw them."""
        self.draw_card()

    # Drawing --------------------------------------------------------------------------------------------------------

    def set_view(self, view: st.View, *, keep_notice: bool = False) -> None:
        """Show another state: only what differs is computed and repainted."""
        old, self.view = self.view, view
        if self.wb.first_run:
            self.wb.first_run = False
            self.query_one("#intro", Card).remove()
        self.follow_top = self.follow_top and view.cursor == old.cursor
        if not keep_notice:
            self.notice = ("", "dim")
        if view.marks is not old.marks:
            self.marks_changed(old.marks, view.marks)
        if view.page != old.page:
            self.place()
            self.draw_keys()
            self.call_after_refresh(self._fitted)
        if (view.filter, view.sort) != (old.filter, old.sort):
            self.rearrange()
        self.draw_frame()
        self.draw_table()
        if (view.cursor, view.marks, view.tokens, view.card_top, view.page, view.pin) != (
            old.cursor, old.marks, old.tokens, old.card_top, old.page, old.pin,
        ):  # fmt: skip
            self.draw_card_soon()
        self.draw_now()

    def draw(self) -> None:
        """Everything."""
        if self.small:
            return
        self.draw_frame()
        self.draw_table()
        self.draw_card()

    def draw_frame(self) -> None:
        """Head, rules, last line."""
        width = self.app.size.width
        if self.wb.first_run:
            intro = self.query_one("#intro", Card)
            lines = first_run_lines(max(40, width - 2))
            intro.styles.height = len(lines)
            intro.set_lines(lines)
        view, opened = self.view, self.opened
        self.query_one("#crumb", Lines).set_lines([drawn.crumb_line(view, opened, width)])
        table = opened.table if opened else None
        self.query_one("#status", Lines).set_lines([drawn.status_line(view, self.rows, table, width)])
        error = self.arranged.error if self.arranged and self.arranged.filter == view.filter else ""
        note, role = (error, "error") if error else ("", "dim")
        divider = self.table_view.outer_size.width - 1 if self.split and view.page == "main" else None
        self.query_one("#rule", Lines).set_lines([frame.separator(width, divider, note=note, role=role)])
        if self.typing == "filter":
            count = "" if error else f"{len(self.rows):,} of {table.n if table is not None else 0:,} "
            self.query_one("#answer", Lines).set_lines([frame.cut([(count.rjust(28), "dim")], 28)])
        self.draw_last()
        self.query_one("#shares", Lines).set_lines(drawn.shares_lines(self.summary, self.table_view.outer_size.width))

    def draw_last(self) -> None:
        """The last line: readiness, job, service; or a notice until the next key."""
        width = self.app.size.width
        if self.notice[0]:
            self.query_one("#last", Lines).set_lines([frame.state_line([self.notice], width)])
            return
        desk = self.wb.desk
        line = drawn.last_line(
            self.opened, width, failure=self.failure, job=self.job, service=desk.state, devices=desk.devices
        )
        self.query_one("#last", Lines).set_lines([line])

    def draw_table(self) -> None:
        """The rows in sight."""
        if self.view.page == "card":
            return
        table = self.opened.table if self.opened else None
        empty = empty_lines(self.opened, self.failure, self.view, self.arranged, self.table_view.inner_width)
        self.table_view.show(table, self.view, self.rows, empty)

    def draw_card_soon(self) -> None:
        """The card in this frame; where the last one was drawn just now or more keys wait, a moment later."""
        if self._card_timer is not None:
            return
        wait = self._card_drawn + CARD_EVERY - time.monotonic()
        if wait > 0 or self.app.message_queue_size:
            self._card_timer = self.set_timer(max(wait, 0.01), self._draw_card_next)
        else:
            self._draw_card_next()

    def _draw_card_next(self) -> None:
        """The card where only the cursor may have moved: it may have been made ahead."""
        ahead = self._ahead
        self.draw_card(ahead)
        self._ahead = ahead
        if self._ahead_timer is not None:
            self._ahead_timer.stop()
        self._ahead_timer = self.set_timer(AHEAD_REST, self._make_ahead)

    def _make_ahead(self) -> None:
        """Cards and rows that the next key most likely shows: one, or a few, at a time, so that no key waits long."""
        self._ahead_timer = None
        opened, view = self.opened, self.view
        if opened is None or view.page != "main" or not self.split or self.app.message_queue_size:
            return
        here, step = self.rows.position(view.cursor), max(1, self.height_rows - 1)
        if here < 0:
            return
        card = self.query_one("#card", Card)
        width, height = card.inner_width, card.size.height
        for delta in (1, -1, step, -step):
            row = int(self.rows.order[min(max(here + delta, 0), len(self.rows) - 1)])
            key = self._card_key(row, width, height)
            if key not in self._ahead and state_of(opened.table, row) != "absent":
                if len(self._ahead) >= 64:
                    self._ahead.clear()
                self._ahead[key] = lines = card_lines(opened.table, row, width, height, self._look(row))
                self.wb.direct.use(self.app)  # nothing may have been drawn here yet
                card.prepare(lines, self.wb.direct.style)
                break
        else:
            likely = self.rows.order[max(0, view.top - step) : view.top + 2 * step + 1]
            if not self.table_view.prepare(likely.tolist(), 6):
                return
        self._ahead_timer = self.set_timer(0.005, self._make_ahead)

    def _card_key(self, row: int, width: int, height: int) -> tuple[object, ...]:
        assert self.opened is not None
        table, view = self.opened.table, self.view
        return table.state, table.kept.serial, row, width, height, row in view.marks, view.tokens

    def _look(self, row: int) -> Look:
        """What the card of a row is drawn with."""
        assert self.opened is not None
        return Look(
            marked=row in self.view.marks,
            tokens=self.view.tokens,
            layer=self.opened.sae.layer,
            layers=self.opened.model.n_layers,
            populations=self.populations,
            heads=self.heads_look(),
            near=self.near_look(),
            unmasked=row in self.unmasked,
            online=page_for(self.opened.sae, row) if self.view.page == "card" else "",
        )

    def draw_card(self, ahead: Mapping[tuple[object, ...], list[Line]] | None = None) -> None:
        """The card of the feature under the cursor; its row is asked for if it is not there.

        ``ahead``: cards that were made before they were asked for, where nothing but the cursor has moved since.
        """
        self._ahead = {}
        if self._card_timer is not None:
            self._card_timer.stop()
            self._card_timer = None
        self._card_drawn = time.monotonic()
        card = self.query_one("#card", Card)
        width, height = card.inner_width, card.size.height
        if self.opened is None or width <= 0:
            card.set_lines([])
            return
        table, row = self.opened.table, self.view.cursor
        if not 0 <= row < table.n:
            card.set_lines([])
            return
        if self.view.page == "compare":
            lines = self.compare_page(width, height)
        elif state_of(table, row) == "absent":
            self.ask_row(row)
            lines = waiting_lines(self, row, width)
        elif self.view.page == "card":
            lines = page_lines(table, row, width, self._look(row))
        elif self.split:
            made = (ahead or {}).get(self._card_key(row, width, height))
            lines = made or card_lines(table, row, width, height, self._look(row))
        else:
            lines = short_card(table, row, width, height - 1, self._look(row))
        if self.view.page == "main" and not self.split:
            lines = [drawn.under_rule(width, self.summary), *lines]
        self.card_length = len(lines)
        card.set_lines(lines[self.view.card_top :][:height])
