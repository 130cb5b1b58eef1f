"""The index of published top tokens, and which of its entries speak of an SAE. Stdlib only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from wbtui.catalog.models import read_json
from wbtui.catalog.saes import SaeInfo
from wbtui.errors import WeightsError

INDEX = Path(__file__).resolve().parent.parent / "published" / "index.json"
FORMAT = 1


def entries(path: Path = INDEX) -> list[dict[str, Any]]:
    """Every entry of the index.

    Raises:
        WeightsError: not an index of this format.
    """
    data = read_json(path, "an index of published values")
    found = data.get("entries")
    if data.get("format") != FORMAT or not isinstance(found, list) or not all(isinstance(e, dict) for e in found):
        raise WeightsError(f"{path}: format {data.get('format')!r}", f"format {FORMAT} with a list of entries")
    return found


def entries_for(sae: SaeInfo, path: Path = INDEX) -> list[dict[str, Any]]:
    """The entries about an SAE: those of its hook and width whose digest is that of its file."""
    likely = [e for e in entries(path) if e.get("hook_name") == sae.hook_name and e.get("d_sae") == sae.d_sae]
    if not likely:
        return []
    digest = hashlib.sha256()
    with open(sae.places["decoder"]["file"], "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return [e for e in likely if e.get("decoder_sha256") == digest.hexdigest()]
