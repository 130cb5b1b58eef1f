"""Thresholds out of random directions (methods 1.2), movable without recomputing anything.

Two rules read the same stored columns. ``envelope`` (default): a global envelope over the z of the best distinct words,

    med_k, q_k = median and 99th percentile over the null of z_(k),  k = 1…20
    c          = 99th percentile over the null of max_k (z_(k) - med_k) / (q_k - med_k)
    tau_k      = med_k + c (q_k - med_k), the larger over the null kinds

``entropy``: ΔH at or above its 99th percentile. Likeness of the words (``cos_tok``, ``lev``) is judged at the null's
95th percentile under ``envelope``, at the 99th under ``entropy``. With two null kinds every threshold is the larger
one.

Evidence is a row's largest (m - median) / (p99 - median) over z_max, z_10, ΔH, cos_tok and lev, divided by the null's
own 99th percentile of that maximum. With two kinds it is computed in units of each and the smaller is taken, so that
evidence above 1 means: beyond the strongest 1 % of each kind of noise. ``z_10`` in null units (first view) likewise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wbtui.errors import UsageError
from wbtui.features.noise import EVIDENCE_METRICS, NullSample, SideStats

CONCENTRATIONS = ("delta_h", "z_max", "kurt")
RULES = ("envelope", "entropy")
MODES = ("null", "fixed", "quantile")
NULL_KINDS = ("both", "isotropic", "decoder_cov")
MOVABLE = ("cos_tok", "lev", "delta_h", "z_max", "kurt", "mass_1", "word_z", "c")
"""Bars that can be fixed per side; ``word_z`` is one for every word, ``c`` the envelope's width in null spreads."""
SUGGESTED = {"delta_h": 3.0, "cos_tok": 0.30, "lev": 0.30}
"""Starting values of the mode ``fixed`` (methods 1.2; the last two are guesses)."""


@dataclass(frozen=True)
class SideThresholds:
    """The bars of one side. NaN means that there is no such bar yet (no null); nothing then is above it."""

    side: str
    word_z: np.ndarray
    """tau_k [k_words], float64."""
    cos_tok: float
    lev: float
    concentrated: float
    """The bar of the concentration metric (entropy rule)."""
    z_max: float
    mass_1: float
    inside: dict[str, float]
    """The null's 99th percentile by evidence metric, the larger over kinds: "no clear signal" is below all of them."""
    units: tuple[SideStats, ...]
    """One per null kind used: evidence and null units."""
    how: dict[str, str]
    """Threshold -> how it was set."""


