"""dictionary_learning: ``ae.pt`` with ``config.json`` (``trainer``: ``dict_class``, ``activation_dim``, ``dict_size``,
``layer``, ``lm_name``, ``submodule_name``).

Older classes store ``encoder.weight [dict_size, activation_dim]`` and ``decoder.weight`` the other way round
(``nn.Linear``'s order), newer ones ``W_enc [activation_dim, dict_size]`` and ``W_dec [dict_size, activation_dim]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, place, tensor, widths
from wbtui.catalog.models import read_json
from wbtui.errors import WeightsError

WEIGHTS, CONFIG = "ae.pt", "config.json"
_CLASSES = {
    # dict_class -> (architecture, whether the input loses b_dec first)
    "AutoEncoder": ("standard", True),
    "AutoEncoderNew": ("standard", True),
    "GatedAutoEncoder": ("gated", True),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("jumprelu", True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
}


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if {WEIGHTS, CONFIG} <= names:
        yield Candidate("dictionary_learning", folder)


def _read(candidate: Candidate) -> dict[str, Any]:
    where = candidate.path / CONFIG
    trainer = read_json(where, "dictionary_learning's config.json").get("trainer")
    if not isinstance(trainer, dict):
        raise WeightsError(f"{where}: no trainer", "dictionary_learning's config.json, with a trainer")
    kind = trainer.get("dict_class")
    if kind not in _CLASSES:
        raise WeightsError(f"{where}: dict_class {str(kind)[:60]!r}", "one of " + ", ".join(_CLASSES))
    architecture, apply = _CLASSES[kind]
    file = candidate.path / WEIGHTS
    header = header_of(file)
    newer = "W_enc" in header.tensors
    encoder = tensor(header, "W_enc" if newer else "encoder.weight")
    decoder = tensor(header, "W_dec" if newer else "decoder.weight")
    side = (1, 0) if newer else (0, 1)
    for key in ("activation_dim", "dict_size"):
        if isinstance(trainer.get(key), bool) or not isinstance(trainer.get(key), int):
            raise WeightsError(f"{where}: trainer.{key} is {trainer.get(key)!r}", "a whole number")
    d_in, d_sae, _ = widths(
        file,
        encoder,
        decoder,
        encoder_features=side[0],
        decoder_features=side[1],
        d_in=trainer["activation_dim"],
        d_sae=trainer["dict_size"],
    )
    hook, module_output = _hook(trainer, where)
    lm_name = trainer.get("lm_name")
    cfg = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": hook,
        "model_name": lm_name if isinstance(lm_name, str) else "",
        "apply_b_dec_to_input": apply,
    }
    names = [name for name in ("b_dec", "bias", "decoder_bias") if name in header.tensors]
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, side[1]),
        encoder=place(encoder, file, side[0]),
        mean=names[0] if names else None,
        conventions={"writes": "module_output"} if module_output else None,
    )


def _hook(trainer: dict[str, Any], where: Path) -> tuple[str, bool]:
    """(hook, whether it is a module's own output, in front of a post-norm)."""
    name, layer = trainer.get("submodule_name"), trainer.get("layer")
    match = re.fullmatch(r"(resid_post|resid_out|resid|attn_out|attn|mlp_out|mlp)_?layer_?(\d{1,4})", str(name))
    if match:
        kind = {"resid": "hook_resid_post", "attn": "hook_attn_out", "mlp": "hook_mlp_out"}[
            match.group(1).split("_")[0]
        ]
        if isinstance(layer, int) and layer != int(match.group(2)):
            raise WeightsError(f"{where}: submodule_name {name} but layer {layer}", "one layer in both")
        return f"blocks.{match.group(2)}.{kind}", not kind.startswith("hook_resid")
    if name is not None:
        raise WeightsError(f"{where}: submodule_name {str(name)[:80]!r}", "resid_post_layer_N, attn_out_… or mlp_out_…")
    if isinstance(layer, bool) or not isinstance(layer, int) or layer < 0:
        raise WeightsError(f"{where}: trainer.layer is {layer!r}", "the layer's number")
    return f"blocks.{layer}.hook_resid_post", False


FORMAT = Format(
    "dictionary_learning",
    "dictionary_learning",
    "`ae.pt`, `config.json`",
    ("dictionary_learning_1",),
    "AutoEncoder, Gated, TopK, BatchTopK, Matryoshka, JumpReLU; SAEBench, andyrdt's suites",
    _find,
    _read,
)
