"""Per-layer transcoders as circuit-tracer reads them (mwhanna's Qwen3 suites): ``layer_<N>.safetensors`` with
``W_enc [d_sae, d_in]``, ``W_dec [d_sae, d_out]`` (features first in both), ``config.yaml`` (``model_name``,
``feature_input_hook``) and ``wandb-config.yaml`` (widths). They read the MLP's input, gain not folded (methods 3.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import (
    Candidate,
    Format,
    described,
    header_of,
    path_text,
    place,
    read_yaml,
    tensor,
    widths,
)
from wbtui.errors import WeightsError

_FILE = re.compile(r"layer_(\d{1,4})\.safetensors")
CONFIG, WANDB = "config.yaml", ("wandb-config.yaml", "wanb-config.yaml")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if CONFIG not in names and not set(WANDB) & names:
        return
    for name in sorted(names):
        if _FILE.fullmatch(name):
            yield Candidate("transcoder_layers", folder / name)


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise WeightsError(f"{file}: file name", "layer_<N>.safetensors")
    layer = match.group(1)
    folder = file.parent
    config = read_yaml(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    runs = [read_yaml(folder / name) for name in WANDB if (folder / name).is_file()]
    header = header_of(file)
    encoder, decoder = tensor(header, "W_enc"), tensor(header, "W_dec")
    d_in, d_sae, d_out = widths(
        file,
        encoder,
        decoder,
        encoder_features=0,
        decoder_features=0,
        d_in=_value(runs, "d_model"),
        d_sae=_value(runs, "d_feature"),
    )
    skip = "W_skip" in header.tensors
    gated = any("threshold" in name for name in header.tensors)
    architecture = ("jumprelu_" if gated else "") + ("skip_transcoder" if skip else "transcoder")
    cfg = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "d_out": d_out,
        "hook_name": f"blocks.{layer}.{config.get('feature_input_hook') or 'mlp.hook_in'}",
        "hook_name_out": f"blocks.{layer}.{config.get('feature_output_hook') or 'hook_mlp_out'}",
        "model_name": _model(file, config),
        "apply_b_dec_to_input": False,
    }
    return described(candidate, cfg, decoder=place(decoder, file, 0), encoder=place(encoder, file, 0))


def _value(runs: list[dict[str, Any]], key: str) -> int | None:
    """wandb writes each setting as a mapping with a ``value``."""
    for run in runs:
        item = run.get(key)
        value = item.get("value") if isinstance(item, dict) else item
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _model(file: Path, config: dict[str, Any]) -> str:
    named = config.get("model_name")
    if isinstance(named, str):
        return named
    match = re.search(r"qwen3-(\d+(?:\.\d+)?)b", path_text(file))
    return f"Qwen/Qwen3-{match.group(1)}B" if match else ""


FORMAT = Format(
    "transcoder_layers",
    "mwhanna transcoders",
    "`layer_<N>.safetensors`, `config.yaml`",
    ("mwhanna_transcoder",),
    "transcoders and skip-transcoders on the MLP's input",
    _find,
    _read,
)
