"""Cosines of two features read from their files, against float64 of the same tensors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.models import tiny_model
from tests.fixtures.saes import tiny_sae
from wbtui.catalog.models import find_model
from wbtui.catalog.saes import find_sae
from wbtui.features.pair import pair_cosines


def unit(x: torch.Tensor, centre: bool) -> np.ndarray:
    row = x.double().numpy()
    row = row - row.mean() if centre else row
    return row / np.linalg.norm(row)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_reference(tmp_path: Path, kind: str, dtype: str):
    model = tiny_model(tmp_path / "model", kind)
    folders = [tiny_sae(model / "saes", model, layer=layer, seed=layer, dtype=dtype) for layer in (0, 1)]
    info = find_model(str(model))
    a, b = find_sae(info, "L0"), find_sae(info, "L1")
    one, two = (load_file(f / "sae_weights.safetensors") for f in folders)
    centre = kind == "gpt2"
    found = pair_cosines(info, a, 3, b, 7)
    assert found.decoder == pytest.approx(float(unit(one["W_dec"][3], centre) @ unit(two["W_dec"][7], centre)))
    assert found.encoder == pytest.approx(float(unit(one["W_enc"][:, 3], centre) @ unit(two["W_enc"][:, 7], centre)))
    assert pair_cosines(info, a, 3, a, 3).decoder == pytest.approx(1.0)


def test_what_cannot_be_read_alone_is_not_guessed(tmp_path: Path):
    model = tiny_model(tmp_path / "model", "gemma2")
    tiny_sae(model / "saes", model, layer=1, zero_rows=[2], nan_rows=[3])
    tiny_sae(model / "saes", model, layer=1, site="hook_z")
    tiny_sae(model / "saes", model, layer=1, site="mlp_out")
    info = find_model(str(model))
    stream, heads, out = (find_sae(info, name) for name in ("L1", "L1-hook_z", "L1-mlp_out"))
    found = pair_cosines(info, stream, 0, heads, 0)
    assert math.isnan(found.decoder) and math.isnan(found.encoder), "it goes through W_O first"
    found = pair_cosines(info, stream, 0, out, 0)
    assert math.isfinite(found.decoder) and math.isnan(found.encoder), "that encoder is off the stream"
    for row in (2, 3):
        assert math.isnan(pair_cosines(info, stream, row, stream, 0).decoder)
