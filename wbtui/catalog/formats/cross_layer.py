"""Cross-layer transcoders as circuit-tracer writes them: ``W_enc_<L>.safetensors`` (``W_enc_<L> [d_sae, d_model]``,
biases), ``W_dec_<L>.safetensors`` (``W_dec_<L> [d_sae, n_layers - L, d_model]``: target layers from L on),
``config.yaml`` (``model_name``, ``feature_input_hook``, ``feature_output_hook``).

Each target layer is an SAE of its own; the sum over them, as SAELens makes it, is a direction that nothing writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, place, read_yaml, tensor
from wbtui.errors import WeightsError

_FILE = re.compile(r"W_dec_(\d{1,4})\.safetensors")
CONFIG = "config.yaml"
MAX_TARGETS = 512


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    for name in sorted(names):
        match = _FILE.fullmatch(name)
        if not match or f"W_enc_{match.group(1)}.safetensors" not in names or CONFIG not in names:
            continue
        layer = int(match.group(1))
        try:
            entry = tensor(header_of(folder / name), f"W_dec_{layer}")
            count = entry.shape[1] if len(entry.shape) == 3 else 0
        except WeightsError:
            yield Candidate("cross_layer", folder / name)
            continue
        for target in range(layer, layer + min(count, MAX_TARGETS)):
            yield Candidate("cross_layer", folder / name, f"L{layer}-to-L{target}")


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path
    match, entry = _FILE.fullmatch(file.name), re.fullmatch(r"L\d+-to-L(\d+)", candidate.entry)
    if match is None:
        raise WeightsError(f"{file}: file name", "W_dec_<layer>.safetensors")
    layer = int(match.group(1))
    encoder_file = file.with_name(f"W_enc_{layer}.safetensors")
    config = read_yaml(file.parent / CONFIG)
    header, encoder_header = header_of(file), header_of(encoder_file)
    decoder, encoder = tensor(header, f"W_dec_{layer}"), tensor(encoder_header, f"W_enc_{layer}")
    if len(decoder.shape) != 3:
        raise WeightsError(f"{file}: {decoder.name} has shape {list(decoder.shape)}", "[d_sae, targets, d_model]")
    d_sae, count, d_model = decoder.shape
    if encoder.shape != (d_sae, d_model):
        raise WeightsError(f"{encoder_file}: {encoder.name} has shape {list(encoder.shape)}", f"{[d_sae, d_model]}")
    if entry is None:
        raise WeightsError(f"{file}: a cross-layer transcoder", f"a target layer, as in {file}:L{layer}-to-L{layer}")
    target = int(entry.group(1))
    if not layer <= target < layer + count:
        raise WeightsError(f"{file}: target layer {target}", f"{layer} to {layer + count - 1}")
    gated = any("threshold" in name for name in encoder_header.tensors)
    cfg = {
        "architecture": "jumprelu_transcoder" if gated else "transcoder",
        "d_in": d_model,
        "d_sae": d_sae,
        "d_out": d_model,
        "hook_name": f"blocks.{layer}.{config.get('feature_input_hook') or 'hook_resid_mid'}",
        "hook_name_out": f"blocks.{layer}.{config.get('feature_output_hook') or 'hook_mlp_out'}",
        "model_name": str(config.get("model_name") or ""),
        "apply_b_dec_to_input": False,
    }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 0, index=target - layer),
        encoder=place(encoder, encoder_file, 0),
        conventions={"target_layer": target},
        n_layers=layer + count,
        notes=[
            f"one target of a cross-layer transcoder: reads layer {layer}, writes as the MLP of layer {target} does"
        ],
    )


FORMAT = Format(
    "cross_layer",
    "Cross-layer transcoders (circuit-tracer)",
    "`W_enc_<L>.safetensors`, `W_dec_<L>.safetensors`, `config.yaml`",
    ("mntss_clt_layer_transcoder",),
    "each target layer an SAE of its own, `L3-to-L5` (SAELens sums them)",
    _find,
    _read,
)
