"""The columns of the E2 and OV products: the contract between the analysis that writes them and all that read them.

These products have one row per query head of the layer, and every column is ``[n_heads, d_sae]`` (for nulls
``[n_heads, n]``): a head is the unit of work, because one pass over its pairs gives both sides of every feature, and
a filter or a sort by one head reads contiguous memory. ``columns[name].T`` is the ``[d_sae, n_heads]`` view, no copy.
Row ``h`` is query head ``h``; the layer stands in the product's identity. Names: ``<side>.<statistic>``.
A feature whose decoder row is not finite or zero has NaN in every float column, -1 in every id column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HEAD_SIDES = ("query", "key")
ANALYSES = ("attention", "attention_null", "ov", "ov_null")


@dataclass(frozen=True)
class HeadColumn:
    """One column: dtype, meaning, source, and whether it is an estimate above some number of features."""

    name: str
    dtype: str
    meaning: str
    source: str = "methods 1.3"
    sampled: str = ""
    """Empty, or the definition's field above whose number of features a seeded sample of partners is used."""


_BOTH = (
    HeadColumn("rms", "float32", "root mean square score over the partners, closed form", "methods 1.3; speed d.1"),
    HeadColumn("mean", "float32", "mean score over the partners, closed form", "methods 1.3; speed d.1"),
    HeadColumn("mean_abs", "float32", "mean absolute score over the partners", sampled="pairs_below"),
    HeadColumn("p75", "float32", "75th percentile of the absolute score over the partners", sampled="p75_below"),
    HeadColumn("max", "float32", "largest score over the partners, before the softcap", sampled="pairs_below"),
    HeadColumn("partner", "int32", "the feature of that largest score (ties: the smallest)", sampled="pairs_below"),
    HeadColumn("max_cos", "float32", "cosine of query and key at that largest score", sampled="pairs_below"),
    HeadColumn("cos_rms", "float32", "root mean square cosine of query and key over the partners, closed form"),
    HeadColumn("gain", "float32", "length of the projection per unit of the direction, over random directions' median"),
)
_QUERY = (
    HeadColumn("top1", "float32", "softmax over key features: mass of the largest", sampled="pairs_below"),
    HeadColumn("top5", "float32", "mass of the five largest", sampled="pairs_below"),
    HeadColumn("conc", "float32", "1 - entropy / ln(keys): 0 uniform, 1 on one key", sampled="pairs_below"),
)
_KEY = (
    HeadColumn(
        "received", "float32", "softmax mass received over all query features; uniform 1", sampled="pairs_below"
    ),
    HeadColumn("prior", "float32", "score from the query bias alone: attended whatever the query", "methods 3.2"),
)
_OV = (
    HeadColumn("norm", "float32", "length of what the head writes when it attends to the unit feature, closed form"),
    HeadColumn("gain", "float32", "that length over random directions' median"),
    HeadColumn("copy", "float32", "cosine of what the head writes with the feature's own direction"),
)
STREAM_MEAN = "stream_mean"
"""Prefix of the columns ``[n_heads]`` of the SAE's ``b_dec`` as one more query and key: ``stream_mean.query.rms``.
NaN where the SAE has none, or its hook is not the stream."""

STABILITY = "stability"
"""Column ``[n_heads, len(STABILITY_OFFSETS)]`` of an ``attention`` product: cosine of all pairs' scores at offset 0
with those at each offset. NaN at offsets beyond a local layer's window, and everywhere with learned positions."""
STABILITY_OFFSETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def attention_columns() -> dict[str, HeadColumn]:
    """Every ``[n_heads, d_sae]`` column of an ``attention`` product by full name; nulls have the same."""
    sides = {"query": (*_BOTH, *_QUERY), "key": (*_BOTH, *_KEY)}
    return {f"{side}.{column.name}": column for side, columns in sides.items() for column in columns}


def ov_columns() -> dict[str, HeadColumn]:
    """Every column of an ``ov`` product; ``ov_null`` has the same."""
    return {f"ov.{column.name}": column for column in _OV}


def is_estimate(column: HeadColumn, n_features: int, definition: dict[str, object]) -> bool:
    """Whether a column over ``n_features`` features comes from a seeded sample under a definition (JSON data)."""
    return bool(column.sampled) and n_features > int(str(definition[column.sampled]))


def empty_heads(column: HeadColumn, *shape: int) -> np.ndarray:
    """An array of absent values: NaN or -1."""
    return np.full(shape, np.nan if np.dtype(column.dtype).kind == "f" else -1, dtype=column.dtype)
