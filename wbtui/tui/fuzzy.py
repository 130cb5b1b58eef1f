"""Finding names by a few of their letters: every letter in order, in the best way; matched letters can be shown.

Each word of a query is looked for by itself; a name matches where all do. A letter that is matched counts ``HIT``, more
at the start of a part (behind ``/ _ - . @`` and the like), at a change between letters and digits, right behind the
letter before, and at a part's end (``l2`` means ``L2`` before ``L20``); a character that is passed over within a word
costs ``GAP``. What is found is the best way of matching, not the first: dynamic programming over the places where the
letter stands in all names at once, one step a letter, and steps of the query before are kept, so that a key costs one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HIT, START, CHANGE, NEXT, END, GAP = 16, 9, 6, 10, 4, 1
MAX_WORD, MAX_NAME = 60, 1000
"""Letters of a word and of a name that are looked at."""
_BITS = 24
"""A score with its gaps is below 2**24; a name's number stands above it in one integer."""
_LETTER, _DIGIT, _BREAK = 1, 2, 0


@dataclass(frozen=True)
class Found:
    """What a query matches."""

    rows: np.ndarray
    """Names that match, best first (int [m])."""
    scores: np.ndarray
    """Of each of them (int [m])."""


@dataclass(frozen=True)
class _Spots:
    """Places in all names, in the order of the text (int64 [places])."""

    at: np.ndarray
    owner: np.ndarray
    """Whose characters they are."""
    within: np.ndarray
    """Which character of the name."""
    bonus: np.ndarray
    """What a hit counts there beyond ``HIT``."""
    near: np.ndarray
    """The same right behind the letter before."""

    def only(self, which: np.ndarray) -> _Spots:
        if which.dtype == bool and which.all():
            return self
        return _Spots(self.at[which], self.owner[which], self.within[which], self.bonus[which], self.near[which])


@dataclass(frozen=True)
class _Step:
    """A word's first letters: where the last of them can stand, and the best score there."""

    spots: _Spots
    score: np.ndarray


