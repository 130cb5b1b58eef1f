"""A set page as files: the features, shared words, shared heads, cosines; what they mean beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.definitions import RECONSTRUCTION, to_json
from wbtui.features.export import guard
from wbtui.features.marked import SharedHead, SharedWords
from wbtui.tui.drawn_export import lines_csv, number_text, stem_of, write_together

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def write(
    folder: Path,
    table: FeatureTable,
    rows: Sequence[int],
    sides: Sequence[SharedWords],
    heads: Sequence[SharedHead],
    answer: dict[str, Any] | None,
    picture: str,
) -> list[Path]:
    """Write ``MODEL-SAE-set-features.csv``, ``-words.csv``, ``-heads.csv``, ``-cosines.csv``, ``.svg``, ``.meta.json``.

    Raises:
        StoreError: the folder cannot be written.
    """
    meta = {
        "schema": "wbtui.set/1",
        "address": table.origin.address(),
        "features": [int(row) for row in rows],
        "definition": to_json(table.origin.definition),
        "products": table.origin.products,
        "thresholds": table.thresholds.to_json(),
        "words": {s.side: {"shared": s.total, "at_random": s.random, "at_random_p99": s.random_p99} for s in sides},
        "rank": None if answer is None else answer["rank"],
        "null": None if answer is None else answer["null"],
        "note": RECONSTRUCTION,
    }
    files = {**texts(table, rows, sides, heads, answer), ".svg": picture}
    return write_together(folder, stem_of(table, "set"), files, meta)


def texts(
    table: FeatureTable,
    rows: Sequence[int],
    sides: Sequence[SharedWords],
    heads: Sequence[SharedHead],
    answer: dict[str, Any] | None,
) -> dict[str, str]:
    """Everything of a set page as CSV, by the endings of its files."""
    out = {
        "-features.csv": lines_csv(
            ("address", "kind", "words"),
            [
                (table.origin.address(r), table.kind(r), guard(" ".join(w.text for w in table.words(r, k=8))))
                for r in rows
            ],
        ),
        "-words.csv": lines_csv(
            ("side", "word", "features", "of", "best_z", "share_of_all", "which"),
            [
                (s.side, guard(w.text), w.count, len(rows), number_text(w.best_z), number_text(w.base),
                 " ".join(map(str, w.features)))
                for s in sides
                for w in s.words
            ],
        ),
        "-heads.csv": lines_csv(
            ("layer", "head", "side", "features", "of", "share_of_all", "tail"),
            [(h.layer, h.head, h.side, h.count, len(rows), number_text(h.base), number_text(h.tail)) for h in heads],
        ),
    }  # fmt: skip
    if answer is not None:
        features = answer["features"]
        lines = [(f, *line) for f, line in zip(features, answer["cosines"], strict=True)]
        out["-cosines.csv"] = lines_csv(("feature", *map(str, features)), lines)
    return out
