"""A set page as files: the features, shared words, shared heads, cosines; what they mean beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wbtui.definitions import RECONSTRUCTION, to_json
from wbtui.features.export import guard
from wbtui.features.marked import Part, SharedHead, SharedWords
from wbtui.tui.drawn_export import lines_csv, number_text, stem_of, write_together


def write(
    folder: Path,
    parts: Sequence[Part],
    sides: Sequence[SharedWords],
    heads: Sequence[SharedHead],
    answer: dict[str, Any] | None,
    picture: str,
) -> list[Path]:
    """Write ``MODEL-SAE-set-features.csv``, ``-words.csv``, ``-heads.csv``, ``-cosines.csv``, ``.svg``, ``.meta.json``;
    a set over several SAEs is named after the first, ``MODEL-SAE-set-of-3-saes``.

    Raises:
        StoreError: the folder cannot be written.
    """
    table = parts[0].table
    meta = {
        "schema": "wbtui.set/2",
        "address": table.origin.address(),
        "features": [int(row) for row in parts[0].rows],
        "saes": [
            {
                "address": part.table.origin.address(),
                "label": part.label,
                "features": [int(row) for row in part.rows],
                "products": part.table.origin.products,
                "thresholds": part.table.thresholds.to_json(),
            }
            for part in parts
        ],
        "definition": to_json(table.origin.definition),
        "words": {s.side: {"shared": s.total, "at_random": s.random, "at_random_p99": s.random_p99} for s in sides},
        "rank": None if answer is None else answer["rank"],
        "null": None if answer is None else answer["null"],
        "note": RECONSTRUCTION,
    }
    files = {**texts(parts, sides, heads, answer), ".svg": picture}
    return write_together(
        folder, stem_of(table, "set" if len(parts) == 1 else f"set-of-{len(parts)}-saes"), files, meta
    )


def texts(
    parts: Sequence[Part],
    sides: Sequence[SharedWords],
    heads: Sequence[SharedHead],
    answer: dict[str, Any] | None,
) -> dict[str, str]:
    """Everything of a set page as CSV, by the endings of its files."""
    of = sum(len(part.rows) for part in parts)
    out = {
        "-features.csv": lines_csv(
            ("address", "kind", "words"),
            [
                (part.table.origin.address(r), part.table.kind(r),
                 guard(" ".join(w.text for w in part.table.words(r, k=8))))
                for part in parts
                for r in part.rows
            ],
        ),
        "-words.csv": lines_csv(
            ("side", "word", "features", "of", "best_z", "share_of_all", "which"),
            [
                (s.side, guard(w.text), w.count, of, number_text(w.best_z), number_text(w.base),
                 " ".join(name.removeprefix("#") for name in w.features))
                for s in sides
                for w in s.words
            ],
        ),
        "-heads.csv": lines_csv(
            ("layer", "head", "side", "features", "of", "share_of_all", "tail"),
            [(h.layer, h.head, h.side, h.count, h.of, number_text(h.base), number_text(h.tail)) for h in heads],
        ),
    }  # fmt: skip
    if answer is not None:
        by_name = {part.sae: part for part in parts}
        saes = answer.get("saes") or [parts[0].sae] * len(answer["features"])
        names = [by_name[sae].name(f).removeprefix("#") for sae, f in zip(saes, answer["features"], strict=True)]
        lines = [(name, *line) for name, line in zip(names, answer["cosines"], strict=True)]
        out["-cosines.csv"] = lines_csv(("feature", *names), lines)
    return out
