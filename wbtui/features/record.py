"""One feature as plain JSON data: the schema ``wbtui.feature/1``."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui import schema
from wbtui.definitions import RECONSTRUCTION, to_json
from wbtui.display import safe_token_text
from wbtui.features import classes, heads_record, neighbours_record
from wbtui.features.names import NUMBERS, STORED
from wbtui.features.words import sentence

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

SCHEMA = "wbtui.feature/1"
LATE = "late layer: reads are weak evidence"
EARLY = "early layer: writes say little about prediction"


def record(table: FeatureTable, row: int) -> dict[str, Any]:
    """See :meth:`FeatureTable.record`.

    ``text`` is a token's safe shown form with its leading space (the id gives the exact bytes). A number that is not
    finite is null and named in ``nonfinite``. ``reads`` is null with ``reads_absent`` saying why where the encoder
    has no place on the stream.
    """
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "address": table.origin.address(row),
        "model": dict(table.origin.model),
        "sae": dict(table.origin.sae),
        "feature": row,
        "definition": to_json(table.origin.definition),
        "thresholds": table.thresholds.to_json(),
        "note": RECONSTRUCTION,
    }
    available = bool(table.available[row])
    flags = int(table.cell("flags", row)) if available else 0
    bad: list[str] = []
    out["computed"] = bool(table.computed[row])
    out["provisional"] = row in table.provisional
    out["sentence"] = sentence(table, row)
    out["writes"] = _side(table, row, "writes", bad) if available else None
    out["against"] = _metrics(table, row, "against", bad) if available else None
    reads_absent = _reads_absent(table, row, flags, available)
    out["reads"] = None if reads_absent else _side(table, row, "reads", bad)
    if reads_absent:
        out["reads_absent"] = reads_absent
    out["row"] = {name: _number(table.value(name, row), name, bad) for name in _row_metrics()} if available else None
    out["classes"] = _classes(table, row)
    out["null"] = _null(table, row, bool(reads_absent)) if available else {}
    heads_record.add_to(out, table, row)
    out["data"] = _data(table, row)
    neighbours_record.add_to(out, table, row)
    out["nonfinite"] = bad
    out["warnings"] = _warnings(table, row, flags, available)
    return out


def _side(table: FeatureTable, row: int, side: str, bad: list[str]) -> dict[str, Any]:
    mean, std = table.value(f"{side}.mean", row), table.value(f"{side}.std", row)
    lists = {
        key: _tokens(table, row, side, stem, mean, std, bad)
        for key, stem in (("top_pos", "top"), ("top_neg", "bottom"))
    }
    words = [
        {"id": w.id, "text": w.text, "value": _number(w.value, "", bad), "z": round(w.z, 4), "count": w.count,
         "inside_null": w.inside_null}
        for w in table.words(row, side, table.origin.definition.k_words)
    ]  # fmt: skip
    return {**lists, "words": words, "metrics": _metrics(table, row, side, bad)}


def _tokens(
    table: FeatureTable, row: int, side: str, stem: str, mean: float, std: float, bad: list[str]
) -> list[dict[str, Any]]:
    out = []
    ids, values = table.cell(f"{side}.{stem}_ids", row), table.cell(f"{side}.{stem}_values", row)
    for token, value in zip(ids.tolist(), values.tolist(), strict=True):
        if token < 0:
            continue
        z = (value - mean) / std if std else math.nan
        name = f"{side}.{stem}_values"
        out.append(
            {
                "id": token,
                "text": table.vocab.shown(token) if table.vocab is not None else f"#{token}",
                "value": _number(value, name, bad),
                "z": _number(z, name, bad),
            }
        )
    return out


def _metrics(table: FeatureTable, row: int, side: str, bad: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for column in schema.side_columns(side):
        name = f"{side}.{column.name}"
        if name not in NUMBERS:
            continue
        value = _number(table.value(name, row), name, bad)
        out[column.name] = int(value) if value is not None and np.dtype(column.dtype).kind in "iu" else value
    for derived in ("evidence", "first_view", "n_eff"):
        name = f"{side}.{derived}"
        out[derived] = _number(table.value(name, row), name if table.thresholds.used or derived == "n_eff" else "", bad)
    return out


def _row_metrics() -> list[str]:
    return [name for name in STORED if "." not in name]


def _classes(table: FeatureTable, row: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side in ("writes", "reads", "against"):
        code = int(table.column(f"{side}.class")[row])
        words = table.value(f"{side}.n_words", row)
        out[side] = {
            "class": None if code == classes.UNKNOWN else classes.CLASS_NAMES[code],
            "words_beyond_noise": None if math.isnan(words) else int(words),
            "semantic": _known(table, f"semantic.{side}", row),
            "promotes": _known(table, f"promotes.{side}", row),
            "no_clear_signal": _known(table, f"unclear.{side}", row),
        }
    out["semantic_either"] = _known(table, "semantic.either", row)
    out["semantic_both"] = _known(table, "semantic.both", row)
    out["same_top_token"] = _known(table, "same", row)
    return out


def _known(table: FeatureTable, name: str, row: int) -> bool | None:
    return bool(table.column(name)[row]) if table.known(name)[row] else None


def _null(table: FeatureTable, row: int, no_reads: bool) -> dict[str, Any]:
    """Metric -> {tail, words}: (1 + b) / (N + 1), the larger over null kinds."""
    out: dict[str, Any] = {}
    for side in ("writes",) if no_reads else schema.SIDES:
        for name in ("z_max", "z_10", "delta_h", "cos_tok", "lev"):
            tail, words = table.null_percentile(f"{side}.{name}", row)
            out[f"{side}.{name}"] = {"tail": None if math.isnan(tail) else tail, "words": words}
    return out


def _data(table: FeatureTable, row: int) -> dict[str, Any] | None:
    """What was imported from files about a feature; None where nothing was."""
    if table.labels is None or table.labels.stamp == (0, 0):
        return None
    density = table.column("density")[row]
    labels = [
        {name: said and safe_token_text(said) for name, said in dataclasses.asdict(label).items()}
        for label in table.labels.of(row)
    ]
    return {
        "note": "data, imported from files; everything else here is from weights alone",
        "labels": labels,
        "density": None if math.isnan(density) else float(density),
        "dead": None if math.isnan(density) else bool(density == 0),
    }


def _reads_absent(table: FeatureTable, row: int, flags: int, available: bool) -> str:
    if not available:
        return "not computed yet"
    if flags & schema.FLAG_NO_READS:
        return "the encoder does not read the residual stream"
    if flags & schema.FLAG_BAD_ENCODER:
        return "its encoder column is not finite"
    if flags & schema.FLAG_ZERO_ENCODER:
        return "its encoder column is zero"
    return ""


def _warnings(table: FeatureTable, row: int, flags: int, available: bool) -> list[str]:
    out = []
    if not available:
        return ["not computed yet"]
    if row in table.provisional:
        out.append("provisional: one feature alone, its last digits may change")
    if row in table.unmasked:
        out.append("unmasked: the token mask was not there yet")
    if flags & schema.FLAG_BAD_DECODER:
        out.append("its decoder row is not finite")
    if flags & schema.FLAG_ZERO_DECODER:
        out.append("its decoder row is zero")
    if missing := table.thresholds.missing_kinds:
        out.append("thresholds may still rise: null " + ", ".join(missing) + " not there yet")
    if table.vocab is None:
        out.append("token strings not there yet")
    out += depth_notes(table)
    if table.plan is not None:
        out += table.plan.sae.notes
    return out


def depth_notes(table: FeatureTable) -> list[str]:
    """What the layer says about the two sides (methods 1.2, 2.4): writes mean little early, reads little late."""
    if table.plan is None:
        return []
    layer, layers = table.plan.sae.layer, table.plan.model.n_layers
    notes = []
    if layer == 0:
        notes.append(EARLY)
    if layers > 1 and layer >= layers / 2:
        notes.append(LATE)
    return notes


def _number(value: float, name: str, bad: list[str]) -> float | None:
    """A float32's shortest decimal as a float; null, and remembered, when it is not finite."""
    if not math.isfinite(value):
        if name and name not in bad:
            bad.append(name)
        return None
    return float(np.format_float_positional(np.float32(value), unique=True)) if abs(value) < 1e15 else float(value)
