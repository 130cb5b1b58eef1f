"""Files of a page as drawn: its numbers, its picture, what they mean, beside each other under one name."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui.display import file_text
from wbtui.errors import StoreError
from wbtui.store.io import write_bytes
from wbtui.store.keys import slug

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


def lines_csv(fields: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A heading and lines as CSV; no text in it is obeyed by a terminal."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([file_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue()


def number_text(value: float) -> str:
    """A number in full, nothing where it is not finite."""
    return repr(float(value)) if math.isfinite(value) else ""


def stem_of(table: FeatureTable, what: str) -> str:
    """``MODEL-SAE-what``."""
    parts = (str(table.origin.model.get("name", "model")), str(table.origin.sae.get("name", "sae")))
    return "-".join(slug(part, "")[:-1] for part in parts) + f"-{what}"


def write_together(folder: Path, stem: str, texts: dict[str, str], meta: dict[str, Any]) -> list[Path]:
    """Write texts by their endings, and ``.meta.json``, under a name that none of them has yet.

    Returns:
        list: the paths, in the order of ``texts``, the meaning last.

    Raises:
        StoreError: the folder cannot be written.
    """
    texts = {**texts, ".meta.json": json.dumps(meta, indent=1)}
    for name in itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2))):
        paths = [folder / (name + ending) for ending in texts]
        if not any(path.exists() for path in paths):
            break
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", "a folder that can be written") from None
    return paths


def others_words(paths: Sequence[Path]) -> str:
    """``wrote FIRST, ….svg, ….meta.json``."""
    first = paths[0]
    stem = first.name.split(".")[0]
    return f"wrote {first}" + "".join(f", …{path.name.removeprefix(stem)}" for path in paths[1:])
