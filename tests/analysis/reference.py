"""E1 once more, dense, in float64 and plain formulas: what the streamed columns are compared with.

Nothing is shared with ``wbtui.analysis``: scores are whole matrices, statistics are written as in methods 1.2, the edit
distance is the textbook table. Ranks are those of the plain dot product, ties by token id.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance by the full table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) + 1):
        table[i][0] = i
    for j in range(len(b) + 1):
        table[0][j] = j
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        swap = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
        table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, swap)
    return table[-1][-1]


def similarity(strings: list[str]) -> float:
    """Mean of 1 - lev / max length over the pairs; a pair with an empty string scores 0."""
    scores = []
    for a, b in itertools.combinations(strings, 2):
        scores.append(0.0 if not a or not b else 1.0 - edit_distance(a, b) / max(len(a), len(b)))
    return sum(scores) / len(scores) if scores else math.nan


def pair_cosine(rows: np.ndarray) -> float:
    """Mean cosine over the pairs of rows; a zero row has cosine 0."""
    scores = []
    for a, b in itertools.combinations(rows, 2):
        norms = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
        scores.append(float(a @ b / norms) if norms > 0 else 0.0)
    return sum(scores) / len(scores) if scores else math.nan


def folded(d: np.ndarray, gain: np.ndarray | None, centre: bool, unembed: str) -> np.ndarray:
    """Unit decoder rows times the explicit matrices P and diag(gain)."""
    unit = d / np.sqrt((d * d).sum(1, keepdims=True))
    if unembed == "raw":
        return unit
    dim = d.shape[1]
    p = np.eye(dim) - (np.ones((dim, dim)) / dim if centre else 0.0)
    return unit @ p @ np.diag(np.ones(dim) if gain is None else gain)


def ranked(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Ids by falling score, equal scores by rising id."""
    return ids[np.lexsort((ids, -scores))]


def shape(plain, z, kept, tokens_c, vocab, definition):
    """The shape columns from one row of plain scores and z, both ``[V]``, and the kept ids."""
    k = definition.k_sem
    order = ranked(plain[kept], kept)
    exponents = definition.kappa * z[kept]
    p = np.exp(exponents - exponents.max())
    p /= p.sum()
    mass = dict(zip(kept.tolist(), p.tolist(), strict=True))
    positive = p[p > 0]
    h = float(-(positive * np.log(positive)).sum())
    top = order[:k]
    seen: dict[int, int] = {}
    for token in order.tolist():
        seen.setdefault(int(vocab["word"][token]), token)
    words = list(seen.values())[: definition.k_words]
    spare = definition.k_words - len(words)
    return {
        "z_max": z[order[0]],
        "z_10": z[order[k - 1]] if len(order) >= k else math.nan,
        "h_kappa": h,
        "delta_h": math.log(len(kept)) - definition.kappa**2 / 2 - h,
        "mass_1": mass[int(order[0])],
        "mass_10": sum(mass[int(t)] for t in top),
        "lev": similarity([vocab["norms"][t] for t in top]),
        "cos_tok": pair_cosine(tokens_c[top]),
        "word_z": np.array([z[t] for t in words] + [math.nan] * spare),
        "word_ids": np.array(words + [-1] * spare),
        "word_share": float(np.mean([bool(vocab["whole_word"][t]) for t in top])),
    }


def side(directions, tokens, keep, vocab, definition, *, scale=1.0, centre_values=False, flatten=False):
    """All columns of one side for finite, non-zero directions ``[n, D]``, as lists of rows stacked to arrays."""
    tokens = np.asarray(tokens, dtype=np.float64)
    kept, masked = np.flatnonzero(keep), np.flatnonzero(~keep)
    tokens_c = tokens - tokens[kept].mean(0)
    seen = tokens_c - tokens_c.mean(1, keepdims=True) if flatten else tokens_c  # by a LayerNorm reader: W_E P
    rows = []
    for x in np.asarray(directions, dtype=np.float64):
        plain = tokens @ x
        values = scale * ((tokens_c if centre_values else tokens) @ x)
        inside = values[kept]
        mean, std = inside.mean(), inside.std()
        z = (values - mean) / std
        order = ranked(plain[kept], kept)
        low = ranked(-plain[kept], kept)
        show = definition.k_show
        pad = [-1] * max(0, show - len(kept))
        top, bottom = order[:show], low[:show]
        row = {
            "top_ids": np.array([*top, *pad]),
            "bottom_ids": np.array([*bottom, *pad]),
            "top_values": np.array([*values[top], *[math.nan] * len(pad)]),
            "bottom_values": np.array([*values[bottom], *[math.nan] * len(pad)]),
            "mean": mean,
            "std": std,
            "skew": (((inside - mean) / std) ** 3).mean(),
            "kurt": (((inside - mean) / std) ** 4).mean(),
            "z_min": z[kept].min(),
        }
        row |= shape(plain, z, kept, seen, vocab, definition)
        row |= {f"against.{k}": v for k, v in shape(-plain, -z, kept, seen, vocab, definition).items()}
        everyone = ranked(plain, np.arange(len(plain)))
        bar = order[: definition.k_sem][-1]
        above = everyone[: list(everyone).index(bar)]
        row["n_masked_above"] = sum(1 for t in above if not keep[t])
        best = ranked(plain[masked], masked)[0] if len(masked) else -1
        row["masked_best_id"] = best
        row["masked_best_value"] = values[best] if len(masked) else math.nan
        lengths = np.sqrt((seen[top] ** 2).sum(1)) * np.sqrt((x * x).sum())
        row["top_cos"] = np.array([*(seen[top] @ x / lengths), *[math.nan] * len(pad)])
        rows.append(row)
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
