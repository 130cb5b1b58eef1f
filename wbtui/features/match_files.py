"""A match as files: its figures as JSON, its lists as CSV with the words of both sides."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.display import json_text
from wbtui.errors import StoreError
from wbtui.features.export import cell_text
from wbtui.features.match import BAR, LISTS, Matching

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def write(
    folder: Path,
    matching: Matching,
    found: dict[str, Any],
    tables: tuple[FeatureTable, FeatureTable] | None = None,
    bar: float = BAR,
) -> list[Path]:
    """Write ``match.json`` and ``matched.csv``, ``lost.csv``, ``new.csv``, ``splits.csv``; each whole or not at all.

    Args:
        folder: made if it is not there.
        matching: the match.
        found: its :func:`wbtui.features.match.summary`.
        tables: of both SAEs: classes and words stand beside the numbers then.
        bar: on the cosine.

    Raises:
        StoreError: the folder cannot be written.
    """
    out = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in LISTS:
            out.append(_csv(folder / f"{name}.csv", rows(matching, name, tables, bar)))
        text = json_text(found, indent=1) + "\n"
        out.append(_replace(folder / "match.json", text))
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}", "a folder that can be written") from None
    return out


def rows(
    matching: Matching, name: str, tables: tuple[FeatureTable, FeatureTable] | None = None, bar: float = BAR
) -> list[dict[str, Any]]:
    """One list as flat rows: addresses, numbers, cosine and, with tables, kinds and words; a split is a row a part."""
    flat: list[dict[str, Any]] = []
    for row in matching.rows(name, bar):
        children = row["b"] if isinstance(row["b"], list) else [row["b"]]
        cosines = row["cos"] if isinstance(row["cos"], list) else [row["cos"]]
        for b, cosine in zip(children, cosines, strict=True):
            flat.append(_flat(matching, row["a"], b, cosine, row.get("mutual"), tables))
    return flat


def _flat(
    matching: Matching,
    a: int,
    b: int,
    cosine: float,
    mutual: bool | None,
    tables: tuple[FeatureTable, FeatureTable] | None,
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "a": cell_text(f"{matching.a_name}#{a}"),
        "b": cell_text(f"{matching.b_name}#{b}"),
        "a_id": a,
        "b_id": b,
        "cos": round(cosine, 6),
        "mutual": "" if mutual is None else str(mutual).lower(),
    }
    for side, row, at in (("a", a, 0), ("b", b, 1)):
        table = tables[at] if tables is not None else None
        out[f"{side}_kind"] = cell_text(table.kind(row)) if table is not None else ""
        out[f"{side}_words"] = cell_text(" ".join(w.text for w in table.words(row, k=6))) if table is not None else ""
    return out


HEADER = ("a", "b", "a_id", "b_id", "cos", "mutual", "a_kind", "a_words", "b_kind", "b_words")


def _csv(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, HEADER, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
