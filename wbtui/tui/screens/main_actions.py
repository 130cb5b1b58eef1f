"""The main screen's keys: each asks :mod:`wbtui.tui.state` for the next state, or opens another screen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wbtui.address import Address, parse_address
from wbtui.catalog.neuronpedia import NotHere, address_of, is_page, page_for
from wbtui.errors import UsageError, WbtuiError
from wbtui.tui import messages as say
from wbtui.tui import state as st
from wbtui.tui.clipboard import copy_text
from wbtui.tui.draw.line import Line, cut
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from textual.widgets import Input

    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen


class MainActions:
    """Mixed into :class:`wbtui.tui.screens.main.MainScreen`."""

    card_length: int = 0

    @property
    def me(self) -> MainScreen:
        """This screen, typed."""
        from typing import cast

        return cast("MainScreen", self)

    def notify_line(self, text: str, role: str = "text") -> None:
        """A one-line notice in place of the last line, until the next key."""
        self.me.notice = (" ".join(text.split()), role)
        self.me.draw_last()

    # Moving ---------------------------------------------------------------------------------------------------------

    @property
    def _in_card(self) -> bool:
        return self.me.view.focus == "card"

    def _card_scroll(self, delta: int) -> None:
        me = self.me
        height = me.query_one("#card").size.height
        me.set_view(st.scroll_card(me.view, delta, self.card_length, height), keep_notice=True)

    def _move(self, delta: int) -> None:
        me = self.me
        me.set_view(st.move(me.view, me.rows, me.height_rows, delta))

    def action_down(self) -> None:
        """One down."""
        self._card_scroll(1) if self._in_card else self._move(1)

    def action_up(self) -> None:
        """One up."""
        self._card_scroll(-1) if self._in_card else self._move(-1)

    def action_step(self, delta: int) -> None:
        """The next feature, whatever has the keys."""
        self._move(delta)

    def action_redraw(self) -> None:
        """Every cell again."""
        self.me.wb.action_redraw()

    def action_suspend(self) -> None:
        """Back to the shell."""
        self.me.app.action_suspend_process()

    def action_page(self, sign: int) -> None:
        """A page."""
        self._paged(float(sign))

    def action_half_page(self, sign: int) -> None:
        """Half a page."""
        self._paged(sign * 0.5)

    def _paged(self, pages: float) -> None:
        me = self.me
        if self._in_card:
            self._card_scroll(round(pages * max(1, me.query_one("#card").size.height - 1)))
        else:
            me.set_view(st.page(me.view, me.rows, me.height_rows, pages))

    def action_edge(self, end: int) -> None:
        """First or last."""
        me = self.me
        if self._in_card:
            self._card_scroll(10**6 if end else -(10**6))
        else:
            me.set_view(st.to_position(me.view, me.rows, me.height_rows, len(me.rows) - 1 if end else 0))

    def on_row_clicked(self, message: say.RowClicked) -> None:
        """Take the cursor there; twice opens."""
        me = self.me
        me.set_view(st.to_feature(replace(me.view, focus="table"), me.rows, me.height_rows, message.feature))
        if message.twice:
            self.action_open()

    def on_header_clicked(self, message: say.HeaderClicked) -> None:
        """Sort by the column; again: the other way round; with Shift: as a further key."""
        rising = message.name in ("id", *st.WORD_COLUMNS)
        self.me.set_view(st.sort_by(self.me.view, message.name, rising_first=rising, add=message.add))

    def on_table_scrolled(self, message: say.TableScrolled) -> None:
        """The wheel moves the cursor, which never leaves the screen."""
        self._move(message.lines)

    def on_card_scrolled(self, message: say.CardScrolled) -> None:
        """The wheel over the card."""
        self._card_scroll(message.lines)

    # Filter and jump bar --------------------------------------------------------------------------------------------

    async def action_filter(self) -> None:
        """Open the filter bar."""
        await self.open_bar("filter", " / ", self.me.view.filter)

    async def action_jump(self) -> None:
        """Open the jump bar."""
        await self.open_bar("jump", " : ", "")

    async def open_bar(self, kind: str, prompt: str, text: str) -> None:
        """The line under the head takes text; keys that come before it stands wait for it."""
        from textual.widgets import Input

        me = self.me
        await me.bar()
        if me.view.page == "card" and kind != "tag":
            me.set_view(replace(me.view, page="main", focus="table", card_top=0))
        me.typing = kind
        me.add_class("-typing")
        me.query_one("#prompt", Lines).set_lines([[(prompt, "strong")]])
        self.answer(cut([], 28))
        entry = me.query_one("#entry", Input)
        with entry.prevent(Input.Changed):
            entry.value = text
        entry.placeholder = (
            "semantic  z_max>6  island  kind!=none …"
            if kind == "filter"
            else "120, L4, L4#12, an address (demo@L3#120), a page of Neuronpedia, a vector: dir:v.npy@L3.resid_post"
            if kind == "jump"
            else "w:word  w:{a,b}-{c}  r:word  dir:v.npy@L3.resid_post  like:demo@L3#7"
            if kind == "ask"
            else "todo people …"
        )
        entry.cursor_position = len(text)
        me.set_focus(entry)  # at once: keys that were typed ahead are its
        me.draw_frame()

    def answer(self, line: Line) -> None:
        """What stands at the end of the bar."""
        self.me.query_one("#answer", Lines).set_lines([line])

    def close_bar(self) -> None:
        """The bar away."""
        me = self.me
        me.typing = ""
        me.remove_class("-typing")
        me.set_focus(None)
        me.draw_frame()

    def _asked(self, text: str) -> bool:
        from wbtui.features.asking import is_asked

        return is_asked(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """The filter works while it is typed."""
        me = self.me
        event.stop()
        if me.typing == "filter" and self._asked(event.value):
            self.answer(cut([("⏎ finds by direction", "dim")], 28))
        elif me.typing == "filter":
            me.set_view(st.set_filter(me.view, event.value))
        elif me.notice[0]:
            self.notify_line("")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the bar."""
        event.stop()
        me = self.me
        if me.typing == "ask" or (me.typing in ("filter", "jump") and self._asked(event.value)):
            me.submit_question(event.value)
        elif me.typing == "filter":
            if not (me.arranged and me.arranged.error and me.arranged.filter == me.view.filter):
                self.close_bar()
        elif me.typing == "tag":
            try:
                me.submit_tags(event.value)
            except UsageError as error:
                self.notify_line(error.line(), "error")
        elif me.typing == "jump":
            try:
                self.go(event.value.strip())
            except UsageError as error:
                self.notify_line(error.line(), "error")
                return
            self.close_bar()

    def go(self, text: str) -> None:
        """Go to a feature number, an SAE of this model, or any address.

        Raises:
            UsageError: none of these, or out of range.
        """
        me = self.me
        opened = me.opened
        bare = text.removeprefix("#")
        if not text:
            return
        if bare.isdecimal() and bare.isascii() and len(bare) <= 12 and opened is not None:
            feature = int(bare)
            if feature >= opened.table.n:
                raise UsageError(
                    f"feature {feature}", f"0 to {opened.table.n - 1}" if opened.table.n else "no feature at all"
                )
            me.history = me.history.visit(me.view)
            me.set_view(st.to_feature(me.view, me.rows, me.height_rows, feature))
            if me.rows.position(feature) < 0:
                self.notify_line(f"#{feature} is hidden by the filter; its card is shown", "warn")
            return
        if is_page(text):
            me.in_background(self._visit_page, text, group="page", exclusive=True)
            return
        name, _, _ = text.removeprefix("@").partition("#")
        if opened is not None and (text.startswith("@") or any(name == s.name for s in opened.saes)):
            text = f"{Address(opened.model.name)}@{text.removeprefix('@')}"
        address = parse_address(text)
        if address.sae is None:
            raise UsageError(f"{text!r}", "a feature number, an SAE of this model, or MODEL@SAE[#FEATURE]")
        self.visit(address)

    async def _visit_page(self, text: str) -> None:
        """A page of Neuronpedia: which SAE here it is of takes a look at the disk."""
        opened = self.me.opened
        try:
            address = await asyncio.to_thread(address_of, text, opened.model if opened is not None else None)
        except NotHere as error:
            self.me.wb.show_start(error)
            return
        except WbtuiError as error:
            self.notify_line(error.line(), "error")
            return
        if address.sae is not None:
            self.visit(address)

    def visit(self, address: Address) -> None:
        """Open another place; where it was opened from is remembered, filter and order go along."""
        me = self.me
        me.history = me.history.visit(me.view)
        view = st.start(address.model, address.sae or "", address.feature)
        view = replace(view, filter=me.view.filter, sort=me.view.sort, columns=me.view.columns, page=me.view.page,
                       pin=me.view.pin)  # fmt: skip
        me.open(address, view, at_top=address.feature is None)

    def action_history(self, step: int) -> None:
        """Back or forward."""
        me = self.me
        history, view = me.history.back(me.view) if step < 0 else me.history.forward(me.view)
        if view is None:
            self.notify_line("nowhere to go back to" if step < 0 else "nowhere to go forward to", "dim")
            return
        me.history = history
        if me.opened is not None and (view.model, view.sae) == (me.view.model, me.view.sae):
            me.follow_top = False
            me.set_view(replace(view, marks=me.view.marks))
        else:
            me.open(Address(view.model, view.sae, view.cursor), view)

    # Order and columns ----------------------------------------------------------------------------------------------

    def action_sort_cycle(self) -> None:
        """Next order."""
        self.me.set_view(st.cycle_sort(self.me.view))

    def action_sort_reverse(self) -> None:
        """Other way round."""
        self.me.set_view(st.reverse_sort(self.me.view))

    def action_sort_choose(self) -> None:
        """Open the header picker."""
        me = self.me
        if me.view.page == "card":
            return
        me.set_view(st.move_picker(me.view, tuple(c.name for c in me.table_view.cells), 0))
        self.notify_line("← → choose a column · ⏎ sort by it · + add it as a further key · Esc leave", "dim")

    def pick(self, key: str) -> bool:
        """A key while the header picker is open; whether it was one of its."""
        me = self.me
        if me.view.picker is None:
            return False
        names = tuple(c.name for c in me.table_view.cells)
        if key in ("left", "h"):
            me.set_view(st.move_picker(me.view, names, -1), keep_notice=True)
        elif key in ("right", "l"):
            me.set_view(st.move_picker(me.view, names, 1), keep_notice=True)
        elif key in ("enter", "plus"):
            name = names[min(me.view.picker, len(names) - 1)]
            me.set_view(
                st.sort_by(me.view, name, rising_first=name in ("id", *st.WORD_COLUMNS), add=key == "plus"),
                keep_notice=True,
            )
        else:
            return False
        return True

    def action_columns(self) -> None:
        """The column chooser."""
        from wbtui.tui.screens.choose import ChooseScreen

        me = self.me
        if me.opened is not None:
            self.me.app.push_screen(ChooseScreen(me.opened.table, me.view, me.table_view.size.width, me.set_view))

    # Looking --------------------------------------------------------------------------------------------------------

    def action_open(self) -> None:
        """Enter."""
        me = self.me
        if me.opened is not None and me.view.page == "main":
            me.set_view(st.open_page(me.view))

    def action_population(self) -> None:
        """The population of the metric that sorts, or of the column under the picker."""
        from wbtui.tui.crowd import metric_for
        from wbtui.tui.screens.population import PopulationScreen

        me = self.me
        if me.opened is None:
            return
        names = [cell.name for cell in me.table_view.cells]
        picked = names[me.view.picker] if me.view.picker is not None and me.view.picker < len(names) else ""
        metric = metric_for(me.view.sort, picked)
        self.me.app.push_screen(PopulationScreen(me.opened, me.view.cursor, metric, self.show_filtered))

    def action_heads(self) -> None:
        """How the feature takes part in attention."""
        from wbtui.tui.screens.heads import HeadsScreen

        me = self.me
        if me.opened is not None and me.opened.table.heads is not None and me.opened.table.n:
            me.app.push_screen(HeadsScreen(me, me.opened))

    def action_depth(self) -> None:
        """The model's SAEs by depth."""
        from wbtui.tui.screens.depth import DepthScreen

        me = self.me
        if me.opened is not None:
            me.app.push_screen(DepthScreen(me, me.opened))

    def action_set_page(self) -> None:
        """The marked features as a set."""
        from wbtui.tui.screens.export import chosen_rows
        from wbtui.tui.screens.marked import SetScreen

        me = self.me
        if me.opened is None:
            return
        rows = [int(row) for row in chosen_rows("marked", me.view, me.rows)]
        if len(rows) < 2:
            self.notify_line("a set is of two or more marked features: m marks one, * all that are shown", "warn")
            return
        me.app.push_screen(SetScreen(me, [(me.opened, rows)]))

    def action_match(self) -> None:
        """What of this SAE is found in another."""
        from wbtui.tui.screens.match import MatchScreen

        me = self.me
        if me.opened is not None:
            me.app.push_screen(MatchScreen(me, me.opened))

    def go_quietly(self, feature: int) -> None:
        """To a feature of this SAE from another page; ``[`` leads back."""
        me = self.me
        me.history = me.history.visit(me.view)
        me.set_view(st.to_feature(me.view, me.rows, me.height_rows, feature))

    def show_filtered(self, expression: str) -> None:
        """Rows of a filter made elsewhere, from the first; ``[`` leads back to the filter before."""
        me = self.me
        me.history = me.history.visit(me.view)
        me.follow_top = True
        view = replace(st.set_filter(me.view, expression), page="main", focus="table", top=0, picker=None)
        me.set_view(view)

    def show_rows(self, opened: Opened, expression: str) -> None:
        """Leave the pages above for rows of a filter in an SAE, this one or another; ``[`` leads back."""
        me = self.me
        while me.app.screen is not me and len(me.app.screen_stack) > 1:
            me.app.pop_screen()
        if me.opened is not None and me.opened.sae.name == opened.sae.name:
            self.show_filtered(expression)
            return
        me.history = me.history.visit(me.view)
        view = st.set_filter(st.start(opened.model.name, opened.sae.name, None), expression)
        view = replace(view, sort=me.view.sort, columns=me.view.columns)
        me.open(Address(opened.model.name, opened.sae.name), view, at_top=True)

    def action_focus_next_panel(self) -> None:
        """Tab."""
        me = self.me
        if me.typing:
            self.close_bar()
        elif me.view.page == "main":
            me.set_view(st.toggle_focus(me.view))

    def action_tokens(self) -> None:
        """Words or raw tokens."""
        self.me.set_view(replace(self.me.view, tokens=not self.me.view.tokens, card_top=0))

    def action_glossary(self) -> None:
        """What the numbers mean."""
        from wbtui.tui.screens.glossary import GlossaryScreen

        me = self.me
        self.me.app.push_screen(GlossaryScreen(me.opened.table if me.opened else None, me.view.cursor))

    def action_escape(self) -> None:
        """Leave the innermost thing."""
        me = self.me
        if me.typing:
            kind = me.typing
            self.close_bar()
            if kind == "filter":
                me.set_view(st.set_filter(me.view, ""))
            else:
                self.notify_line("")
            return
        me.set_view(st.escape(me.view))

    # Marks, export, clipboard ---------------------------------------------------------------------------------------

    def action_mark(self) -> None:
        """Mark."""
        self.me.set_view(st.mark(self.me.view, self.me.rows, self.me.height_rows))

    def action_range(self) -> None:
        """Range."""
        self.me.set_view(st.toggle_range(self.me.view, self.me.rows))

    def action_mark_all(self) -> None:
        """Mark all that the filter lets through."""
        self.me.set_view(st.mark_all(self.me.view, self.me.rows))

    def action_unmark(self) -> None:
        """Unmark all."""
        self.me.set_view(st.unmark_all(self.me.view))

    def action_export(self) -> None:
        """The export dialog."""
        from wbtui.tui.screens.export import ExportScreen

        me = self.me
        if me.opened is not None:
            self.me.app.push_screen(
                ExportScreen(me.opened.table, me.view, me.rows, me.table_view.size.width), self._exported
            )

    def _exported(self, line: Any) -> None:
        if line:
            self.notify_line(str(line), "mark")

    def action_copy(self) -> None:
        """The address to the clipboard."""
        me = self.me
        address = str(Address(me.view.model, me.view.sae, me.view.cursor))
        me.in_background(self._copy, address, group="copy", exclusive=True)

    def action_copy_page(self) -> None:
        """The feature's page on Neuronpedia to the clipboard; no network."""
        me = self.me
        if me.opened is None:
            return
        if page := page_for(me.opened.sae, me.view.cursor):
            me.in_background(self._copy, page, group="copy", exclusive=True)
        else:
            self.notify_line("no page on Neuronpedia is known of this SAE", "dim")

    async def _copy(self, address: str) -> None:
        try:
            how = await copy_text(self.me.app, address)
        except WbtuiError as error:
            self.notify_line(error.line(), "error")
            return
        self.notify_line(f"copied {address} {how}", "mark")

    # The rest -------------------------------------------------------------------------------------------------------

    def action_models(self) -> None:
        """The start screen."""
        self.me.wb.show_start()

    def action_pick(self) -> None:
        """Another SAE by a few letters."""
        from wbtui.tui.screens.pick import PickScreen

        me = self.me
        if me.opened is not None:
            me.app.push_screen(PickScreen(me.opened, self.visit))

    def action_jobs(self) -> None:
        """Running work."""
        from wbtui.tui.screens.jobs import JobsScreen

        self.me.app.push_screen(JobsScreen())

    def action_compute(self) -> None:
        """Ask for what is missing, as a batch: it goes on after the app is left."""
        me = self.me
        me.row_failure.clear()
        if me.opened is None:
            return
        if not me.opened.missing:
            self.notify_line("everything is computed here", "dim")
            return
        me.ask_compute("batch")
        me.draw_card()

    def action_quit(self) -> None:
        """Leave."""
        self.me.wb.leave(self.me.view if self.me.opened is not None else None)
