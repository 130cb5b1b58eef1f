"""What some features have in common, of one SAE or of several of a model: words that several of them write or read,
heads that see several of them.

Beside each count stands what chance gives: the same for as many features drawn at random from each of the SAEs
(seeded), so that a word that half of all features write is no find.
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
SHORT = 10
"""Characters of an SAE's name up to which a set's features carry it whole."""


@dataclass(frozen=True)
class Part:
    """Some features of one SAE, in a set."""

    table: FeatureTable
    rows: tuple[int, ...]
    sae: str = ""
    """Its name."""
    label: str = ""
    """Of the SAE, in front of ``#``; empty where the set is of one SAE."""

    def name(self, row: int) -> str:
        """A feature of it in the set."""
        return f"{self.label}#{row}"


def labels(saes: Sequence[tuple[str, int]]) -> list[str]:
    """Short names for SAEs in a set: their own where those are short, else the layer, with a letter where it is not
    alone. None where there is but one SAE.

    Args:
        saes: (name, layer) of each.
    """
    if len(saes) < 2:
        return [""] * len(saes)
    taken = {name for name, _ in saes if len(name) <= SHORT}
    out: list[str] = []
    for name, layer in saes:
        label, letter = name, "a"
        if len(name) > SHORT:
            label = f"L{layer}"
            while label in taken:
                label, letter = f"L{layer}{letter}", chr(ord(letter) + 1)
            taken.add(label)
        out.append(label)
    return out


@dataclass(frozen=True)
class Shared:
    """A word that features share."""

    text: str
    count: int
    """Features that have it beyond noise."""
    best_z: float
    base: float
    """Share of all features of the set's SAEs that have it."""
    features: tuple[str, ...]
    """Which: ``#7``, or ``L3#7`` in a set over several SAEs."""


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
    without: int = 0
    """Features of the set whose list is not computed."""


@dataclass(frozen=True)
class SharedHead:
    """A head that sees several of the features above the noise."""

    layer: int
    head: int
    side: str
    count: int
    of: int
    """Features of the set whose stream the layer is the first to read."""
    base: float
    """Share of all features of their SAEs that it sees above the noise."""
    tail: float
    """Chance that it sees ``count`` or more of as many features at random of each SAE (hypergeometric, exact)."""


def shared_words(parts: Sequence[Part], side: str = "writes") -> SharedWords | None:
    """Words beyond noise that two or more of some features share.

    Args:
        parts: the features, of SAEs of one model.
        side: ``writes`` or ``reads``.

    Returns:
        SharedWords | None: None without token strings or without a null (what is beyond noise cannot be told then).
    """
    known = [part for part in parts if part.table.vocab is not None and part.table.thresholds.used]
    if not known:
        return None
    vocab = known[0].table.vocab
    assert vocab is not None
    word_of = np.asarray(vocab.word_ids)
    words = [_words(part.table, side, word_of) for part in known]
    names = [part.name(row) for part in known for row in part.rows]
    chosen = np.concatenate([own[list(part.rows)] for part, own in zip(known, words, strict=True)])
    ids = np.concatenate([part.table.column(f"{side}.word_ids")[list(part.rows)] for part in known])
    scores = np.concatenate([part.table.column(f"{side}.word_z")[list(part.rows)] for part in known])
    size = int(word_of.max(initial=0)) + 1
    everyone = sum(np.bincount(own[own >= 0], minlength=size) for own in words)
    assert isinstance(everyone, np.ndarray)
    found: list[Shared] = []
    for word, members, at in zip(*_grouped(chosen), strict=True):
        best = max(float(scores[row, k]) for row, k in zip(members, at, strict=True))
        share = float(everyone[word]) / sum(part.table.n for part in known)
        text = vocab.word(int(ids[members[0], at[0]]))
        found.append(Shared(text, len(members), best, share, tuple(names[row] for row in members)))
    found.sort(key=lambda s: (-s.count, s.base, -s.best_z))
    generator = np.random.default_rng(0)
    pools = [np.flatnonzero(part.table.available) for part in known]
    draws: list[int] = []
    for _ in range(DRAWS if len(names) > 1 and all(map(len, pools)) else 0):
        some = [
            own[generator.choice(pool, min(len(part.rows), len(pool)), replace=False)]
            for part, own, pool in zip(known, words, pools, strict=True)
        ]
        draws.append(len(_grouped(np.concatenate(some))[0]))
    return SharedWords(
        side,
        tuple(found[:MOST_WORDS]),
        len(found),
        float(np.mean(draws)) if draws else math.nan,
        float(np.quantile(draws, 0.99)) if draws else math.nan,
        sum(len(part.rows) for part in parts if part not in known),
    )


