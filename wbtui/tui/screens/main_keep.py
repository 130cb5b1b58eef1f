"""The main screen's keys for what is kept: marks that last, tags, notes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from wbtui.address import Address
from wbtui.errors import UsageError, WbtuiError
from wbtui.notes.kept import Kept, clean_note, parse_tags
from wbtui.notes.store import NoteStore, Site, site_of
from wbtui.tui import state as st
from wbtui.tui.draw.line import cut
from wbtui.tui.first import opening_view

if TYPE_CHECKING:
    from wbtui.tui.screens.main import MainScreen
    from wbtui.tui.widgets.note_editor import NoteEditor, NoteKept, NoteLeft

_KEPT_TERM = re.compile(r"\b(marked|tagged|noted)\b|\b(tag|note):")


class MainKeep:
    """Mixed into :class:`wbtui.tui.screens.main.MainScreen`."""

    @property
    def me(self) -> MainScreen:
        """This screen, typed."""
        from typing import cast

        return cast("MainScreen", self)

    @property
    def site(self) -> Site:
        """What the open SAE's features are kept under."""
        assert self.me.opened is not None
        return site_of(self.me.opened.table.origin)

    @property
    def editor(self) -> NoteEditor | None:
        """The note under work, if one is."""
        found = self.me.query("NoteEditor")
        return found.first() if found else None  # type: ignore[return-value]

    # Marks ----------------------------------------------------------------------------------------------------------

    def taken(self, kept: Kept) -> None:
        """What is kept as it was read: from now on the screen shows it."""
        me = self.me
        assert me.opened is not None
        me.opened.table.keep(kept)
        me.view = opening_view(me.view, me.opened)
        if kept.error:
            me.notify_line(f"marks and notes are not kept: {kept.error}", "warn")

    def marks_changed(self, old: st.Marks, new: st.Marks) -> None:
        """Write which marks came and went."""
        me = self.me
        if me.opened is None:
            return
        table = me.opened.table
        table.keep(replace(table.kept, marks=new.bits, serial=table.kept.serial))
        me.wb.keeper.owe(self.site, old, new)
        me.in_background(self._flush, group="keep")
        self.refiltered()

    async def _flush(self) -> None:
        keeper = self.me.wb.keeper
        await keeper.flush()
        if keeper.error:
            self.me.notify_line(f"{keeper.owed:,} marks are not on disk: {keeper.error}", "warn")

    def refiltered(self) -> None:
        """Apply filter and order again where they ask for what is kept."""
        view = self.me.view
        if _KEPT_TERM.search(view.filter) or any(
            _KEPT_TERM.fullmatch(n) or n in ("tags", "note") for n, _ in view.sort
        ):
            self.me.rearrange()

    # Tags -----------------------------------------------------------------------------------------------------------

    async def action_tag(self) -> None:
        """Open the bar with the feature's tags; with a range open, tags for all of it."""
        me = self.me
        if me.opened is None or not 0 <= me.view.cursor < me.opened.table.n:
            return
        kept = me.opened.table.kept
        own = "" if me.view.anchor is not None else " ".join(kept.tags.get(me.view.cursor, ()))
        await me.open_bar("tag", " # ", own + (" " if own else ""))
        counts = " ".join(f"{tag} {count}" for tag, count in list(kept.counts().items())[:4])
        me.answer(cut([((counts or "words, as many as you like"), "dim")], 28))

    def submit_tags(self, text: str) -> None:
        """Enter in the bar.

        Raises:
            UsageError: a word that is no tag.
        """
        me = self.me
        tags = parse_tags(text)
        rows = st.ranged(me.view, me.rows).tolist()
        feature, site = me.view.cursor, self.site

        def change(store: NoteStore) -> str:
            if rows:
                store.add_tags(site, rows, tags)
                return f"{len(rows):,} features tagged " + " ".join("#" + t for t in tags)
            store.set_tags(site, feature, tags)
            return f"#{feature}: " + (" ".join("#" + t for t in tags) or "no tags")

        me.in_background(self._tag, site, change, group="keep")

    async def _tag(self, site: Site, change: object) -> None:
        me = self.me
        try:
            words, kept = await me.wb.keeper.change(site, change)  # type: ignore[arg-type, var-annotated]
        except WbtuiError as error:
            me.notify_line(error.line(), "error")  # the bar stays open with what was typed
            return
        if me.typing == "tag":
            me.close_bar()
        me.view = replace(me.view, anchor=None)
        self._show(site, kept)
        me.notify_line(str(words), "mark")

    def _show(self, site: Site, kept: Kept) -> None:
        me = self.me
        if me.opened is not None and self.site == site:
            self.taken(kept)
            self.refiltered()
            me.draw()

    # Notes ----------------------------------------------------------------------------------------------------------

    def action_note(self) -> None:
        """Edit the feature's note on its card."""
        from wbtui.tui.widgets.note_editor import NoteEditor

        me = self.me
        if me.opened is None or not 0 <= me.view.cursor < me.opened.table.n or self.editor is not None:
            return
        me.typing = "note"
        editor = NoteEditor(me.view.cursor, me.opened.table.kept.notes.get(me.view.cursor, ""))
        self.place_editor(editor)
        me.mount(editor)
        me.draw_keys()

    def place_editor(self, editor: NoteEditor | None = None) -> None:
        """On the lower edge of the card."""
        editor = editor or self.editor
        if editor is None:
            return
        from wbtui.tui.widgets.note_editor import HEIGHT

        card = self.me.query_one("#card").region
        height = min(HEIGHT, max(3, card.height - 1))
        editor.styles.width, editor.styles.height = max(20, card.width), height
        editor.styles.offset = (card.x, max(0, card.bottom - height))

    def on_note_kept(self, message: NoteKept) -> None:
        """Enter."""
        self.me.in_background(self._keep_note, group="keep")

    async def _keep_note(self) -> None:
        me, editor = self.me, self.editor
        if editor is None or me.opened is None:
            return
        if not editor.changed:
            await self._leave_note()
            return
        site, feature, was = self.site, editor.feature, editor.was
        try:
            text = clean_note(editor.text)
            now, kept = await me.wb.keeper.change(site, lambda store: store.set_note(site, feature, text, was))
        except WbtuiError as error:
            editor.say(f" not kept: {error.line()}", "error")  # the text stays where it is
            me.notify_line(error.line(), "error")
            return
        await self._leave_note()
        self._show(site, kept)
        if now != text:
            me.notify_line("another program changed this note meanwhile: both are kept", "warn")

    def on_note_left(self, message: NoteLeft) -> None:
        """Esc: asked once more where something would be lost."""
        editor = self.editor
        if editor is None:
            return
        if editor.changed and not editor.warned:
            editor.say(" changed: ⏎ keeps it, Esc again leaves without")
            editor.warned = True
            return
        self.me.in_background(self._leave_note, group="keep")

    async def _leave_note(self) -> None:
        me, editor = self.me, self.editor
        me.typing = ""
        me.draw_keys()
        me.set_focus(None)
        if editor is not None:
            await editor.remove()

    def unsaved(self) -> tuple[str, str] | None:
        """(address, text) of a note under work that is not kept."""
        editor = self.editor
        if editor is None or not editor.changed:
            return None
        return str(Address(self.me.view.model, self.me.view.sae, editor.feature)), editor.text

    def save_unsaved(self) -> str:
        """When one leaves with a note under work: keep it, or put it where it is found; says what became of it."""
        from wbtui.tui.keeper import rescue

        left = self.unsaved()
        editor = self.editor
        if left is None or editor is None:
            return ""
        address, text = left
        try:
            self.me.wb.keeper.store.set_note(self.site, editor.feature, clean_note(text), editor.was)
            return ""
        except (WbtuiError, UsageError) as error:
            try:
                return f"note of {address} not kept ({error.line()}); it is in {rescue(address, text)}"
            except WbtuiError as worse:
                return f"note of {address} LOST: {worse.line()}: {text!r}"
