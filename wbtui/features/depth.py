"""Depth profiles over the SAEs of a model (methods 1.2 "Depth shape", 1.3 "Depth variability"); numpy only.

A profile is one number a layer with how its threshold was set. Its shape is a contrast, mean(first third, last third)
minus mean(middle third), with an interval from a bootstrap of layers within their thirds; least squares on 1, t, t²
join it from 12 layers on. Positive = U, negative = inverted U. A share by a quantile of each layer alone is flat by
definition and is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wbtui.errors import UsageError
from wbtui.features.populations import Cut
from wbtui.features.summary import wilson

MIN_LAYERS_FOR_SHAPE = 12
TOO_FEW = "too few layers for a shape"
N_BOOT = 2000
_EXACT_LAYERS = 12


@dataclass(frozen=True)
class LayerPoint:
    """One layer of a profile.

    Attributes:
        label: the SAE.
        layer: its layer, the place on the axis.
        value: share or mean.
        low, high: its 95 % interval (Wilson for shares; NaN where there is none).
        n: rows it is over.
        null: what noise gives in its place, NaN where nothing is known.
    """

    label: str
    layer: float
    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0
    null: float = float("nan")


def share_point(label: str, layer: float, count: int, n: int, null: float = float("nan")) -> LayerPoint:
    """A layer's share with its Wilson interval; NaN without rows."""
    low, high = wilson(count, n)
    return LayerPoint(label, layer, count / n if n else float("nan"), low, high, n, null)


@dataclass(frozen=True)
class Contrast:
    """Outer thirds minus middle third, with a 95 % interval from resampled layers."""

    value: float
    low: float
    high: float
    layers: tuple[int, int, int]
    """Layers in the first, middle and last third."""


@dataclass(frozen=True)
class Quadratic:
    """a + b t + c t², t = layer / (n_layers - 1): c is the curvature."""

    a: float
    b: float
    c: float
    r2: float


@dataclass(frozen=True)
class Shape:
    """What can be said about a profile's shape. ``verdict``: U, inverted U, no clear shape, or why nothing is said."""

    verdict: str
    contrast: Contrast | None
    quadratic: Quadratic | None


@dataclass(frozen=True)
class DepthProfile:
    """One number a layer, in order of depth."""

    name: str
    cut: Cut
    n_layers: int
    """Layers of the model, not only those with an SAE."""
    points: tuple[LayerPoint, ...]
    shape: Shape = field(default=Shape(TOO_FEW, None, None))

    @property
    def values(self) -> np.ndarray:
        """float64 [points]."""
        return np.array([p.value for p in self.points])


def profile(name: str, points: Sequence[LayerPoint], cut: Cut, n_layers: int, seed: int = 0) -> DepthProfile:
    """A depth curve.

    Raises:
        UsageError: the threshold is a quantile of each layer alone, or two points stand at one layer.
    """
    if cut.flat_by_definition:
        raise UsageError(
            f"a depth curve of {name} by a per-layer quantile ({cut.pool})",
            "a threshold from noise, a fixed one, or a quantile pooled over all layers",
            "a quantile of each layer passes the same share of every layer by definition",
        )
    ordered = tuple(sorted((p for p in points if np.isfinite(p.value)), key=lambda p: p.layer))
    if len({p.layer for p in ordered}) != len(ordered):
        raise UsageError(f"{name}: two SAEs at one layer", "one SAE a layer in one curve")
    values = np.array([p.value for p in ordered])
    place = np.array([p.layer for p in ordered])
    return DepthProfile(name, cut, n_layers, ordered, shape(values, place, n_layers, seed))


def thirds(layers: np.ndarray, n_layers: int) -> np.ndarray:
    """0, 1, 2 for the first, middle and last third of the model: int [n]. t = layer / (n_layers - 1)."""
    t = np.asarray(layers, np.float64) / max(n_layers - 1, 1)
    return np.where(t < 1 / 3, 0, np.where(t > 2 / 3, 2, 1))