class Fuzzy:
    """Names to be found.

    Args:
        names: texts; case does not matter.
        groups: a number for each; smaller ones stand before larger ones, whatever their scores.
    """

    def __init__(self, names: Sequence[str], groups: Sequence[int] | None = None) -> None:
        self.names = list(names)
        n = len(self.names)
        texts = [_lower(name[:MAX_NAME]) for name in self.names]
        self.lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self.groups = np.zeros(n, np.int32) if groups is None else np.asarray(groups, np.int32)
        self._starts = np.cumsum([0, *self.lengths + 1])[:-1]  # a 0 ends every name
        joined = "".join(text + "\0" for text in texts).encode("utf-32-le", "surrogatepass")
        self._text = np.frombuffer(joined, dtype="<u4")
        self._name = np.repeat(np.arange(n), self.lengths + 1)
        self._bonus, self._near = _bonus(self._text)
        self._hits: dict[str, _Spots] = {}
        self._steps: dict[str, _Step] = {}

    def find(self, query: str) -> Found:
        """The names that hold every word of a query, best first, then in their order; all for an empty query."""
        words = _words(query)
        n = len(self.names)
        if not words:
            return Found(np.argsort(self.groups, kind="stable"), np.zeros(n, np.int64))
        steps = []
        for word in words:
            steps.append(self._step(word))
            if not len(steps[-1].score):
                break  # nothing matches, whatever the words behind it are
        prefixes = {word[:k] for word in words for k in range(1, len(word) + 1)}
        self._steps = {prefix: step for prefix, step in self._steps.items() if prefix in prefixes}
        total = np.zeros(n, np.int64)
        count = np.zeros(n, np.int64)
        for step in steps:
            owner = step.spots.owner
            first = np.flatnonzero(np.diff(owner, prepend=-1))
            if len(first):
                total[owner[first]] += np.maximum.reduceat(step.score, first)
                count[owner[first]] += 1
        rows = np.flatnonzero(count == len(words))
        order = np.lexsort((-total[rows], self.groups[rows]))
        return Found(rows[order], total[rows[order]])

    def places(self, row: int, query: str) -> frozenset[int]:
        """Which characters of a name a query's words are matched to, in the best way; none where one is not there."""
        out: set[int] = set()
        start = int(self._starts[row])
        for word in _words(query):
            trail = []
            for k in range(1, len(word) + 1):
                step = self._step(word[:k])
                low, high = np.searchsorted(step.spots.at, (start, start + int(self.lengths[row])))
                if low == high:
                    return frozenset()
                trail.append(list(zip(step.spots.at[low:high].tolist(), step.score[low:high].tolist(), strict=True)))
            at = max(trail[-1], key=lambda place: place[1])[0]
            out.add(at - start)
            for before in reversed(trail[:-1]):
                bonus, near = int(self._bonus[at]), int(self._near[at])
                ways = [
                    (score + (near if there == at - 1 else bonus - GAP * (at - there - 1)), there)
                    for there, score in before
                    if there < at
                ]
                at = max(ways)[1]
                out.add(at - start)
        return frozenset(out)

    def _step(self, word: str) -> _Step:
        known = self._steps.get(word)
        if known is None:
            if len(word) == 1:
                spots = self._spots(word)
                known = _Step(spots, spots.bonus + HIT)
            else:
                before = self._step(word[:-1])
                known = _next(before, self._spots(word[-1])) if len(before.score) else before
            self._steps[word] = known
        return known

    def _spots(self, letter: str) -> _Spots:
        if letter not in self._hits:
            at = np.flatnonzero(self._text == ord(letter))
            owner = self._name[at]
            self._hits[letter] = _Spots(at, owner, at - self._starts[owner], self._bonus[at], self._near[at])
        return self._hits[letter]


def _next(before: _Step, spots: _Spots) -> _Step:
    """One letter more: behind each way so far, right away or with characters passed over."""
    last = np.searchsorted(before.spots.at, spots.at) - 1  # the nearest place of the letter before
    spots, last = spots.only(last >= 0), last[last >= 0]
    # the best that ends at or before a place, passed characters paid: the name's number on top keeps names apart
    level = (before.spots.owner << _BITS) + before.score + GAP * before.spots.within
    reach = np.maximum.accumulate(level)[last]
    same = reach >> _BITS == spots.owner
    spots, last, reach = spots.only(same), last[same], reach[same]
    far = (reach & ((1 << _BITS) - 1)) - GAP * (spots.within - 1) + spots.bonus
    beside = before.spots.at[last] == spots.at - 1
    near = np.where(beside, before.score[last] + spots.near, 0)
    score = np.maximum(far, near) + HIT
    alive = score > 0
    return _Step(spots.only(alive), score[alive])


def _words(query: str) -> list[str]:
    return list(dict.fromkeys(_lower(word)[:MAX_WORD] for word in query.replace("\0", " ").split()))


def _lower(text: str) -> str:
    """Lower case; a text keeps its length."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _bonus(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a hit counts at each character beyond ``HIT``, alone and behind the letter before (int64 [characters])."""
    kinds = np.full(256, _LETTER, np.int8)
    kinds[:128] = _BREAK
    kinds[97:123], kinds[48:58] = _LETTER, _DIGIT
    kind = kinds[np.minimum(text, 255)]
    before = np.concatenate([[np.int8(_BREAK)], kind])[:-1]
    out = np.where(before == _BREAK, START, np.where(before != kind, CHANGE, 0))
    after = np.concatenate([kind[1:], [np.int8(_BREAK)]])[: len(kind)]
    ends = np.where((after == _BREAK) & (kind != _BREAK), END, 0)
    out[kind == _BREAK] = 0
    return out + ends, ends + NEXT
