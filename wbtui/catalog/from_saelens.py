"""SAEs that SAELens has read for us: layouts in its registry for which no reader is here.

SAELens takes seconds to import and builds the dictionary in memory, so it is asked once, in a process of its own
(:mod:`wbtui.sources.through_saelens`), and what it gives is kept as a SAELens folder like any other below the cache,
beside a ``source.json`` that says whose word it is. This module finds those folders. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui import paths
from wbtui.errors import UsageError

SOURCE = "source.json"
FOLDER = "from-saelens"
MAX_SOURCE_BYTES = 100_000
MAX_REGISTRY_BYTES = 100_000_000


@dataclass(frozen=True)
class Converted:
    """One SAE that SAELens has read."""

    name: str
    """``release/id``."""
    model: str
    """As SAELens's registry names it."""
    path: Path
    """A SAELens folder."""


def place(name: str) -> Path:
    """Where the SAE ``release/id`` is kept once it is converted."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "x"
    return paths.cache_dir() / FOLDER / f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_source(folder: Path) -> dict[str, Any]:
    """What ``source.json`` in a folder says: {name, model, repo, path, loader, sae_lens}; empty where there is none."""
    try:
        file = folder / SOURCE
        if not file.is_file() or file.stat().st_size > MAX_SOURCE_BYTES:
            return {}
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("name"), str) else {}


def converted(name: str) -> Converted | None:
    """The SAE ``release/id``, None where SAELens has not read it."""
    folder = place(name)
    said = read_source(folder)
    return Converted(name, str(said.get("model") or ""), folder) if said.get("name") == name else None


def all_converted() -> Iterator[Converted]:
    """Every one, by name of its folder."""
    try:
        folders = sorted((paths.cache_dir() / FOLDER).iterdir())
    except OSError:
        return
    for folder in folders:
        name = read_source(folder).get("name")
        if name and (found := converted(name)) is not None and found.path == folder:
            yield found


def saelens_has(release: str) -> bool:
    """Whether the registry of the installed SAELens, read as text, has a release of this name."""
    try:
        spec = importlib.util.find_spec("sae_lens")  # finds the package, imports nothing
    except (ImportError, ValueError):
        return False
    if spec is None or not spec.submodule_search_locations or not re.fullmatch(r"[\w.\-]+", release):
        return False
    file = Path(next(iter(spec.submodule_search_locations))) / "pretrained_saes.yaml"
    try:
        if file.stat().st_size > MAX_REGISTRY_BYTES:
            return False
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(rf"(?m)^[\"']?{re.escape(release)}[\"']?:", text) is not None


def goes_through(name: str, loader: str | None) -> bool:
    """Whether SAELens must read ``release/id``: no reader here knows its layout, or this copy of the registry has not
    the release and the installed SAELens's has.

    Args:
        name: ``release/id``.
        loader: of its entry in this registry; None without one.
    """
    from wbtui.catalog.formats import by_loader

    if loader is not None:
        return by_loader(loader) is None
    release, _, sae = name.partition("/")
    return bool(sae) and saelens_has(release)


def not_converted(model: str, name: str) -> UsageError:
    """What to say of one that SAELens would have to read first."""
    return UsageError(
        f"{name} has a layout that wbtui does not read itself, and SAELens has not read it yet",
        "an SAE that SAELens has read once",
        f"`wbtui download {model} {name}` fetches what is missing and lets SAELens read it",
    )
