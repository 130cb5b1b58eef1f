"""``manifest.json``: what a product is and how it was made. Written once at the start, replaced once at the end."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from wbtui import __version__
from wbtui.errors import StoreError
from wbtui.store import io
from wbtui.store.keys import ProductSpec, digest
from wbtui.store.places import MANIFEST
from wbtui.store.refusals import Damaged, reading

SCHEMA_VERSION = 1
SCHEMA = f"wbtui.product/{SCHEMA_VERSION}"
FACTS = ("device", "dtype", "tile", "threads", "seconds")
"""How the numbers were made; in no key, and None where the computing side did not say."""


class Loaded(NamedTuple):
    """A manifest as found: ``good``, ``absent``, ``corrupt`` or ``newer``; ``data`` is empty unless good."""

    found: str
    data: dict[str, Any]
    why: str = ""


def load(folder: Path) -> Loaded:
    """Read a product folder's manifest.

    Raises:
        StoreError: it is there and cannot be opened (no permission, …): that is no ground to write another.
    """
    return load_file(folder / MANIFEST)


def load_file(path: Path) -> Loaded:
    """As :func:`load`, by file name."""
    try:
        with reading(path):
            data = json.loads(io.read_bytes(path))
    except Damaged as error:
        return Loaded("corrupt", {}, error.found)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Loaded("absent", {})
        raise
    except (ValueError, RecursionError) as error:
        return Loaded("corrupt", {}, f"not JSON ({error})")
    if not isinstance(data, dict):
        return Loaded("corrupt", {}, "not a JSON object")
    named = re.fullmatch(r"wbtui\.product/(\d{1,6})", str(data.get("schema")))
    if named and int(named[1]) > SCHEMA_VERSION:
        return Loaded("newer", {}, str(data["schema"]))
    try:
        sound = (
            data["schema"] == SCHEMA
            and data["status"] in ("computing", "complete")
            and isinstance(data["spec"], dict)
            and data["key"] == digest(data["identity"])[:16]
            and isinstance(data["rows"], int)
            and isinstance(data["shard_rows"], int)
            and (data["status"] == "computing" or isinstance(data["bytes"], int))
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        return Loaded("corrupt", {}, "fields missing or not fitting each other")
    return Loaded("good", data)


def good(folder: Path, key: str) -> dict[str, Any] | None:
    """The manifest, None where it is absent or corrupt.

    Raises:
        StoreError: made by a newer wbtui, of another product, or it cannot be opened.
    """
    loaded = load(folder)
    if loaded.found == "newer":
        raise StoreError(
            f"{folder}: made by a newer wbtui ({loaded.why})",
            f"{SCHEMA} or older",
            "upgrade wbtui, or set WBTUI_CACHE_DIR to another place",
        )
    if loaded.found != "good":
        return None
    if loaded.data["key"] != key:
        raise StoreError(
            f"{folder}: holds product {loaded.data['key']}", f"product {key}", "do not rename folders of the cache"
        )
    return loaded.data


def computing(spec: ProductSpec) -> dict[str, Any]:
    """The manifest of a product that begins."""
    return {
        "schema": SCHEMA,
        "status": "computing",
        "analysis": spec.analysis,
        "key": spec.key,
        "identity": spec.identity,
        "spec": spec.to_json(),
        "rows": spec.rows,
        "shard_rows": spec.shard_rows,
        "created": _now(),
        "finished": None,
        "wbtui_version": __version__,
        "host": io.host_tag(),
    }


def complete(
    begun: dict[str, Any],
    spec: ProductSpec,
    *,
    facts: dict[str, Any],
    sha256: str,
    size: int,
    nonfinite: list[int],
    n_nonfinite: int,
) -> dict[str, Any]:
    """The manifest of a finished product; ``begun`` is the one it replaces."""
    out = computing(spec)
    out["created"] = begun.get("created", out["created"])
    out.update(status="complete", finished=_now(), sha256=sha256, bytes=size)
    out.update(nonfinite_rows=nonfinite, n_nonfinite=n_nonfinite)
    out.update({name: _plain(facts.get(name)) for name in FACTS})
    if out["dtype"] is None:
        definition = spec.identity.get("definition")
        out["dtype"] = definition.get("dtype") if isinstance(definition, dict) else None
    more = {name: _plain(value) for name, value in facts.items() if name not in FACTS}
    if more:
        out["facts"] = more
    return out


def write(folder: Path, data: dict[str, Any], *, exclusive: bool) -> None:
    """Write a manifest whole or not at all; ``exclusive`` leaves one that is there.

    Raises:
        OSError: as the system says.
    """
    raw = json.dumps(data, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
    io.write_bytes(folder / MANIFEST, raw, exclusive=exclusive)


def _plain(value: Any) -> Any:
    """A fact as JSON data; what JSON does not know becomes text or None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
