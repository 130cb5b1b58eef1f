"""Gemma Scope: ``params.npz`` with ``W_enc [d_in, d_sae]``, ``W_dec [d_sae, d_out]``, biases and thresholds.

Nothing inside says what it was trained on: repository and folder names do
(``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82``). Sites: ``res`` is ``resid_post``; ``mlp`` the MLP's output
behind its norm; ``att`` the heads' values (``hook_z``); ``transcoders`` read the normalised stream without its gain
(methods 3.6). The embedding SAE was trained on embeddings divided by sqrt(d_model).
"""

from __future__ import annotations

import math
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
    number_in,
    path_text,
    place,
    tensor,
    widths,
)

PARAMS = "params.npz"
_REPO = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    if PARAMS in names:
        yield Candidate("gemma_scope", folder)


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path / PARAMS
    header = header_of(file)
    encoder, decoder = tensor(header, "W_enc", "w_enc"), tensor(header, "W_dec", "w_dec")
    d_in, d_sae, d_out = widths(file, encoder, decoder, encoder_features=1, decoder_features=0)
    text = path_text(candidate.path)
    repo = next(reversed(list(_REPO.finditer(text))), None)
    embedding = "embedding" in candidate.path.parts[-4:]
    layer = 0 if embedding else number_in(text, r"layer_(\d+)(?!\d)")
    kind = repo.group(3) if repo else None
    hook = {
        "res": "hook_embed" if embedding else f"blocks.{layer}.hook_resid_post",
        "mlp": f"blocks.{layer}.hook_mlp_out",
        "att": f"blocks.{layer}.attn.hook_z",
        "transcoders": f"blocks.{layer}.ln2.hook_normalized",
    }.get(kind or "")
    cfg: dict[str, Any] = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": need_hook(
            candidate, hook if layer is not None else None, "a path like gemma-scope-2b-pt-res/layer_12/width_16k/…"
        ),
        "model_name": f"gemma-2-{repo.group(1)}{'-it' if repo.group(2) == 'it' else ''}" if repo else "",
        "apply_b_dec_to_input": False,
    }
    if kind == "transcoders":
        cfg |= {"architecture": "jumprelu_transcoder", "d_out": d_out, "hook_name_out": f"blocks.{layer}.hook_mlp_out"}
    scale = math.sqrt(d_in) if embedding else 1.0
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 0, times=scale),
        encoder=place(encoder, file, 1, over=scale),
        mean="b_dec" if "b_dec" in header.tensors else None,
    )


FORMAT = Format(
    "gemma_scope",
    "Gemma Scope",
    "`layer_N/width_W/average_l0_K/params.npz`",
    ("gemma_2", "gemma_2_transcoder"),
    "residual, MLP, attention (`hook_z`), embedding and transcoders; site and model from the repository's name",
    _find,
    _read,
)
