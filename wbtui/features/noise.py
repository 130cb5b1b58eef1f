"""What random directions look like: medians, percentiles and the envelope's width of a null product (methods 1.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

EVIDENCE_METRICS = ("z_max", "z_10", "delta_h", "cos_tok", "lev")
METRICS = (*EVIDENCE_METRICS, "kurt", "mass_1", "mass_10")

Read = Callable[[str], np.ndarray]
"""A reader of one side's columns by bare name."""


@dataclass(frozen=True, eq=False)
class SideStats:
    """What one kind of noise looks like on one side. All float64."""

    median: dict[str, float]
    p95: dict[str, float]
    p99: dict[str, float]
    word_median: np.ndarray
    word_p99: np.ndarray
    word_max: np.ndarray
    c: float
    evidence_p99: float


class NullSample:
    """One finished null product.

    Args:
        kind: ``isotropic``, ``decoder_cov`` or ``sign_flip``.
        seed: its seed.
        columns: full name -> array ([N] or [N, k]); ``writes.`` and ``reads.`` sides. ``against`` equals writes by
            symmetry.
        n: directions; needed only when no column is at hand.
    """

    def __init__(self, kind: str, seed: int, columns: Any, n: int | None = None) -> None:
        self.kind = kind
        self.seed = seed
        self._columns = columns
        self.n = len(columns["writes.z_max"]) if n is None else n
        self._stats: dict[str, SideStats | None] = {}
        self._sorted: dict[str, np.ndarray] = {}

    @property
    def label(self) -> str:
        """Its name in summaries."""
        return f"{self.kind} (seed {self.seed})"

    def read(self, side: str) -> Read:
        """A reader of one side's columns by bare name."""
        prefix = "writes" if side == "against" else side
        return lambda name: np.asarray(self._columns[f"{prefix}.{name}"])

    def sorted(self, side: str, name: str) -> np.ndarray:
        """The finite values of one metric, ascending, float64."""
        key = f"{side}.{name}"
        if key not in self._sorted:
            values = self.read(side)(name).astype(np.float64)
            self._sorted[key] = np.sort(values[np.isfinite(values)])
        return self._sorted[key]

    def stats(self, side: str) -> SideStats | None:
        """Medians and percentiles of one side; None when no direction has a finite row there."""
        side = "writes" if side == "against" else side
        if side not in self._stats:
            self._stats[side] = _stats(self.read(side))
        return self._stats[side]


def percentiles(values: np.ndarray, percents: tuple[float, ...]) -> np.ndarray:
    """``np.percentile(values, percents, axis=0)`` to the last bit, for finite values. A start of the app needs it, and
    numpy's own first imports ``numpy.ma``, which takes longer than all that is computed here.

    Args:
        values: [n] or [n, k], n at least 1.
        percents: p of them, 0 to 100.

    Returns:
        np.ndarray: [p] or [p, k]; between two values linear, from the nearer one (numpy's default method).
    """
    ordered = np.sort(values, axis=0)
    at = (len(ordered) - 1) * (np.array(percents) / 100)
    low = np.floor(at).astype(np.intp)
    t = (at - low).reshape(-1, *(1,) * (ordered.ndim - 1))
    a, b = ordered[low], ordered[np.minimum(low + 1, len(ordered) - 1)]
    return np.asarray(np.where(t >= 0.5, b - (b - a) * (1 - t), a + (b - a) * t))


def _stats(read: Read) -> SideStats | None:
    z_max = read("z_max")
    if not np.isfinite(z_max).any():
        return None
    median, p95, p99 = {}, {}, {}
    for name in METRICS:
        values = read(name).astype(np.float64)
        values = values[np.isfinite(values)]
        triple = percentiles(values, (50, 95, 99)) if len(values) else (np.nan,) * 3
        median[name], p95[name], p99[name] = (float(v) for v in triple)
    words = read("word_z").astype(np.float64)
    words = words[np.isfinite(words).any(axis=1)] if words.size else words.reshape(0, words.shape[-1])
    k = words.shape[1]
    med, q, top = (np.full(k, np.nan) for _ in range(3))
    if words.size and np.isfinite(words).all():
        (med, q), top = percentiles(words, (50, 99)), words.max(axis=0)
    else:
        for j in range(k):
            values = words[np.isfinite(words[:, j]), j]
            if len(values):
                med[j], q[j] = percentiles(values, (50, 99))
                top[j] = values.max()
    spread = np.where(q - med > 0, q - med, np.nan)
    ratios = (words - med) / spread
    ratios = ratios[np.isfinite(ratios).any(axis=1)]
    c = float(percentiles(np.nanmax(ratios, axis=1), (99,))[0]) if len(ratios) else np.nan
    strongest = in_null_units(read, median, p99)
    strongest = strongest[np.isfinite(strongest)]
    evidence_p99 = float(percentiles(strongest, (99,))[0]) if len(strongest) else np.nan
    return SideStats(median, p95, p99, med, q, top, c, evidence_p99)


def in_null_units(read: Read, median: Mapping[str, float], p99: Mapping[str, float]) -> np.ndarray:
    """max over the evidence metrics of (m - median) / (p99 - median), float64 [n]; NaN where every metric is NaN.

    A metric whose null has no spread says nothing and is left out.
    """
    out: np.ndarray | None = None
    for name in EVIDENCE_METRICS:
        spread = p99[name] - median[name]
        if not spread > 0:
            continue
        units = (read(name).astype(np.float64) - median[name]) / spread
        out = units if out is None else np.fmax(out, units, out=out)
    return np.full(len(read("z_max")), np.nan) if out is None else out
