"""The formats that SAEs come in: one small file each, and the registry of them all. Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wbtui.catalog.formats import (
    cross_layer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    hook_z_kk,
    llama_scope,
    openai,
    qwen_scope,
    saelens,
    single_file,
    sparsify,
    temporal,
    transcoder_layers,
)
from wbtui.catalog.formats.base import Candidate, Format
from wbtui.errors import UsageError, WeightsError

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        saelens,
        gemma_scope,
        gemma_scope_2,
        llama_scope,
        openai,
        dictionary_learning,
        sparsify,
        qwen_scope,
        single_file,
        hook_z_kk,
        transcoder_layers,
        cross_layer,
        temporal,
    )
}
MAX_FILES = 20_000
"""Names looked at in one folder."""
MAX_CANDIDATES = 20_000


def candidates(folder: Path) -> list[Candidate]:
    """Every SAE that some format claims directly in a folder, by file names; unreadable folders hold none."""
    try:
        names = []
        for child in folder.iterdir():
            names.append(child.name)
            if len(names) > MAX_FILES:
                break
    except OSError:
        return []
    return _claimed(folder, frozenset(names))


def _claimed(folder: Path, names: frozenset[str]) -> list[Candidate]:
    out: list[Candidate] = []
    for known in FORMATS.values():
        for candidate in known.find(folder, names):
            out.append(candidate)
            if len(out) >= MAX_CANDIDATES:
                return out
    return out


def recognise(path: Path, entry: str = "") -> Candidate:
    """The SAE at a path: a folder or file of any format.

    Args:
        path: the folder or file.
        entry: which of several (``L3-to-L5`` of a cross-layer transcoder, ``layer5.sae.pt`` of a folder of files).

    Raises:
        UsageError: several are there and ``entry`` names none of them.
        WeightsError: nothing that a format knows.
    """
    if path.is_dir():
        found = candidates(path)
    else:
        beside = candidates(path.parent)
        found = [c for c in beside if c.path == path]
    wanted = [c for c in found if entry in (c.name, c.path.stem)] if entry else found
    if len(wanted) == 1:
        return wanted[0]
    if found:
        names = ", ".join(c.name for c in found[:6]) + (" …" if len(found) > 6 else "")
        raise UsageError(f"{path}: {len(found)} SAEs", f"one of them: {path}:NAME, with NAME one of {names}")
    layouts = "; ".join(f"{f.title} ({f.layout})" for f in FORMATS.values())
    raise WeightsError(f"{path}: no SAE of a known format", layouts.replace("`", ""))


def read_candidate(candidate: Candidate) -> dict[str, Any]:
    """The fields of ``SaeInfo`` that a candidate's files decide.

    Raises:
        WeightsError: the files are damaged, contradict each other, or say too little.
    """
    fields = FORMATS[candidate.format].read(candidate)
    fields["format"] = candidate.format
    return fields


def by_loader(loader: str | None) -> Format | None:
    """The format of a registry entry with SAELens's loader of that name; None: none here reads it."""
    for known in FORMATS.values():
        if (loader or "sae_lens") in known.loaders:
            return known
    return None


def table() -> str:
    """The support table of the README, in Markdown."""
    rows = ["| format | files | what is read |", "|---|---|---|"]
    rows += [f"| {f.title} | {f.layout} | {f.notes} |" for f in FORMATS.values()]
    return "\n".join(rows)


__all__ = ["FORMATS", "Candidate", "Format", "by_loader", "candidates", "read_candidate", "recognise", "table"]
