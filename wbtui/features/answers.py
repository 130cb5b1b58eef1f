"""Answers to questions as rows: what ``wbtui find``, ``edges`` and the app's pages show, sort, filter and write.

An answer's rows are plain data from the service (:mod:`wbtui.compute.ask`). Columns that need an SAE's finished table
(``semantic``, ``z_max`` …) are looked up in it where it is there.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.display import json_text
from wbtui.errors import StoreError
from wbtui.features.export import cell_text
from wbtui.store import io as store_io

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

Row = Mapping[str, Any]

FIND = ("address", "layer", "score", "cosine", "z", "tail", "rank", "words", "others")
EDGES = ("list", "address", "via", "layer", "weight", "along", "share", "tail", "words")
NUMBERS = frozenset(("layer", "score", "cosine", "z", "tail", "rank", "weight", "along", "share"))
"""Columns that hold one number a row, and that filters compare."""
TEXTS = ("address", "sae", "via", "list")

MEANINGS = {
    "address": "the feature: MODEL@SAE#FEATURE",
    "layer": "layer of the SAE's hook",
    "score": "the feature's row at length one times the query: for words, what it adds to their logits above the "
    "vocabulary's mean, per unit of its decoder (reads: embedding times encoder); for vectors and like: the cosine",
    "cosine": "cosine of the feature's row with the query's direction",
    "z": "score in standard deviations from the mean over the features of the SAE",
    "tail": "how likely a random direction of the SAE's own covariance is to score as much, by a closed form "
    "(edges: as much in size, either sign); 1e-12 stands for less",
    "rank": "place of the query's words in the feature's own list, the worst-placed word counts; 1 = its first: a "
    "feature that writes everything has a high score and a poor place",
    "words": "the first words of the feature's own list",
    "others": "side effects: its first words that are not in the query",
    "weight": "edge: decoder times encoder, d_j e_i upward, d_i e_j downward, o_i e_j through a head; "
    "input-independent: what could flow, not what does",
    "along": "the weight with the other feature's row at length one",
    "share": "the weight's size over the sum of sizes of all edges of its list (up, down, or through the heads)",
    "via": "the head that the edge goes through, attending to the feature fully; empty: the direct path",
    "list": "up, down or heads",
}


def value(row: Row, name: str) -> float:
    """A number of a row, NaN where there is none."""
    found = row.get(name)
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else math.nan


def words_text(words: Sequence[Mapping[str, Any]], count: int = 6) -> str:
    """A row's words in one line; they are safe to show already."""
    return " ".join(str(w["text"]) for w in words[:count])


def left_out(sae: dict[str, Any]) -> str:
    """Which features of an SAE a search had to leave out because their weights are not finite; empty: none."""
    count = int(sae.get("nonfinite") or 0)
    if not count:
        return ""
    rows = sae.get("nonfinite_rows") or []
    named = ", ".join(f"#{row}" for row in rows) + (" …" if count > len(rows) else "")
    what = "feature" if count == 1 else "features"
    return f"{sae['sae']}: {count:,} {what} left out, weights that are not finite: {named}"


def tail_text(tail: float) -> str:
    """A tail as people read it."""
    if math.isnan(tail):
        return "–"
    if tail <= 1e-12:
        return "<1e-12"
    return f"{tail:.2g}" if tail >= 1e-3 else f"{tail:.0e}".replace("e-0", "e-")


def ordered(rows: Sequence[Row], name: str, descending: bool) -> list[Row]:
    """Rows by a column; those without a value last, equal ones as they were."""
    if name in NUMBERS:
        keys = np.array([value(row, name) for row in rows])
        order = np.argsort(np.where(np.isnan(keys), np.inf, -keys if descending else keys), kind="stable")
        return [rows[int(i)] for i in order]

    def text(row: Row) -> str:
        found = row.get(name, "")
        return words_text(found).casefold() if isinstance(found, (list, tuple)) else str(found)

    return sorted(rows, key=text, reverse=descending)


