"""Gemma Scope 2: ``params.safetensors`` with ``w_enc [d_in, d_sae]`` and ``w_dec [d_sae, d_out]``, ``config.json``
beside.

The config names Hugging Face modules; without one the folder's name says as much. ``attn_out`` is the input of W_O, so
``hook_z``. Transcoders read the output of the norm in front of the MLP, gain included. Cross-layer transcoders
(``clt/…/params_layer_L.safetensors``) hold ``w_dec [d_sae, n_layers, d_model]``: dimension 1 is the target layer, those
before L unused. Each target is an SAE of its own here: a sum over targets, as SAELens makes it, is a direction that
nothing in the model writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, path_text, place, tensor, widths
from wbtui.catalog.models import read_json
from wbtui.errors import WeightsError

PARAMS = "params.safetensors"
_CLT = re.compile(r"params_layer_(\d{1,4})\.safetensors")
_HOOKS = {
    # the module that the config names -> kind of SAE
    "output": "resid_post",
    "self_attn.o_proj.input": "attn_out",
    "post_feedforward_layernorm.output": "mlp_out",
    "pre_feedforward_layernorm.output": "transcoder",
}
MAX_TARGETS = 512


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if PARAMS in names:
        yield Candidate("gemma_scope_2", folder)
    for name in sorted(names):
        match = _CLT.fullmatch(name)
        if not match:
            continue
        try:
            entry = tensor(header_of(folder / name), "w_dec")
        except WeightsError:
            yield Candidate("gemma_scope_2", folder / name)  # reading it says what is wrong
            continue
        layer = int(match.group(1))
        count = entry.shape[1] if len(entry.shape) == 3 else 0
        for target in range(layer, min(count, MAX_TARGETS)):
            yield Candidate("gemma_scope_2", folder / name, f"L{layer}-to-L{target}")


def _read(candidate: Candidate) -> dict[str, Any]:
    clt = _CLT.fullmatch(candidate.path.name)
    folder = candidate.path.parent if clt else candidate.path
    file = candidate.path if clt else folder / PARAMS
    header = header_of(file)
    encoder, decoder = tensor(header, "w_enc"), tensor(header, "w_dec")
    config = (
        read_json(folder / "config.json", "Gemma Scope 2's config.json") if (folder / "config.json").is_file() else {}
    )
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise WeightsError(f"{folder}/config.json: architecture {config['architecture']!r}", "jump_relu")
    if clt:
        return _cross_layer(candidate, int(clt.group(1)), config, encoder, decoder)
    d_in, d_sae, d_out = widths(file, encoder, decoder, encoder_features=1, decoder_features=0)
    kind, layer = _kind_and_layer(folder, config)
    hook = {
        "resid_post": f"blocks.{layer}.hook_resid_post",
        "attn_out": f"blocks.{layer}.attn.hook_z",
        "mlp_out": f"blocks.{layer}.hook_mlp_out",
        "transcoder": f"blocks.{layer}.hook_mlp_in",
    }[kind]
    cfg: dict[str, Any] = {
        "architecture": "jumprelu", "d_in": d_in, "d_sae": d_sae, "hook_name": hook, "apply_b_dec_to_input": False,
        "model_name": _model(folder, config),
    }  # fmt: skip
    if kind == "transcoder":
        skip = "affine_skip_connection" in header.tensors
        cfg |= {
            "architecture": "jumprelu_skip_transcoder" if skip else "jumprelu_transcoder",
            "d_out": d_out,
            "hook_name_out": f"blocks.{layer}.hook_mlp_out",
            "hf_hook_name": f"model.layers.{layer}.pre_feedforward_layernorm.output",
        }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 0),
        encoder=place(encoder, file, 1),
        mean="b_dec" if "b_dec" in header.tensors else None,
    )


def _cross_layer(
    candidate: Candidate, layer: int, config: dict[str, Any], encoder: Any, decoder: Any
) -> dict[str, Any]:
    """One target layer of one layer's cross-layer transcoder."""
    file = candidate.path
    if len(decoder.shape) != 3:
        raise WeightsError(f"{file}: w_dec has shape {list(decoder.shape)}", "[d_sae, target layers, d_model]")
    d_sae, count, d_out = decoder.shape
    if encoder.shape != (d_out, d_sae):
        raise WeightsError(f"{file}: w_enc has shape {list(encoder.shape)}", f"{[d_out, d_sae]}, to fit w_dec")
    match = re.fullmatch(r"L\d+-to-L(\d+)", candidate.entry)
    if match is None:
        raise WeightsError(f"{file}: a cross-layer transcoder", f"a target layer, as in {file}:L{layer}-to-L{layer}")
    target = int(match.group(1))
    if not layer <= target < count:
        raise WeightsError(f"{file}: target layer {target}", f"{layer} to {count - 1}")
    skip = "affine_skip_connection" in header_of(file).tensors
    cfg = {
        "architecture": "jumprelu_skip_transcoder" if skip else "jumprelu_transcoder",
        "d_in": d_out,
        "d_sae": d_sae,
        "d_out": d_out,
        "hook_name": f"blocks.{layer}.hook_mlp_in",
        "hook_name_out": f"blocks.{layer}.hook_mlp_out",
        "hf_hook_name": f"model.layers.{layer}.pre_feedforward_layernorm.output",
        "model_name": _model(file.parent, config),
        "apply_b_dec_to_input": False,
    }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 0, index=target),
        encoder=place(encoder, file, 1),
        conventions={"target_layer": target},
        n_layers=count,
        notes=[
            f"one target of a cross-layer transcoder: reads layer {layer}, writes as the MLP of layer {target} does"
        ],
    )


