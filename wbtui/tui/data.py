"""Opening places, putting rows in order, remembering the session: what runs in threads, away from the event loop."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui import paths
from wbtui.address import Address, parse_address
from wbtui.catalog.models import ModelInfo, find_model, list_models
from wbtui.catalog.plan import TokensPlan, plan_tokens
from wbtui.catalog.saes import SaeInfo, find_sae, list_saes
from wbtui.definitions import TokensDefinition
from wbtui.errors import UsageError, WbtuiError
from wbtui.notes.store import NoteStore, kept_of
from wbtui.tui.state import Rows, SortKey, View, from_session, to_session

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


@dataclass
class Opened:
    """A model, an SAE and its table."""

    model: ModelInfo
    sae: SaeInfo
    saes: tuple[SaeInfo, ...]
    plan: TokensPlan
    table: FeatureTable
    cache: Path
    writable: bool
    missing: tuple[str, ...]
    """Analyses of which something is missing; empty: nothing need be asked of the service."""

    def layer_neighbour(self, step: int) -> SaeInfo | None:
        """The SAE ``step`` layers on at the same kind of hook: the nearest layer that has one, its first by name."""
        here = self.sae.layer
        beyond = [s for s in self.saes if (s.layer - here) * step > 0 and s.site == self.sae.site]
        if not beyond:
            return None
        layer = min((s.layer for s in beyond), key=lambda at: abs(at - here))
        return next(s for s in beyond if s.layer == layer)


def checked_address(text: str | None) -> Address | None:
    """The address to open, with model, SAE and feature looked up so that a wrong one fails before the screen is taken.

    Raises:
        UsageError: not an address, no such model, SAE or feature. WeightsError: there, but not readable.
    """
    if text is None:
        return None
    address = parse_address(text)
    model = find_model(address.model)
    if address.sae is not None:
        sae = find_sae(model, address.sae)
        if address.feature is not None and address.feature >= sae.d_sae:
            raise UsageError(f"feature {address.feature} of {model.name}@{sae.name}", f"0 to {sae.d_sae - 1}")
    return address


def open_address(address: Address, cache: Path, definition: TokensDefinition, notes: NoteStore | None = None) -> Opened:
    """Find, plan and map (no torch, no service).

    Raises:
        WbtuiError: unknown model or SAE, a feature out of range, unreadable weights or cache.
    """
    from wbtui.features.table import FeatureTable
    from wbtui.store.products import Product

    model = find_model(address.model)
    if address.sae is None:
        raise UsageError(f"{address}: no SAE", "MODEL@SAE")
    sae = find_sae(model, address.sae)
    if address.feature is not None and not 0 <= address.feature < sae.d_sae:
        raise UsageError(f"feature {address.feature} of {model.name}@{sae.name}", f"0 to {sae.d_sae - 1}")
    plan = plan_tokens(model, sae, definition, cache)
    for spec in plan.all(checks=False):  # the service must not evict what is on a screen
        Product(cache, spec).hold_until_exit()
    table = FeatureTable.open(cache, plan)
    table.keep(kept_of(table.origin, notes))
    saes = tuple(list_saes(model))
    return Opened(model, sae, saes, plan, table, cache, writable(cache), missing_analyses(cache, plan))


class Early:
    """A place that is opened, and its first rows put in order, in a thread of its own while the app is loaded."""

    def __init__(
        self, address: Address, cache: Path, definition: TokensDefinition, filter: str, sort: tuple[SortKey, ...]
    ) -> None:
        self.address = address
        self._opened: Opened | None = None
        self._arranged: Arranged | None = None
        self._error: Exception | None = None

        def work() -> None:
            try:
                opened = open_address(address, cache, definition)
                self._arranged = arrange(opened.table, filter, sort)  # the table remembers what it took
                self._opened = opened
            except Exception as error:
                self._error = error

        self._thread = threading.Thread(target=work, name="wbtui-early", daemon=True)
        self._thread.start()

    def ready(self, within: float) -> tuple[Opened, Arranged] | None:
        """The place and its first rows; None where they are not there within so many seconds, or cannot be had."""
        self._thread.join(within)
        opened, arranged = self._opened, self._arranged
        return (opened, arranged) if opened is not None and arranged is not None else None

    def result(self) -> Opened:
        """The place, once it is there.

        Raises:
            WbtuiError, OSError: as :func:`open_address`.
        """
        self._thread.join()
        if self._opened is None:
            raise self._error or RuntimeError("the early thread ended without a word")
        return self._opened


def missing_analyses(cache: Path, plan: TokensPlan) -> tuple[str, ...]:
    """Analyses of a plan that are not complete in the cache, checks included, each once."""
    from wbtui.store.products import Product

    out: list[str] = []
    for spec in plan.all():
        if spec.analysis not in out and Product(cache, spec).state != "complete":
            out.append(spec.analysis)
    return tuple(out)


def writable(cache: Path) -> bool:
    """Whether products can be written: the cache, or the nearest folder above it that exists, can be."""
    place = cache
    while not place.exists() and place != place.parent:
        place = place.parent
    return os.access(place, os.W_OK | os.X_OK)


CARD_COLUMNS = ("writes.class", "reads.class", "writes.n_words", "writes.evidence", "unclear.writes", "same")
"""Derived columns that a card reads."""


@dataclass(frozen=True)
class Arranged:
    """Filter and order applied to a version of the table; ``rows`` is None where the filter is wrong."""

    rows: Rows | None
    filter: str
    sort: tuple[SortKey, ...]
    version: int
    error: str = ""
    hint: str = ""
    """Where nothing matches: the nearest thing that would (:func:`why_empty`, a moment later)."""


def arrange(table: FeatureTable, text: str, sort: tuple[SortKey, ...], columns: tuple[str, ...] = ()) -> Arranged:
    """Which rows, in which order. Drawn columns that no row has by itself are made on the way, off the event loop."""
    from wbtui.features.names import is_name
    from wbtui.features.order import order
    from wbtui.features.query import parse

    version = table.version
    try:
        ordered = order(table, list(sort), parse(text).mask(table) if text.strip() else None)
        for name in (*columns, *CARD_COLUMNS):
            if is_name(name):
                table.prepare(name)
    except WbtuiError as error:
        return Arranged(None, text, sort, version, error=error.line())
    return Arranged(Rows(ordered, table.n), text, sort, version)


def why_empty(table: FeatureTable, text: str) -> str:
    """What would match where a filter matches nothing; empty where nothing is near.

    Not a part of :func:`arrange`: it looks at each term again and at all words, which no keystroke should wait for.
    """
    from wbtui.features.query import parse

    try:
        return parse(text).why_empty(table)
    except WbtuiError:
        return ""


@dataclass(frozen=True)
class SaeRow:
    """An SAE in the start screen's list."""

    info: SaeInfo
    state: str
    """``complete``, ``partial``, ``absent``, or ``error``."""
    line: str = ""


def models() -> list[ModelInfo]:
    """Every model that can be opened."""
    return list_models()


def sae_rows(model: ModelInfo, cache: Path, definition: TokensDefinition) -> list[SaeRow]:
    """A model's SAEs and what is computed of each."""
    from wbtui.catalog.computed import tokens_state

    return [SaeRow(sae, *tokens_state(model, sae, definition, cache)) for sae in list_saes(model)]


def session_path() -> Path:
    """Where the last view is remembered."""
    return paths.data_dir() / "session.json"


def save_session(view: View) -> None:
    """Remember a view for the next start; a data folder that cannot be written is no one's worry."""
    path = session_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.tmp")
        new.write_text(json.dumps(to_session(view)), encoding="utf-8")
        os.replace(new, path)
    except OSError:
        return


def load_session() -> View | None:
    """The last view, if there is one that can be read."""
    try:
        data: Any = json.loads(session_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return from_session(data) if isinstance(data, dict) else None
