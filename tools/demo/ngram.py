"""N-gram baselines: what a table of counts reaches on the same text (interpolated Kneser-Ney, discount 0.75)."""

from __future__ import annotations

import numpy as np

DISCOUNT = 0.75


def _counts(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(keys, return_counts=True)


def _look(table: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    at = np.searchsorted(table[0], keys).clip(max=len(table[0]) - 1)
    return np.where(table[0][at] == keys, table[1][at], 0).astype(np.float64)


def baselines(train: np.ndarray, held_out: np.ndarray, vocabulary: int) -> dict[str, float]:
    """Nats per token of unigram, bigram and trigram models on the held-out stream."""
    v = np.int64(vocabulary)
    t, h = train.astype(np.int64), held_out.astype(np.int64)
    uni = np.bincount(t, minlength=vocabulary) + 1.0
    uni /= uni.sum()
    pairs, triples = t[:-1] * v + t[1:], (t[:-2] * v + t[1:-1]) * v + t[2:]
    bi, tri = _counts(pairs), _counts(triples)
    a, b, c = h[:-2], h[1:-1], h[2:]

    # Continuation probability: in how many different contexts a token has been seen.
    continuation = np.bincount(bi[0] % v, minlength=vocabulary) + 0.5
    continuation /= continuation.sum()
    context = np.bincount(t[:-1], minlength=vocabulary).astype(np.float64)
    followers = np.bincount(bi[0] // v, minlength=vocabulary).astype(np.float64)

    def bigram(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        n = context[x].clip(1)
        weight = np.where(context[x] > 0, DISCOUNT * followers[x] / n, 1.0)
        return (_look(bi, x * v + y) - DISCOUNT).clip(0) / n + weight * continuation[y]

    # The middle level of the trigram counts contexts, not occurrences.
    middle = _counts(tri[0] % (v * v))
    middle_context = np.bincount(middle[0] // v, weights=middle[1], minlength=vocabulary)
    middle_followers = np.bincount(middle[0] // v, minlength=vocabulary).astype(np.float64)
    n2 = middle_context[b].clip(1)
    weight2 = np.where(middle_context[b] > 0, DISCOUNT * middle_followers[b] / n2, 1.0)
    lower = (_look(middle, b * v + c) - DISCOUNT).clip(0) / n2 + weight2 * continuation[c]
    pair_context = _counts(t[:-2] * v + t[1:-1])
    pair_followers = _counts(tri[0] // v)
    n3 = _look(pair_context, a * v + b)
    weight3 = np.where(n3 > 0, DISCOUNT * _look(pair_followers, a * v + b) / n3.clip(1), 1.0)
    trigram = (_look(tri, (a * v + b) * v + c) - DISCOUNT).clip(0) / n3.clip(1) + weight3 * lower
    return {
        "unigram": round(float(-np.log(uni[c]).mean()), 4),
        "bigram_kneser_ney": round(float(-np.log(bigram(b, c)).mean()), 4),
        "trigram_kneser_ney": round(float(-np.log(trigram).mean()), 4),
    }
