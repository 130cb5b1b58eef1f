"""The Heads page's keys: each makes the next spot, or opens another place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from wbtui.address import Address
from wbtui.features.heads import OTHER
from wbtui.tui.draw.heads import Spot, geometry, moved
from wbtui.tui.widgets.card import Card

if TYPE_CHECKING:
    from wbtui.tui.screens.heads import HeadsScreen

CYCLE = (None, "rms", "p75", "max_cos", "gain")
"""Statistics that ``s`` goes through; None is the usual one (peak)."""


class HeadsActions:
    """Mixed into :class:`wbtui.tui.screens.heads.HeadsScreen`."""

    @property
    def me(self) -> HeadsScreen:
        """This screen, typed."""
        return cast("HeadsScreen", self)

    def _to(self, spot: Spot) -> None:
        self.me.spot, self.me.notice = spot, ("", "dim")
        self.me.want_pages()
        self.me.draw()

    def action_move(self, dx: int, dy: int) -> None:
        """Arrows: a cell on; on a head's page the next head, or its list."""
        if self.me.heads is None:
            return
        if self.me.spot.page == "head" and dy:
            self.action_pick(dy)
            return
        shape = geometry(self.me.query_one("#drawing", Card).inner_width, self.me.heads.n_heads)
        self._to(moved(self.me.spot, self.me.tables, shape, dx, dy))

    def action_pick(self, delta: int) -> None:
        """Another of the list, or of the links where the arrow stands there."""
        spot = self.me.spot
        if spot.active == "links" and spot.page == "grid" and (links := self.me.links):
            self._to(replace(spot, link=min(max(spot.link + delta, 0), len(links) - 1)))
        elif listed := self.me.listed:
            delta = 0 if spot.active == "grid" and spot.page == "grid" and delta > 0 and not spot.pick else delta
            pick = min(max(spot.pick + delta, 0), len(listed) - 1)
            self._to(replace(spot, active="list", pick=pick))

    def action_links(self) -> None:
        """The arrow to what the head writes, and back to the list."""
        spot = self.me.spot
        if spot.active == "links":
            self._to(replace(spot, active="list"))
        elif self.me.links:
            self._to(replace(spot, active="links", link=0))
        else:
            self.me.say("nothing here yet that the head’s output becomes")

    def action_enter(self) -> None:
        """The head's own page; with the arrow in a list, the feature under it."""
        spot = self.me.spot
        if spot.page == "grid" and spot.active == "grid":
            self.action_head()
        elif spot.page == "grid" and spot.active == "links":
            self._to_target()
        else:
            self.action_partner()

    def _to_target(self) -> None:
        links, target = self.me.links, self.me.target
        if not links or target is None:
            return
        _, feature = links[min(self.me.spot.link, len(links) - 1)]
        self.me.app.pop_screen()
        self.me.main.visit(Address(self.me.opened.model.name, target, feature))

    def action_side(self) -> None:
        """Query or key."""
        self._to(replace(self.me.spot, side=OTHER[self.me.spot.side], pick=0))

    def action_statistic(self) -> None:
        """Another statistic."""
        at = CYCLE.index(self.me.spot.statistic)
        self.me.spot = replace(self.me.spot, statistic=CYCLE[(at + 1) % len(CYCLE)], pick=0)
        self.me.notice = ("", "dim")
        self.me.look()
        self.me.draw()

    def action_partner(self) -> None:
        """To the feature under the list's arrow; the grids stay where they are, for it."""
        listed = self.me.listed
        if not listed:
            return
        self.me.main.go_quietly(listed[min(self.me.spot.pick, len(listed) - 1)])
        active = "grid" if self.me.spot.page == "head" else "list"
        self._followed(replace(self.me.spot, page="grid", active=active, side=self._other_side(), pick=0))

    def _other_side(self) -> str:
        """Seen from the partner the pair is on the other side; from a head's list the feature keeps its own."""
        return self.me.spot.side if self.me.spot.page == "head" else OTHER[self.me.spot.side]

    def _followed(self, spot: Spot) -> None:
        self.me.opened = self.me.main.opened or self.me.opened
        self._to(spot)

    def action_history(self, step: int) -> None:
        """Back and forward among features of this SAE."""
        past = self.me.main.history.past if step < 0 else self.me.main.history.future
        place = (past[-1] if step < 0 else past[0]) if past else None
        if place is None or (place.model, place.sae) != (self.me.main.view.model, self.me.main.view.sae):
            where = "back to" if step < 0 else "forward to"
            self.me.notice = (f"nowhere to go {where} in this SAE; Esc leaves the page", "dim")
            self.me.draw()
            return
        self.me.main.action_history(step)
        self._followed(replace(self.me.spot, page="grid", pick=0))

    def action_step(self, delta: int) -> None:
        """The next feature of the list."""
        self.me.main.action_step(delta)
        self._followed(replace(self.me.spot, pick=0))

    def action_head(self) -> None:
        """A head's own page, or back to the grids."""
        if self.me.heads is not None:
            self._to(replace(self.me.spot, page="grid" if self.me.spot.page == "head" else "head", pick=0))

    def action_later(self) -> None:
        """Compute the next later layer."""
        missing = [layer for layer in self.me.shelf.layers if layer not in [t.layer for t in self.me.tables]]
        if self.me.job is not None:
            self.me.notice = ("a layer is being computed", "dim")
        elif not missing:
            self.me.notice = (
                "every layer that can read it is here" if self.me.shelf.layers else self.me.shelf.absent,
                "dim",
            )
        else:
            self.me.ask(missing[0])
        self.me.draw()

    def action_compute(self) -> None:
        """Ask again."""
        self.me.failure = ""
        self.me.pages.failures.clear()
        self.me.shelf.failures.clear()
        self.me.look(ask=True)

    def action_export(self) -> None:
        """The grids as CSV, the page as SVG, what was computed on demand and what the numbers mean as JSON."""
        me = self.me
        if not me.tables or not 0 <= me.row < me.table.n:
            return
        from wbtui.tui.heads_export import write

        page = me.pages.get(me.spot.layer, me.row)
        answer = None if page is None else dict(page.answer)
        table, tables, row, statistic, svg = me.table, list(me.tables), me.row, me.spot.statistic, me.picture()
        me.write_files(lambda folder: write(folder, table, tables, row, svg, statistic, answer))

    def action_back(self) -> None:
        """From a head's page to the grids, from there back."""
        if self.me.spot.page == "head":
            self._to(replace(self.me.spot, page="grid", pick=0))
        else:
            self.me.app.pop_screen()
