"""What a report is made from: the tables of a model's SAEs, and the heads that read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from wbtui.catalog.models import ModelInfo
from wbtui.catalog.saes import SaeInfo
from wbtui.display import safe_token_text
from wbtui.features.depth_profiles import curve_of
from wbtui.features.summary import summary
from wbtui.features.table import FeatureTable

HEAD_SIDES = ("query", "key")
POST = {"query.post": "query.conc", "key.post": "key.received"}


@dataclass(frozen=True, eq=False)
class HeadNull:
    """Random directions through the same heads. ``columns``: name -> [n_heads, N]."""

    kind: str
    seed: int
    columns: Mapping[str, np.ndarray]

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.kind} (seed {self.seed})"


@dataclass(frozen=True, eq=False)
class HeadValues:
    """How one SAE's features take part in the heads of one layer: the seam to the attention products.

    Attributes:
        layer: the reading layer.
        columns: ``<side>.<statistic>`` -> [n_heads, n], as :mod:`wbtui.schema_attention` names and lays them out.
        nulls: those that set bars. checks: fresh ones, judged by the bars.
        note: definition and conditions in words.
    """

    layer: int
    columns: Mapping[str, np.ndarray]
    nulls: tuple[HeadNull, ...] = ()
    checks: tuple[HeadNull, ...] = ()
    note: str = ""
    _bars: dict[tuple[str, float], Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_heads(self) -> int:
        """Query heads of the layer."""
        return len(next(iter(self.columns.values())))

    def has(self, name: str) -> bool:
        """Whether a statistic is there."""
        return POST.get(name, name) in self.columns

    def values(self, name: str, columns: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """float64 [n_heads, n], of the features or of a null's columns."""
        return np.asarray((self.columns if columns is None else columns)[POST.get(name, name)], np.float64)

    def bars(self, name: str, percent: float = 99.0) -> np.ndarray:
        """Per head, the larger of the nulls' percentiles: [n_heads], NaN without a null."""
        if (name, percent) not in self._bars:
            found = [np.nanpercentile(self.values(name, null.columns), percent, axis=1) for null in self.nulls]
            self._bars[name, percent] = np.max(found, axis=0) if found else np.full(self.n_heads, np.nan)
        return np.asarray(self._bars[name, percent])

    def strongest(self, name: str, columns: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """max over heads of value / that head's bar: [n], NaN where every head's value is."""
        values = self.values(name, columns) / self.bars(name)[:, None]
        none = ~np.isfinite(values).any(0)
        out = np.where(np.isfinite(values), values, -np.inf).max(0)
        out[none] = np.nan
        return out

    def any_bar(self, name: str, percent: float = 99.0) -> float:
        """The nulls' own percentile of :meth:`strongest`: the bar of "takes part in some head" (methods 1.3)."""
        key = f"any {name}", percent
        if key not in self._bars:
            found = [np.nanpercentile(self.strongest(name, n.columns), percent) for n in self.nulls]
            self._bars[key] = float(max(found)) if found else float("nan")
        return float(self._bars[key])

    @property
    def null_words(self) -> str:
        """The nulls that set bars, in words."""
        if not self.nulls:
            return "no null"
        return " + ".join(f"{next(iter(n.columns.values())).shape[1]:,} {n.kind}" for n in self.nulls) + " directions"


@dataclass(eq=False)
class SaeData:
    """One SAE of the report.

    Attributes:
        table: its finished table.
        heads: the reading layer's heads, None where there are none or they are not computed (``no_heads`` says why).
        families: int [n], the cluster of near-duplicates that each feature belongs to; None where not searched.
        extra: not in the depth curves: a second SAE at a layer that has one.
    """

    info: SaeInfo
    table: FeatureTable
    heads: HeadValues | None = None
    no_heads: str = "attention is not computed"
    families: np.ndarray | None = None
    extra: bool = False

    @property
    def name(self) -> str:
        """Short name, safe to print: it stands in tables, figures and the page."""
        return safe_token_text(self.info.name)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Class shares of features and noise (:func:`wbtui.features.summary.summary`)."""
        return summary(self.table)


@dataclass(eq=False)
class ModelData:
    """A model and its SAEs, by depth."""

    model: ModelInfo
    saes: list[SaeData]
    definition: str
    warnings: list[str] = field(default_factory=list)

    @property
    def curve(self) -> list[SaeData]:
        """One SAE a layer, of one kind: those that depth profiles and pooled figures are over."""
        return [s for s in self.saes if not s.extra]

    @property
    def with_heads(self) -> list[SaeData]:
        """Those of the curve whose heads are known."""
        return [s for s in self.curve if s.heads is not None]


def mark_extras(saes: Sequence[SaeData]) -> list[str]:
    """Choose the SAEs of the depth curves: the site, width and architecture with most layers, one SAE at each.

    Where a layer has several, the canonical short name (``L3``) stays, else the shortest.

    Returns:
        list[str]: a line about what was left out of the curves.
    """
    chosen = curve_of([sae.info for sae in saes])
    for sae in saes:
        sae.extra = sae.info not in chosen
    left = [s.name for s in saes if s.extra]
    return [f"Not in depth curves and pooled figures (one SAE a layer, one kind): {', '.join(left)}."] if left else []


HeadReader = Callable[[SaeInfo], "HeadValues | str"]
"""Gives an SAE's heads, or why there are none."""
