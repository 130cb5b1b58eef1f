"""Marks, sets and files of a question's rows: a mark made here is one in the feature's own table, and the other way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wbtui.address import Address
from wbtui.errors import WbtuiError
from wbtui.features import answers
from wbtui.notes.store import site_of
from wbtui.tui.clipboard import copy_text
from wbtui.tui.facts import short_name

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.answer import AnswerScreen


class AnswerKeep:
    """Mixed into :class:`wbtui.tui.screens.answer.AnswerScreen`."""

    tables: dict[str, FeatureTable]
    """Tables of the SAEs in the list, for marks and for filters on metrics: opened in a thread."""
    looked: set[str]
    """SAEs whose tables are opened or on their way."""
    kept: dict[str, set[int]]
    """Marked features of SAEs that are not the one of the table below."""

    @property
    def me(self) -> AnswerScreen:
        """The screen."""
        return cast("AnswerScreen", self)

    def look(self) -> None:
        """Open the tables of SAEs that are new in the list."""
        me = self.me
        self.tables.setdefault(me.opened.sae.name, me.opened.table)
        fresh = {str(row["sae"]) for row in me.found} - self.tables.keys() - self.looked
        if fresh:
            self.looked |= fresh
            me.in_background(self._look, sorted(fresh), group="tables")

    async def _look(self, names: Iterable[str]) -> None:
        me = self.me
        for name in names:
            try:
                opened = await self.opened_at(Address(me.opened.model.name, name))
            except (WbtuiError, OSError) as error:
                text = error.line() if isinstance(error, WbtuiError) else str(error)
                me.notice = (f"marks and metrics of {name} are not known: {text}", "warn")
                continue
            self.tables[name] = opened.table
            marks = np.flatnonzero(opened.table.kept.marks).tolist()
            self.kept[name] = self.kept.get(name, set()) | set(marks)
        me.rearrange()

    async def opened_at(self, place: Address) -> Opened:
        """The SAE of a place; the one that is open where it is that one."""
        me = self.me
        if place.sae == me.opened.sae.name:
            return me.opened
        from wbtui.tui.data import open_address

        return await asyncio.to_thread(open_address, place, me.wb.cache, me.wb.definition)

    # Marks ----------------------------------------------------------------------------------------------------------

    def _below(self, sae: str) -> bool:
        """Whether the table below shows an SAE: its marks are then those that count."""
        main = self.me.main
        return main.opened is not None and main.opened.sae.name == sae

    def marked(self, row: answers.Row) -> bool:
        """Whether a row's feature is marked, here or in its table, now or before."""
        sae, feature = str(row["sae"]), int(row["feature"])
        if self._below(sae):
            return feature in self.me.main.view.marks
        return feature in self.kept.get(sae, ())

    def action_mark(self) -> None:
        """Mark, and step down; the mark is kept as one made in the feature's own table."""
        me = self.me
        if not me.rows:
            return
        row = me.rows[me.at]
        sae, feature, on = str(row["sae"]), int(row["feature"]), not self.marked(row)
        if self._below(sae):
            me.main.set_view(replace(me.main.view, marks=me.main.view.marks.toggled(feature)))
        else:
            own = self.kept.setdefault(sae, set())
            (own.add if on else own.discard)(feature)
            me.in_background(self._keep, sae, feature, on, group="keep")
        me.action_down()

    async def _keep(self, sae: str, feature: int, on: bool) -> None:
        me = self.me
        try:
            opened = await self.opened_at(Address(me.opened.model.name, sae))
            site = site_of(opened.table.origin)
            wanted = ([feature], []) if on else ([], [feature])
            await me.wb.keeper.change(site, lambda store: store.set_marks(site, *wanted))
        except WbtuiError as error:
            me.notice = (f"the mark is not kept: {error.line()}", "warn")
            me.draw()

    def action_set_page(self) -> None:
        """The marked features of this list as a set, over all its SAEs: they write into one stream."""
        me = self.me
        found: dict[str, list[int]] = {str(me.rows[me.at]["sae"]): []} if me.rows else {}
        for row in me.rows:
            own = found.setdefault(str(row["sae"]), [])
            if self.marked(row) and int(row["feature"]) not in own:
                own.append(int(row["feature"]))
        chosen = {sae: rows for sae, rows in found.items() if rows}
        if sum(map(len, chosen.values())) < 2:
            me.notice = ("a set is of two or more marked features of this list: m marks one", "warn")
            me.draw()
            return
        me.in_background(self._set_page, chosen, group="set", exclusive=True)

    async def _set_page(self, chosen: dict[str, list[int]]) -> None:
        from wbtui.tui.screens.marked import SetScreen

        me = self.me
        try:
            parts = [(await self.opened_at(Address(me.opened.model.name, sae)), rows) for sae, rows in chosen.items()]
        except WbtuiError as error:
            me.notice = (error.line(), "error")
            me.draw()
            return
        me.app.push_screen(SetScreen(me.main, parts))

    # Files ----------------------------------------------------------------------------------------------------------

    def action_export(self) -> None:
        """Marked rows, or all that are shown, as CSV in the working folder."""
        me = self.me
        rows = [row for row in me.rows if self.marked(row)] or me.rows
        if rows and me.answer is not None:
            me.in_background(self._export, rows, group="export", exclusive=True)

    async def _export(self, rows: list[answers.Row]) -> None:
        me = self.me
        assert me.answer is not None
        columns = answers.EDGES if me.edges else answers.FIND
        kind = f"{me.place.sae}-{me.place.feature}-edges" if me.edges else "find"
        stem = f"{Path(short_name(me.opened.model.name)).name}-{kind}".replace("/", "-")
        try:
            path = answers.free_name(Path.cwd(), stem, ".csv")
            paths = await asyncio.to_thread(answers.write, path, rows, columns, me.answer)
        except WbtuiError as error:
            me.notice = (error.line(), "error")
        else:
            which = "marked rows" if len(rows) < len(me.rows) else "rows"
            me.notice = (f"wrote {len(rows)} {which} to {paths[0]}", "mark")
        me.draw()

    def action_copy(self) -> None:
        """The address to the clipboard."""
        me = self.me
        if me.rows:
            me.in_background(self._copy, str(me.rows[me.at]["address"]), group="copy", exclusive=True)

    async def _copy(self, address: str) -> None:
        how: Any = await copy_text(self.me.app, address)
        self.me.notice = (f"copied {address} {how}", "mark")
        self.me.draw()
