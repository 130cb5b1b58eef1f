"""How far the top tokens of a feature belong together: spelling, embedding, words (methods 1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from wbtui.analysis.either import Array, double, lengths, namespace, rows_at, single

_ELEMENTS = 1 << 17
"""fp64 elements of gathered token rows held at once: a megabyte, which stays in a core's cache."""


class Strings:
    """Strings of a vocabulary as one array of UTF-8 bytes, decoded where they are asked for: a shard looks at a few
    thousand of a quarter of a million.

    Args:
        data: u8, all strings' bytes one behind another.
        offsets: i64 ``[V + 1]``, where each begins and the last ends.
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray) -> None:
        self._data = np.ascontiguousarray(data, np.uint8).data
        self._offsets = offsets

    @staticmethod
    def of(strings: Sequence[str]) -> Strings:
        """From Python's strings."""
        raw = [string.encode("utf-8", "surrogatepass") for string in strings]
        ends = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        return Strings(np.frombuffer(b"".join(raw), np.uint8), ends)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, ids: np.ndarray) -> np.ndarray:
        """The strings of ids, an object array of their shape; -1 is the last, as for an array."""
        wanted, place = np.unique(np.asarray(ids) % len(self), return_inverse=True)
        spans = zip(self._offsets[wanted].tolist(), self._offsets[wanted + 1].tolist(), strict=True)
        out = np.empty(len(wanted), dtype=object)
        out[:] = [str(self._data[a:b], "utf-8", "surrogatepass") for a, b in spans]
        return out[place].reshape(np.shape(ids))


@lru_cache(maxsize=8)
def _pairs(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Both members of each of the pairs of ``k`` things."""
    return np.triu_indices(k, 1)


def levenshtein(ids: np.ndarray, norms: np.ndarray | Strings) -> np.ndarray:
    """Mean normalised Levenshtein similarity over the pairs of each row's tokens.

    ``1 - lev(a, b) / max(len a, len b)``; a pair with an empty string scores 0.

    Args:
        ids: ``[n, k]`` token ids.
        norms: ``[V]`` normalised strings, which ids choose from.

    Returns:
        fp64 ``[n]``; NaN where ``k < 2``.
    """
    n, k = ids.shape
    if k < 2 or n == 0:
        return np.full(n, np.nan)
    strings = norms[ids]
    first, second = _pairs(k)
    a, b = strings[:, first].ravel().tolist(), strings[:, second].ravel().tolist()
    scores = cpdist(a, b, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
    # rapidfuzz calls two empty strings equal; one empty string scores 0 by the formula itself.
    empty = (strings == "")[:, first].ravel()
    scores[empty] = 0.0
    return np.asarray(scores.reshape(n, -1).mean(1), dtype=np.float64)


def mean_cosine(rows: Array, positions: Array, centre: Array, flatten: bool = False) -> Array:
    """Mean pairwise cosine of each list's token rows, centred. A zero row has cosine 0 with everything.

    Args:
        rows: ``[V, D]``, any float dtype; or what gives rows for positions (:class:`wbtui.analysis.lone.Matrix`).
        positions: ``[n, k]`` rows of each list.
        centre: ``[D]`` fp64, subtracted from every row.
        flatten: take the all-ones component out of every row (``P``), which no LayerNorm reader sees.

    Returns:
        fp64 ``[n]``; NaN where ``k < 2``.
    """
    n, k = positions.shape
    xp = namespace(centre)
    out = xp.full_like(positions[:, 0], float("nan"), dtype=xp.float64)
    if k < 2:
        return out
    step = max(1, _ELEMENTS // (k * rows.shape[1]))
    for a in range(0, n, step):
        some = positions[a : a + step]
        seen = _seen(rows, some.reshape(-1), centre, flatten).reshape(len(some), k, -1)
        norm = lengths(seen, axis=2)
        own = norm > 0
        # the sum of unit rows as one product: dividing each row first would write them all again
        total = ((own / xp.where(own, norm, 1.0))[:, None, :] @ seen)[:, 0]
        out[a : a + step] = ((total**2).sum(1) - double(own).sum(1)) / (k * (k - 1))
    return out


def mean_cosine_by_norms(rows: Array, positions: Array, centre: Array, norms: Array, flatten: bool = False) -> Array:
    """:func:`mean_cosine` of torch's rows on a CPU whose centred norms are known, in one reading of the rows.

    The sum of centred unit rows is ``sum(w_i r_i) - sum(w_i) c`` with ``w_i = 1 / |r_i - c|``: the first part in fp32,
    one list at a time, so that a list's digits do not depend on its company; its rounding is that of the scores by
    which the tokens were chosen. The rest is in fp64.

    Args:
        norms: fp64 ``[n, k]``, :func:`centred_norms` of the positions.
    """
    n, k = positions.shape
    xp = namespace(centre)
    if k < 2 or n == 0:
        return xp.full_like(positions[:, 0], float("nan"), dtype=xp.float64)
    own = norms > 0
    weights = single(xp.where(own, 1.0 / norms, 0.0))
    if rows.dtype != xp.float32:
        rows = single(rows_at(rows, positions.reshape(-1)))
        positions = xp.arange(n * k).reshape(n, k)
    sums = xp.nn.functional.embedding_bag(positions, rows, per_sample_weights=weights, mode="sum")
    total, weight = double(sums), double(weights).sum(1)
    square = lengths(total) ** 2 - 2 * weight * (total @ centre) + weight**2 * (centre @ centre)
    if flatten:
        square -= rows.shape[1] * (total.mean(1) - weight * centre.mean()) ** 2
    return (square - double(own).sum(1)) / (k * (k - 1))


def _seen(rows: Array, positions: Array, centre: Array, flatten: bool) -> Array:
    """The rows at ``positions [n]``, centred, in fp64."""
    seen = double(rows_at(rows, positions))
    seen -= centre
    return seen - seen.mean(-1)[..., None] if flatten else seen


def centred_norms(rows: Array, positions: Array, centre: Array, flatten: bool = False) -> Array:
    """``|rows[p] - centre|`` for each position, or of its part in ``P``: fp64, the shape of ``positions``."""
    flat = positions.reshape(-1)
    xp = namespace(centre)
    out = xp.empty_like(flat, dtype=xp.float64)
    step = max(1, _ELEMENTS // rows.shape[1])
    for a in range(0, len(flat), step):
        out[a : a + step] = lengths(_seen(rows, flat[a : a + step], centre, flatten))
    return out.reshape(positions.shape)


def distinct_words(ids: np.ndarray, word: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in each best-first list the first ``k`` distinct words stand.

    Args:
        ids: ``[n, m]`` token ids, best first.
        word: ``[V]`` word id of each token; tokens that differ only by space, case or width share one.

    Returns:
        places ``[n, k]`` (column of ``ids``, -1 past the end) and the number of distinct words ``[n]``.
    """
    n, m = ids.shape
    words = word[ids]
    order = np.argsort(words, axis=1, kind="stable")
    ordered = np.take_along_axis(words, order, axis=1)
    leads = np.ones((n, m), dtype=bool)
    leads[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(leads)
    # The sort is stable, so the lead of a group is its best-scoring token.
    np.put_along_axis(first, order, leads, axis=1)
    rank = np.cumsum(first, axis=1)
    count = rank[:, -1] if m else np.zeros(n, dtype=np.int64)
    places = np.full((n, k), -1, dtype=np.int64)
    row, column = np.nonzero(first & (rank <= k))
    places[row, rank[row, column] - 1] = column
    return places, np.minimum(count, k)
