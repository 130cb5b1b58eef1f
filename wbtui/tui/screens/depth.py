"""``V``: a model's SAEs by depth: small curves with an interval a layer, a map of layers × heads."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from wbtui.address import Address
from wbtui.catalog.saes import SaeInfo
from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.features.depth_profiles import CUTS, Depth, Layer, curve_of, gather
from wbtui.features.heads import OTHER, STATISTIC_WORDS, HeadTable
from wbtui.features.table import FeatureTable
from wbtui.tui import keymap
from wbtui.tui.data import open_address
from wbtui.tui.draw import frame
from wbtui.tui.draw.depth import columns_of, map_lines, panels_lines, variation_line
from wbtui.tui.draw.line import Line, cut, spread, wrap
from wbtui.tui.facts import meaning_of, short_name
from wbtui.tui.screens.page import PageScreen
from wbtui.tui.widgets.card import Card

if TYPE_CHECKING:
    from wbtui.tui.data import Opened
    from wbtui.tui.screens.main import MainScreen

STATISTICS = ("rms", "max", "p75", "gain")
"""Statistics of heads that ``s`` goes through; the closed form first: it needs no pass over pairs."""
CUT_WORDS = {
    "null": "99 % of noise",
    "model quantile": "P75 over all layers",
    "layer quantile": "P75 of each layer alone",
}


class DepthScreen(PageScreen):
    """Curves over the SAEs of one kind.

    Args:
        main: the screen below; its history takes the places that are opened from here.
        opened: the SAE whose kind is drawn.
    """

    CONTEXT = "depth"
    HEADS_FIRST = True
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("depth")]

    def __init__(self, main: MainScreen, opened: Opened) -> None:
        super().__init__(opened)
        self.main = main
        self.statistic, self.cut = STATISTICS[0], CUTS[0]
        self.side = "query"
        self.pick = 0
        self.mapped = False
        self.depth: Depth | None = None
        self.by_layer: list[Layer] = []
        self.failure = ""

    def on_mount(self) -> None:
        """Open every SAE of the kind in a thread, then work out the curves."""
        self.gather(look=True)

    @property
    def row(self) -> int:
        """The feature that the page was opened from."""
        return self.main.view.cursor

    # Gathering ------------------------------------------------------------------------------------------------------

    def gather(self, look: bool = False) -> None:
        """Work out what is wanted in a thread; what is drawn stays until it is there."""
        self.pending = True
        self.in_background(self._gather, look, self.statistic, self.cut, group="gather", exclusive=True)

    async def _gather(self, look: bool, statistic: str, cut: str) -> None:
        try:
            if look or not self.by_layer:
                self.by_layer = await asyncio.to_thread(self._look)
            n_layers = self.opened.model.n_layers
            self.depth = await asyncio.to_thread(gather, self.by_layer, n_layers, statistic, cut)
            self.failure = ""
        except (WbtuiError, OSError) as error:
            self.failure = error.line() if isinstance(error, WbtuiError) else str(error)
        self.pending = False
        self.draw()

    def _look(self) -> list[Layer]:
        return [self._layer(sae) for sae in curve_of(self.opened.saes, self.opened.sae)]

    def _layer(self, sae: SaeInfo) -> Layer:
        try:
            if sae.name == self.opened.sae.name:
                table = self.opened.table
            else:
                place = Address(self.opened.model.name, sae.name)
                table = open_address(place, self.opened.cache, self.opened.plan.definition).table
        except (WbtuiError, OSError) as error:
            return Layer(sae, None, None, error.line() if isinstance(error, WbtuiError) else str(error))
        whole: FeatureTable | None = table if bool(table.computed.all()) else None
        why = "" if whole is not None else "tokens are not computed"
        heads: HeadTable | None = None
        shelf = table.heads
        if shelf is not None and not shelf.absent:
            try:
                found = shelf.table()
                found.refresh()
                heads = found if found.ready else None
            except (WbtuiError, OSError):
                heads = None
        return Layer(sae, whole, heads, why)

    # Drawing --------------------------------------------------------------------------------------------------------

    def head_lines(self, width: int) -> tuple[Line, Line, Line]:
        """Where one is; which SAEs, what is missing; how the shares in heads are set."""
        opened = self.opened
        kind = f"depth of {opened.sae.site}" if width >= 76 else "depth"
        crumb = frame.crumb((short_name(opened.model.name), kind), meaning_of(opened.table), width)
        left: Line = [(f" {len(self.by_layer)} SAEs of {opened.sae.d_sae:,} features", "text")]
        missing = [layer.info.name for layer in self.by_layer if layer.table is None]
        readers = [layer for layer in self.by_layer if layer.info.reader_layer is not None]
        no_heads = [layer.info.name for layer in readers if layer.heads is None]
        words = [f"no tokens: {', '.join(map(safe_token_text, missing))}"] if missing else []
        words += [f"no heads: {', '.join(map(safe_token_text, no_heads))}"] if no_heads else []
        right = f"{' · '.join(words)} " if words else "95 % intervals │ · noise "
        title = spread(left, [(right, "warn" if words else "dim")], width)
        note = f"in heads: {STATISTIC_WORDS[self.statistic]}, {CUT_WORDS[self.cut]}"
        return crumb, title, frame.separator(width, None, note=note)

    def lines(self, width: int, height: int) -> list[Line]:
        """Curves, or the map."""
        found = self.depth
        if self.failure or found is None:
            words = safe_token_text(self.failure or "gathering…")
            return [[], *([("  ", "text"), *line] for line in wrap(words.split(), width - 4, "error"))]
        below = variation_line(found.variation, STATISTIC_WORDS[self.statistic], width)
        room = height - 2
        if self.mapped:
            drawn = map_lines(found, self.side, self.pick, width, room)
        else:
            drawn = panels_lines(found.curves, self.pick, width, room)
        drawn = [*drawn[:room], *([] for _ in range(room - len(drawn)))]
        how = "" if self.mapped else f" {found.curves[self.pick].name}: {found.curves[self.pick].how}"
        return [*drawn, cut([(how, "dim")], width), below]

    # Keys -----------------------------------------------------------------------------------------------------------

    @property
    def _choices(self) -> int:
        if self.depth is None:
            return 0
        return len(self.depth.head_shares(self.side)) if self.mapped else len(self.depth.curves)

    def action_move(self, dx: int, dy: int) -> None:
        """Another curve, or another layer of the map."""
        across = 1 if self.mapped else columns_of(self.query_one("#drawing", Card).inner_width)
        step = dx + dy * across
        if self._choices and 0 <= self.pick + step < self._choices:
            self.pick += step
        self.say("")

    def action_map(self) -> None:
        """Layers × heads, or the curves."""
        self.mapped, self.pick = not self.mapped, 0
        self.say("")

    def action_side(self) -> None:
        """Query or key, on the map."""
        self.side = OTHER[self.side]
        self.say("")

    def action_statistic(self) -> None:
        """Another statistic of heads."""
        self.statistic = STATISTICS[(STATISTICS.index(self.statistic) + 1) % len(STATISTICS)]
        self.notice = ("", "dim")
        self.gather()

    def action_threshold(self) -> None:
        """Another way of setting the threshold of the shares in heads."""
        self.cut = CUTS[(CUTS.index(self.cut) + 1) % len(CUTS)]
        self.notice = ("", "dim")
        self.gather()

    def action_look(self) -> None:
        """Look again what is computed."""
        self.gather(look=True)

    def action_open(self) -> None:
        """The SAE whose heads the map's arrow stands at; on the curves nothing stands for one SAE."""
        found = self.depth
        if found is None or not self.mapped:
            self.say("m shows layers × heads; there ⏎ opens a layer's SAE")
            return
        shares = found.head_shares(self.side)
        if shares:
            _, name, _ = shares[min(self.pick, len(shares) - 1)]
            self.app.pop_screen()
            self.main.visit(Address(self.opened.model.name, name))

    def action_export(self) -> None:
        """Every point as CSV, the page as SVG."""
        found = self.depth
        if found is None or self.pending:
            return
        from wbtui.tui.depth_export import write

        table, svg = self.opened.table, self.picture()

        def make(folder: Path) -> list[Path]:
            return write(folder, table, found, svg)

        self.write_files(make)
