"""Marks, tags and notes as JSON, to move between machines and people. Importing twice changes nothing more."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wbtui import __version__
from wbtui.display import json_text
from wbtui.errors import StoreError, UsageError
from wbtui.notes.kept import clean_note, parse_tags
from wbtui.notes.store import NoteStore, Site

SCHEMA = "wbtui.notes/1"
KINDS = ("marks", "tags", "notes")


def export_data(store: NoteStore, address: str = "") -> dict[str, Any]:
    """Everything kept as plain JSON data, or of the SAEs whose address is or begins with ``address`` (a model's).

    Raises:
        StoreError: the file cannot be read.
    """
    saes = []
    for site, _ in store.saes():
        if address and site.address != address and not site.address.startswith(address + "@"):
            continue
        kept, changed = store.load(site), store.changed(site)
        marked = set(np.flatnonzero(kept.marks).tolist())
        features = []
        for feature in sorted(marked | set(kept.tags) | set(kept.notes)):
            one: dict[str, Any] = {"feature": feature, "marked": feature in marked}
            if feature in kept.tags:
                one["tags"] = list(kept.tags[feature])
            if feature in kept.notes:
                one |= {"note": kept.notes[feature], "changed": changed.get(feature)}
            features.append(one)
        saes.append({"model": site.model, "sae": site.sae, "address": site.address, "features": features})
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"schema": SCHEMA, "wbtui": __version__, "created": created, "saes": saes}


def import_data(store: NoteStore, data: Any, where: str = "notes") -> dict[str, int]:
    """Add what is not there yet, all of it or nothing.

    Marks and tags are added to those there. A note is put where there is none; where there is another, it is kept
    under it; where it is part of the one there, nothing happens.

    Args:
        store: into which.
        data: as :func:`export_data` makes it.
        where: the file, for errors.

    Returns:
        dict: features read, and of how many marks, tags, notes changed.

    Raises:
        UsageError: not such data; the line says where. StoreError: the file cannot be written.
    """
    entries = list(_entries(data, where))
    out = {"features": len(entries), **dict.fromkeys(KINDS, 0)}
    with store.batch() as take:
        for site, feature, entry in entries:
            for kind in take(site, feature, **entry):
                out[kind] += 1
    return out


def import_file(store: NoteStore, path: Path) -> dict[str, int]:
    """:func:`import_data` out of a file.

    Raises:
        UsageError: no file, not JSON, not notes. StoreError: the notes cannot be written.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", "a file that `wbtui notes export` wrote") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error})", "a file that `wbtui notes export` wrote") from None
    return import_data(store, data, str(path))


def write_file(data: Mapping[str, Any], path: Path) -> None:
    """Data to a file, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    from wbtui.store.io import write_bytes

    try:
        write_bytes(path, (json_text(data, indent=1) + "\n").encode())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", "a place that can be written") from None


def _entries(data: Any, where: str) -> list[tuple[Site, int, dict[str, Any]]]:
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise UsageError(f"{where}: schema {found!r}", f"{SCHEMA!r}, as `wbtui notes export` writes it")
    out = []
    for at, sae in enumerate(_list(data.get("saes"), f"{where}: saes")):
        place = f"{where}: saes[{at}]"
        if not isinstance(sae, dict):
            raise UsageError(place, "an object with model, sae, address, features")
        texts = [sae.get(name) for name in ("model", "sae", "address")]
        if not all(isinstance(text, str) and text for text in texts):
            raise UsageError(place, "texts model, sae (fingerprints) and address")
        site = Site(*texts)  # type: ignore[arg-type]
        for number, one in enumerate(_list(sae.get("features"), f"{place}.features")):
            out.append((site, *_entry(one, f"{place}.features[{number}]")))
    return out


def _entry(one: Any, where: str) -> tuple[int, dict[str, Any]]:
    if not isinstance(one, dict):
        raise UsageError(where, "an object with feature, marked, tags, note")
    feature, marked, note = one.get("feature"), one.get("marked", False), one.get("note", "")
    changed = one.get("changed")
    if isinstance(feature, bool) or not isinstance(feature, int) or not 0 <= feature < 2**40:
        raise UsageError(f"{where}: feature {feature!r}", "a number of a feature")
    if not isinstance(marked, bool) or not isinstance(note, str):
        raise UsageError(where, "marked true or false, note a text")
    if changed is not None and (not isinstance(changed, int | float) or not math.isfinite(changed)):
        raise UsageError(f"{where}: changed {changed!r}", "seconds since 1970")
    tags: tuple[str, ...] = ()
    for tag in _list(one.get("tags", []), f"{where}.tags"):
        if not isinstance(tag, str) or len(parse_tags(tag)) != 1:
            raise UsageError(f"{where}: tag {tag!r}", "a word")
        tags += parse_tags(tag)
    return feature, {"marked": marked, "tags": tags, "note": clean_note(note), "changed": changed}


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: {type(value).__name__}", "a list")
    return value
