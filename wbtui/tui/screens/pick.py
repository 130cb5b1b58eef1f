"""``O``: another SAE or layer by a few letters: of this model, of other models here, of the registry; one list."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from wbtui.address import Address
from wbtui.catalog.models import list_models
from wbtui.catalog.neuronpedia import NotHere, address_of, is_page
from wbtui.catalog.registry import Entry as Published
from wbtui.catalog.registry import releases
from wbtui.catalog.saes import SaeInfo, list_saes
from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.tui import keymap
from wbtui.tui.draw.line import Line, cut, lit, rule, spread, width_of
from wbtui.tui.fetching import download_line
from wbtui.tui.fuzzy import Fuzzy
from wbtui.tui.screens.fetches import FetchScreen
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.entry import Entry
from wbtui.tui.widgets.lines import Lines

if TYPE_CHECKING:
    from wbtui.tui.data import Opened

MINE, HERE, REGISTRY = range(3)
_LAYER = re.compile(r"(?:layer[_.]?|blocks\.|\bl)(\d+)", re.ASCII)
_FRONT = re.compile(r"L\d+ +(?=\S)", re.ASCII)
_FEATURE = re.compile(r"#([0-9]{1,12})\s*$", re.ASCII)


@dataclass(frozen=True)
class Pick:
    """An SAE that can be picked."""

    model: str
    name: str
    """As an address names it."""
    shown: str
    """What stands in the list and is searched."""
    about: str
    group: int


def picks_of(model: str, saes: Sequence[SaeInfo], group: int) -> list[Pick]:
    """SAEs on disk; those of the open model go without its name."""
    out = []
    for sae in saes:
        name = safe_token_text(_at_layer(sae.layer, sae.name) if group == MINE else f"{model}@{sae.name}")
        about = f"layer {sae.layer} {sae.site} · {sae.architecture} · {sae.d_sae:,} features"
        out.append(Pick(model, sae.name, name, about, group))
    return out


def _at_layer(layer: int | None, name: str) -> str:
    """A name with its layer in front, where it does not begin with it: layers are what one looks for most."""
    return name if layer is None or re.match(rf"L{layer}\b", name) else f"L{layer:<3}{name}"


def published_picks(here: frozenset[str]) -> list[Pick]:
    """The registry's SAEs but those that are here: canonical releases first."""
    out = []
    for release in sorted(releases(), key=lambda r: "canonical" not in r.name):
        for entry in release.saes:
            if entry.name not in here:
                l0 = "" if entry.l0 is None else f"L0 {entry.l0:g}"
                layer = _LAYER.search(entry.sae) or _LAYER.search(entry.release)
                shown = f"{entry.model}@{entry.name}"
                shown = safe_token_text(_at_layer(int(layer[1]) if layer else None, shown))
                out.append(Pick(entry.model, entry.name, shown, l0, REGISTRY))
    return out