def contrast(
    values: np.ndarray, layers: np.ndarray, n_layers: int, seed: int = 0, n_boot: int = N_BOOT
) -> Contrast | None:
    """Outer minus middle with a bootstrap of layers within thirds; None where a third has no layer."""
    where = thirds(layers, n_layers)
    parts = [np.asarray(values, np.float64)[where == k] for k in range(3)]
    counts = len(parts[0]), len(parts[1]), len(parts[2])
    if not all(counts):
        return None
    rng = np.random.default_rng(seed)
    means = [part[rng.integers(0, len(part), (n_boot, len(part)))].mean(1) for part in parts]
    low, high = np.percentile((means[0] + means[2]) / 2 - means[1], (2.5, 97.5))
    value = (parts[0].mean() + parts[2].mean()) / 2 - parts[1].mean()
    return Contrast(float(value), float(low), float(high), counts)


def quadratic(values: np.ndarray, layers: np.ndarray, n_layers: int) -> Quadratic | None:
    """Least squares on 1, t, t²; None below 12 layers."""
    values = np.asarray(values, np.float64)
    if len(values) < MIN_LAYERS_FOR_SHAPE:
        return None
    t = np.asarray(layers, np.float64) / max(n_layers - 1, 1)
    design = np.stack([np.ones_like(t), t, t * t], 1)
    found, *_ = np.linalg.lstsq(design, values, rcond=None)
    rest = float(((values - design @ found) ** 2).sum())
    spread = float(((values - values.mean()) ** 2).sum())
    a, b, c = (float(v) for v in found)
    return Quadratic(a, b, c, 1 - rest / spread if spread > 0 else float("nan"))


def shape(values: np.ndarray, layers: np.ndarray, n_layers: int, seed: int = 0) -> Shape:
    """Contrast always, where it exists; a verdict and a fit only at 12 layers or more."""
    found = contrast(values, layers, n_layers, seed) if len(values) else None
    if len(values) < MIN_LAYERS_FOR_SHAPE or found is None:
        return Shape(TOO_FEW, found, None)
    verdict = "U" if found.low > 0 else "inverted U" if found.high < 0 else "no clear shape"
    return Shape(verdict, found, quadratic(values, layers, n_layers))


def variation(values: np.ndarray) -> float:
    """Coefficient of variation over layers (population standard deviation over mean); NaN below two layers."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(values.std() / abs(values.mean())) if len(values) > 1 and values.mean() else float("nan")


@dataclass(frozen=True)
class VariationTest:
    """CV over depth of one side minus the other's, against sides exchanged layer by layer.

    Attributes:
        first, second: the two CVs. difference: first - second.
        null_low, null_high: 2.5 and 97.5 % of the exchanged differences. p: the share of arrangements that reach the
            difference, itself included. smallest_p: the least that so few layers can give.
    """

    first: float
    second: float
    difference: float
    null_low: float
    null_high: float
    p: float
    smallest_p: float
    n_layers: int


def compare_variation(first: np.ndarray, second: np.ndarray, seed: int = 0, n_random: int = 4096) -> VariationTest:
    """Whether ``first`` varies more over depth than ``second`` (methods 1.1 row 13).

    Each side's profile is divided by its own mean, and the two are exchanged at random within layers: every
    arrangement up to 12 layers, ``n_random`` seeded ones beyond.

    Args:
        first, second: [layers], the layer means of each side.
    """
    pair = np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)])
    pair = pair[:, np.isfinite(pair).all(0)]
    n = pair.shape[1]
    nan = float("nan")
    if n < 2 or not pair.mean(1).all():
        return VariationTest(nan, nan, nan, nan, nan, nan, 1.0, n)
    own = variation(pair[0]), variation(pair[1])
    relative = pair / pair.mean(1, keepdims=True)
    if n <= _EXACT_LAYERS:
        swaps = np.array(list(itertools.product((False, True), repeat=n)))
    else:
        swaps = np.random.default_rng(seed).random((n_random, n)) < 0.5
        swaps[0] = False
    a = np.where(swaps, relative[1], relative[0])
    b = np.where(swaps, relative[0], relative[1])
    differences = a.std(1) / a.mean(1) - b.std(1) / b.mean(1)
    observed = own[0] - own[1]
    low, high = np.percentile(differences, (2.5, 97.5))
    reached = float((differences >= observed - 1e-12).mean())
    return VariationTest(*own, observed, float(low), float(high), reached, 1 / len(swaps), n)
