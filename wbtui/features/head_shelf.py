"""The head tables of one SAE, a layer at a time, each planned and opened when it is first asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wbtui.catalog.plan_attention import no_reader, plan_attention, readers
from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError, WbtuiError
from wbtui.features.heads import STATISTICS, HeadTable

if TYPE_CHECKING:
    from wbtui.catalog.models import ModelInfo
    from wbtui.catalog.saes import SaeInfo

_NAME = re.compile(r"head:L(\d{1,4})\.H(\d{1,5})(?:\.(query|key))?(?:\.([a-z0-9_]+))?", re.ASCII)
_PEAK = {"peak": "max"}


class HeadShelf:
    """Which layers read an SAE's stream, and their tables.

    Args:
        cache: product cache; model, sae: whose; definition: of attention.
    """

    def __init__(
        self, cache: Path, model: ModelInfo, sae: SaeInfo, definition: AttentionDefinition | None = None
    ) -> None:
        self.definition = definition or AttentionDefinition()
        self.layers: tuple[int, ...] = tuple(readers(model, sae))
        """Layers whose heads can read it, the first reader first."""
        self.absent: str = no_reader(model, sae) or ""
        """Why no head reads it, in words; empty where some do."""
        self.failures: dict[int, str] = {}
        """Layers that could not be planned or opened, and why."""
        self._made: dict[int, HeadTable] = {}
        self._where = (cache, model, sae)
        self._lock = threading.Lock()

    @classmethod
    def of(cls, tables: Mapping[int, HeadTable]) -> HeadShelf:
        """A shelf of tables in memory."""
        shelf = cls.__new__(cls)
        shelf.definition = AttentionDefinition()
        shelf.layers, shelf.absent, shelf.failures = tuple(sorted(tables)), "", {}
        shelf._made = dict(tables)
        shelf._lock = threading.Lock()
        return shelf

    @property
    def first(self) -> int | None:
        """The reader layer."""
        return self.layers[0] if self.layers else None

    def peek(self, layer: int | None = None) -> HeadTable | None:
        """A layer's table if it was opened already; by default the reader layer's. Reads no file."""
        return self._made.get(self.layers[0] if layer is None and self.layers else -1 if layer is None else layer)

    def table(self, layer: int | None = None) -> HeadTable:
        """A layer's table, by default the reader layer's; planned and opened at the first call.

        Raises:
            UsageError: no head reads the SAE's stream, or not those of this layer.
            WbtuiError: weights or products that cannot be read.
        """
        if not self.layers:
            raise UsageError(self.absent, "an SAE on a stream that a later layer's heads read")
        layer = self.layers[0] if layer is None else layer
        if layer not in self.layers:
            raise UsageError(
                f"heads of layer {layer}", f"a layer from {self.layers[0]} to {self.layers[-1]}, which read this SAE"
            )
        with self._lock:
            if layer not in self._made:
                cache, model, sae = self._where
                try:
                    self._made[layer] = HeadTable.open(cache, plan_attention(model, sae, self.definition, cache, layer))
                except (WbtuiError, OSError) as error:
                    self.failures[layer] = error.line() if isinstance(error, WbtuiError) else str(error)
                    raise
                self.failures.pop(layer, None)
            return self._made[layer]

    def look(self) -> None:
        """Open every layer's table that can be; what cannot is in ``failures``."""
        for layer in self.layers:
            try:
                self.table(layer)
            except (WbtuiError, OSError):
                continue

    def refresh(self) -> bool:
        """Take in what finished, in the tables that are open; True if something did."""
        with self._lock:  # screens look from threads; a product must be taken once
            changed = [table.refresh() for table in self._made.values()]  # every one looks
        return any(changed)

    def column(self, name: str) -> np.ndarray:
        """A metric ``head:L4.H2[.side][.statistic]``: ratios [n] float32, NaN where there is none.

        Raises:
            UsageError: no such layer or head.
        """
        table, head, side, statistic = self._found(name)
        return table.head(head, side, statistic).astype(np.float32)

    def leader(self, name: str) -> tuple[np.ndarray, int]:
        """Which head leads each feature by a head's metric (:meth:`HeadTable.leader`), and the head that is named.

        Raises:
            UsageError: no such layer or head.
        """
        table, head, side, statistic = self._found(name)
        return table.leader(side, statistic), head

    def _found(self, name: str) -> tuple[HeadTable, int, str | None, str]:
        """A metric's table, head, side and statistic.

        Raises:
            UsageError: no such layer or head; names the nearest that there is.
        """
        layer, head, side, statistic = parts_of(name)
        rest = name[name.index(".H") :]
        if not self.layers:
            raise UsageError(f"{name}: {self.absent}", "an SAE on a stream that a later layer's heads read")
        if layer not in self.layers:
            near = min(self.layers, key=lambda there: abs(there - layer))
            whole = f"layers {self.layers[0]} to {self.layers[-1]}" if len(self.layers) > 1 else f"layer {near}"
            raise UsageError(
                f"{name}: no head of layer {layer} reads this SAE", f"a head of {whole}", f"nearest: head:L{near}{rest}"
            )
        table = self.table(layer)
        if head >= table.n_heads:
            last = table.n_heads - 1
            near_name = f"head:L{layer}.H{last}" + rest.removeprefix(f".H{head}")
            raise UsageError(
                f"{name}: layer {layer} has no head {head}", f"0 to {last}, as H0 to H{last}", f"nearest: {near_name}"
            )
        return table, head, side, statistic


def canonical(name: str) -> str | None:
    """The canonical spelling of a head's metric, None for anything else: ``head:L4.H2.peak`` is ``head:L4.H2``."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    statistic = _PEAK.get(match[4], match[4]) if match[4] else ""
    if statistic and statistic not in STATISTICS:
        return None
    text = f"head:L{int(match[1])}.H{int(match[2])}" + (f".{match[3]}" if match[3] else "")
    return text + (f".{statistic}" if statistic and statistic != "max" else "")


def parts_of(name: str) -> tuple[int, int, str | None, str]:
    """(layer, head, side or None for the larger, statistic) of a head's metric.

    Raises:
        UsageError: not one.
    """
    match = _NAME.fullmatch(canonical(name) or "")
    if match is None:
        raise UsageError(f"metric {name!r}", "head:L4.H2, with .query or .key, with one of " + ", ".join(STATISTICS))
    return int(match[1]), int(match[2]), match[3], match[4] or "max"
