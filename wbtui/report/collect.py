"""Gather a report's data: tables, heads, families of near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wbtui.analysis.populations import MAX_CLUSTERED, families
from wbtui.catalog.models import ModelInfo
from wbtui.catalog.saes import SaeInfo
from wbtui.features.table import FeatureTable
from wbtui.report.data import HeadValues, ModelData, SaeData, mark_extras
from wbtui.report.heads import HeadWork, head_values


def collect(
    model: ModelInfo,
    saes: Sequence[SaeInfo],
    cache: Path,
    table: Callable[[SaeInfo], FeatureTable],
    *,
    definition: str,
    attention: bool = True,
    work: HeadWork | None = None,
    said: Callable[[str], None] = lambda _: None,
) -> ModelData:
    """Everything that a report reads.

    Args:
        table: gives an SAE's finished table.
        attention: read the attention products. work: computes missing ones; None makes them an error.
        said: told what is being done.
    """
    found: list[SaeData] = []
    warnings: list[str] = []
    for info in saes:
        said(f"{info.name}: tokens")
        data = SaeData(info, table(info))
        if attention:
            heads = head_values(model, info, cache, work)
            if isinstance(heads, HeadValues):
                data.heads = heads
            else:
                data.no_heads = heads
        else:
            data.no_heads = "left out (--no-attention)"
        data.families = near_duplicates(model, info)
        if data.families is None:
            warnings.append(
                f"{info.name}: more than {MAX_CLUSTERED:,} features, near-duplicates were not searched; permutation "
                "bands are too narrow where there are families."
            )
        found.append(data)
    return ModelData(model, found, definition, [*mark_extras(found), *warnings])


def near_duplicates(model: ModelInfo, sae: SaeInfo) -> np.ndarray | None:
    """Families of an SAE's features by decoder cosine; None above the size that is searched."""
    if sae.d_sae > MAX_CLUSTERED:
        return None
    from wbtui.sources.checkpoint import Checkpoint
    from wbtui.sources.sae import SaeSource

    source = SaeSource(sae, Checkpoint(model.path))
    return families(source.decoder_rows(0, source.n))
