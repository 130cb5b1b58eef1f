"""SAELens folders: ``cfg.json`` and ``sae_weights.safetensors``, old and new configs, every architecture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format
from wbtui.catalog.from_saelens import read_source
from wbtui.catalog.models import read_json
from wbtui.catalog.saelens_config import parse_saelens_config

WEIGHTS = "sae_weights.safetensors"
CONFIG = "cfg.json"


def saelens_places(folder: str, conventions: dict[str, Any]) -> dict[str, Any]:
    """Where SAELens keeps its matrices: ``W_enc [d_in, d_sae]`` and ``W_dec [d_sae, d_out]`` of one file."""
    file = str(Path(folder) / WEIGHTS)
    tied = bool(conventions.get("tied_encoder", False))
    return {
        "decoder": {"file": file, "tensor": "W_dec", "features": 0},
        "encoder": None if tied else {"file": file, "tensor": "W_enc", "features": 1},
        "mean": {"file": file, "tensor": "b_dec"},
    }


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if {WEIGHTS, CONFIG} <= names:
        yield Candidate("saelens", folder)


def _read(candidate: Candidate) -> dict[str, Any]:
    where = candidate.path / CONFIG
    config = read_json(where, "a SAELens cfg.json")
    parsed = parse_saelens_config(config, str(where))
    metadata = config.get("metadata")
    named = (metadata if isinstance(metadata, dict) else {}).get("model_name") or config.get("model_name") or ""
    return {**parsed, "model_name": str(named), "weights": {}, "notes": _notes(candidate.path)}


def _notes(folder: Path) -> list[str]:
    """Whose word it is where SAELens has read another layout for us."""
    said = read_source(folder)
    if not said:
        return []
    version, loader = (str(said.get(key))[:60] for key in ("sae_lens", "loader"))
    return [f"read by SAELens {version} (its loader {loader}), not by wbtui itself"]


FORMAT = Format(
    "saelens",
    "SAELens",
    "`cfg.json`, `sae_weights.safetensors`",
    ("sae_lens",),
    "standard, gated, jumprelu, topk, batchtopk, matryoshka, matching pursuit, temporal, transcoders, skip-"
    "transcoders; gpt2 res-jb and the OpenAI v5 dictionaries as SAELens hosts them",
    _find,
    _read,
)
