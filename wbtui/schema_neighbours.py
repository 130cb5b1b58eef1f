"""The columns of the neighbours products: the contract between the analysis that writes them and all that read them.

One product compares one SAE with one other (or with itself): a row a feature, its ``k`` nearest features there by the
cosine of decoder rows and, apart from that, by the cosine of encoder columns, nearest first. Both are taken in the
residual stream (methods 3.6), without the component that no LayerNorm reader sees. An SAE's comparison with itself
leaves each feature itself out. A null product has one row a random direction and its best cosine alone.

Where a row is zero or not finite, the encoder does not read the stream, or the other SAE has fewer features than
``k``: NaN in cosines, -1 in ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEC, ENC = "dec", "enc"
KINDS = (DEC, ENC)
"""Decoder rows, encoder columns."""
ANALYSES = ("neighbours", "neighbours_null")


@dataclass(frozen=True)
class NearColumn:
    """One column: dtype, whether it is a list of ``k``, meaning."""

    name: str
    dtype: str
    listed: bool
    meaning: str
    source: str = "methods 2.2"


def neighbours_columns() -> dict[str, NearColumn]:
    """Every column of a ``neighbours`` product by full name: cosines and ids ``[d_sae, k]``."""
    words = {DEC: "decoder rows in the residual stream", ENC: "encoder columns on the residual stream"}
    out = [
        column
        for kind in KINDS
        for column in (
            NearColumn(f"{kind}.cos", "float32", True, f"largest cosines of {words[kind]}, largest first"),
            NearColumn(f"{kind}.id", "int32", True, "whose they are in the other SAE; equal ones by number"),
        )
    ]
    return {column.name: column for column in out}


def null_columns() -> dict[str, NearColumn]:
    """Every column of a ``neighbours_null`` product ``[n]``."""
    words = {DEC: "decoder row", ENC: "encoder column"}
    return {
        f"{kind}.best": NearColumn(
            f"{kind}.best", "float32", False, f"largest cosine of a random direction with any {words[kind]}"
        )
        for kind in KINDS
    }


def empty_near(column: NearColumn, n: int, k: int) -> np.ndarray:
    """``n`` absent rows: NaN or -1."""
    shape = (n, k) if column.listed else (n,)
    return np.full(shape, np.nan if np.dtype(column.dtype).kind == "f" else -1, dtype=column.dtype)