class PickScreen(FetchScreen):
    """One list that a few letters narrow; Enter opens, ``^d`` fetches what is not here."""

    CONTEXT = "pick"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("pick")]
    AUTO_FOCUS = "#entry"
    DEFAULT_CSS = """
    PickScreen #head { height: 1; }
    PickScreen #bar { height: 1; }
    PickScreen #prompt { width: 9; }
    PickScreen #entry { width: 1fr; }
    """

    def __init__(self, opened: Opened, visit: Callable[[Address], None]) -> None:
        super().__init__()
        self.opened = opened
        self.visit = visit
        self.at = 0
        self.text = ""
        self.whole = False
        self._take(picks_of(opened.model.name, opened.saes, MINE))
        self.at = next((n for n, pick in enumerate(self.picks) if pick.name == opened.sae.name), 0)

    def _take(self, picks: list[Pick], fuzzy: Fuzzy | None = None) -> None:
        self.picks = picks
        self.fuzzy = fuzzy or Fuzzy([pick.shown for pick in picks], [pick.group for pick in picks])
        self._narrow()

    def _narrow(self) -> None:
        self.query_text = _FEATURE.sub("", self.text)
        self.rows: list[int] = self.fuzzy.find(self.query_text).rows.tolist()

    def body(self) -> ComposeResult:
        """What was said, the letters, the list."""
        yield Lines(id="head")
        with Horizontal(id="bar"):
            yield Lines(id="prompt")
            entry = Entry(id="entry", placeholder="a few letters: 4, gemma 12 16k, L2#67, a page of Neuronpedia",
                          select_on_focus=False)  # fmt: skip
            entry.pass_on = frozenset({"question_mark"})
            yield entry
        yield Card(id="list")

    def on_mount(self) -> None:
        """The open model's SAEs are there; all others are looked for in a thread."""
        self.in_background(self._load, group="picks", exclusive=True)

    async def _load(self) -> None:
        mine = self.opened.model

        def look() -> tuple[list[Pick], Fuzzy]:
            picks = picks_of(mine.name, list_saes(mine), MINE)
            for model in list_models():
                if model.name != mine.name:
                    picks += picks_of(model.name, list_saes(model), HERE)
            picks += published_picks(frozenset(pick.name.partition(":")[0] for pick in picks))
            return picks, Fuzzy([pick.shown for pick in picks], [pick.group for pick in picks])

        picks, fuzzy = await asyncio.to_thread(look)
        under = self.under
        self._take(picks, fuzzy)
        self.whole = True
        if under is not None and not self.text:
            self.at = next((n for n, row in enumerate(self.rows) if self.picks[row] == under), 0)
        self.fit()

    @property
    def under(self) -> Pick | None:
        """The SAE under the cursor."""
        return self.picks[self.rows[min(self.at, len(self.rows) - 1)]] if self.rows else None

    # Drawing --------------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Draw."""
        card = self.query_one("#list", Card)
        width, height = card.inner_width, max(1, card.size.height)
        self.query_one("#prompt", Lines).set_lines([[("  SAE /  ", "strong")]])
        count = f"{len(self.rows):,} of {len(self.picks):,}" + ("" if self.whole else " …") + " "
        left: Line = [(" PICK AN SAE", "head"), ("  of this model, of others here, of the registry", "dim")]
        if self.word:
            left = [(" " + safe_token_text(self.word), "warn")]
        elif (now := self.wb.downloads.now) is not None:
            left = [(" ", "dim"), *download_line(now, "^x")]
        self.query_one("#head", Lines).set_lines([spread(left, [("  " + count, "dim")], self.app.size.width)])
        self.at = max(0, min(self.at, len(self.rows) - 1))
        card.set_lines(self._lines(width, height) if self.rows else [[("nothing matches these letters", "dim")]])

    def _lines(self, width: int, height: int) -> list[Line]:
        """The part of the list around the cursor: a rule before each group, rows, nothing that is out of sight."""
        titles = (f"SAEs OF {safe_token_text(self.opened.model.name)}", "OTHER MODELS HERE", "REGISTRY")
        begins = self._begins()
        place = self.at + sum(first <= self.at for first in begins)
        top = max(0, min(place - height // 2, len(self.rows) + len(begins) - height))
        out: list[Line] = []
        row = top - sum(first + n < top for n, first in enumerate(begins))
        line = top
        while len(out) < height and row < len(self.rows):
            if any(first + n == line for n, first in enumerate(begins)):
                group = self.picks[self.rows[row]].group
                out.append(rule(width, titles[group], "not on this disk: ^d downloads" if group == REGISTRY else ""))
            else:
                out.append(self._row(row, width))
                row += 1
            line += 1
        return out

    def _begins(self) -> list[int]:
        """Rows at which a group begins, by halving: the list is long and ordered by group."""
        out = [0] if self.rows else []
        for group in (HERE, REGISTRY):
            low, high = 0, len(self.rows)
            while low < high:
                middle = (low + high) // 2
                if self.picks[self.rows[middle]].group < group:
                    low = middle + 1
                else:
                    high = middle
            out += [low] if low < len(self.rows) else []
        return list(dict.fromkeys(out))

    def _row(self, n: int, width: int) -> Line:
        row = self.rows[n]
        pick = self.picks[row]
        here = n == self.at
        current = pick.group == MINE and pick.name == self.opened.sae.name
        mark = "●" if current else "↓" if pick.group == REGISTRY else " "
        line: Line = [("▸ " if here else "  ", "strong"), (mark + " ", "mark" if current else "dim")]
        about: Line = [("  " + safe_token_text(pick.about), "dim")] if pick.about else []
        role = "strong" if here else "dim" if pick.group == REGISTRY else "text"
        places = self.fuzzy.places(row, self.query_text)
        layer = match.end() if (match := _FRONT.match(pick.shown)) else 0
        line += lit(pick.shown[:layer], places, role)  # the layer stays where the name is too long
        rest = frozenset(at - layer for at in places if at >= layer)
        line += lit(pick.shown[layer:], rest, role, max(16, width - width_of(about) - 4 - layer))
        return spread(line, about, width) if width_of(line) + width_of(about) <= width else cut(line, width)

    # Keys -----------------------------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow at once."""
        self.text, self.at = event.value.strip(), 0
        self.word = "⏎ opens this page of Neuronpedia" if is_page(self.text) else ""
        self._narrow()
        self.fit()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter."""
        self.action_open()

    def action_open(self) -> None:
        """Open what is under the cursor, at the feature that was typed behind ``#``."""
        if is_page(self.text):
            self.in_background(self._page, self.text, group="page", exclusive=True)
            return
        pick = self.under
        if pick is None:
            return
        if pick.group == REGISTRY:
            self.word = "not on this disk: ^d downloads it"
            self.fit()
            return
        feature = _FEATURE.search(self.text)
        self._leave_for(Address(pick.model, pick.name, int(feature.group(1)) if feature else None))

    async def _page(self, text: str) -> None:
        try:
            address = await asyncio.to_thread(address_of, text, self.opened.model)
        except NotHere as error:
            self._find(error.entry)
            self.word = error.line()
            self.fit()
        except WbtuiError as error:
            self.word = error.line()
            self.fit()
        else:
            self._leave_for(address)

    def _find(self, entry: Published) -> None:
        """The cursor to a published SAE, alone in the list."""
        box = self.query_one("#entry", Input)
        with box.prevent(Input.Changed):
            box.value = self.text = f"{entry.model}@{entry.name}"
        self._narrow()
        self.at = next((n for n, row in enumerate(self.rows) if self.picks[row].name == entry.name), 0)

    def _leave_for(self, address: Address) -> None:
        self.app.pop_screen()
        self.visit(address)

    def action_download(self) -> None:
        """Fetch what is under the cursor, its model too where that is missing."""
        pick = self.under
        if pick is None or pick.group != REGISTRY:
            self.word = "on this disk already" if pick is not None else "no SAE under the cursor"
            self.fit()
        else:
            self.fetch(pick.model, pick.name)

    def fetched(self) -> None:
        """The list again, with what has come among what is here."""
        self.in_background(self._load, group="picks", exclusive=True)

    def action_move(self, delta: int) -> None:
        """Up or down."""
        self.at = max(0, min(self.at + delta, len(self.rows) - 1))
        self.word = ""
        self.fit()

    def action_page(self, sign: int) -> None:
        """A page."""
        self.action_move(sign * max(1, self.query_one("#list", Card).size.height - 2))

    def action_back(self) -> None:
        """Clear the letters, then leave."""
        if self.text:
            self.query_one("#entry", Input).value = ""
        else:
            self.app.pop_screen()
