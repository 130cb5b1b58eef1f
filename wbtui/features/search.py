"""The two inner loops of a filter: token ids against a set of tokens, numbers against a number."""

from __future__ import annotations

import numpy as np


def any_of(hits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rows with a hit among their ids.

    Args:
        hits: bool [V].
        ids: int32 [k, n]; absent ones are V.

    Returns:
        bool [n].
    """
    out = np.zeros(ids.shape[1], dtype=bool)
    tokens = np.flatnonzero(hits)
    if not len(tokens):
        return out
    few = len(tokens) <= 2
    padded = np.append(hits, False)
    for start in range(0, ids.shape[1], 32_768):
        block = ids[:, start : start + 32_768]
        if few:
            for token in tokens.astype(ids.dtype):
                out[start : start + 32_768] |= (block == token).any(axis=0)
        else:
            found = out[start : start + 32_768]
            for ids_of_rank in block:
                found |= padded[ids_of_rank]
                if found.all():
                    break
    return out


def compare(column: np.ndarray, op: str, number: float) -> np.ndarray:
    """``column op number`` in the column's own precision; NaN compares as numpy compares it."""
    if column.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = column.dtype.type(number)
    else:
        value = np.float64(number)
    if op == "=":
        return column == value
    if op == "!=":
        return column != value
    if op == "<":
        return column < value
    if op == "<=":
        return column <= value
    return column > value if op == ">" else column >= value
