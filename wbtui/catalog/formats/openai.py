"""OpenAI's ``sparse_autoencoder`` files: ``<location>_v5_32k/autoencoders/<layer>.pt``.

A state dict with ``encoder.weight [n_latents, d_model]``, ``decoder.weight [d_model, n_latents]`` (``nn.Linear``'s
order), ``pre_bias``, ``latent_bias`` and the name of its activation. Those with TopK (v4, v5) normalise their input as
a LayerNorm
does: ``layer_norm``, which centres.
"""

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
    need_hook,
    path_text,
    place,
    tensor,
    widths,
)

_LOCATIONS = {
    "resid_delta_attn": "hook_attn_out",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_post_mlp": "hook_resid_post",
    "mlp_post_act": "mlp.hook_post",
}
_FILE = re.compile(r"(?:autoencoders/|layer_?)?(\d{1,3})\.pt")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    for name in sorted(names):
        if re.fullmatch(r"(?:layer_?)?\d{1,3}\.pt", name):
            yield Candidate("openai", folder / name)


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path
    header = header_of(file)
    prefix = "state_dict." if "state_dict.encoder.weight" in header.tensors else ""
    tensor(header, prefix + "pre_bias")
    encoder, decoder = tensor(header, prefix + "encoder.weight"), tensor(header, prefix + "decoder.weight")
    d_in, d_sae, _ = widths(file, encoder, decoder, encoder_features=0, decoder_features=1, declared="nn.Linear")
    text = path_text(file)
    match = _FILE.search(file.name)
    where = next((hook for location, hook in _LOCATIONS.items() if location in text), None)
    known = match is not None and where is not None
    top_k = header.metadata.get("activation") == "TopK"
    cfg = {
        "architecture": "topk" if top_k else "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": need_hook(
            candidate,
            f"blocks.{match.group(1)}.{where}" if match is not None and known else None,
            "a path like resid_post_mlp_v5_32k/autoencoders/7.pt",
        ),
        "model_name": "gpt2-small",
        "apply_b_dec_to_input": True,
        "normalize_activations": "layer_norm" if top_k else "none",
    }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 1),
        encoder=place(encoder, file, 0),
        mean=None if top_k else prefix + "pre_bias",  # a normalised input's bias is no mean of the stream
    )


FORMAT = Format(
    "openai",
    "OpenAI v5 (gpt2)",
    "`<location>_v5_32k/autoencoders/<layer>.pt`",
    (),
    "TopK with a LayerNorm-like input (centred); location and layer from the path",
    _find,
    _read,
)
