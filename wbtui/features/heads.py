"""``HeadTable``: how every feature of an SAE takes part in the heads of one layer, in units of each head's own noise.

A ratio is a feature's statistic over the 99th percentile of the same statistic of random directions in the same head,
the larger percentile over null kinds: a loud head does not look busy, and 1 is the line of the noise (methods 1.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wbtui.definitions import AttentionDefinition
from wbtui.errors import UsageError
from wbtui.schema_attention import HEAD_SIDES, STREAM_MEAN, attention_columns, is_estimate, ov_columns
from wbtui.store.products import Product

if TYPE_CHECKING:
    from wbtui.catalog.plan_attention import AttentionPlan
    from wbtui.store.keys import ProductSpec

PEAK = "max"
STATISTICS = (PEAK, "rms", "p75", "mean_abs", "max_cos", "cos_rms", "gain")
"""Statistics with a ratio, on both sides: none of them is negative for noise."""
STATISTIC_WORDS = {
    "max": "peak", "rms": "rms", "p75": "upper quartile", "mean_abs": "mean |score|", "max_cos": "cosine at the peak",
    "cos_rms": "rms cosine", "gain": "gain",
}  # fmt: skip
PERCENT = 99.0
OTHER = {"query": "key", "key": "query"}


class Arrays(Protocol):
    """Columns by name: a mapping of arrays, or a file's."""

    def __getitem__(self, name: str, /) -> np.ndarray: ...
    def __contains__(self, name: object, /) -> bool: ...


@dataclass(frozen=True, eq=False)
class HeadNull:
    """Random directions through the heads of a layer; ``columns``: name -> [n_heads, N]."""

    kind: str
    seed: int
    columns: Arrays

    @property
    def n(self) -> int:
        """Directions."""
        return int(
            self.columns["query.rms"].shape[1] if "query.rms" in self.columns else self.columns["ov.norm"].shape[1]
        )


@dataclass(frozen=True)
class Part:
    """One feature in one head on one side."""

    head: int
    side: str
    ratio: float
    value: float
    partner: int
    """The feature of the peak, -1 where there is none."""

    @property
    def beyond(self) -> bool:
        """Whether it stands beyond the line of the noise."""
        return self.ratio > 1


@dataclass(frozen=True)
class Share:
    """How many stand beyond a line, and how much noise does by the same line."""

    count: int
    n: int
    null: float
    """The largest share over the nulls that judge; NaN without one."""
    fresh: bool
    """Whether those nulls are others than the ones that set the line."""
    bar: float = 1.0

    @property
    def share(self) -> float:
        """Share beyond; NaN of nothing."""
        return self.count / self.n if self.n else math.nan


