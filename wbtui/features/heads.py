"""``HeadTable``: how every feature of an SAE takes part in the heads of one layer, in units of each head's own noise.

A ratio is a feature's statistic over the 99th percentile of the same statistic of random directions in the same head,
the larger percentile over null kinds: a loud head does not look busy, and 1 is the line of the noise (methods 1.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError
from wbtui.features.head_parts import (
    OTHER,
    PEAK,
    PERCENT,
    STATISTIC_WORDS,
    STATISTICS,
    Arrays,
    HeadNull,
    Part,
    Row,
    Share,
    largest,
    percentiles,
    strongest,
)
from wbtui.features.head_shares import HeadShares
from wbtui.schema_attention import (
    HEAD_SIDES,
    STABILITY,
    STABILITY_OFFSETS,
    STREAM_MEAN,
    attention_columns,
    is_estimate,
    ov_columns,
)
from wbtui.store.products import Product

if TYPE_CHECKING:
    from wbtui.catalog.plan_attention import AttentionPlan
    from wbtui.store.keys import ProductSpec

__all__ = [
    "OTHER", "PEAK", "PERCENT", "STATISTICS", "STATISTIC_WORDS", "HeadNull", "HeadTable", "Part", "Row", "Share",
    "largest", "strongest",
]  # fmt: skip


class HeadTable(HeadShares):
    """The heads of one layer over one SAE. Arrays that are returned are the table's: read them.

    Attributes:
        n: features. n_heads: query heads of the layer. layer: the reading layer.
        plan: None for arrays.
        version: rises whenever something landed.
    """

    def __init__(self, n: int, n_heads: int, layer: int, definition: AttentionDefinition | None = None) -> None:
        self.n, self.n_heads, self.layer = n, n_heads, layer
        self.definition = definition or AttentionDefinition()
        self.plan: AttentionPlan | None = None
        self.version = 0
        self.nulls: list[HeadNull] = []
        self.checks: list[HeadNull] = []
        self._columns: Arrays | None = None
        self._ov: Arrays | None = None
        self._ov_nulls: list[HeadNull] = []
        self._cache: dict[Any, Any] = {}
        self._sources: list[tuple[str, Product]] = []

    @classmethod
    def open(cls, cache: Path, plan: AttentionPlan) -> HeadTable:
        """The heads of a plan, whatever of its products is complete.

        Raises:
            StoreError: a product that is there but damaged, or of a newer version.
        """
        table = cls(plan.sae.d_sae, plan.facts.n_heads, plan.layer, plan.definition)
        table.plan = plan
        roles: Sequence[tuple[str, Sequence[ProductSpec]]] = (
            ("null", plan.nulls), ("attention", (plan.attention,)), ("check", plan.checks),
            ("ov", (plan.ov,)), ("ov_null", plan.ov_nulls),
        )  # fmt: skip
        table._sources = [(role, Product(cache, spec)) for role, specs in roles for spec in specs]
        table.refresh()
        return table

    @classmethod
    def from_arrays(
        cls,
        columns: Arrays,
        *,
        nulls: Sequence[HeadNull] = (),
        checks: Sequence[HeadNull] = (),
        ov: Arrays | None = None,
        ov_nulls: Sequence[HeadNull] = (),
        layer: int = 0,
        definition: AttentionDefinition | None = None,
    ) -> HeadTable:
        """A table over arrays in memory, ``<side>.<statistic>`` -> [n_heads, n]."""
        heads, n = columns["query.rms"].shape
        table = cls(n, heads, layer, definition)
        table._columns, table.nulls, table.checks = columns, list(nulls), list(checks)
        table._ov, table._ov_nulls = ov, list(ov_nulls)
        return table

    # -- state -----------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether ratios can be told: the scores and every null that sets a line are there."""
        return self._columns is not None and self._bars_ready

    @property
    def _bars_ready(self) -> bool:
        return bool(self.nulls) and not any(role == "null" for role, _ in self._sources)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, checks and OV included."""
        return not self._sources and self._columns is not None

    @property
    def missing(self) -> tuple[str, ...]:
        """Roles of what is not there yet: ``null``, ``attention``, ``check``, ``ov``, ``ov_null``."""
        return tuple(dict.fromkeys(role for role, _ in self._sources))

    @property
    def has_ov(self) -> bool:
        """Whether it is known what heads write."""
        return self._ov is not None

    def refresh(self) -> bool:
        """Take in products that finished; True if one did.

        Raises:
            StoreError: one of them is damaged.
        """
        left: list[tuple[str, Product]] = []
        for role, product in self._sources:
            if product.state != "complete":
                left.append((role, product))
                continue
            found = product.columns()
            null = product.spec.identity.get("null") or {}
            if role == "attention":
                self._columns = found
            elif role == "ov":
                self._ov = found
            else:
                sample = HeadNull(str(null["kind"]), int(null["seed"]), found)
                {"null": self.nulls, "check": self.checks, "ov_null": self._ov_nulls}[role].append(sample)
        changed = len(left) < len(self._sources)
        self._sources = left
        if changed:
            self.version += 1
            self._cache = {}
        return changed

    @property
    def statistic(self) -> str:
        """What bars and cells show unless asked otherwise: peaks; RMS until there are peaks."""

        def make() -> str:
            there = self._columns is None or bool(np.isfinite(self.column(f"query.{PEAK}")).any())
            return PEAK if there else "rms"

        return str(self._cached(PEAK, make))

    def estimated(self, statistic: str) -> bool:
        """Whether a statistic comes from a seeded sample of partners at this number of features."""
        column = attention_columns()[f"query.{statistic}"]
        return is_estimate(column, self.n, vars(self.definition))

    def null_words(self) -> str:
        """The nulls that set the line, in words."""
        if not self.nulls:
            return "no noise yet"
        return f"{max(null.n for null in self.nulls):,} directions of {len(self.nulls)} kind" + (
            "s" if len(self.nulls) > 1 else ""
        )

    # -- numbers ---------------------------------------------------------------------------------------------------

    def column(self, name: str) -> np.ndarray:
        """A stored column [n_heads, n]: ``query.max``, ``ov.norm``; all absent where its product is."""
        source = self._ov if name.startswith("ov.") else self._columns
        if source is not None and name in source:
            return np.asarray(source[name])
        kind = {**attention_columns(), **ov_columns()}[name]
        return self._cached(
            ("absent", name),
            lambda: np.full(
                (self.n_heads, self.n), np.nan if np.dtype(kind.dtype).kind == "f" else -1, dtype=kind.dtype
            ),
        )

    def bars(self, side: str, statistic: str | None = None) -> np.ndarray:
        """The line of the noise in each head [n_heads] float64: 99th percentile, the larger over null kinds.

        NaN before every null is there, and where it is not above zero.
        """
        name = f"{side}.{self._chosen(statistic)}"
        return self._cached(("bars", name), lambda: self._bars(name, self.nulls if self._bars_ready else []))

    def ov_bars(self, name: str) -> np.ndarray:
        """The same for ``ov.norm``, ``ov.gain``, ``ov.copy``."""
        ready = not any(role == "ov_null" for role, _ in self._sources)
        return self._cached(("bars", name), lambda: self._bars(name, self._ov_nulls if ready else []))

    def _bars(self, name: str, nulls: Sequence[HeadNull]) -> np.ndarray:
        found = [percentiles(np.asarray(null.columns[name], np.float64)) for null in nulls if name in null.columns]
        bars = np.max(found, axis=0) if found else np.full(self.n_heads, np.nan)
        return np.where(bars > 0, bars, np.nan)

    def ratios(self, side: str, statistic: str | None = None, null: HeadNull | None = None) -> np.ndarray:
        """Value over the head's line: [n_heads, n] float64, of the features or of a null's directions."""
        chosen = self._chosen(statistic)
        name = f"{side}.{chosen}"
        if null is not None:
            return np.asarray(null.columns[name], np.float64) / self.bars(side, chosen)[:, None]
        return self._cached(
            ("ratios", name), lambda: self.column(name).astype(np.float64) / self.bars(side, chosen)[:, None]
        )

    def head(self, head: int, side: str | None = None, statistic: str | None = None) -> np.ndarray:
        """One head's ratios [n] float64, of a side or the larger of both; NaN where there is none.

        Raises:
            UsageError: no such head.
        """
        if not 0 <= head < self.n_heads:
            raise UsageError(f"head {head} of layer {self.layer}", f"0 to {self.n_heads - 1}")
        chosen = self._chosen(statistic)
        sides = HEAD_SIDES if side is None else (side,)
        found = [self.column(f"{s}.{chosen}")[head].astype(np.float64) / self.bars(s, chosen)[head] for s in sides]
        return found[0] if len(found) == 1 else np.asarray(np.fmax(*found))

    def row(self, row: int, statistic: str | None = None) -> Row:
        """One feature in every head; reads as many numbers as there are heads.

        Raises:
            UsageError: no such feature.
        """
        if not 0 <= row < self.n:
            raise UsageError(f"feature {row}", f"0 to {self.n - 1}" if self.n else "no feature: the SAE has none")
        chosen = self._chosen(statistic)
        value = {s: self.column(f"{s}.{chosen}")[:, row].astype(np.float64) for s in HEAD_SIDES}
        ratio = {s: value[s] / self.bars(s, chosen) for s in HEAD_SIDES}
        partner = {s: self.column(f"{s}.partner")[:, row] for s in HEAD_SIDES}
        return Row(chosen, ratio, value, partner)

    def percentile(self, side: str, head: int, row: int, statistic: str | None = None) -> float:
        """Share (0…100) of the SAE's features that lie strictly below this one in a head; NaN without a value."""
        values = self.column(f"{side}.{self._chosen(statistic)}")[head]
        known = values[np.isfinite(values)]
        here = values[row]
        return float((known < here).sum() / len(known) * 100) if np.isfinite(here) else math.nan

    def top(self, head: int, side: str, k: int, statistic: str | None = None) -> list[tuple[int, Part]]:
        """The features that a head reads most on a side: (feature, its part), strongest first, ties by number."""
        chosen = self._chosen(statistic)
        ratios = self.head(head, side, chosen)
        values, partners = self.column(f"{side}.{chosen}")[head], self.column(f"{side}.partner")[head]
        return [
            (i, Part(head, side, float(ratios[i]), float(values[i]), int(partners[i])))
            for i in largest(ratios, k).tolist()
        ]

    def seekers(self, head: int, side: str, row: int, k: int) -> list[tuple[int, float]]:
        """Features on the other side that this one pairs with: its own peak, then every feature whose peak it is.

        Returns:
            list: (feature, score of the pair), strongest first; at most ``k``. Scores are S_ij of the pair, so over
            the head's line for this side they compare with the feature's own ratio. Only peaks are stored: partners
            whose own peak lies elsewhere are not listed.
        """
        other = OTHER[side]
        found: dict[int, float] = {}
        own = int(self.column(f"{side}.partner")[head][row])
        if own >= 0:
            found[own] = float(self.column(f"{side}.max")[head][row])
        back = np.flatnonzero(self.column(f"{other}.partner")[head] == row)
        scores = self.column(f"{other}.max")[head]
        found.update({int(i): float(scores[i]) for i in back if int(i) != own})
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:k]

    def stream_mean(self, side: str, statistic: str | None = None) -> np.ndarray:
        """The stream's mean (``b_dec``) as one more feature: its ratio in each head [n_heads], NaN without one."""
        chosen = self._chosen(statistic)
        name = f"{STREAM_MEAN}.{side}.{chosen}"
        if self._columns is None or name not in self._columns:
            return np.full(self.n_heads, np.nan)
        return np.asarray(self._columns[name], np.float64) / self.bars(side, chosen)

    def stability(self, head: int) -> dict[int, float]:
        """How much of a head's scores an offset leaves: offset -> cosine of all pairs' scores with those at 0; empty
        with learned positions, and where the product does not say."""
        if self._columns is None or STABILITY not in self._columns:
            return {}
        values = np.asarray(self._columns[STABILITY])[head].tolist()
        return {o: v for o, v in zip(STABILITY_OFFSETS, values, strict=True) if math.isfinite(v)}

    def _chosen(self, statistic: str | None) -> str:
        return self.statistic if statistic is None else statistic

    def _cached(self, key: Any, make: Any) -> Any:
        cache = self._cache  # a refresh in another thread lays a new one down: what is made from the old stays there
        if key not in cache:
            cache[key] = make()
        return cache[key]
