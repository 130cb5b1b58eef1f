"""What heads are told in: one head's part of a feature, shares beyond noise, nulls, a feature's row over heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from wbtui.schema_attention import HEAD_SIDES

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


def percentiles(values: np.ndarray) -> np.ndarray:
    """The 99th percentile of each row's finite values [rows]; NaN of none."""
    if bool(np.isfinite(values).all()) and values.size:
        return np.asarray(np.percentile(values, PERCENT, axis=1))
    rows = [row[np.isfinite(row)] for row in values]
    return np.array([np.percentile(row, PERCENT) if len(row) else np.nan for row in rows])
