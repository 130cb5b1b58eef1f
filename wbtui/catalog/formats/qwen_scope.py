"""Qwen Scope: ``layer<N>.sae.pt`` with ``W_enc [d_sae, d_in]``, ``W_dec [d_in, d_sae]``, in a repository whose name
says the model, width and k (``SAE-Res-Qwen3-1.7B-Base-W32K-L0_50``). TopK on ``resid_post``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, path_text, place, tensor, widths
from wbtui.errors import WeightsError

_FILE = re.compile(r"layer(\d{1,4})\.sae\.pt")
_REPO = re.compile(r"SAE-Res-(Qwen[\w.\-]*?)-W(\d{1,5})K-L0_(\d+)")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    for name in sorted(names):
        if _FILE.fullmatch(name):
            yield Candidate("qwen_scope", folder / name)


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise WeightsError(f"{file}: file name", "layer<N>.sae.pt")
    header = header_of(file)
    encoder, decoder = tensor(header, "W_enc"), tensor(header, "W_dec")
    repo = _REPO.search(path_text(file))
    d_in, d_sae, _ = widths(
        file,
        encoder,
        decoder,
        encoder_features=0,
        decoder_features=1,
        d_sae=int(repo.group(2)) * 1024 if repo else None,
        declared="the repository's name" if repo else "",
    )
    cfg = {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": f"blocks.{match.group(1)}.hook_resid_post",
        "model_name": f"Qwen/{repo.group(1)}" if repo else "",
        "apply_b_dec_to_input": False,
    }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 1),
        encoder=place(encoder, file, 0),
        mean="b_dec" if "b_dec" in header.tensors else None,
    )


FORMAT = Format(
    "qwen_scope",
    "Qwen Scope",
    "`layer<N>.sae.pt`",
    ("qwen_scope",),
    "TopK, residual; model and width from the repository's name",
    _find,
    _read,
)
