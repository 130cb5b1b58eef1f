"""The first screen: models on the left, their SAEs with what is computed on the right, a filter at once."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from wbtui.address import Address
from wbtui.catalog.models import ModelInfo
from wbtui.display import fit, safe_token_text
from wbtui.tui import keymap
from wbtui.tui.data import SaeRow, load_session, models, sae_rows
from wbtui.tui.draw.line import Line, cut, rule, spread
from wbtui.tui.screens.base import WbScreen
from wbtui.tui.state import View
from wbtui.tui.widgets.card import Card
from wbtui.tui.widgets.entry import Entry
from wbtui.tui.widgets.lines import Lines

STATES = {"complete": ("●", "mark"), "partial": ("◐", "warn"), "absent": ("○", "dim"), "error": ("!", "error")}


class StartScreen(WbScreen):
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

    def __init__(self, model: str | None = None) -> None:
        super().__init__()
        self.wanted = model
        self.models: list[ModelInfo] | None = None
        self.saes: dict[str, list[SaeRow]] = {}
        self.on_saes = model is not None
        self.at_model = 0
        self.at_sae = 0
        self.text = ""
        self.last: View | None = None
        self.busy: set[str] = set()

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
        self.run_worker(self._load(), group="models")

    async def _load(self) -> None:
        self.last = await asyncio.to_thread(load_session)
        self.models = await asyncio.to_thread(models)
        if self.wanted is not None:
            self.at_model = next((i for i, m in enumerate(self.models) if m.name == self.wanted), 0)
        self.fit()
        self._load_saes()

    def _load_saes(self) -> None:
        model = self.model
        if model is not None and model.name not in self.saes and model.name not in self.busy:
            self.busy.add(model.name)
            self.run_worker(self._saes_of(model), group="saes")

    async def _saes_of(self, model: ModelInfo) -> None:
        self.saes[model.name] = await asyncio.to_thread(sae_rows, model, self.wb.cache, self.wb.definition)
        self.busy.discard(model.name)
        self.fit()

    def refresh_states(self) -> None:
        """What is computed may have changed since."""
        self.saes.clear()
        self._load_saes()

    # What is shown --------------------------------------------------------------------------------------------------

    @property
    def _models(self) -> list[ModelInfo]:
        found = self.models or []
        wanted = "" if self.on_saes else self.text.casefold()
        return [m for m in found if wanted in m.name.casefold() or wanted in m.model_type.casefold()]

    @property
    def model(self) -> ModelInfo | None:
        """The model under the cursor."""
        found = self._models
        return found[min(self.at_model, len(found) - 1)] if found else None

    @property
    def _saes(self) -> list[SaeRow]:
        model = self.model
        rows = self.saes.get(model.name, []) if model is not None else []
        wanted = self.text.casefold() if self.on_saes else ""
        return [r for r in rows if wanted in f"{r.info.name} {r.info.site} {r.info.architecture}".casefold()]

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
        room = height - 1
        top = max(0, min(at - room // 2, len(found) - room))
        for n, model in enumerate(found[top : top + room], start=top):
            here = n == at
            about = f"{model.model_type} · {model.n_layers} layers · {model.d_model}"
            line: Line = [("▸ " if here and not self.on_saes else "› " if here else "  ", "strong")]
            line.append((safe_token_text(model.name), "strong" if here else "text"))
            out.append(spread(line, [(" " + about, "dim")], width))
        return out

    def _sae_lines(self, width: int, height: int) -> list[Line]:
        model = self.model
        out = [
            rule(
                width,
                "SAEs" + (f" of {safe_token_text(model.name)}" if model else ""),
                "● computed  ◐ in part  ○ not yet",
            )
        ]
        if model is None:
            return out
        if model.name not in self.saes:
            return [*out, [("looking…", "dim")]]
        found = self._saes
        if not found:
            empty = (
                "no SAE matches"
                if self.saes[model.name]
                else "none found for this model: WBTUI_SAE_ROOTS names folders to look in"
            )
            return [*out, cut([(empty, "dim")], width)]
        at = min(self.at_sae, len(found) - 1)
        room = height - 1
        top = max(0, min(at - room // 2, len(found) - room))
        for n, row in enumerate(found[top : top + room], start=top):
            here = n == at and self.on_saes
            mark, role = STATES[row.state]
            info = row.info
            line: Line = [("▸ " if here else "  ", "strong"), (f"{mark} ", role)]
            line.append((fit(safe_token_text(info.name), 16) + " ", "strong" if here else "text"))
            about = row.line or f"layer {info.layer} {info.site} · {info.architecture} · {info.d_sae:,} features"
            line.append((safe_token_text(about), "error" if row.line else "dim"))
            out.append(cut(line, width))
        return out

    # Keys -----------------------------------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter at once."""
        self.text = event.value.strip()
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
        """A model: on to its SAEs, at its last layer; an SAE: open it."""
        model = self.model
        if model is None:
            return
        if not self.on_saes:
            self._across(True)
            return
        found = self._saes
        if found:
            row = found[min(self.at_sae, len(found) - 1)]
            self.wb.show_main(Address(model.name, row.info.name))

    def _across(self, saes: bool) -> None:
        model = self.model
        name = model.name if model is not None else ""
        self._clear()
        self.on_saes = saes
        self.at_model = next((i for i, m in enumerate(self._models) if m.name == name), 0)
        if saes:
            rows = self._saes
            plain = [i for i, r in enumerate(rows) if r.info.name == f"L{r.info.layer}"] or list(range(len(rows)))
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
