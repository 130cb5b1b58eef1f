"""A direction of the user's as a row of its own: judged by an SAE's noise, ranked among its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.features.derived import provisional_values
from wbtui.features.table import FeatureTable
from wbtui.schema import SIDES

if TYPE_CHECKING:
    from wbtui.features.thresholds import Thresholds
    from wbtui.features.vocabulary import Vocabulary

RANKED = ("z_max", "z_10", "delta_h", "cos_tok", "lev", "word_share")


def direction_table(
    columns: Mapping[str, Any],
    definition: Any,
    *,
    vocab: Vocabulary | None,
    thresholds: Thresholds | None,
    name: str,
) -> FeatureTable:
    """A table of one row, the direction's, with the words and the bars of a population.

    Args:
        columns: a ``tokens`` row, as the service answers it.
        definition: of the numbers.
        thresholds: the population's, with its nulls.
        name: stands where an SAE's name would.
    """
    from wbtui.definitions import to_json

    values = provisional_values(columns, to_json(definition))
    table = FeatureTable.from_arrays(
        {n: np.asarray(v)[None] for n, v in values.items()},
        vocab=vocab, nulls=thresholds.nulls if thresholds is not None else (), definition=definition,
        model="direction", sae=name,
    )  # fmt: skip
    if thresholds is not None:
        table.with_thresholds(thresholds)
    return table


def places(table: FeatureTable, population: FeatureTable) -> dict[str, float]:
    """Share (0…100) of a population's stored rows that lie strictly below the direction, by metric; NaN for none."""
    out = {}
    for side in SIDES:
        for metric in RANKED:
            name = f"{side}.{metric}"
            mine, column = table.value(name, 0), population.column(name)
            known = np.asarray(column[population.computed & population.known(name)], dtype=np.float64)
            fine = np.isfinite(mine) and len(known)
            out[name] = 100.0 * float((known < mine).mean()) if fine else float("nan")
    return out