class AnswerTable:
    """Rows as a filter sees them: their own numbers, and the metrics of their SAEs' tables where those are there.

    Args:
        rows: of one answer.
        tables: finished tables by SAE name; a row of an SAE without one has no metric.
    """

    def __init__(self, rows: Sequence[Row], tables: Mapping[str, FeatureTable] | None = None) -> None:
        self.rows = list(rows)
        self.n = len(self.rows)
        self.tables = dict(tables or {})
        self.vocab = next((t.vocab for t in self.tables.values() if t.vocab is not None), None)

    def _gathered(self, take: Callable[[FeatureTable], np.ndarray], empty: Any) -> np.ndarray:
        parts: dict[str, np.ndarray] = {name: take(table) for name, table in self.tables.items()}
        sample = next(iter(parts.values()), np.zeros(0, dtype=bool))
        out = np.full((self.n, *sample.shape[1:]), empty, dtype=sample.dtype)
        for i, row in enumerate(self.rows):
            if row["sae"] in parts:
                out[i] = parts[row["sae"]][row["feature"]]
        return out

    def column(self, name: str) -> np.ndarray:
        """One column ``[n]``."""
        if name in NUMBERS:
            return np.array([value(row, name) for row in self.rows], dtype=np.float64)
        if name == "id":
            return np.array([row["feature"] for row in self.rows], dtype=np.int64)
        return self._gathered(lambda table: table.column(name), 0)

    def known(self, name: str) -> np.ndarray:
        """Where :meth:`column` holds a real value: bool ``[n]``."""
        if name in NUMBERS:
            return ~np.isnan(self.column(name))
        if name == "id":
            return np.ones(self.n, dtype=bool)
        return self._gathered(lambda table: table.known(name), False).astype(bool)

    def matching(self, text: str) -> np.ndarray:
        """Rows of which an address, head or shown word holds a text: bool ``[n]``."""
        wanted = text.casefold()
        return np.array(
            [
                any(wanted in str(row.get(name, "")).casefold() for name in TEXTS)
                or any(wanted in str(w["text"]).casefold() for w in row.get("words") or ())
                for row in self.rows
            ],
            dtype=bool,
        )


def filtered(rows: Sequence[Row], text: str, tables: Mapping[str, FeatureTable] | None = None) -> list[Row]:
    """Rows that a filter lets through: the filter language of tables, with the answer's own numbers as names.

    Raises:
        QueryError: where it cannot be read.
    """
    from wbtui.features.query import parse

    if not text.strip():
        return list(rows)
    mask = parse(text, extra=NUMBERS).mask(AnswerTable(rows, tables))  # type: ignore[arg-type]
    return [row for row, keep in zip(rows, mask, strict=True) if keep]


def flat(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """A row for a file: lists of words as their texts with their ids beside them."""
    out: dict[str, Any] = {}
    for name in columns:
        found = row.get(name)
        if name in ("words", "others"):
            out[name] = [w["text"] for w in found or ()]
            out[f"{name}_ids"] = [w["id"] for w in found or ()]
        else:
            out[name] = found
    return out


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Rows as CSV: a list is a JSON array, a number that is not there an empty cell, text safe for spreadsheets."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [n for c in columns for n in ((c, f"{c}_ids") if c in ("words", "others") else (c,))]
    writer.writerow(names)
    for row in rows:
        cells = []
        for name, cell in flat(row, columns).items():
            if isinstance(cell, list):
                cells.append(json_text(cell))
            elif cell is None:
                cells.append("")
            else:
                cells.append(cell_text(cell) if isinstance(cell, str) and name not in NUMBERS else cell)
        writer.writerow(cells)
    return out.getvalue()


def write(path: Path, rows: Sequence[Row], columns: Sequence[str], answer: Row) -> list[Path]:
    """Write rows to a file by its ending (``.csv``, ``.jsonl``, ``.json``: the whole answer), with ``.meta.json``.

    Returns:
        The paths written.

    Raises:
        UsageError: another ending. StoreError: it cannot be written.
    """
    from wbtui.errors import UsageError

    about = {k: v for k, v in answer.items() if k not in ("hits", "up", "down", "heads")}
    about |= {"schema": "wbtui.answer/1", "rows": len(rows), "columns": {c: MEANINGS.get(c, "") for c in columns}}
    if path.suffix == ".json":
        texts = {path: json_text(dict(answer), indent=1)}
    elif path.suffix in (".jsonl", ".ndjson"):
        lines = [json_text(flat(row, columns)) for row in rows]
        texts = {path: "".join(line + "\n" for line in lines)}
    elif path.suffix == ".csv":
        texts = {path: to_csv(rows, columns)}
    else:
        raise UsageError(f"{path}: ending {path.suffix!r}", ".csv, .jsonl or .json")
    if path.suffix != ".json":
        texts[path.with_name(path.name + ".meta.json")] = json_text(about, indent=1)
    for where, text in texts.items():
        try:
            store_io.write_bytes(where, text.encode("utf-8"))
        except OSError as error:
            raise StoreError(f"{where}: {error.strerror or error}", "a folder that can be written") from None
    return list(texts)


def edge_rows(answer: Row) -> list[dict[str, Any]]:
    """All edges of an ``edges`` answer in one list, up first, each with the list that it is of."""
    return [{**row, "list": name} for name in ("up", "down", "heads") for row in answer[name]["edges"]]


def free_name(folder: Path, stem: str, ending: str) -> Path:
    """A name that no file has yet: ``STEM.csv``, then ``STEM-2.csv`` …"""
    path, count = folder / (stem + ending), 2
    while path.exists():
        path, count = folder / f"{stem}-{count}{ending}", count + 1
    return path
