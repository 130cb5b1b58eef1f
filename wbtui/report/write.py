"""From a report's data to its folder: CSV and SVG files, one JSON of provenance, one Markdown page."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbtui import __version__
from wbtui.definitions import RECONSTRUCTION
from wbtui.display import json_text
from wbtui.errors import StoreError, UsageError
from wbtui.features.export import cell_text
from wbtui.report import attention, figures, semantic, tokens
from wbtui.report.data import ModelData
from wbtui.report.hypotheses import Hypothesis, hypotheses
from wbtui.report.page import page

SCHEMA = "wbtui.report/1"
Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """What was found, before it is written."""

    hypotheses: list[Hypothesis]
    tables: dict[str, list[Row]]
    figures: dict[str, str]
    """File name -> SVG."""


def build(data: ModelData, *, n_perm: int = 200, seed: int = 0, said: Callable[[str], None] = lambda _: None) -> Report:
    """All tables and figures of a model.

    Raises:
        UsageError: the model has no SAE, or labels by a per-layer quantile.
    """
    if not data.curve:
        raise UsageError(f"{data.model.name}: no SAE", "at least one", f"`wbtui saes {data.model.name}` lists them")
    said("experiment 1: tokens")
    found = semantic.Effects(data, n_perm, seed)
    tables: dict[str, list[Row]] = {"e1_shares.csv": tokens.share_rows(data), "e1_classes.csv": tokens.class_rows(data)}
    drawn: dict[str, figures.Figure] = {"e1_shares": figures.shares(data), "e1_classes": figures.classes(data)}
    if data.with_heads:
        said("experiment 2: heads")
        tables |= {"e2_heads.csv": attention.head_rows(data), "e2_layers.csv": attention.layer_rows(data)}
        drawn |= {"e2_heads": figures.heads(data), "e2_depth": figures.any_head(data)}
    said("experiment 3: populations")
    tables["e3_populations.csv"] = semantic.population_rows(data)
    drawn["e3_populations"] = figures.populations(data)
    if data.with_heads:
        tables |= {
            "e3_effects.csv": semantic.effect_rows(data, found),
            "e3_variation.csv": semantic.variation_rows(data),
        }
        drawn |= {"e3_effects": figures.effects(data, found), "e3_variation": figures.variation(data)}
    said("hypotheses")
    judged = hypotheses(data, found)
    tables["hypotheses.csv"] = [h.to_json() for h in judged]
    for name, (_, rows) in drawn.items():
        tables[f"figure_{name}.csv"] = rows
    return Report(judged, tables, {f"{name}.svg": text for name, (text, _) in drawn.items()})


def write(data: ModelData, report: Report, folder: Path, settings: dict[str, Any]) -> list[Path]:
    """Write every file of a report; files of the same name are replaced, others left alone.

    Raises:
        StoreError: the folder cannot be written.
    """
    texts = {name: _csv(rows) for name, rows in report.tables.items()}
    texts |= report.figures
    texts["report.json"] = json_text(provenance(data, report, settings), indent=2) + "\n"
    texts["report.md"] = page(data, report.hypotheses, report.tables, sorted(report.figures), settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            part = folder / f".{name}.{os.getpid()}.part"
            part.write_text(text, encoding="utf-8", newline="")
            os.replace(part, folder / name)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}", "a folder that can be written") from None
    return [folder / name for name in sorted(texts)]


def provenance(data: ModelData, report: Report, settings: dict[str, Any]) -> dict[str, Any]:
    """What the numbers are from: products, thresholds, settings, versions."""
    return {
        "schema": SCHEMA,
        "wbtui_version": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "note": RECONSTRUCTION,
        "model": dict(data.saes[0].table.origin.model),
        "definition": data.definition,
        "settings": settings,
        "saes": [
            {
                **sae.table.origin.sae,
                "products": sae.table.origin.products,
                "in_curve": not sae.extra,
                "thresholds": sae.table.thresholds.to_json(),
                "heads": sae.no_heads if sae.heads is None else {"layer": sae.heads.layer, "note": sae.heads.note},
                "families": None if sae.families is None else _families(sae.families),
            }
            for sae in data.saes
        ],
        "hypotheses": [h.to_json() for h in report.hypotheses],
        "warnings": data.warnings,
    }


def _families(clusters: np.ndarray) -> dict[str, int]:
    sizes = np.bincount(clusters)
    return {"clusters": len(sizes), "larger_than_one": int((sizes > 1).sum()), "largest": int(sizes.max())}


def _csv(rows: list[Row]) -> str:
    """Rows of plain numbers and our own words; a number that is absent is an empty cell."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, (float, np.floating)) and not np.isfinite(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    return cell_text(value) if isinstance(value, str) else value
