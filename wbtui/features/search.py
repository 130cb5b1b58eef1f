"""The two inner loops of a filter: token ids against a set of tokens, numbers against a number."""

from __future__ import annotations

import numpy as np

BLOCK = 2048
"""Rows looked at together: their ids stay in the nearest cache."""


def any_of(hits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rows with a hit among their ids.

    Args:
        hits: bool [V].
        ids: int32 [n, k], as stored (a mapped file's rows are read where they lie); absent ones are negative.

    Returns:
        bool [n].
    """
    out = np.zeros(len(ids), dtype=bool)
    tokens = np.flatnonzero(hits)
    if not len(tokens):
        return out
    few = tokens.astype(ids.dtype) if len(tokens) <= 2 else None
    padded = np.append(hits, False)  # where an id that is none of the vocabulary's leads
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK].T
        found = out[start : start + BLOCK]
        if few is not None:
            for token in few:
                found |= (block == token).any(axis=0)
        else:
            places = np.ascontiguousarray(block).view(np.uint32).astype(np.intp)  # negative: beyond all
            np.logical_or.reduce(np.take(padded, places, mode="clip"), axis=0, out=found)
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
