"""Label files, read as streams of items in bounded memory: Neuronpedia's export batches, SAELens sparsity, CSV.

Neuronpedia (``v1/MODEL/SOURCE/{features,explanations}/batch-N.jsonl.gz``): one JSON object a line; of both kinds
``modelId``, ``layer`` (the source's id, such as ``20-gemmascope-res-16k``) and ``index``; of features
``frac_nonzero`` (density), of explanations ``description``, ``typeName``, ``explanationModelName``.
SAELens (``sparsity.safetensors``): one tensor ``sparsity`` [d_sae] of log10 densities, -10 for what never fired.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbtui.errors import StoreError, UsageError, WbtuiError
from wbtui.tensorfile import read_header

NOTHING = "nothing was imported"
AGAIN = "copy or download it again"
MAX_LINE = 8 << 20
"""Bytes of one line: no file can make more than this be held at once."""
LOG_FLOOR = -9.999
"""SAELens adds 1e-10 before it takes the logarithm: at and below this, a feature never fired."""
ID_COLUMNS = ("id", "feature", "feature_id", "feature_index", "index", "latent", "latent_id", "neuron")
LABEL_COLUMNS = ("label", "description", "explanation", "text")
DENSITY_COLUMNS = ("density", "frac_nonzero", "frequency")
LOG_DENSITY_COLUMNS = ("log_density", "log10_density", "log_sparsity", "log_feature_sparsity")
MODEL_COLUMNS = ("model", "modelid", "model_id")
SOURCE_COLUMNS = ("sae", "source", "saeid", "sae_id")


@dataclass(frozen=True)
class Item:
    """One line of a file: a label, a density, or both, of one feature."""

    feature: int
    where: str
    """File and line, for errors."""
    label: str = ""
    density: float | None = None
    method: str = ""
    author: str = ""
    model: str = ""
    source: str = ""


@dataclass(frozen=True)
class CsvColumns:
    """Names of columns that a user gave; empty: found by :data:`ID_COLUMNS` and the others."""

    id: str = ""
    label: str = ""
    density: str = ""


def files_of(path: Path) -> list[Path]:
    """The label files that a path means: itself, or those in a folder and its ``features*`` and ``explanations*``.

    Raises:
        UsageError: nothing there, or nothing of a known kind.
    """
    if path.is_file():
        kind_of(path)
        return [path]
    if not path.is_dir():
        raise UsageError(
            f"no file {path}", "a label file, or a folder of them", "give its path from the working folder"
        )
    inside = [path, *(p for p in sorted(path.iterdir()) if p.is_dir() and p.name.startswith(("features", "explanat")))]
    found = [p for folder in inside for p in sorted(folder.glob("batch-*.jsonl*")) if p.is_file()]
    found += [p for p in [path / "sparsity.safetensors"] if p.is_file()]
    if not found:
        raise UsageError(
            f"{path}: no label files",
            "batch-*.jsonl.gz (in features/, explanations/) or sparsity.safetensors",
            "name the files themselves",
        )
    return found


def kind_of(path: Path) -> str:
    """``neuronpedia``, ``sparsity`` or ``csv``, by the name's ending.

    Raises:
        UsageError: another ending.
    """
    name = path.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz", ".ndjson")):
        return "neuronpedia"
    if name.endswith(".safetensors"):
        return "sparsity"
    if name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        return "csv"
    raise UsageError(
        f"{path.name}: unknown kind of label file",
        ".jsonl, .jsonl.gz, .safetensors, .csv or .tsv",
        "give it the ending of what it is",
    )


def items(path: Path, d_sae: int, columns: CsvColumns | None = None) -> Iterator[Item]:
    """Every item of a file, in order.

    Args:
        path: a file of :func:`kind_of`.
        d_sae: features of the SAE; a sparsity tensor must have as many.
        columns: CSV columns by name.

    Raises:
        StoreError: unreadable, truncated, or not what its ending says; with the line.
        UsageError: a CSV without an id column.
    """
    kind = kind_of(path)
    if kind == "sparsity":
        return _sparsity(path, d_sae)
    if kind == "csv":
        return _csv(path, columns or CsvColumns())
    return _neuronpedia(path)


# -- lines -------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, never more than one of them in memory."""
    try:
        opened: Any = gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")  # noqa: SIM115
        with opened as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise StoreError(
                        f"{path}, line {number}: more than {MAX_LINE >> 20} MiB",
                        "a label file, one feature a line",
                        "break it into lines; nothing was imported",
                    )
                yield number, line
    except EOFError:
        raise StoreError(
            f"{path}: ends before its gzip stream does",
            "a whole file",
            "nothing was imported: copy or download it again",
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise StoreError(f"{path}: {error}", "gzip data, as its name says", f"{AGAIN}; {NOTHING}") from None
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror or error}", "a readable file", f"look at its permissions; {NOTHING}"
        ) from None