@dataclass(frozen=True, eq=False)
class Row:
    """One feature in every head of the layer: arrays [n_heads] by side. A head that is not there yet is NaN."""

    statistic: str
    ratio: dict[str, np.ndarray]
    value: dict[str, np.ndarray]
    partner: dict[str, np.ndarray]
    any_ratio: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> np.ndarray:
        """The larger side's ratio [n_heads]."""
        return np.asarray(np.fmax(self.ratio["query"], self.ratio["key"]))

    def part(self, side: str, head: int) -> Part:
        """One head's part."""
        return Part(
            head, side, float(self.ratio[side][head]), float(self.value[side][head]), int(self.partner[side][head])
        )

    def strongest(self, k: int, side: str | None = None) -> list[Part]:
        """The ``k`` largest ratios, of one side or of both; ties: query first, then the smaller head."""
        sides = HEAD_SIDES if side is None else (side,)
        stacked = np.concatenate([self.ratio[s] for s in sides])
        heads = len(self.ratio["query"])
        return [self.part(sides[i // heads], i % heads) for i in largest(stacked, k).tolist()]


class HeadTable:
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
        found = [_percentiles(np.asarray(null.columns[name], np.float64)) for null in nulls if name in null.columns]
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

    # -- populations -----------------------------------------------------------------------------------------------

    @property
    def judges(self) -> tuple[Sequence[HeadNull], bool]:
        """The nulls that tell how much noise lies beyond a line: fresh ones if there are, and whether they are."""
        fresh = [null for null in self.checks if null.kind != "sign_flip"]
        return (fresh, True) if fresh else (self.nulls, False)

    def pairs(self, side: str, statistic: str | None = None, head: int | None = None) -> Share:
        """(feature, head) pairs beyond the line, of all heads or of one, with the noise's own share."""
        which = slice(None) if head is None else slice(head, head + 1)

        def beyond(ratios: np.ndarray) -> tuple[int, int]:
            known = ratios[which][np.isfinite(ratios[which])]
            return int((known > 1).sum()), int(known.size)

        def make() -> Share:
            nulls, fresh = self.judges
            noise = [beyond(self.ratios(side, statistic, null)) for null in nulls]
            shares = [count / n for count, n in noise if n]
            return Share(*beyond(self.ratios(side, statistic)), max(shares) if shares else math.nan, fresh)

        return self._cached(("pairs", side, self._chosen(statistic), head), make)

    def any_head(self, side: str, statistic: str | None = None) -> Share:
        """Features that take part in some head: their largest ratio over heads is above the null's own 99th percentile
        of the largest ratio over heads, for with many heads noise passes one of them often (methods 1.3)."""

        def make() -> Share:
            bar = self.any_bar(side, statistic)
            own = strongest(self.ratios(side, statistic))
            known = own[np.isfinite(own)]
            nulls, fresh = self.judges
            shares = []
            for null in nulls:
                top = strongest(self.ratios(side, statistic, null))
                top = top[np.isfinite(top)]
                if len(top):
                    shares.append(float((top > bar).mean()))
            return Share(int((known > bar).sum()), len(known), max(shares) if shares else math.nan, fresh, bar)

        return self._cached(("any", side, self._chosen(statistic)), make)

    def any_bar(self, side: str, statistic: str | None = None) -> float:
        """99th percentile over directions of the largest ratio over heads, the larger over null kinds."""

        def make() -> float:
            found = [float(_percentiles(strongest(self.ratios(side, statistic, null))[None])[0]) for null in self.nulls]
            return max(found) if found and self._bars_ready else math.nan

        return self._cached(("any bar", side, self._chosen(statistic)), make)

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

    def _chosen(self, statistic: str | None) -> str:
        return self.statistic if statistic is None else statistic

    def _cached(self, key: Any, make: Any) -> Any:
        cache = self._cache  # a refresh in another thread lays a new one down: what is made from the old stays there
        if key not in cache:
            cache[key] = make()
        return cache[key]


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Positions of the ``k`` largest finite values, largest first, ties by position."""
    known = np.flatnonzero(np.isfinite(values))
    if k <= 0 or not len(known):
        return known[:0]
    if len(known) > k:
        own = values[known]
        least = np.partition(own, len(own) - k)[len(own) - k]
        known = known[own >= least]
    return known[np.argsort(-values[known], kind="stable")][:k]


def strongest(ratios: np.ndarray) -> np.ndarray:
    """The largest ratio over heads [n]; NaN where every head's is."""
    known = np.isfinite(ratios)
    out = np.where(known, ratios, -np.inf).max(0) if len(ratios) else np.full(ratios.shape[1:], np.nan)
    out[~known.any(0)] = np.nan
    return np.asarray(out)


def _percentiles(values: np.ndarray) -> np.ndarray:
    """The 99th percentile of each row's finite values [rows]; NaN of none."""
    if bool(np.isfinite(values).all()) and values.size:
        return np.asarray(np.percentile(values, PERCENT, axis=1))
    rows = [row[np.isfinite(row)] for row in values]
    return np.array([np.percentile(row, PERCENT) if len(row) else np.nan for row in rows])
