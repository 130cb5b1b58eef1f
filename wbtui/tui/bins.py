"""Bins whose edges can be read: round numbers that mean the same on the axis, in a filter and in a file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BINS = 60
"""At most so many bins; their edges are round numbers, so there may be a few less."""
TAIL = 0.001
"""Share of either end that may fall into an outermost bin, which holds all that lies beyond."""
ALIKE = 1e-3
"""Values that differ by less, relative to their size, are drawn as one (decoders scaled to norm 1)."""
SOME = 8 * BINS
"""Values of a sample among which it is looked first whether there are many different ones."""
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True, eq=False)
class Bins:
    """Shared bins of a metric. The outermost two hold all that lies beyond them.

    Attributes:
        edges: float64 [bins + 1], rising; each equals what :meth:`text` prints, in the metric's own precision.
        log: whether they are equal in the logarithm.
        whole: whether the metric has few values, evenly spaced (counts, tenths), one a bin.
    """

    edges: np.ndarray
    log: bool = False
    whole: bool = False
    texts: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many."""
        return len(self.edges) - 1

    def counts(self, ordered: np.ndarray) -> np.ndarray:
        """int64 [bins] of ascending finite values; a logarithmic axis leaves out what is not positive."""
        edges = self.edges.astype(ordered.dtype)
        if not np.array_equal(edges, self.edges):  # in its own precision a million values need not be copied
            edges = self.edges
        places = np.searchsorted(ordered, edges, side="left")
        places[0] = np.searchsorted(ordered, ordered.dtype.type(0), side="right") if self.log else 0
        places[-1] = len(ordered)
        return np.diff(np.maximum(places, places[0]))

    def where(self, value: float) -> int:
        """The bin that holds a value; the outermost ones hold what lies beyond."""
        return min(max(int(np.searchsorted(self.edges, value, side="right")) - 1, 0), self.n - 1)

    def text(self, i: int) -> str:
        """Edge ``i`` as a short number."""
        return self.texts[i]

    def centre(self, i: int) -> str:
        """The middle of bin ``i``: with ``whole`` the value that it holds."""
        step = self.edges[1] - self.edges[0]
        decimals = max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
        return f"{(float(self.texts[i]) + float(self.texts[i + 1])) / 2 + 0.0:.{decimals}f}"

    def span(self, first: int, stop: int) -> str:
        """Bins ``first`` to ``stop`` (excluded) in words."""
        if self.whole and stop == first + 1 and 0 < first < self.n - 1:
            return self.centre(first)
        if first <= 0 and stop >= self.n:
            return "all"
        if first <= 0:
            return f"below {self.text(stop)}"
        if stop >= self.n:
            return f"{self.text(first)} and more"
        return f"{self.text(first)} to {self.text(stop)}"

    def expression(self, name: str, first: int, stop: int) -> str:
        """The filter (:mod:`wbtui.features.query`) that lets through bins ``first`` to ``stop`` (excluded)."""
        parts = [f"{name}>={self.text(first)}"] if first > 0 else [f"{name}>0"] if self.log else []
        if stop < self.n:
            parts.append(f"{name}<{self.text(stop)}")
        return " ".join(parts) or f"{name}>=-inf"


def make_bins(samples: list[np.ndarray], *, log: bool = False, single: bool = True) -> Bins:
    """Bins for ascending samples: round edges, at most :data:`BINS`, over all but :data:`TAIL` of either end.

    Args:
        samples: each ascending and finite.
        log: equal in the logarithm; values that are not positive are left out.
        single: the metric is float32: edges are compared in that precision, as the filter does.
    """
    if log:
        samples = [s[np.searchsorted(s, s.dtype.type(0), side="right") :] for s in samples]
    samples = [s for s in samples if len(s)]
    if not samples:
        return _named(np.array([0.0, 1.0]) if not log else np.array([1.0, 10.0]), log, single)
    low, high = min(float(s[0]) for s in samples), max(float(s[-1]) for s in samples)
    if not log and (step := _spacing(samples)):
        return _named(low + (np.arange(round((high - low) / step) + 2) - 0.5) * step, False, single, whole=True)
    low = min(float(s[int(TAIL * (len(s) - 1))]) for s in samples)
    high = max(float(s[math.ceil((1 - TAIL) * (len(s) - 1))]) for s in samples)
    if not high - low > ALIKE * max(abs(low), abs(high)):  # one value, or as good as one
        middle = float(f"{(low + high) / 2:.3g}")
        low, high = middle * 0.5, middle * 1.5
        if middle <= 0:
            low, high = (high, low) if middle else (-0.5, 0.5)
        if not log:  # three bins, the values in the middle of the second
            return _named(middle + (high - low) * np.array([-1.5, -0.5, 0.5, 1.5]), False, single)
    if log:
        edges = np.geomspace(low, high, BINS + 1)
        for digits in range(3, 9):
            rounded = np.array([float(f"{e:.{digits}g}") for e in edges])
            if (np.diff(rounded) > 0).all() and (np.diff(rounded.astype(np.float32)) > 0).all():
                break
        return _named(rounded, True, single)
    step = _round_step((high - low) / BINS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last - first > BINS:
        step = _round_step(step * 1.0001)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return _named(np.arange(first, max(last, first + 1) + 1) * step, False, single)


def _distinct(ordered: np.ndarray) -> np.ndarray:
    return ordered[np.append(True, ordered[1:] != ordered[:-1])]


def _spacing(samples: list[np.ndarray]) -> float:
    """The step between values where there are few, evenly spaced ones; 0 where not."""
    if any(len(_distinct(s[:: max(1, len(s) // SOME)])) > BINS for s in samples):
        return 0.0  # as nearly always: told without looking at all of them
    distinct = [_distinct(s) for s in samples]
    if any(len(d) > BINS for d in distinct):
        return 0.0
    values = np.unique(np.concatenate(distinct)).astype(np.float64)
    if len(values) < 3 and not np.array_equal(values, np.rint(values)):
        return 0.0
    gaps = np.diff(values)
    if not len(gaps):
        return 1.0
    step = 1.0 if np.array_equal(values, np.rint(values)) else round(float(gaps.min()), 4)
    if step <= 0 or (values[-1] - values[0]) / step >= BINS:
        return 0.0
    return step if np.allclose(gaps / step, np.rint(gaps / step), atol=1e-3) else 0.0


def _round_step(least: float) -> float:
    """The smallest round number not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((r * power for r in _ROUND if r * power >= least), 10 * power)


def _named(edges: np.ndarray, log: bool, single: bool, whole: bool = False) -> Bins:
    """Bins whose edges are exactly what their texts say, in the metric's precision."""
    if log:
        texts = tuple(f"{e:.8g}" for e in edges)
    else:
        step = float(edges[1] - edges[0])
        decimals = next((d for d in range(13) if np.abs(np.round(edges, d) - edges).max() <= 1e-4 * step), -1)
        edges = np.where(np.abs(edges) < 1e-6 * step, 0.0, edges)
        texts = tuple(f"{e:.{decimals}f}" if decimals >= 0 else f"{e:.8g}" for e in edges)
    exact = np.array([float(t) for t in texts])
    if single:
        exact = exact.astype(np.float32).astype(np.float64)
    # values so close, or so near zero, that the precision runs out between two edges: those edges are one
    exact, first = np.unique(exact, return_index=True)
    if len(exact) < 2:
        return _named(np.array([1.0, 10.0]) if log else exact[0] + np.array([-0.5, 0.5]), log, single)
    return Bins(exact, log, whole, tuple(texts[i] for i in first))
