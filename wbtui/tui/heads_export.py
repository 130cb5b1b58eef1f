"""The grid of the Heads page as a file: one line a layer, head and side, with what the numbers mean beside it."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.definitions import to_json
from wbtui.errors import StoreError
from wbtui.features.export import guard, provenance
from wbtui.features.glossary import explain
from wbtui.features.heads import STATISTICS, HeadTable
from wbtui.features.heads_record import words_of
from wbtui.schema_attention import HEAD_SIDES
from wbtui.store.keys import slug

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

FIELDS = ("layer", "head", "side", "ratio", "score", "noise_99", "percentile", "partner", "partner_words")


def grid_csv(table: FeatureTable, tables: Sequence[HeadTable], row: int, statistic: str | None = None) -> str:
    """``layer,head,side,ratio,score,noise_99,percentile,partner,partner_words``, then the ratio of every statistic."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FIELDS, *(f"ratio_{name}" for name in STATISTICS)])
    for heads in tables:
        chosen = statistic or heads.statistic
        rows = {name: heads.row(row, name) for name in {*STATISTICS, chosen}}
        for h in range(heads.n_heads):
            for side in HEAD_SIDES:
                part = rows[chosen].part(side, h)
                writer.writerow(
                    [
                        heads.layer, h, side, _text(part.ratio), _text(part.value), _text(heads.bars(side, chosen)[h]),
                        _text(heads.percentile(side, h, row, chosen)), part.partner if part.partner >= 0 else "",
                        guard(" ".join(words_of(table, part.partner))),
                        *(_text(rows[name].ratio[side][h]) for name in STATISTICS),
                    ]
                )  # fmt: skip
    return out.getvalue()


def _text(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else ""


def write(
    folder: Path, table: FeatureTable, tables: Sequence[HeadTable], row: int, statistic: str | None = None
) -> list[Path]:
    """Write ``MODEL-SAE-ROW-heads.csv`` and ``.meta.json`` under a name that none has yet.

    Raises:
        StoreError: the folder cannot be written.
    """
    parts = (str(table.origin.model.get("name", "model")), str(table.origin.sae.get("name", "sae")))
    stem = "-".join(slug(part, "")[:-1] for part in parts) + f"-{row}-heads"
    chosen = statistic or tables[0].statistic
    note: dict[str, Any] = {
        "feature": row,
        "statistic": {"name": chosen, "meaning": explain(f"head:L{tables[0].layer}.H0.{chosen}").meaning},
        "attention": [
            {
                "layer": heads.layer,
                "definition": to_json(heads.definition),
                "estimated": heads.estimated(chosen),
                "nulls": [{"kind": n.kind, "seed": n.seed, "n": n.n} for n in heads.nulls],
            }
            for heads in tables
        ],
    }
    texts = {
        ".csv": grid_csv(table, tables, row, statistic),
        ".meta.json": json.dumps(provenance(table, table.computed[:0].nonzero()[0], [], note), indent=1),
    }
    for name in itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2))):
        paths = [folder / (name + ending) for ending in texts]
        if not any(path.exists() for path in paths):
            break
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                new.write_text(text, encoding="utf-8")
                os.replace(new, path)
            finally:
                new.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", "a folder that can be written") from None
    return paths
