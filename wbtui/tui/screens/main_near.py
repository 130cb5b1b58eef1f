"""Nearest features and the comparison on the main screen: ``<`` ``>`` follow, ``~`` lists, ``p`` pins."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from wbtui.address import Address
from wbtui.errors import WbtuiError
from wbtui.tui import messages as say
from wbtui.tui import state as st
from wbtui.tui.data import Opened, open_address
from wbtui.tui.draw.card import Look
from wbtui.tui.draw.compare import Between, Half, compare_lines, title_line
from wbtui.tui.draw.line import Line
from wbtui.tui.draw.main import near_look
from wbtui.tui.draw.near import NearLook, cosine_text
from wbtui.tui.facts import state_of

if TYPE_CHECKING:
    from wbtui.features.pair import PairCosines
    from wbtui.tui.screens.main import MainScreen

TABLE_SHARE = 4
"""The comparison leaves the table one of so many parts of the height."""


class MainNear:
    """Mixed into :class:`wbtui.tui.screens.main.MainScreen`."""

    near_seen: bool = False
    near_asked: bool = False
    pinned: Opened | None = None
    """Where the pinned feature's numbers are, once its place has been opened."""
    pinning: bool = False
    cosines: dict[tuple[str, int, str, int], PairCosines]

    @property
    def me(self) -> MainScreen:
        """This screen, typed."""
        from typing import cast

        return cast("MainScreen", self)

    # Nearest features -----------------------------------------------------------------------------------------------

    def look_for_near(self) -> None:
        """Take in the comparisons that are there, in a thread; ask for what is missing once the rows are there."""
        if self.me.opened is not None:
            self.me.in_background(self._look_for_near, self.me.opened, group="near", exclusive=True)

    async def _look_for_near(self, opened: Opened) -> None:
        shelf = opened.table.neighbours
        if shelf is not None:
            await asyncio.to_thread(shelf.look)
        me = self.me
        if opened is not me.opened:
            return
        self.near_seen = True
        me.draw_card()
        if _mentions(me.view):
            me.rearrange()
        if shelf is None or self.near_asked or opened.missing or not opened.writable or not shelf.missing():
            return
        if shelf.failure or me.wb.desk.state != "up":
            return  # finished rows are browsed without starting a service; `~` asks for the comparisons
        self.near_asked = True
        try:
            await me.wb.desk.compute_neighbours(opened)
        except WbtuiError:
            return  # rows are all here, and the service says for itself that it is down

    def near_look(self) -> NearLook:
        """What the card draws of near features, or the words in their place."""
        return near_look(self.me.opened, self.near_seen)

    def action_near(self) -> None:
        """The list of nearest features."""
        from wbtui.tui.screens.near import NearScreen

        me = self.me
        if me.opened is not None and me.opened.table.neighbours is not None and me.opened.table.n:
            me.app.push_screen(NearScreen(me, me.opened))

    def action_layer(self, step: int) -> None:
        """To the feature's nearest in the SAE before or after in the stream; without comparisons, to that SAE."""
        me = self.me
        opened = me.opened
        if opened is None:
            return
        shelf = opened.table.neighbours
        table = shelf.table("before" if step < 0 else "after") if shelf is not None else None
        near = table.listed(me.view.cursor) if table is not None and me.view.cursor < opened.table.n else []
        if table is not None and near:
            found = near[0]
            self.follow(Address(opened.model.name, found.sae, found.feature))
            bar = table.bar("dec")
            noise = f", 99 % of noise {cosine_text(bar)}" if math.isfinite(bar) else ""
            words = "inside noise: it may be no relative" if found.inside_null else "its nearest there"
            self.me.notify_line(
                f"{found.sae} #{found.feature}: cosine {cosine_text(found.cosine)} with #{me.view.cursor} of "
                f"{opened.sae.name}{noise}; {words}",
                "warn" if found.inside_null else "text",
            )
            return
        sae = opened.layer_neighbour(step)
        if sae is None:
            end = "after" if step > 0 else "before"
            self.me.notify_line(f"no SAE {end} layer {opened.sae.layer} at {opened.sae.site}", "warn")
            return
        me.visit(Address(opened.model.name, sae.name))
        self.me.notify_line(
            f"{sae.name}, at the top of the list: nearest features are not computed, and a number means nothing there",
            "dim",
        )

    def follow(self, address: Address) -> None:
        """Open a feature elsewhere; a filter would hide it, so it stays behind (``[`` brings it back)."""
        me = self.me
        me.history = me.history.visit(me.view)
        view = st.start(address.model, address.sae or "", address.feature)
        view = replace(view, sort=me.view.sort, columns=me.view.columns, page=me.view.page, pin=me.view.pin)
        if me.opened is not None and address.sae == me.view.sae and address.feature is not None:
            me.set_view(
                st.to_feature(st.set_filter(me.view, ""), me.rows, me.height_rows, address.feature), keep_notice=True
            )
            return
        me.open(address, view)

    # Comparison -----------------------------------------------------------------------------------------------------

    def action_pin(self) -> None:
        """Pin the feature under the cursor and compare; on the comparison: pin the other one instead."""
        me = self.me
        if me.opened is None or not me.opened.table.n:
            return
        self.pinned = me.opened
        me.set_view(st.pin(me.view))

    def action_compare(self) -> None:
        """Back to the comparison with the pinned feature."""
        me = self.me
        if me.view.pin is None:
            me.notify_line("nothing is pinned: p pins this feature", "dim")
        else:
            me.set_view(st.compare(me.view))

    def pin_half(self) -> Half | None:
        """The pinned feature; None while its place is opened."""
        me, pin = self.me, self.me.view.pin
        if pin is None or me.opened is None:
            return None
        model, sae, row = pin
        place = me.opened if (model, sae) == (me.view.model, me.view.sae) else self.pinned
        if place is None or (place.model.name, place.sae.name) != (model, sae):
            if not self.pinning:
                self.pinning = True
                me.in_background(self._open_pin, Address(model, sae, row), group="pin", exclusive=True)
            return None
        self.pinned = place
        look = Look(
            layer=place.sae.layer,
            layers=place.model.n_layers,
            populations=me.populations if place is me.opened else {},
        )
        return Half(place.table, row, f"{place.sae.name} #{row}", look)

    async def _open_pin(self, address: Address) -> None:
        me = self.me
        try:
            self.pinned = await asyncio.to_thread(open_address, address, me.wb.cache, me.wb.definition)
        except (WbtuiError, OSError) as error:
            me.set_view(st.unpin(me.view))
            me.notify_line(error.line() if isinstance(error, WbtuiError) else str(error), "error")
        finally:
            self.pinning = False
        me.draw_card()

    def compare_page(self, width: int, height: int) -> list[Line]:
        """The comparison's lines."""
        me = self.me
        opened = me.opened
        assert opened is not None
        half = self.pin_half()
        if half is None:
            return [[("opening the pinned feature…", "dim")]]
        row = me.view.cursor
        look = Look(layer=opened.sae.layer, layers=opened.model.n_layers, populations=me.populations)
        other = Half(opened.table, row, f"{opened.sae.name} #{row}", look)
        if state_of(opened.table, row) == "absent":
            me.ask_row(row)
        place = self.pinned or opened
        same = (half.name, place.model.name) == (other.name, opened.model.name)
        between = Between(same=True) if same else self._between(place, half.row, opened, row)
        return [title_line(half, other, width), *compare_lines(half, other, between, width, height - 1)]

    def _between(self, a: Opened, i: int, b: Opened, j: int) -> Between:
        if a.model.path != b.model.path:
            return Between(note="features of two models have no cosine")
        shelf = b.table.neighbours
        table = next((t for t in shelf.tables() if t.other.path == a.sae.path), None) if shelf is not None else None
        noise = table.bar("dec") if table is not None else math.nan
        key = (a.sae.path, i, b.sae.path, j)
        found = self.cosines.get(key)
        if found is None:
            self.me.in_background(self._read_cosines, a, i, b, j, key, group="cosines", exclusive=True)
        return Between(found, noise)

    async def _read_cosines(self, a: Opened, i: int, b: Opened, j: int, key: tuple[str, int, str, int]) -> None:
        from wbtui.features.pair import PairCosines, pair_cosines

        try:
            found = await asyncio.to_thread(pair_cosines, a.model, a.sae, i, b.sae, j)
        except (WbtuiError, OSError):
            found = PairCosines()
        if len(self.cosines) > 4096:
            self.cosines.clear()
        self.cosines[key] = found
        self.me.post_message(say.CosinesRead(key))


def _mentions(view: st.View) -> bool:
    return "nn" in view.filter or any(name.partition(":")[2].startswith("nn") or name.startswith("nn")
                                      for name, _ in view.sort)  # fmt: skip
