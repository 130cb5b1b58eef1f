"""Llama Scope: ``hyperparams.json`` with ``checkpoints/final.safetensors`` (``encoder.weight [d_sae, d_model]``,
``decoder.weight [d_model, d_sae]``, the order of ``nn.Linear``), and the later layout with ``config.json``.

Inputs are scaled by sqrt(d_model) / average norm (``expected_average_only_in``): no direction changes. The gate
compares pre-activation times decoder norm with one threshold where ``sparsity_include_decoder_norm`` is true;
SAELens's conversion leaves the norm out, so thresholds are marked as not verified (methods 3.6).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, path_text, place, tensor, widths
from wbtui.catalog.models import read_json
from wbtui.errors import WeightsError

HYPERPARAMS = "hyperparams.json"
LATER_CONFIG, LATER_WEIGHTS = "config.json", "sae_weights.safetensors"
FINAL = Path("checkpoints") / "final.safetensors"
NOTE = "thresholds are not verified (decoder norms in the gate); directions do not depend on them"


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    later = {LATER_CONFIG, LATER_WEIGHTS} <= names and "cfg.json" not in names
    if later or (HYPERPARAMS in names and (folder / FINAL).is_file()):
        yield Candidate("llama_scope", folder)


def _read(candidate: Candidate) -> dict[str, Any]:
    folder = candidate.path
    old = (folder / HYPERPARAMS).is_file()
    where = folder / (HYPERPARAMS if old else LATER_CONFIG)
    config = read_json(where, "Llama Scope's hyperparams.json or config.json")
    file = folder / (FINAL if old else LATER_WEIGHTS)
    header = header_of(file)
    encoder, decoder = tensor(header, "encoder.weight"), tensor(header, "decoder.weight")
    d_model, d_sae = config.get("d_model"), config.get("d_sae")
    if d_sae is None and isinstance(d_model, int) and isinstance(config.get("expansion_factor"), int):
        d_sae = d_model * config["expansion_factor"]
    d_in, d_sae, d_out = widths(
        file, encoder, decoder, encoder_features=0, decoder_features=1, d_in=d_model, d_sae=d_sae, declared="nn.Linear"
    )
    _check_norms(config, where)
    hook, out = config.get("hook_point_in"), config.get("hook_point_out")
    transcoder = out is not None and out != hook
    cfg: dict[str, Any] = {
        "architecture": "jumprelu_transcoder" if transcoder else "jumprelu",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": hook,
        "model_name": _model(folder, config),
        "apply_b_dec_to_input": config.get("apply_decoder_bias_to_pre_encoder", False),
        "normalize_activations": "expected_average_only_in",
    }
    if transcoder:
        cfg |= {"d_out": d_out, "hook_name_out": out}
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 1),
        encoder=place(encoder, file, 0),
        mean="decoder.bias" if "decoder.bias" in header.tensors else None,
        notes=[NOTE] if old else [],
    )


def _check_norms(config: dict[str, Any], where: Path) -> None:
    norms = config.get("dataset_average_activation_norm")
    if norms is None:
        return
    values = [norms[k] for k in ("in", "out") if k in norms] if isinstance(norms, dict) else [norms]
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise WeightsError(f"{where}: dataset_average_activation_norm {value!r}", "a positive number")


def _model(folder: Path, config: dict[str, Any]) -> str:
    named = config.get("model_name")
    if isinstance(named, str):
        return named
    text = path_text(folder)
    if re.search(r"R1-Distill", text):
        return "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    return "meta-llama/Llama-3.1-8B" if re.search(r"Llama3_1-8B", text) else ""


FORMAT = Format(
    "llama_scope",
    "Llama Scope",
    "`hyperparams.json`, `checkpoints/final.safetensors`; later `config.json`, `sae_weights.safetensors`",
    ("llama_scope", "llama_scope_r1_distill"),
    "R, A, M and TC; average-norm scaling; thresholds not verified",
    _find,
    _read,
)