def _text(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise StoreError(
            f"{path}, line {number}: bytes that are not UTF-8", "a text file", f"save it as UTF-8; {NOTHING}"
        ) from None


# -- formats -----------------------------------------------------------------------------------------------------------


def _neuronpedia(path: Path) -> Iterator[Item]:
    for number, line in _lines(path):
        where = f"{path.name}, line {number}"
        text = _text(path, number, line).strip()
        if not text:
            continue
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise StoreError(f"{where}: not JSON", "one whole JSON object a line", f"{AGAIN}; {NOTHING}") from None
        if not isinstance(data, dict) or "index" not in data:
            raise StoreError(
                f"{where}: no index",
                "Neuronpedia's export: modelId, layer, index, …",
                f"labels of your own can be a CSV with a column of feature numbers; {NOTHING}",
            )
        density = data.get("frac_nonzero")
        label = data.get("description")
        if density is None and label is None:
            raise StoreError(
                f"{where}: neither description nor frac_nonzero",
                "a batch of explanations/ or features/",
                f"take those folders of the export; {NOTHING}",
            )
        yield Item(
            feature=_feature(data["index"], where),
            where=where,
            label=str(label or "").strip(),
            density=None if density is None else _density(density, where),
            method=str(data.get("typeName") or ""),
            author=str(data.get("explanationModelName") or ""),
            model=str(data.get("modelId") or ""),
            source=str(data.get("layer") or ""),
        )


def _sparsity(path: Path, d_sae: int) -> Iterator[Item]:
    try:
        header = read_header(path)
    except WbtuiError as error:
        raise StoreError(error.found, error.expected, f"{error.do or AGAIN}; {NOTHING}") from None
    entry = header.tensors.get("sparsity")
    if entry is None:
        raise StoreError(
            f"{path}: tensors {', '.join(sorted(header.tensors)[:4]) or 'none'}",
            "one called sparsity, as SAELens saves",
            f"take the sparsity.safetensors beside the SAE's weights; {NOTHING}",
        )
    if entry.shape != (d_sae,):
        raise UsageError(
            f"{path}: sparsity of {list(entry.shape)}",
            f"[{d_sae}], a value a feature",
            f"it belongs to another SAE: take its own; {NOTHING}",
        )
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2"}
    if entry.dtype not in kinds:
        raise StoreError(
            f"{path}: sparsity of dtype {entry.dtype}", "one of " + ", ".join(kinds), f"save it as float32; {NOTHING}"
        )
    block = 65_536
    with open(path, "rb") as file:
        file.seek(entry.begin)
        for start in range(0, d_sae, block):
            size = min(block, d_sae - start)
            raw = np.frombuffer(file.read(size * np.dtype(kinds[entry.dtype]).itemsize), kinds[entry.dtype])
            values = (raw.astype("<u4") << 16).view("<f4") if entry.dtype == "BF16" else raw
            for at, log in enumerate(values.astype(np.float64).tolist()):
                where = f"{path.name}, feature {start + at}"
                yield Item(feature=start + at, where=where, density=_from_log(log, where))


def _csv(path: Path, columns: CsvColumns) -> Iterator[Item]:
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    line_number = 0

    def text_lines() -> Iterator[str]:
        nonlocal line_number
        for number, line in _lines(path):
            line_number = number
            yield _text(path, number, line)

    reader = csv.reader(text_lines(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        pick = _picker(path, header, columns)
        for row in reader:
            where = f"{path.name}, line {line_number}"
            if not any(row):
                continue
            if len(row) < len(header) and len(row) <= pick.widest:
                raise StoreError(
                    f"{where}: {len(row)} cells", f"{len(header)}, as in the header", f"mend that line; {NOTHING}"
                )
            yield pick(row, where)
    except csv.Error as error:
        raise StoreError(
            f"{path.name}, line {line_number}: {error}", "a CSV file with one header line", f"mend that line; {NOTHING}"
        ) from None


class _picker:
    """Items out of a CSV's rows, by its header."""

    def __init__(self, path: Path, header: list[str], columns: CsvColumns) -> None:
        names = [name.strip().casefold() for name in header]

        def find(known: tuple[str, ...], given: str = "") -> int | None:
            if given:
                if given.casefold() not in names:
                    raise UsageError(
                        f"{path.name}: no column {given!r}",
                        "one of " + ", ".join(header[:12]),
                        f"name one that is there; {NOTHING}",
                    )
                return names.index(given.casefold())
            return next((names.index(name) for name in known if name in names), None)

        at = find(ID_COLUMNS, columns.id)
        if at is None:
            raise UsageError(
                f"{path.name}: columns {', '.join(header[:8]) or 'none'}",
                "a column of feature numbers: " + ", ".join(ID_COLUMNS[:5]),
                "name it with --id-column; nothing was imported",
            )
        self.id = at
        self.label = find(LABEL_COLUMNS, columns.label)
        self.density = find(DENSITY_COLUMNS, columns.density)
        self.log = find(LOG_DENSITY_COLUMNS) if self.density is None else None
        if self.label is None and self.density is None and self.log is None:
            raise UsageError(
                f"{path.name}: columns {', '.join(header[:8])}",
                "a column of labels or densities: label, description, density, log_density",
                f"name it with --label-column or --density-column; {NOTHING}",
            )
        self.model, self.source = find(MODEL_COLUMNS), find(SOURCE_COLUMNS)
        self.widest = max(at for at in (self.id, self.label, self.density, self.log) if at is not None)

    def __call__(self, row: list[str], where: str) -> Item:
        def cell(at: int | None) -> str:
            return row[at].strip() if at is not None and at < len(row) else ""

        density = None
        if text := cell(self.density):
            density = _density(text, where)
        elif text := cell(self.log):
            density = _from_log(_number(text, where), where)
        return Item(
            feature=_feature(cell(self.id), where),
            where=where,
            label=cell(self.label),
            density=density,
            model=cell(self.model),
            source=cell(self.source),
        )


# -- values ------------------------------------------------------------------------------------------------------------


def _feature(value: Any, where: str) -> int:
    text = str(value).strip().removeprefix("#")
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise StoreError(f"{where}: feature {str(value)[:40]!r}", "a whole number", f"mend that line; {NOTHING}")
    return int(text)


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise StoreError(f"{where}: {str(value)[:40]!r}", "a number", f"mend that line; {NOTHING}") from None


def _density(value: Any, where: str) -> float | None:
    number = _number(value, where)
    if math.isnan(number):
        return None
    if not 0 <= number <= 1:
        raise StoreError(
            f"{where}: density {number:g}",
            "a share of tokens, from 0 to 1",
            "a column of log10 values is called log_density; nothing was imported",
        )
    return number


def _from_log(log: float, where: str) -> float | None:
    if math.isnan(log):
        return None
    if log > 0:
        raise StoreError(
            f"{where}: log10 density {log:g}", "at most 0", f"a column of shares is called density; {NOTHING}"
        )
    return 0.0 if log <= LOG_FLOOR else 10.0**log