@dataclass(frozen=True)
class Thresholds:
    """Every bar of an SAE, from null products or by hand; ``dataclasses.replace`` moves any of it.

    Args:
        nulls: threshold nulls that are there (never checks).
        null_kind: ``both`` (per metric the larger), ``isotropic`` or ``decoder_cov``.
        rule: ``envelope`` or ``entropy``.
        mode: ``null``; ``fixed`` (suggested values where none is given; word bars stay the null's unless given);
            ``quantile`` (of a population, see :func:`population_quantiles`).
        concentration: the entropy rule's metric: ``delta_h``, ``z_max`` or ``kurt``.
        mass: the entropy rule's mass of the top token for ``single``.
        fixed: ((``writes.cos_tok``, 0.3), …): bars set by hand; they win over everything.
        quantiles: ((``writes.cos_tok``, 0.21), …): bars of the mode ``quantile``, with ``pool`` saying over what.

    Raises:
        UsageError: an unknown rule, mode, kind, or threshold name.
    """

    nulls: tuple[NullSample, ...] = ()
    null_kind: str = "both"
    rule: str = "envelope"
    mode: str = "null"
    concentration: str = "delta_h"
    mass: float = 0.5
    fixed: tuple[tuple[str, float], ...] = ()
    quantiles: tuple[tuple[str, float], ...] = ()
    quantile: float = 0.75
    pool: str = ""
    _sides: dict[str, SideThresholds] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.rule, RULES, "rule"),
            (self.mode, MODES, "threshold mode"),
            (self.null_kind, NULL_KINDS, "null kind"),
            (self.concentration, CONCENTRATIONS, "concentration metric"),
        ):
            if value not in known:
                raise UsageError(f"{what} {value!r}", "one of " + ", ".join(known))
        for name, _ in self.fixed:
            side, _, metric = name.partition(".")
            if side not in ("writes", "against", "reads") or metric not in MOVABLE:
                raise UsageError(f"threshold {name!r}", "SIDE.NAME with a name of " + ", ".join(MOVABLE))
        if self.mode == "quantile" and not self.quantiles:
            raise UsageError("threshold mode 'quantile' without a population", "quantiles of a population")

    @property
    def used(self) -> tuple[NullSample, ...]:
        """The nulls that ``null_kind`` asks for and that are there."""
        return tuple(n for n in self.nulls if self.null_kind in ("both", n.kind))

    @property
    def missing_kinds(self) -> tuple[str, ...]:
        """Null kinds asked for and not there yet: thresholds may still rise."""
        wanted = ("isotropic", "decoder_cov") if self.null_kind == "both" else (self.null_kind,)
        return tuple(kind for kind in wanted if all(n.kind != kind for n in self.nulls))

    def fix(self, name: str, value: float | None) -> Thresholds:
        """A copy with one bar set by hand (``writes.cos_tok``), or set free with None."""
        rest = tuple(pair for pair in self.fixed if pair[0] != name)
        return dataclasses.replace(self, fixed=rest if value is None else (*rest, (name, float(value))))

    def side(self, side: str) -> SideThresholds:
        """The bars of ``writes``, ``against`` or ``reads``."""
        if side not in self._sides:
            self._sides[side] = self._side(side)
        return self._sides[side]

    def _side(self, side: str) -> SideThresholds:
        pairs = [(n, s) for n in self.used if (s := n.stats(side)) is not None]
        units = tuple(stats for _, stats in pairs)
        source = " + ".join(f"{sample.n:,} {sample.kind}" for sample, _ in pairs) or "no null yet"
        fixed = {name.partition(".")[2]: value for name, value in self.fixed if name.startswith(side + ".")}
        pool = dict(self.quantiles) if self.mode == "quantile" else {}
        origin = "writes" if side == "against" else side
        how: dict[str, str] = {}

        def bar(name: str, table: str, percent: int) -> float:
            if name in fixed:
                how[name] = "fixed by hand"
                return fixed[name]
            if f"{origin}.{name}" in pool:
                how[name] = f"quantile {self.quantile:g} of {self.pool}"
                return pool[f"{origin}.{name}"]
            if self.mode == "fixed" and name in SUGGESTED:
                how[name] = "fixed (suggested start)"
                return SUGGESTED[name]
            how[name] = f"null {percent} % of {source}" if units else source
            return _largest([getattr(stats, table)[name] for stats in units])

        likeness = ("p95", 95) if self.rule == "envelope" else ("p99", 99)
        mass = fixed.get("mass_1", self.mass)
        how["mass_1"] = "fixed by hand" if "mass_1" in fixed else "fixed"
        return SideThresholds(
            side=side,
            word_z=self._words(side, origin, units, fixed, pool, source, how),
            cos_tok=bar("cos_tok", *likeness),
            lev=bar("lev", *likeness),
            concentrated=bar(self.concentration, "p99", 99),
            z_max=bar("z_max", "p99", 99),
            mass_1=mass,
            inside={name: _largest([stats.p99[name] for stats in units]) for name in EVIDENCE_METRICS},
            units=units,
            how=how,
        )

    def _words(
        self,
        side: str,
        origin: str,
        units: Sequence[SideStats],
        fixed: Mapping[str, float],
        pool: Mapping[str, float],
        source: str,
        how: dict[str, str],
    ) -> np.ndarray:
        k = len(units[0].word_median) if units else 20
        if "word_z" in fixed:
            how["word_z"] = "fixed by hand, one bar for every word"
            return np.full(k, fixed["word_z"])
        if f"{origin}.word_z.1" in pool:
            how["word_z"] = f"quantile {self.quantile:g} of {self.pool}"
            names = [f"{origin}.word_z.{j + 1}" for j in range(k)]
            return np.array([pool.get(name, np.nan) for name in names])
        bars = np.full(k, np.nan)
        for stats in units:
            c = fixed.get("c", stats.c)
            flat = ~(stats.word_p99 - stats.word_median > 0)  # no spread: noise's largest value is the bar
            tau = np.where(flat, stats.word_max, stats.word_median + c * (stats.word_p99 - stats.word_median))
            bars = np.fmax(bars, tau)
        envelope = "envelope, c by hand, of" if "c" in fixed else "null 99 % envelope of"
        how["word_z"] = f"{envelope} {source}" if units else source
        return bars

    @property
    def ready(self) -> bool:
        """Whether classes can be told on the writes side."""
        bars = self.side("writes")
        return bool(np.isfinite(bars.word_z[0] if self.rule == "envelope" else bars.concentrated))

    def line(self) -> str:
        """One short line for the top of a screen: how the bars were set."""
        if self.mode != "null":
            return f"{self.rule} · {self.mode}" + (
                f" {self.quantile:g} of {self.pool}" if self.mode == "quantile" else ""
            )
        if not self.used:
            return f"{self.rule} · no null yet"
        count = max(sample.n for sample in self.used)
        kinds = "" if len(self.used) > 1 or self.null_kind != "both" else f", {self.missing_kinds[0]} on its way"
        moved = f" · {len(self.fixed)} moved by hand" if self.fixed else ""
        return f"{self.rule} · noise: {count:,} directions{kinds}{moved}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for records, exports and summaries; NaN is null."""
        sides = {}
        for side in ("writes", "reads"):
            bars = self.side(side)
            sides[side] = {
                "word_z": [_number(v) for v in bars.word_z],
                "cos_tok": _number(bars.cos_tok),
                "lev": _number(bars.lev),
                self.concentration: _number(bars.concentrated),
                "z_max": _number(bars.z_max),
                "mass_1": _number(bars.mass_1),
                "how": dict(bars.how),
            }
        return {
            "rule": self.rule,
            "mode": self.mode,
            "null_kind": self.null_kind,
            "missing_kinds": list(self.missing_kinds),
            "concentration": self.concentration,
            "nulls": [{"kind": n.kind, "seed": n.seed, "n": n.n} for n in self.used],
            "quantile": self.quantile if self.mode == "quantile" else None,
            "pool": self.pool,
            **sides,
        }


