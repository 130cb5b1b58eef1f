"""Kissane's attention SAEs of gpt2: ``<run>.pt`` with ``<run>_cfg.json`` (``act_size``, ``dict_size``, ``act_name``).
``W_enc [act_size, dict_size]``, ``W_dec [dict_size, act_size]``; hook ``blocks.N.attn.hook_z``, heads flattened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wbtui.catalog.formats.base import Candidate, Format, described, header_of, place, tensor, widths
from wbtui.catalog.models import read_json
from wbtui.errors import WeightsError


def _config(file: Path) -> Path:
    return file.with_name(file.name.split(".pt")[0] + "_cfg.json")


def _find(folder: Path, names: frozenset[str]) -> Iterable[Candidate]:
    for name in sorted(names):
        if name.endswith(".pt") and _config(folder / name).name in names:
            yield Candidate("hook_z_kk", folder / name)


def _read(candidate: Candidate) -> dict[str, Any]:
    file = candidate.path
    where = _config(file)
    config = read_json(where, "the run's _cfg.json")
    header = header_of(file)
    encoder, decoder = tensor(header, "W_enc"), tensor(header, "W_dec")
    for key in ("act_size", "dict_size"):
        if isinstance(config.get(key), bool) or not isinstance(config.get(key), int):
            raise WeightsError(f"{where}: {key} is {config.get(key)!r}", "a whole number")
    d_in, d_sae, _ = widths(
        file,
        encoder,
        decoder,
        encoder_features=1,
        decoder_features=0,
        d_in=config["act_size"],
        d_sae=config["dict_size"],
    )
    cfg = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "hook_name": config.get("act_name"),
        "model_name": str(config.get("model_name") or "gpt2-small"),
        "apply_b_dec_to_input": True,
    }
    return described(
        candidate,
        cfg,
        decoder=place(decoder, file, 0),
        encoder=place(encoder, file, 1),
        mean="b_dec" if "b_dec" in header.tensors else None,
    )


FORMAT = Format(
    "hook_z_kk",
    "gpt2 hook-z-kk",
    "`<run>.pt`, `<run>_cfg.json`",
    ("connor_rob_hook_z",),
    "attention (`hook_z`)",
    _find,
    _read,
)