def _kind_and_layer(folder: Path, config: dict[str, Any]) -> tuple[str, int]:
    text = path_text(folder)
    named = [
        kind for kind in ("resid_post", "attn_out", "mlp_out", "transcoder") if kind in text.rsplit("/snapshots/")[-1]
    ]
    match = re.search(r"layer_(\d{1,4})(?!\d)", folder.name)
    kind, layer = named[-1] if named else None, int(match.group(1)) if match else None
    hook = config.get("hf_hook_point_in")
    if isinstance(hook, str):
        found = re.search(r"layers\.(\d{1,4})\.(.+)$", hook)
        said = _HOOKS.get(found.group(2)) if found else None
        if found is None or said is None:
            raise WeightsError(f"{folder}/config.json: hf_hook_point_in {hook[:80]!r}", "one of " + ", ".join(_HOOKS))
        if (kind or said) != said or (layer if layer is not None else int(found.group(1))) != int(found.group(1)):
            raise WeightsError(f"{folder}: its config says {hook}", f"what its folder says: {kind} of layer {layer}")
        return said, int(found.group(1))
    if kind is None or layer is None:
        raise WeightsError(
            f"{folder}: no config.json with hf_hook_point_in",
            "config.json, or a path like resid_post/layer_12_width_16k_…",
        )
    return kind, layer


def _model(folder: Path, config: dict[str, Any]) -> str:
    """The model's Hub id, as the config or the repository names it (``gemma-v3-1b-pt`` stands for
    ``gemma-3-1b-pt``)."""
    name = config.get("model_name")
    if not isinstance(name, str):
        match = re.search(r"gemma-scope-2-([0-9]+[mb]-(?:pt|it))", path_text(folder))
        name = f"gemma-3-{match.group(1)}" if match else ""
    name = name.replace("-v3", "-3")
    if "270m" in name:
        name = name.replace("-pt", "")
    return name if not name or "google" in name else f"google/{name}"


FORMAT = Format(
    "gemma_scope_2",
    "Gemma Scope 2",
    "`…/layer_N_width_W_l0_K/params.safetensors`, `config.json`; `clt/…/params_layer_N.safetensors`",
    ("gemma_3",),
    "residual, attention (`hook_z`), MLP, transcoders with and without skip; cross-layer transcoders, each target "
    "layer an SAE of its own (SAELens sums them)",
    _find,
    _read,
)