def _words(table: FeatureTable, side: str, word_of: np.ndarray) -> np.ndarray:
    """The word's number at each place of every feature's list ``[n, depth]``; -1 where it is inside noise."""
    counts, ids = table.column(f"{side}.n_words"), table.column(f"{side}.word_ids")
    inside = (np.arange(ids.shape[1])[None, :] < counts[:, None]) & (ids >= 0) & (ids < len(word_of))
    return np.where(inside, word_of[np.clip(ids, 0, max(len(word_of) - 1, 0))], -1)


def _grouped(part: np.ndarray) -> tuple[list[int], list[np.ndarray], list[np.ndarray]]:
    """Words that two or more lines hold: their numbers, the lines, the places in the lines' lists."""
    at, places = np.nonzero(part >= 0)
    values = part[at, places]
    order = np.argsort(values, kind="stable")
    values, holders, places = values[order], at[order], places[order]
    if not len(values):
        return [], [], []
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    ends = np.append(starts[1:], len(values))
    many = [(int(values[a]), holders[a:b], places[a:b]) for a, b in zip(starts, ends, strict=True) if b - a > 1]
    return [m[0] for m in many], [m[1] for m in many], [m[2] for m in many]


def shared_heads(parts: Sequence[Part]) -> tuple[list[SharedHead], str]:
    """Heads that see some of the features above the noise: of the first layer that reads each one's stream. Features
    of SAEs that are read first by one layer are counted together, others beside them.

    Returns:
        heads, least likely by chance first; words for the features of which nothing can be told, else empty.
    """
    found: dict[tuple[int, int, str], list[tuple[int, int, int, int]]] = {}
    why: dict[str, list[str]] = {}
    for part in parts:
        absent = _heads_of(part, found)
        if absent:
            why.setdefault(absent, []).append(part.label)
    out = []
    for (layer, head, side), draws in found.items():
        count = sum(drawn[0] for drawn in draws)
        if not count:
            continue
        n, k, of = (sum(drawn[i] for drawn in draws) for i in (1, 2, 3))
        base = k / n if n else math.nan
        out.append(SharedHead(layer, head, side, count, of, base, _tail(count, [drawn[1:] for drawn in draws])))
    out.sort(key=lambda h: (h.tail, -h.count, h.layer, h.head, h.side))
    told = [f"{', '.join(own)}: {text}" if own[0] else text for text, own in why.items()]
    if told and found and not out:
        told.insert(0, "no head sees any of the others above the noise")
    return out, " · ".join(told)


def _heads_of(part: Part, found: dict[tuple[int, int, str], list[tuple[int, int, int, int]]]) -> str:
    """Count one SAE's features by head and side: (seen, all that are known, all that are seen, known among the set's);
    says why there is nothing to count."""
    shelf = part.table.heads
    if shelf is None or shelf.absent:
        return shelf.absent if shelf is not None else "no model at hand"
    try:
        heads = shelf.table()
        heads.refresh()
    except (WbtuiError, OSError) as error:
        return error.line() if isinstance(error, WbtuiError) else str(error)
    if not heads.ready:
        return f"the heads of layer {heads.layer} are not computed: h computes them"
    chosen = np.asarray(part.rows, dtype=np.int64)
    for head in range(heads.n_heads):
        for side in ("query", "key"):
            ratio = heads.head(head, side, "max")
            known = np.isfinite(ratio)
            above = known & (ratio > 1)
            numbers = int(above[chosen].sum()), int(known.sum()), int(above.sum()), int(known[chosen].sum())
            found.setdefault((heads.layer, head, side), []).append(numbers)
    return ""


def _tail(count: int, draws: Sequence[tuple[int, int, int]]) -> float:
    """P(X >= count) where X are the hits of all draws together, each of ``drawn`` out of ``n`` that have ``k`` hits."""
    chance = np.ones(1)
    for n, k, drawn in draws:
        chance = np.convolve(chance, _hits(n, k, drawn))
    return min(1.0, float(chance[count:].sum()))


def _hits(n: int, k: int, drawn: int) -> np.ndarray:
    """The hypergeometric chances of 0 … ``drawn`` hits."""

    def log_choose(a: int, b: int) -> float:
        return math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(a - b + 1)

    out, whole = np.zeros(drawn + 1), log_choose(n, drawn)
    for x in range(max(0, drawn - (n - k)), min(k, drawn) + 1):
        out[x] = math.exp(log_choose(k, x) + log_choose(n - k, drawn - x) - whole)
    return out


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
