"""One ``.pt`` or ``.pth`` called ``<model>-SAE-l<layer>``: Goodfire (``encoder_linear.weight``) and qresearch
(``encoder.weight``), both in ``nn.Linear``'s order, ReLU on ``resid_post``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, place, tensor, widths
from wbtui.errors import WeightsError

_FILE = re.compile(r"(.+)-SAE-l(\d{1,4})\.pth?")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    for name in sorted(names):
        if _FILE.fullmatch(name):
            yield Candidate("goodfire", folder / name)


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path
    match = _FILE.fullmatch(file.name)
    if match is None:
        raise WeightsError(f"{file}: file name", "<model>-SAE-l<layer>.pt or .pth")
    header = header_of(file)
    encoder = tensor(header, "encoder_linear.weight", "encoder.weight")
    decoder = tensor(header, "decoder_linear.weight", "decoder.weight")
    d_in, d_sae, _ = widths(file, encoder, decoder, encoder_features=0, decoder_features=1, declared="nn.Linear")
    mean = next((n for n in ("decoder_linear.bias", "decoder.bias") if n in header.tensors), None)
    cfg = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": f"blocks.{match.group(2)}.hook_resid_post",
        "model_name": match.group(1),
        "apply_b_dec_to_input": False,
    }
    return described(candidate, cfg, decoder=place(decoder, file, 1), encoder=place(encoder, file, 0), mean=mean)


FORMAT = Format(
    "goodfire",
    "Goodfire, qresearch",
    "`<model>-SAE-l<N>.pt` or `.pth`",
    ("goodfire", "deepseek_r1"),
    "ReLU, residual; model and layer from the file's name",
    _find,
    _read,
)
