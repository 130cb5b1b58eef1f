"""Rows to CSV, Parquet or JSON lines: one row a feature, columns named as everywhere.

CSV: a token list is a JSON array of safe shown strings (leading spaces kept) with an ``…_ids`` column beside it. Text
of people's own (notes, tags, addresses) is as it is, but for controls and bidi overrides, which are escaped. A text
cell that a spreadsheet would take for a formula (it begins with ``= + - @``, tab or return) gets a leading
apostrophe; so does one that begins with apostrophes before such a character, so that dropping one apostrophe from
what looks that way gives the text back. Numbers never do; a number that is absent is an empty cell. JSON lines and
Parquet hold lists as lists and text as it is.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from wbtui import __version__
from wbtui.definitions import RECONSTRUCTION, to_json
from wbtui.display import file_text, json_text, safe_token_text
from wbtui.errors import StoreError, UsageError
from wbtui.features import classes
from wbtui.features.glossary import explain
from wbtui.features.names import NUMBERS, STORED, resolve
from wbtui.features.words import sentence

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

FORMATS = ("csv", "parquet", "jsonl")
DEFAULT_COLUMNS: tuple[str, ...] = (
    "id", "address", "sentence", "writes.class", "writes.n_words", "semantic.writes", "semantic.reads", "same",
    "writes.evidence", "writes.first_view", "reads.evidence",
    "writes.words", "writes.top_pos", "writes.top_neg", "reads.top_pos",
    *(name for name in STORED if name in NUMBERS and not name.startswith("against.")),
    "computed", "provisional",
)  # fmt: skip
"""Who it is, what it is, its words with ids, every stored number of writes and reads, and whether it is final."""
DATA_COLUMNS = ("label", "density", "dead")
"""Written by default where labels are imported: data from files, not from weights."""
_LISTS = {"top_pos": "top_ids", "top_neg": "bottom_ids", "words": "word_ids"}
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_BLOCK = 1024


@dataclass(frozen=True)
class _Field:
    """One column of a file: its type (int, float, bool, text, texts, ids) and its values for some rows."""

    name: str
    kind: str
    values: Callable[[np.ndarray], list[Any]]
    meaning: str


def guard(text: str) -> str:
    """A text cell that no spreadsheet runs; see the module's words."""
    return "'" + text if _FORMULA.match(text) else text


def cell_text(text: str) -> str:
    """A text cell that neither a spreadsheet runs nor a terminal obeys."""
    return guard(file_text(text))


def unguard(text: str) -> str:
    """The inverse of :func:`guard`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write(
    table: FeatureTable,
    rows: np.ndarray | Sequence[int],
    columns: Sequence[str] | None,
    format: str,
    out: Path | str | IO[Any],
    *,
    note: dict[str, Any] | None = None,
) -> None:
    """Write features to a file or stream.

    Args:
        table: the rows.
        rows: feature numbers, in the order wanted.
        columns: names; :data:`DEFAULT_COLUMNS` when None. Beside metric names: ``address``, ``sentence``, and the lists
            ``SIDE.top_pos``, ``SIDE.top_neg``, ``SIDE.words``, each with its ``_ids``.
        format: ``csv``, ``parquet`` or ``jsonl``.
        out: a path (written whole or not at all; csv and jsonl get ``<file>.meta.json``, Parquet keeps the same data
            in its own metadata) or an open stream (no sidecar; ``-`` is standard output).
        note: more provenance, such as the filter and the sort.

    Raises:
        UsageError: unknown format or column, a row that is not there.
        StoreError: the file cannot be written, or Parquet is not installed.
    """
    if format not in FORMATS:
        raise UsageError(f"export format {format!r}", "one of " + ", ".join(FORMATS))
    numbers = np.asarray(rows, dtype=np.int64)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= table.n):
        raise UsageError(f"feature {numbers.min() if numbers.min() < 0 else numbers.max()}", f"0 to {table.n - 1}")
    fields = _fields(table, columns)
    meta = provenance(table, numbers, fields, note)
    if isinstance(out, str) and out == "-":
        out = sys.stdout
    if not isinstance(out, str | Path):
        _to_stream(fields, numbers, format, out, meta)
        return
    path = Path(out)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                _to_stream(fields, numbers, format, file, meta)
                file.flush()
                os.fsync(file.fileno())
            if format != "parquet":
                sidecar = path.with_name(path.name + ".meta.json")
                half = path.with_name(f".{sidecar.name}.{os.getpid()}.tmp")
                half.write_text(json_text(meta, indent=1) + "\n", encoding="utf-8")
                os.replace(half, sidecar)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", "a place that can be written") from None


def values(table: FeatureTable, rows: np.ndarray, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """The cells of an export as Python values by column name: numbers, text, lists; None where there is no value.

    Raises:
        UsageError: unknown column.
    """
    return {field.name: field.values(rows) for field in _fields(table, columns)}


def provenance(
    table: FeatureTable, rows: np.ndarray, fields: Sequence[_Field], note: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the numbers of a file mean: plain JSON data."""
    return {
        "schema": "wbtui.export/1",
        "wbtui": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "address": table.origin.address(),
        "model": table.origin.model,
        "sae": table.origin.sae,
        "definition": to_json(table.origin.definition),
        "products": table.origin.products,
        "thresholds": table.thresholds.to_json(),
        "note": RECONSTRUCTION,
        "rows": len(rows),
        "complete": table.complete,
        "columns": {f.name: f.meaning for f in fields},
        **(note or {}),
    }


