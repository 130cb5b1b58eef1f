"""Attention products with numbers that a test knows, for the tiny model of :mod:`tests.tui.place`."""

from __future__ import annotations

import numpy as np

from tests.tui.place import Place, write_rows
from wbtui.catalog.models import find_model
from wbtui.catalog.plan_attention import AttentionPlan, plan_attention
from wbtui.catalog.saes import find_sae
from wbtui.definitions import AttentionDefinition
from wbtui.schema_attention import attention_columns, ov_columns

HEADS = 2


def arrays(heads: int, n: int, seed: int, partners: int | None = None) -> dict[str, np.ndarray]:
    """Random columns of an ``attention`` product, ``[heads, n]``; partners among ``partners`` features."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for name, column in attention_columns().items():
        if column.dtype == "int32":
            out[name] = rng.integers(0, partners or n, size=(heads, n), dtype=np.int32)
        else:
            out[name] = rng.gamma(4.0, 1.0, size=(heads, n)).astype(column.dtype)
    return out


def ov_arrays(heads: int, n: int, seed: int) -> dict[str, np.ndarray]:
    """Random columns of an ``ov`` product."""
    rng = np.random.default_rng(seed)
    return {name: rng.gamma(4.0, 1.0, size=(heads, n)).astype(c.dtype) for name, c in ov_columns().items()}


def head_plan(place: Place, sae: str = "L1", layer: int | None = None) -> AttentionPlan:
    """The attention products of an SAE."""
    model = find_model(str(place.model))
    return plan_attention(model, find_sae(model, sae), AttentionDefinition(), place.cache, layer)


def fill_heads(
    place: Place,
    sae: str = "L1",
    layer: int | None = None,
    changes: dict[str, dict[tuple[int, int], float]] | None = None,
) -> dict[str, np.ndarray]:
    """Every product of a layer's heads; ``changes``: column -> {(head, feature): value}. Returns the features'."""
    plan = head_plan(place, sae, layer)
    columns = arrays(plan.facts.n_heads, place.n, 100 + plan.layer)
    for name, cells in (changes or {}).items():
        for at, value in cells.items():
            columns[name][at] = value
    write_rows(place.cache, plan.attention, columns)
    for seed, spec in enumerate((*plan.nulls, *plan.checks)):
        write_rows(place.cache, spec, arrays(plan.facts.n_heads, 200, seed, place.n))
    write_rows(place.cache, plan.ov, ov_arrays(plan.facts.n_heads, place.n, 7))
    for seed, spec in enumerate(plan.ov_nulls):
        write_rows(place.cache, spec, ov_arrays(plan.facts.n_heads, 200, 20 + seed))
    return columns
