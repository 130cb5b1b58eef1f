"""What a product costs before it is computed: arithmetic and bytes, from shapes alone.

Counted are the matrix products (two operations for each multiply-add); everything else is fused into them. A product's
bytes are its columns. Where rows are computed already, the rest costs its share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wbtui import schema, schema_attention, schema_neighbours
from wbtui.catalog.models import ModelInfo
from wbtui.store.keys import ProductSpec

VOCAB_BYTES = 40
"""A token's string, its display text, flags and offsets, on average."""


@dataclass(frozen=True)
class Cost:
    """Of a whole product."""

    flops: float
    bytes: int


def cost(spec: ProductSpec, model: ModelInfo) -> Cost:
    """A product's arithmetic and size.

    Args:
        spec: any product of a plan of this model.
        model: its sizes.

    Returns:
        Cost: with D = d_model, V = d_vocab, F = d_sae, d = d_head, n = directions of a null:
        tokens and null 2·D·V for each row and side; mask 2·V·V·D; attention, for each head, the pairs 2·F·F·d and the
        projections 2·2·F·D·d (a null: n·F pairs on each side); ov 2·F·D·d + 2·F·d·d for each head; neighbours 2·F·F'·D
        for decoders and as much for encoders.
    """
    d, v = model.d_model, model.d_vocab
    sae: dict[str, Any] = spec.sae or {}
    features = int(sae.get("d_sae", 0))
    n = int((spec.identity.get("null") or {}).get("n", 0)) or features
    head = model.d_head
    rows = spec.rows
    if spec.analysis == "vocab":
        return Cost(0.0, VOCAB_BYTES * int(spec.identity["d_vocab"]))
    if spec.analysis == "mask":
        return Cost(2.0 * rows * v * d, 4 * rows)
    if spec.analysis in ("tokens", "null"):
        columns = schema.tokens_columns() if spec.analysis == "tokens" else schema.null_columns()
        definition = spec.identity["definition"]
        row = sum(np.dtype(c.dtype).itemsize * int(np.prod(schema.width_of(c, definition))) for c in columns.values())
        return Cost(2.0 * rows * v * d * len(schema.SIDES), rows * row)
    if spec.analysis in ("attention", "attention_null"):
        row = 4 * len(schema_attention.attention_columns())
        pairs = features * features if spec.analysis == "attention" else 2 * n * features
        return Cost(rows * (2.0 * pairs * head + 4.0 * n * d * head), rows * n * row)
    if spec.analysis in ("ov", "ov_null"):
        return Cost(rows * 2.0 * n * head * (d + head), rows * n * 4 * len(schema_attention.ov_columns()))
    if spec.analysis in schema_neighbours.ANALYSES:
        other = int(spec.model["other"]["d_sae"])
        if spec.analysis == "neighbours":
            row = 4 * len(schema_neighbours.neighbours_columns()) * int(spec.identity["definition"]["k"])
        else:
            row = 4 * len(schema_neighbours.null_columns())
        return Cost(2.0 * 2 * rows * other * d, rows * row)
    return Cost(0.0, 0)


@dataclass
class Bill:
    """What is missing of many products, each counted once."""

    products: int = 0
    complete: int = 0
    flops: float = 0.0
    bytes: int = 0
    measured_flops: float = 0.0
    measured_seconds: float = 0.0
    """Of the finished ones: what they cost and how long a worker took."""

    @property
    def rate(self) -> float | None:
        """Operations per second of one worker, from finished products; None where there are none."""
        return self.measured_flops / self.measured_seconds if self.measured_seconds > 0 else None

    def seconds(self, workers: int = 1) -> float | None:
        """How long the rest should take, None where nothing comparable was measured here."""
        if not self.flops:
            return 0.0
        return None if self.rate is None else self.flops / self.rate / max(workers, 1)


def bill(products: Iterable[tuple[ProductSpec, ModelInfo, int, float | None]]) -> Bill:
    """Add up.

    Args:
        products: (product, its model, rows that are missing (1 for one that is not made of rows), seconds that a
            finished one took).
    """
    out = Bill()
    seen: set[str] = set()
    for spec, model, missing, seconds in products:
        if spec.relative in seen:
            continue
        seen.add(spec.relative)
        whole = cost(spec, model)
        if not missing:
            out.complete += 1
            if seconds and whole.flops:
                out.measured_flops += whole.flops
                out.measured_seconds += seconds
            continue
        share = missing / spec.rows if spec.rows else 1.0
        out.products += 1
        out.flops += whole.flops * share
        out.bytes += whole.bytes
    return out
