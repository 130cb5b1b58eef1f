"""Nearest features as plain JSON data: a block of a feature's record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.address import Address
from wbtui.schema_neighbours import DEC, ENC

if TYPE_CHECKING:
    from wbtui.features.neighbours import NearTable
    from wbtui.features.table import FeatureTable

WORDS = {DEC: "decoder", ENC: "encoder"}


def add_to(out: dict[str, Any], table: FeatureTable, row: int) -> None:
    """Put ``neighbours`` into a record: an entry a compared SAE; null, with ``neighbours_absent`` saying why."""
    shelf = table.neighbours
    if shelf is not None:
        shelf.look()
    there = shelf.tables() if shelf is not None else []
    out["neighbours"] = [_pair(table, near, row) for near in there] or None
    if there:
        return
    place = f"{table.origin.model.get('name')} {table.origin.sae.get('name')}"
    out["neighbours_absent"] = (
        "no model at hand"
        if shelf is None
        else shelf.failure or f"not computed: `wbtui compute {place} --analysis neighbours`"
    )


def _pair(table: FeatureTable, near: NearTable, row: int) -> dict[str, Any]:
    out: dict[str, Any] = {"sae": near.other.name, "layer": near.other.layer, "role": near.role or None}
    for kind, word in WORDS.items():
        bar = near.bar(kind)
        out[word] = {
            "noise_99": None if math.isnan(bar) else _plain(bar),
            "nearest": [
                {
                    "address": str(Address(str(table.origin.model["name"]), n.sae, n.feature)),
                    "feature": n.feature,
                    "cosine": _plain(n.cosine),
                    "inside_null": n.inside_null if math.isfinite(bar) else None,
                }
                for n in near.listed(row, kind)
            ],
        }
    return out


def _plain(value: float) -> float:
    return float(np.format_float_positional(np.float32(value), unique=True))
