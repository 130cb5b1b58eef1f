"""The first screen: models on the left, their SAEs with what is computed on the right, a filter at once.

Under what is on disk stands what the registry of published SAEs knows; a key downloads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from wbtui.address import Address, is_path
from wbtui.catalog.models import ModelInfo
from wbtui.catalog.neuronpedia import NotHere, is_page
from wbtui.catalog.registry import Entry as Published
from wbtui.catalog.registry import canonical_model
from wbtui.display import safe_token_text
from wbtui.errors import WbtuiError
from wbtui.tui import keymap
from wbtui.tui.data import SaeRow, checked_address, load_session, models, sae_rows
from wbtui.tui.draw.line import Line, cut, rule, wrap
from wbtui.tui.fetching import download_line
from wbtui.tui.screens.fetches import FetchScreen
from wbtui.tui.shelf import (
    PublishedModel,
    Shelf,
    model_lines,
    model_text,
    nowhere,
    published_models,
    published_saes,
    sae_lines,
    sae_text,
)
from wbtui.tui.state import View
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.entry import Entry
from wbtui.tui.widgets.lines import Lines

NONE: list[Published] = []


def is_address(text: str) -> bool:
    """Whether a text is meant to be opened and not to narrow a list: ``demo@L3``, a folder, a page of Neuronpedia."""
    return is_page(text) or is_path(text) or "@" in text.strip("@")


class StartScreen(FetchScreen):
    """Two lists. Letters go to the filter of the list that has the cursor."""

    CONTEXT = "start"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.bindings("start")]
    AUTO_FOCUS = "#entry"
    DEFAULT_CSS = """
    StartScreen #bar { height: 1; }
    StartScreen #prompt { width: 9; }
    StartScreen #entry { width: 1fr; }
    StartScreen #lists { height: 1fr; }
    StartScreen #models { width: 2fr; }
    StartScreen #saes { width: 3fr; }
    StartScreen #head { height: 3; }
    """

    def __init__(self, model: str | None = None, published: NotHere | None = None) -> None:
        super().__init__()
        self.wanted = published.entry.model if published is not None else model
        self.asked = published
        """A page of Neuronpedia that was pasted and whose SAE is not here: the cursor goes to it."""
        self.models: list[ModelInfo] | None = None
        self.saes: dict[str, list[SaeRow]] = {}
        self.registry: list[PublishedModel] = []
        self.published: dict[str, list[Published]] = {}
        self.on_saes = model is not None
        self.at_model = 0
        self.at_sae = 0
        self.text = ""
        self.high = 3
        """Lines of the head."""
        self.last: View | None = None
        self.busy: set[str] = set()
        self._shelves: dict[str, tuple[int, Shelf[Any]]] = {}

    def body(self) -> ComposeResult:
        """Filter, last session, lists."""
        yield Card(id="head")
        with Horizontal(id="bar"):
            yield Lines(id="prompt")
            entry = Entry(id="entry", placeholder="type to filter", select_on_focus=False)
            entry.pass_on = frozenset({"question_mark"})
            yield entry
        with Horizontal(id="lists"):
            yield Card(id="models")
            yield Card(id="saes")

    def on_mount(self) -> None:
        """Look around in a thread."""
        self.in_background(self._load, group="models")

    async def _load(self) -> None:
        self.last = await asyncio.to_thread(load_session)
        self.models = await asyncio.to_thread(models)
        self.registry = await asyncio.to_thread(published_models, self.models)
        if self.wanted is not None:
            self._to_model(self.wanted)
        self.fit()
        self._load_saes()

    def _to_model(self, name: str) -> None:
        # a folder that was opened by its path stands here by its name
        name = next((m.name for m in self._models if isinstance(m, ModelInfo) and m.path == name), name)
        found = [canonical_model(model.name) for model in self._models]
        wanted = canonical_model(name)
        names = [model.name for model in self._models]
        self.at_model = names.index(name) if name in names else found.index(wanted) if wanted in found else 0

    def _load_saes(self) -> None:
        model = self.chosen
        if model is not None and model.name not in self.saes and model.name not in self.busy:
            self.busy.add(model.name)
            self.in_background(self._saes_of, model, group="saes")

    async def _saes_of(self, model: ModelInfo | PublishedModel) -> None:
        rows: list[SaeRow] = []
        if isinstance(model, ModelInfo):
            rows = await asyncio.to_thread(sae_rows, model, self.wb.cache, self.wb.definition)
        self.published[model.name] = await asyncio.to_thread(published_saes, model.name, rows)
        self.saes[model.name] = rows
        self.busy.discard(model.name)
        if self.asked is not None and canonical_model(model.name) == canonical_model(self.asked.entry.model):
            self._show(self.asked)
        self.fit()

    def _show(self, asked: NotHere) -> None:
        """The cursor to a published SAE that was asked for, with what was said of it."""
        self.asked = None
        self.on_saes = True
        self._clear()
        self.word = asked.line()
        names = [row.info.name if isinstance(row, SaeRow) else row.name for row in self._saes]
        self.at_sae = names.index(asked.entry.name) if asked.entry.name in names else 0

    async def _look_again(self) -> None:
        """Something came: the lists anew, the cursor on what it was on."""
        chosen = self.chosen
        self.models = await asyncio.to_thread(models)
        self.registry = await asyncio.to_thread(published_models, self.models)
        if chosen is not None:
            names = [m.name for m in self._models]
            self.at_model = names.index(chosen.name) if chosen.name in names else 0
        self.saes.clear()
        self._load_saes()
        self.fit()

    def refresh_states(self) -> None:
        """What is computed may have changed since."""
        self.saes.clear()
        self._load_saes()

    # What is shown --------------------------------------------------------------------------------------------------

    @property
    def _models(self) -> list[ModelInfo | PublishedModel]:
        return self._model_shelf.find("" if self.on_saes else self.text)

    @property
    def _model_shelf(self) -> Shelf[ModelInfo | PublishedModel]:
        return self._shelf("", [self.models or [], self.registry], model_text)

    def _shelf(self, name: str, parts: list[Any], text: Callable[[Any], str]) -> Shelf[Any]:
        """The shelf of some lists, made anew where one of them is another."""
        stamp = hash(tuple(map(id, parts)))
        if self._shelves.get(name, (0, None))[0] != stamp:
            self._shelves[name] = (stamp, Shelf([item for part in parts for item in part], text))
        return self._shelves[name][1]

    @property
    def chosen(self) -> ModelInfo | PublishedModel | None:
        """The model under the cursor, on disk or not."""
        found = self._models
        return found[min(self.at_model, len(found) - 1)] if found else None

    @property
    def _saes(self) -> list[SaeRow | Published]:
        shelf = self._sae_shelf
        return shelf.find(self.text if self.on_saes else "") if shelf is not None else []

    @property
    def _sae_shelf(self) -> Shelf[SaeRow | Published] | None:
        model = self.chosen
        if model is None or model.name not in self.saes:
            return None
        parts = [self.saes[model.name], self.published.get(model.name, NONE)]
        return self._shelf(model.name, parts, sae_text)

    def fit(self) -> None:
        """Draw."""
        head = self.query_one("#head", Card)
        first: Line = [("wbtui", "strong"), ("  what SAE features do, read from the weights alone", "dim")]
        lines: list[Line] = [first]
        if self.last is not None:
            place = str(Address(self.last.model, self.last.sae, self.last.cursor))
            found = f"  / {self.last.filter}" if self.last.filter else ""
            lines.append(
                cut(
                    [("last  ", "dim"), (safe_token_text(place + found), "text"), ("   ^l opens it", "dim")],
                    head.inner_width,
                )
            )
        if self.word:
            lines += wrap(safe_token_text(self.word).split(), head.inner_width, "warn")
        elif self.wb.downloads.now is not None:
            lines.append(cut(download_line(self.wb.downloads.now, "^x"), head.inner_width))
        if self.high != (high := max(3, len(lines))):  # asked once: until it is laid out the size is the old one
            self.high = head.styles.height = high
            self.call_after_refresh(self.fit)
        head.set_lines(lines)
        self.query_one("#prompt", Lines).set_lines([[(" SAEs / " if self.on_saes else " model / ", "strong")]])
        left, right = self.query_one("#models", Card), self.query_one("#saes", Card)
        left.set_lines(self._model_lines(left.inner_width, left.size.height))
        right.set_lines(self._sae_lines(right.inner_width, right.size.height))

    def _model_lines(self, width: int, height: int) -> list[Line]:
        out = [rule(width, "MODELS")]
        if self.models is None:
            return [*out, [("looking…", "dim")]]
        found = self._models
        if not found:
            return [*out, [("no model matches", "dim")]]
        at = min(self.at_model, len(found) - 1)
        places = self._model_shelf.places if self.text and not self.on_saes else nowhere
        return out + model_lines(found, at, not self.on_saes, width, height - 1, places)

    def _sae_lines(self, width: int, height: int) -> list[Line]:
        model = self.chosen
        title = "SAEs" + (f" of {safe_token_text(model.name)}" if model else "")
        legends = ("● computed  ◐ in part  ○ not yet", "● ◐ ○ computed, part, not", "")
        out = [
            rule(
                width, title, next(text for text in legends if cell_len(title) + cell_len(text) + 4 < width or not text)
            )
        ]
        if model is None:
            return out
        if model.name not in self.saes:
            return [*out, [("looking…", "dim")]]
        found = self._saes
        here = self.saes[model.name]
        if not here and not (self.on_saes and self.text):
            what = "the model is not on this disk: ^d downloads it" if isinstance(model, PublishedModel) else ""
            empty = what or "none found for this model: the setting sae_roots names folders to look in"
            out.append(cut([(empty, "dim")], width))
        elif not found:
            return [*out, [("no SAE matches", "dim")]]
        at = min(self.at_sae, len(found) - 1)
        shelf = self._sae_shelf
        places = shelf.places if shelf is not None and self.text and self.on_saes else nowhere
        return out + (sae_lines(found, at, self.on_saes, width, height - len(out), places) if found else [])

    # Keys -----------------------------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter at once."""
        self.text = event.value.strip()
        self.word = f"⏎ opens {self.text}" if is_address(self.text) else ""
        if self.on_saes:
            self.at_sae = 0
        else:
            self.at_model = self.at_sae = 0
            self._load_saes()
        self.fit()

    def _clear(self) -> None:
        entry = self.query_one("#entry", Input)
        with entry.prevent(Input.Changed):
            entry.value = ""
        self.text = ""

    def _step(self, delta: int) -> None:
        self.word = ""
        if self.on_saes:
            self.at_sae = max(0, min(self.at_sae + delta, len(self._saes) - 1))
        else:
            self.at_model = max(0, min(self.at_model + delta, len(self._models) - 1))
            self.at_sae = 0
            self._load_saes()
        self.fit()

    def action_down(self) -> None:
        """Down."""
        self._step(1)

    def action_up(self) -> None:
        """Up."""
        self._step(-1)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the filter."""
        self.action_open()

    def action_open(self) -> None:
        """A model: on to its SAEs, at its last layer; an SAE: open it; what is not on disk says how it gets there."""
        model = self.chosen
        if is_address(self.text):
            self.in_background(self._go, self.text, group="go", exclusive=True)
            return
        if model is None:
            return
        if not self.on_saes:
            self._across(True)
            return
        found = self._saes
        if not found:
            return
        row = found[min(self.at_sae, len(found) - 1)]
        if isinstance(row, SaeRow):
            self.wb.show_main(Address(model.name, row.info.name))
        else:
            self.word = "not on this disk: ^d downloads it"
            self.fit()

    async def _go(self, text: str) -> None:
        """An address that was typed or pasted; the SAE of a page that is not here is shown in the lists."""
        try:
            address = await asyncio.to_thread(checked_address, text)
        except NotHere as error:
            self.asked = error
            self._clear()
            self.on_saes = False
            self._to_model(error.entry.model)
            if self.chosen is not None and self.chosen.name in self.saes:
                self._show(error)
            self._load_saes()
        except WbtuiError as error:
            self.word = error.line()
        else:
            if address is not None:
                self.wb.show_main(address)
                return
        self.fit()

    def action_download(self) -> None:
        """What the cursor is on, into the local Hub cache; a model too where it is missing."""
        model = self.chosen
        if model is None:
            return
        sae = None
        if self.on_saes:
            found = self._saes
            row = found[min(self.at_sae, len(found) - 1)] if found else None
            if not isinstance(row, Published):
                self.word = "on this disk already" if row is not None else "no SAE under the cursor"
                self.fit()
                return
            sae = row.name
        elif isinstance(model, ModelInfo):
            self.word = "on this disk already"
            self.fit()
            return
        self.fetch(model.name, sae)

    def fetched(self) -> None:
        """Both lists again."""
        self.in_background(self._look_again, group="models")

    def _across(self, saes: bool) -> None:
        model = self.chosen
        name = model.name if model is not None else ""
        self.word = ""
        self._clear()
        self.on_saes = saes
        self.at_model = next((i for i, m in enumerate(self._models) if m.name == name), 0)
        if saes:
            rows = self._saes
            here = [(i, r.info) for i, r in enumerate(rows) if isinstance(r, SaeRow)]
            plain = [i for i, info in here if info.name == f"L{info.layer}"] or [i for i, _ in here]
            self.at_sae = plain[-1] if plain else 0
        self.fit()

    def action_across(self) -> None:
        """The other list."""
        self._across(not self.on_saes)

    def action_last(self) -> None:
        """The last session."""
        if self.last is not None:
            self.wb.show_main(Address(self.last.model, self.last.sae, self.last.cursor), self.last)

    def action_back(self) -> None:
        """Clear the filter, then back to the models, then leave."""
        if self.text:
            self._clear()
            self.fit()
        elif self.on_saes:
            self._across(False)
        else:
            self.wb.back_or_leave()

    def action_quit(self) -> None:
        """Leave."""
        self.wb.leave(None)
