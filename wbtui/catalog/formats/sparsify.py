"""EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors`` in a folder named after the module (``layers.10``,
``layers.10.mlp``, ``embed_tokens``).

``encoder.weight [num_latents, d_in]`` and ``W_dec [num_latents, d_in]``: both count features first. (SAELens's loader
transposes ``W_dec`` and rounds to bfloat16; the publisher's order is what counts here.) The input loses ``b_dec``
first, except in transcoders, which read a module's input and write its output. ``num_latents`` 0 means d_in ×
expansion_factor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, place, tensor, widths
from wbtui.catalog.models import read_json
from wbtui.errors import WeightsError

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_MODULE = re.compile(r"(?:.*\.)?(?:layers|h)[._](\d{1,4})(?:[._](mlp|attention|self_attn|attn))?")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if {CONFIG, WEIGHTS} <= names:
        yield Candidate("sparsify", folder)


def _read(candidate: Candidate) -> dict[str, Any]:
    folder = candidate.path
    where, file = folder / CONFIG, folder / WEIGHTS
    config = read_json(where, "sparsify's cfg.json")
    header = header_of(file)
    encoder, decoder = tensor(header, "encoder.weight", "W_enc"), tensor(header, "W_dec", "decoder.weight")
    width = config.get("d_in")
    if isinstance(width, bool) or not isinstance(width, int):
        raise WeightsError(f"{where}: d_in is {width!r}", "a whole number")
    latents = config.get("num_latents") or width * int(config.get("expansion_factor") or 0) or None
    encoder_features = 0 if encoder.name == "encoder.weight" else 1
    decoder_features = 0 if decoder.name == "W_dec" else 1
    d_in, d_sae, d_out = widths(
        file,
        encoder,
        decoder,
        encoder_features=encoder_features,
        decoder_features=decoder_features,
        d_in=width,
        d_sae=latents,
    )
    transcode = config.get("transcode") is True
    if folder.name == "embed_tokens" and not transcode:
        layer, part = 0, "embed"
    else:
        match = _MODULE.fullmatch(folder.name)
        if match is None:
            raise WeightsError(
                f"{folder}: folder {folder.name!r}", "a module's name: layers.N, layers.N.mlp, embed_tokens"
            )
        layer, part = int(match.group(1)), match.group(2) or "block"
    if transcode and part != "mlp":
        raise WeightsError(f"{folder}: a transcoder of {part}", "one of an MLP (layers.N.mlp)")
    hook = {"embed": "hook_embed", "block": f"blocks.{layer}.hook_resid_post", "mlp": f"blocks.{layer}.hook_mlp_out"}
    cfg: dict[str, Any] = {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": hook.get(part, f"blocks.{layer}.hook_attn_out"),
        "model_name": _model(folder),
        "apply_b_dec_to_input": not transcode,
    }
    if transcode:
        skip = "W_skip" in header.tensors
        cfg |= {
            "architecture": "skip_transcoder" if skip else "transcoder",
            "d_out": d_out,
            "hook_name": f"blocks.{layer}.mlp.hook_in",
            "hook_name_out": f"blocks.{layer}.hook_mlp_out",
        }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, decoder_features),
        encoder=place(encoder, file, encoder_features),
        mean="b_dec" if "b_dec" in header.tensors and not transcode else None,
        conventions={"writes": "module_output"} if part in ("mlp", "attention", "self_attn", "attn") else None,
    )


def _model(folder: Path) -> str:
    """The training run's ``config.json`` stands one folder up."""
    above = folder.parent / "config.json"
    try:
        named = read_json(above, "a training config").get("model") if above.is_file() else None
    except WeightsError:
        named = None
    return named if isinstance(named, str) else ""


FORMAT = Format(
    "sparsify",
    "EleutherAI sparsify",
    "`layers.N[.mlp]/cfg.json`, `sae.safetensors`",
    ("sparsify",),
    "blocks, MLPs, attention, embedding, transcoders; hook from the folder's name (SAELens's loader transposes W_dec)",
    _find,
    _read,
)
