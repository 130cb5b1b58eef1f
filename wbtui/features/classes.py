"""Classes, evidence and first view of rows, vectorised (methods 1.2). Nothing here is stored: bars and rules can move.

coherent = a set that belongs together      single = one word
diffuse  = several words that do not look alike      none = nothing beyond noise
"""

from __future__ import annotations

import numpy as np

from wbtui.features.noise import EVIDENCE_METRICS, Read, SideStats, in_null_units
from wbtui.features.thresholds import SideThresholds

UNKNOWN, NONE, SINGLE, COHERENT, DIFFUSE = -1, 0, 1, 2, 3
CLASS_NAMES = ("none", "single", "coherent", "diffuse")
SHOWN_NAMES = ("none", "one", "set", "mix")
"""Display words of the classes, in the order of their codes."""
_BLOCK = 16_384


def words_beyond(word_z: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """n = the largest k with z_(k) above tau_k, else 0.

    Args:
        word_z: [n, k] z of the k-th best distinct word.
        bars: [k] tau_k; NaN lets nothing pass.

    Returns:
        int8 [n].
    """
    k = min(word_z.shape[1], len(bars))
    single = _floor32(bars[:k])
    if len(word_z) == 1:
        return (np.arange(1, k + 1, dtype=np.int8) * (word_z[:, :k] > single)).max(axis=1, initial=0).astype(np.int8)
    out = np.zeros(len(word_z), dtype=np.int8)
    for start in range(0, len(word_z), _BLOCK):  # rank by rank within a block that stays in cache
        beyond = np.ascontiguousarray((word_z[start : start + _BLOCK, :k] > single).T).view(np.int8)
        part = out[start : start + _BLOCK]
        for rank in range(k):
            np.maximum(part, beyond[rank] * np.int8(rank + 1), out=part)
    return out


def _floor32(bars: np.ndarray | float) -> np.ndarray:
    """The largest float32 not above each bar: a float32 is above a float64 bar exactly when it is above that."""
    exact = np.asarray(bars, dtype=np.float64)
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _ceil32(bar: float) -> np.float32:
    """The smallest float32 not below a bar, for "at or above"."""
    return np.float32(-_floor32(-bar))


def coherent(read: Read, bars: SideThresholds) -> np.ndarray:
    """Whether the top ten look alike: ``cos_tok`` or ``lev`` at or above its bar. bool [n]."""
    return (read("cos_tok") >= _ceil32(bars.cos_tok)) | (read("lev") >= _ceil32(bars.lev))


def classify(
    read: Read, bars: SideThresholds, rule: str, concentration: str = "delta_h"
) -> tuple[np.ndarray, np.ndarray]:
    """Class and number of words beyond noise of every row.

    Args:
        read: bare column name -> array of one side.
        bars: that side's thresholds.
        rule: ``envelope`` or ``entropy``.
        concentration: the entropy rule's metric.

    Returns:
        int8 [n] classes (-1 where the row is absent or not finite, or no bar exists yet), int8 [n] words (0 there).
    """
    z_max = read("z_max")
    known = np.isfinite(z_max)
    words = words_beyond(read("word_z"), bars.word_z)
    alike = coherent(read, bars)
    if rule == "envelope":
        out = np.where(words == 0, NONE, np.where(words == 1, SINGLE, np.where(alike, COHERENT, DIFFUSE))).astype(
            np.int8
        )
        ready = bool(np.isfinite(bars.word_z).any())
    else:
        concentrated = read(concentration) >= _ceil32(bars.concentrated)
        single = (z_max > _floor32(bars.z_max)) & (read("mass_1") >= _ceil32(bars.mass_1))
        out = np.where(
            concentrated & alike, COHERENT, np.where(single, SINGLE, np.where(concentrated, DIFFUSE, NONE))
        ).astype(np.int8)
        ready = bool(np.isfinite(bars.concentrated))
    out[~known] = UNKNOWN
    words[~known] = 0
    if not ready:
        out[:] = UNKNOWN
    return out, words


def flag(classes: np.ndarray, base: str) -> np.ndarray:
    """A reading of classes: bool [n]; False where the class is unknown."""
    if base == "semantic":
        return (classes == SINGLE) | (classes == COHERENT)
    if base == "promotes":
        return classes > NONE
    code = {"none": NONE, "single": SINGLE, "coherent": COHERENT, "strict": COHERENT, "diffuse": DIFFUSE}[base]
    return classes == code


def unclear(read: Read, bars: SideThresholds) -> np.ndarray:
    """Whether there is "no clear weight-based signal": all five evidence metrics inside the null's 99th percentile.
    bool [n].

    False for rows that are not finite, and everywhere while there is no null.
    """
    known = np.isfinite(read("z_max"))
    if not bars.units:
        return np.zeros(len(known), dtype=bool)
    inside = known
    for name in EVIDENCE_METRICS:
        inside = inside & ~(read(name) > _floor32(bars.inside[name]))
    return inside


def evidence(read: Read, units: tuple[SideStats, ...]) -> np.ndarray:
    """Evidence in units of the strongest 1 % of noise, the smaller over null kinds: float32 [n], NaN without a null."""
    best: np.ndarray | None = None
    for stats in units:
        value = in_null_units(read, stats.median, stats.p99)
        if stats.evidence_p99 > 0:
            value /= stats.evidence_p99
        else:
            value[:] = np.nan
        best = value if best is None else np.fmin(best, value)
    return np.full(len(read("z_max")), np.nan, np.float32) if best is None else best.astype(np.float32)


def first_view(read: Read, units: tuple[SideStats, ...]) -> np.ndarray:
    """``z_10`` in null units (the smaller over kinds) times ``word_share``: float32 [n], the order of a first visit."""
    all_z, share = read("z_10"), read("word_share")
    out = np.full(len(all_z), np.nan, np.float32)
    for start in range(0, len(all_z) if units else 0, _BLOCK):  # a block of float64 stays in cache
        z_10, best = all_z[start : start + _BLOCK].astype(np.float64), None
        for stats in units:
            spread = stats.p99["z_10"] - stats.median["z_10"]
            value = (z_10 - stats.median["z_10"]) / spread if spread > 0 else np.full(len(z_10), np.nan)
            best = value if best is None else np.fmin(best, value)
        out[start : start + _BLOCK] = best * share[start : start + _BLOCK]
    return out


def same_top(writes_top: np.ndarray, reads_top: np.ndarray) -> np.ndarray:
    """Whether it writes what it reads (≡): both sides have the same top token. bool [n] from int [n, k] ids."""
    first = writes_top[:, 0]
    return (first == reads_top[:, 0]) & (first >= 0)
