"""What some features have in common: words that several of them write or read, heads that see several of them.

Beside each count stands what chance gives: the same for as many features drawn at random from the SAE (seeded), so that
a word that half of all features write is no find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wbtui.errors import WbtuiError

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

DRAWS = 100
MOST_WORDS = 40


@dataclass(frozen=True)
class Shared:
    """A word that features share."""

    text: str
    count: int
    """Features that have it beyond noise."""
    best_z: float
    base: float
    """Share of all features of the SAE that have it."""
    features: tuple[int, ...]


@dataclass(frozen=True)
class SharedWords:
    """Words of one side that two or more features share, most shared first."""

    side: str
    words: tuple[Shared, ...]
    total: int
    """Words shared by two or more, also those that are not listed."""
    random: float
    """Their number for as many features at random: mean over :data:`DRAWS` draws."""
    random_p99: float


@dataclass(frozen=True)
class SharedHead:
    """A head that sees several of the features above the noise."""

    layer: int
    head: int
    side: str
    count: int
    base: float
    """Share of all features that it sees above the noise."""
    tail: float
    """Chance that as many features at random hold at least ``count`` that it sees (hypergeometric, exact)."""


def shared_words(table: FeatureTable, rows: Sequence[int], side: str = "writes") -> SharedWords | None:
    """Words beyond noise that two or more of some features share.

    Args:
        table: the features.
        rows: their numbers.
        side: ``writes`` or ``reads``.

    Returns:
        SharedWords | None: None without token strings or without a null (what is beyond noise cannot be told then).
    """
    if table.vocab is None or not table.thresholds.used:
        return None
    counts = table.column(f"{side}.n_words")
    ids = table.column(f"{side}.word_ids")
    scores = table.column(f"{side}.word_z")
    word_of = np.asarray(table.vocab.word_ids)
    depth = np.arange(ids.shape[1])
    inside = (depth[None, :] < counts[:, None]) & (ids >= 0) & (ids < len(word_of))
    words = np.where(inside, word_of[np.clip(ids, 0, max(len(word_of) - 1, 0))], -1)
    chosen = np.asarray(rows, dtype=np.int64)
    numbers, holders, places = _grouped(words, chosen)
    found: list[Shared] = []
    everyone = np.bincount(words[words >= 0], minlength=int(word_of.max(initial=0)) + 1)
    for word, members, at in zip(numbers, holders, places, strict=True):
        best = max(float(scores[row, k]) for row, k in zip(members, at, strict=True))
        token = int(ids[members[0], at[0]])
        found.append(
            Shared(
                table.vocab.word(token), len(members), best, float(everyone[word]) / table.n, tuple(map(int, members))
            )
        )
    found.sort(key=lambda s: (-s.count, s.base, -s.best_z))
    generator = np.random.default_rng(0)
    pool = np.flatnonzero(table.available)
    draws = [
        len(_grouped(words, generator.choice(pool, min(len(chosen), len(pool)), replace=False))[0])
        for _ in range(DRAWS if len(chosen) > 1 and len(pool) else 0)
    ]
    return SharedWords(
        side,
        tuple(found[:MOST_WORDS]),
        len(found),
        float(np.mean(draws)) if draws else math.nan,
        float(np.quantile(draws, 0.99)) if draws else math.nan,
    )


def _grouped(words: np.ndarray, rows: np.ndarray) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
    """Words that two or more rows hold: their numbers, the rows, the places in the rows' lists."""
    part = words[rows]
    at, places = np.nonzero(part >= 0)
    values = part[at, places]
    order = np.argsort(values, kind="stable")
    values, holders, places = values[order], rows[at[order]], places[order]
    if not len(values):
        return [], [], []
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    ends = np.append(starts[1:], len(values))
    many = [(int(values[a]), holders[a:b], places[a:b]) for a, b in zip(starts, ends, strict=True) if b - a > 1]
    return [m[0] for m in many], [m[1] for m in many], [m[2] for m in many]


def shared_heads(table: FeatureTable, rows: Sequence[int]) -> tuple[list[SharedHead], str]:
    """Heads of the layer that reads the SAE which see some of the features above the noise; and why there are none.

    Returns:
        heads, least likely by chance first; words where nothing can be told, else empty.
    """
    shelf = table.heads
    if shelf is None or shelf.absent:
        return [], shelf.absent if shelf is not None else "no model at hand"
    try:
        heads = shelf.table()
        heads.refresh()
    except (WbtuiError, OSError) as error:
        return [], error.line() if isinstance(error, WbtuiError) else str(error)
    if not heads.ready:
        return [], f"the heads of layer {heads.layer} are not computed: h computes them"
    chosen = np.asarray(rows, dtype=np.int64)
    out = []
    for head in range(heads.n_heads):
        for side in ("query", "key"):
            ratio = heads.head(head, side, "max")
            known = np.isfinite(ratio)
            above = known & (ratio > 1)
            count = int(above[chosen].sum())
            if not count:
                continue
            n, k = int(known.sum()), int(above.sum())
            base = k / n if n else math.nan
            out.append(SharedHead(heads.layer, head, side, count, base, _tail(count, n, k, int(known[chosen].sum()))))
    out.sort(key=lambda h: (h.tail, -h.count, h.head, h.side))
    return out, ""


def _tail(count: int, n: int, k: int, drawn: int) -> float:
    """P(X >= count) where X of ``drawn`` out of ``n`` hit the ``k``."""

    def log_choose(a: int, b: int) -> float:
        return math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(a - b + 1)

    whole = log_choose(n, drawn)
    low, high = max(count, drawn - (n - k)), min(k, drawn)
    return min(
        1.0, sum(math.exp(log_choose(k, x) + log_choose(n - k, drawn - x) - whole) for x in range(low, high + 1))
    )


def chain(cosines: np.ndarray) -> list[int]:
    """An order in which like stands beside like: from the row with the largest sum, always the nearest that is left."""
    n = len(cosines)
    if not n:
        return []
    left = set(range(n))
    at = int(np.argmax(np.abs(cosines).sum(1)))
    out = [at]
    left.discard(at)
    while left:
        at = max(left, key=lambda i: (cosines[at, i], -i))
        out.append(at)
        left.discard(at)
    return out
