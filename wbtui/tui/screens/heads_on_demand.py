"""What the Heads page asks of the service for one feature: partners each way, what each head writes, by distance."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from wbtui.address import Address
from wbtui.catalog.plan_attention import target_of
from wbtui.errors import WbtuiError
from wbtui.tui import messages as say
from wbtui.tui.data import open_address
from wbtui.tui.draw.heads_page import head_list, partners
from wbtui.tui.draw.heads_writes import Seen, links_of
from wbtui.tui.head_pages import HeadPage

if TYPE_CHECKING:
    from wbtui.tui.screens.heads import HeadsScreen


DOWN = ("down", "other version")
"""States of the service in which nothing is asked of it."""


class HeadsOnDemand:
    """Mixed into :class:`wbtui.tui.screens.heads.HeadsScreen`."""

    @property
    def me(self) -> HeadsScreen:
        """This screen, typed."""
        return cast("HeadsScreen", self)

    @property
    def target(self) -> str | None:
        """The SAE whose features say what the layer's heads write; None where none stands behind them."""
        found = target_of(self.me.opened.model, self.me.opened.saes, self.me.opened.sae, self.me.spot.layer)
        return None if found is None else found.name

    def page_of(self, feature: int) -> tuple[HeadPage | None, str]:
        """A feature's page, or in words why it is not there."""
        page = self.me.pages.get(self.me.spot.layer, feature)
        if page is not None:
            return page, ""
        failed = self.me.pages.failures.get((self.me.spot.layer, feature))
        if not failed and self.me.wb.desk.state in DOWN:
            return None, "only what is stored: the service is down"
        return None, failed or "the strongest of all are being computed…"

    @property
    def listed(self) -> list[int]:
        """Features of the list."""
        if self.me.heads is None or not 0 <= self.me.row < self.me.table.n:
            return []
        if self.me.spot.page == "head":
            return [feature for feature, _ in head_list(self.me.heads, self.me.spot)]
        page, _ = self.page_of(self.me.row)
        return [p.feature for p in partners(self.me.heads, self.me.row, self.me.spot, page)]

    @property
    def seen(self) -> Seen | None:
        """What the chosen head attends to: the feature as key, or as query the partner under the arrow."""
        heads = self.me.heads
        if heads is None or not 0 <= self.me.row < self.me.table.n:
            return None
        page, _ = self.page_of(self.me.row)
        listed = partners(heads, self.me.row, self.me.spot, page)
        if not listed:
            return None
        pair = listed[min(self.me.spot.pick, len(listed) - 1)]
        feature = self.me.row if self.me.spot.side == "key" else pair.feature
        its, note = self.page_of(feature)
        written = None if its is None else its.written(self.me.spot.head)
        target = self.me.targets.get(written.target) if written is not None and written.target is not None else None
        return Seen(
            feature,
            written,
            note,
            target,
            pair,
            () if page is None else page.offsets,
            learned=heads.plan is not None and heads.plan.facts.rope is None,
        )

    def want_pages(self) -> None:
        """Ask for the feature, and for the one that the head attends to; what is not wanted any more is taken back."""
        seen = self.seen
        if self.me.heads is None or seen is None or self.me.wb.desk.state in DOWN:
            return
        wanted = self.me.pages.missing(self.me.spot.layer, [self.me.row, seen.feature])
        self.me.wb.desk.ask_pages(self.me.opened, self.me.spot.layer, self.target, wanted)

    def on_page_computed(self, message: say.PageComputed) -> None:
        """Draw it; the list's arrow stays with its feature."""
        if message.opened is not self.me.opened:
            return
        at = self.me.spot.pick
        before = self.listed
        self.me.pages.put(message.layer, message.feature, message.page)
        after = self.listed
        if self.me.spot.page == "grid" and at < len(before) and before[at] in after:
            self.me.spot = replace(self.me.spot, pick=after.index(before[at]) if at else 0)
        target = message.page.get("target")
        if target is not None and target not in self.me.targets:
            self.me.targets[target] = None
            self.me.in_background(self._open_target, target, group=f"target {target}")
        self.want_pages()
        self.me.draw()

    def on_page_failed(self, message: say.PageFailed) -> None:
        """Say why."""
        self.me.pages.failures[message.layer, message.feature] = message.line
        self.me.draw()

    async def _open_target(self, name: str) -> None:
        address = Address(self.me.opened.model.name, name)
        try:
            definition = self.me.opened.plan.definition
            opened = await asyncio.to_thread(open_address, address, self.me.opened.cache, definition)
        except (WbtuiError, OSError):
            return  # numbers without words
        self.me.targets[name] = opened.table
        self.me.draw()

    @property
    def links(self) -> list[tuple[str, int]]:
        """Features of the SAE behind the heads that Enter opens."""
        seen = self.seen
        return links_of(seen.written) if seen is not None and self.me.spot.page == "grid" else []
