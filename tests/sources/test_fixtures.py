"""What the fixtures promise to the other rooms' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures import MODEL_TYPES, models, tiny_model, tiny_sae


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_quantized_weights_are_multiples_of_two_to_the_minus_six(model_type: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, model_type, quantized=True)
    sae = tiny_sae(tmp_path, folder, quantized=True)
    for path in (folder / "model.safetensors", sae / "sae_weights.safetensors"):
        for tensor in load_file(path).values():
            assert torch.equal((tensor * 64).round() / 64, tensor)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_parameter_is_random_and_seeded(model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No norm of ones, no bias of zeros: a test on them could not fail."""

    def built(seed: int) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(models, "_MADE", {})  # anew, not what was built before
        return load_file(tiny_model(tmp_path, model_type, seed=seed) / "model.safetensors")

    first, again, other = built(1), built(1), built(2)
    for name, tensor in first.items():
        assert tensor.float().std() > 0.05, name
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])


def test_sae_rows_on_request(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    rows = load_file(tiny_sae(tmp_path, folder, zero_rows=[2], nan_rows=[5]) / "sae_weights.safetensors")["W_dec"]
    assert rows[2].abs().max() == 0
    assert rows[5].isnan().all()
    assert rows.isnan().any(1).sum() == 1
