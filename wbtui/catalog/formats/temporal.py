"""Temporal SAEs (canrager): ``conf.yaml`` and ``latest_ckpt.safetensors`` with ``D [d_sae, d_in]``, ``E [d_in, d_sae]``
(absent where tied) and ``b``; the layer is in the folder's path (``layer_12/temporal``)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import (
    Candidate,
    Format,
    described,
    header_of,
    need_hook,
    number_in,
    path_text,
    place,
    read_yaml,
    tensor,
    widths,
)
from wbtui.errors import WeightsError

CONFIG, WEIGHTS = "conf.yaml", "latest_ckpt.safetensors"


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if {CONFIG, WEIGHTS} <= names:
        yield Candidate("temporal", folder)


def _read(candidate: Candidate) -> dict[str, Any]:
    where, file = candidate.path / CONFIG, candidate.path / WEIGHTS
    config = read_yaml(where)
    llm, sae = config.get("llm"), config.get("sae")
    if not isinstance(llm, dict) or not isinstance(sae, dict) or not isinstance(llm.get("dimin"), int):
        raise WeightsError(f"{where}: no llm.dimin and sae", "the conf.yaml of a temporal SAE")
    header = header_of(file)
    decoder = tensor(header, "D")
    encoder = header.tensors.get("E")
    factor = sae.get("exp_factor")
    d_in, d_sae, _ = widths(
        file,
        encoder,
        decoder,
        encoder_features=1,
        decoder_features=0,
        d_in=llm["dimin"],
        d_sae=int(llm["dimin"] * factor) if isinstance(factor, (int, float)) else None,
    )
    layer = number_in(path_text(candidate.path), r"layer_(\d+)")
    cfg = {
        "architecture": "temporal",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": need_hook(
            candidate, None if layer is None else f"blocks.{layer}.hook_resid_post", "a path with layer_<N>"
        ),
        "model_name": _model(candidate.path),
        "apply_b_dec_to_input": True,
        "normalize_activations": "constant_scalar_rescale",
        "tied_weights": encoder is None,
    }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 0),
        encoder=None if encoder is None else place(encoder, file, 1),
        mean="b" if "b" in header.tensors else None,
    )


def _model(folder: Path) -> str:
    """The folder above ``layer_N`` is called after the model."""
    parts = folder.absolute().parts
    at = next((i for i in range(len(parts) - 1, 0, -1) if parts[i].startswith("layer_")), 0)
    return parts[at - 1] if at else ""


FORMAT = Format(
    "temporal",
    "Temporal SAEs",
    "`layer_<N>/temporal/conf.yaml`, `latest_ckpt.safetensors`",
    ("temporal",),
    "residual; model and layer from the path",
    _find,
    _read,
)
