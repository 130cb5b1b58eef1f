"""The grid of the Heads page as a file: one line a layer, head and side, with what the numbers mean beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.definitions import to_json
from wbtui.features.export import guard, provenance
from wbtui.features.glossary import explain
from wbtui.features.heads import STATISTICS, HeadTable
from wbtui.features.heads_record import words_of
from wbtui.schema_attention import HEAD_SIDES
from wbtui.tui.drawn_export import lines_csv, number_text, stem_of, write_together

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

FIELDS = ("layer", "head", "side", "ratio", "score", "noise_99", "percentile", "partner", "partner_words")


def grid_csv(table: FeatureTable, tables: Sequence[HeadTable], row: int, statistic: str | None = None) -> str:
    """``layer,head,side,ratio,score,noise_99,percentile,partner,partner_words``, then the ratio of every statistic."""
    lines = []
    for heads in tables:
        chosen = statistic or heads.statistic
        rows = {name: heads.row(row, name) for name in {*STATISTICS, chosen}}
        for h in range(heads.n_heads):
            for side in HEAD_SIDES:
                part = rows[chosen].part(side, h)
                lines.append(
                    [
                        heads.layer, h, side, number_text(part.ratio), number_text(part.value),
                        number_text(heads.bars(side, chosen)[h]),
                        number_text(heads.percentile(side, h, row, chosen)),
                        part.partner if part.partner >= 0 else "",
                        guard(" ".join(words_of(table, part.partner))),
                        *(number_text(rows[name].ratio[side][h]) for name in STATISTICS),
                    ]
                )  # fmt: skip
    return lines_csv([*FIELDS, *(f"ratio_{name}" for name in STATISTICS)], lines)


def write(
    folder: Path,
    table: FeatureTable,
    tables: Sequence[HeadTable],
    row: int,
    svg: str,
    statistic: str | None = None,
    page: dict[str, Any] | None = None,
) -> list[Path]:
    """Write ``MODEL-SAE-ROW-heads.csv``, ``.svg`` (the page as it looks) and ``.meta.json`` under a name that none has.

    Args:
        page: the feature's partners and what heads write, as computed on demand; stands in the meta file.

    Raises:
        StoreError: the folder cannot be written.
    """
    chosen = statistic or tables[0].statistic
    note: dict[str, Any] = {
        "feature": row,
        "statistic": {"name": chosen, "meaning": explain(f"head:L{tables[0].layer}.H0.{chosen}").meaning},
        "attention": [
            {
                "layer": heads.layer,
                "definition": to_json(heads.definition),
                "estimated": heads.estimated(chosen),
                "per_feature_normalised": heads.plan is not None and heads.plan.normalised,
                "nulls": [{"kind": n.kind, "seed": n.seed, "n": n.n} for n in heads.nulls],
            }
            for heads in tables
        ],
        "on_demand": page,
    }
    meta = provenance(table, table.computed[:0].nonzero()[0], [], note)
    texts = {".csv": grid_csv(table, tables, row, statistic), ".svg": svg}
    return write_together(folder, stem_of(table, f"{row}-heads"), texts, meta)