def population_quantiles(
    populations: Sequence[Callable[[str], np.ndarray]], q: float = 0.75, sides: Sequence[str] = ("writes", "reads")
) -> tuple[tuple[str, float], ...]:
    """The ``q`` quantile of every bar's metric over pooled populations, for ``Thresholds(mode="quantile")``.

    Args:
        populations: one reader per SAE by full column name. A claim over depth needs every layer's (methods 1.2): a
            quantile of one SAE passes the same share of each by construction.
        q: 0…1.
    """
    if not 0 < q < 1:
        raise UsageError(f"quantile {q}", "a number between 0 and 1")
    out: list[tuple[str, float]] = []
    for side in sides:
        for name in ("cos_tok", "lev", *CONCENTRATIONS):
            values = np.concatenate([np.asarray(read(f"{side}.{name}"), np.float64) for read in populations])
            values = values[np.isfinite(values)]
            out.append((f"{side}.{name}", float(np.quantile(values, q)) if len(values) else float("nan")))
        words = np.concatenate([np.asarray(read(f"{side}.word_z"), np.float64) for read in populations])
        for j in range(words.shape[1]):
            values = words[np.isfinite(words[:, j]), j]
            out.append((f"{side}.word_z.{j + 1}", float(np.quantile(values, q)) if len(values) else float("nan")))
    return tuple(out)


def _largest(values: Sequence[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return max(finite) if finite else float("nan")


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
