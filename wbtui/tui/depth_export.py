"""Files of the Depth page: every point of every curve, the layer × head map, the picture, what the numbers mean."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.features.depth_profiles import Depth
from wbtui.features.export import guard, provenance
from wbtui.schema_attention import HEAD_SIDES
from wbtui.tui.drawn_export import lines_csv, number_text, stem_of, write_together

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def curves_csv(depth: Depth) -> str:
    """``measure,sae,layer,value,low,high,n,null,threshold,threshold_scope,threshold_how``: one line a point."""
    rows = []
    for curve in depth.curves:
        if curve.profile is None:
            continue
        cut = curve.profile.cut
        for p in curve.profile.points:
            numbers = [number_text(v) for v in (p.value, p.low, p.high)]
            rows.append([curve.name, guard(p.label), f"{p.layer:g}", *numbers, p.n, number_text(p.null), cut.mode,
                         cut.scope, guard(curve.how)])  # fmt: skip
    fields = ("measure", "sae", "layer", "value", "low", "high", "n", "null", "threshold", "threshold_scope",
              "threshold_how")  # fmt: skip
    return lines_csv(fields, rows)


def map_csv(depth: Depth) -> str:
    """``layer,sae,head,side,share``: features beyond the noise's 99 % in each head."""
    rows = [
        [layer, guard(sae), head, side, number_text(float(share))]
        for side in HEAD_SIDES
        for layer, sae, shares in depth.head_shares(side)
        for head, share in enumerate(shares)
    ]
    return lines_csv(("layer", "sae", "head", "side", "share"), rows)


def meta(table: FeatureTable, depth: Depth) -> dict[str, Any]:
    """Definition and thresholds of the table that the page was opened from; shapes, refusals, the variation test."""
    curves = [
        {
            "measure": curve.name,
            "threshold": curve.how,
            "refused": curve.why if curve.refused else None,
            "absent": curve.why if curve.profile is None and not curve.refused else None,
            "shape": None if curve.profile is None else _plain(dataclasses.asdict(curve.profile.shape)),
        }
        for curve in depth.curves
    ]
    note = {
        "saes": [layer.info.name for layer in depth.layers],
        "statistic_of_heads": depth.statistic,
        "threshold_of_heads": depth.cut,
        "curves": curves,
        "variation": None if depth.variation is None else _plain(dataclasses.asdict(depth.variation)),
    }
    return provenance(table, table.computed[:0].nonzero()[0], [], note)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(folder: Path, table: FeatureTable, depth: Depth, svg: str) -> list[Path]:
    """Write ``MODEL-SAE-depth.csv``, ``.heads.csv``, ``.svg`` and ``.meta.json`` under a name that none has yet.

    Raises:
        StoreError: the folder cannot be written.
    """
    texts = {".csv": curves_csv(depth), ".heads.csv": map_csv(depth), ".svg": svg}
    return write_together(folder, stem_of(table, "depth"), texts, meta(table, depth))