# -- columns -----------------------------------------------------------------------------------------------------------


def _fields(table: FeatureTable, columns: Sequence[str] | None) -> list[_Field]:
    out: dict[str, _Field] = {}
    usual = (*DEFAULT_COLUMNS, *(DATA_COLUMNS if table.labels is not None and table.labels.stamp != (0, 0) else ()))
    for name in columns if columns is not None else usual:
        for made in _field(table, name):
            out.setdefault(made.name, made)
    if not out:
        raise UsageError("no columns", "at least one")
    return list(out.values())


def _field(table: FeatureTable, name: str) -> list[_Field]:
    if name == "address":
        return [
            _Field(
                name, "text", lambda rows: [table.origin.address(r) for r in rows.tolist()], "address of the feature"
            )
        ]
    if name == "sentence":
        return [_Field(name, "text", lambda rows: [sentence(table, r) for r in rows.tolist()], "what the feature is")]
    if name == "label":
        return [
            _Field(name, "text", lambda rows: _labels(table, rows), "data, imported: the first label, safe to print")
        ]
    side, _, base = name.rpartition(".")
    side = side or "writes"
    if base in _LISTS and side in ("writes", "reads", "against"):
        if side == "against" and base != "words":
            raise UsageError(f"column {name!r}", "against.words, or writes.top_neg")
        return _list_fields(table, side, base)
    found = resolve(name)
    if found.kind == "list":
        raise UsageError(f"column {name!r}", f"{found.side}.top_pos, {found.side}.top_neg or {found.side}.words")
    meaning = explain(found.text).meaning
    if found.kind == "class":
        labels = (*classes.CLASS_NAMES, "")
        return [
            _Field(
                found.text, "text", lambda rows: [labels[c] for c in table.column(found.text)[rows].tolist()], meaning
            )
        ]
    if found.kind == "text":
        return [
            _Field(found.text, "text", lambda rows: [table.kept.text(found.base, r) for r in rows.tolist()], meaning)
        ]
    kind = "bool" if found.boolean else "float" if table.column(found.text).dtype.kind == "f" else "int"

    def values(rows: np.ndarray) -> list[Any]:
        part, known = table.column(found.text)[rows], table.known(found.text)[rows]
        items = list(part) if kind == "float" else part.tolist()
        return [item if there else None for item, there in zip(items, known.tolist(), strict=True)]

    return [_Field(found.text, kind, values, meaning)]


def _labels(table: FeatureTable, rows: np.ndarray) -> list[Any]:
    found = table.labels.firsts(rows) if table.labels is not None else [None] * len(rows)
    return ["" if text is None else safe_token_text(text) for text in found]


def _list_fields(table: FeatureTable, side: str, base: str) -> list[_Field]:
    stored = f"{side}.{_LISTS[base]}"

    def ids(rows: np.ndarray) -> list[Any]:
        return [[t for t in row if t >= 0] for row in table.column(stored)[rows].tolist()]

    def texts(rows: np.ndarray) -> list[Any]:
        vocab = table.vocab
        shown = (lambda t: f"#{t}") if vocab is None else (vocab.word if base == "words" else vocab.shown)
        return [[shown(t) for t in row] for row in ids(rows)]

    meaning = (
        "best distinct words, safe to print"
        if base == "words"
        else "tokens as shown, safe to print, leading space kept"
    )
    return [
        _Field(f"{side}.{base}", "texts", texts, meaning),
        _Field(f"{side}.{base}_ids", "ids", ids, f"token ids of {side}.{base}"),
    ]


# -- formats -----------------------------------------------------------------------------------------------------------


def _blocks(fields: Sequence[_Field], rows: np.ndarray) -> Iterator[list[list[Any]]]:
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        yield [f.values(block) for f in fields]


def _to_stream(fields: Sequence[_Field], rows: np.ndarray, format: str, out: IO[Any], meta: dict[str, Any]) -> None:
    if format == "parquet":
        target = out if not isinstance(out, io.TextIOBase) else getattr(out, "buffer", None)
        if target is None:
            raise UsageError("Parquet to a text stream", "a file or a binary stream")
        _parquet(fields, rows, target, meta)
        return
    text: Any = (
        out if isinstance(out, io.TextIOBase) else io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
    )
    try:
        if format == "csv":
            _csv(fields, rows, text)
        else:
            _jsonl(fields, rows, text)
        text.flush()
    finally:
        if text is not out:
            text.detach()  # the stream is the caller's to close


def _csv(fields: Sequence[_Field], rows: np.ndarray, out: IO[str]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f.name for f in fields])
    cells = [_CELLS[f.kind] for f in fields]
    for block in _blocks(fields, rows):
        columns = [list(map(cell, values)) for cell, values in zip(cells, block, strict=True)]
        writer.writerows(zip(*columns, strict=True))


def _array(items: list[Any]) -> str:
    return json_text(items)


_CELLS: dict[str, Callable[[Any], str]] = {
    "int": lambda v: "" if v is None else str(v),
    "float": lambda v: "" if v is None else str(v),  # a numpy float32 prints its shortest round-trip digits
    "bool": lambda v: "" if v is None else ("true" if v else "false"),
    "text": cell_text,
    "texts": _array,
    "ids": _array,
}


def _jsonl(fields: Sequence[_Field], rows: np.ndarray, out: IO[str]) -> None:
    for block in _blocks(fields, rows):
        for item in zip(*block, strict=True):
            plain = {f.name: _plain(value) for f, value in zip(fields, item, strict=True)}
            out.write(json_text(plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.floating):
        return float(str(value)) if np.isfinite(value) else None
    return value


def _parquet(fields: Sequence[_Field], rows: np.ndarray, out: IO[bytes], meta: dict[str, Any]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise StoreError("Parquet export", "pyarrow", "pip install 'wbtui[parquet]', or export csv or jsonl") from None
    types = {
        "int": pa.int64(), "float": pa.float32(), "bool": pa.bool_(), "text": pa.string(),
        "texts": pa.list_(pa.string()), "ids": pa.list_(pa.int32()),
    }  # fmt: skip
    described = {"wbtui": json_text(meta)}
    schema = pa.schema([pa.field(f.name, types[f.kind]) for f in fields], metadata=described)
    with pq.ParquetWriter(out, schema) as writer:
        pending: list[Any] = []
        for block in _blocks(fields, rows):
            arrays = [pa.array(values, type=types[f.kind]) for f, values in zip(fields, block, strict=True)]
            pending.append(pa.record_batch(arrays, schema=schema))
            if len(pending) >= 64:
                writer.write_table(pa.Table.from_batches(pending, schema))
                pending = []
        writer.write_table(pa.Table.from_batches(pending, schema))
