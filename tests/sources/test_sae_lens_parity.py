"""Our reader against SAELens's own, for every architecture that it saves. Alone here: sae_lens takes 8 s to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures import SAE_ARCHITECTURES, tiny_sae
from tests.sources.conftest import source_of
from wbtui.sources.checkpoint import Checkpoint


def load(folder: Path, architecture: str) -> Any:
    """The SAE by SAELens itself."""
    from sae_lens import SAE, TrainingSAE

    training = architecture in ("batchtopk", "matryoshka_batchtopk")
    return (TrainingSAE if training else SAE).load_from_disk(str(folder))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", SAE_ARCHITECTURES)
def test_tensors_equal_sae_lens(architecture: str, dtype: str, models: dict[str, Path], tmp_path: Path) -> None:
    """GIVEN a folder that SAELens saved THEN our rows are its W_dec and W_enc, and its config is understood."""
    folder = tiny_sae(tmp_path, models["gemma2"], architecture=architecture, dtype=dtype, saved_by="sae_lens")
    theirs = load(folder, architecture)
    info, source = source_of(models["gemma2"], folder)
    assert (info.d_in, info.d_sae) == (theirs.cfg.d_in, theirs.cfg.d_sae)
    assert info.architecture == architecture == theirs.cfg.architecture()
    assert info.hook_name == theirs.cfg.metadata.hook_name
    assert info.conventions["apply_b_dec_to_input"] == theirs.cfg.apply_b_dec_to_input
    assert info.conventions["normalize_activations"] == theirs.cfg.normalize_activations
    assert torch.equal(source.decoder_rows(0, source.n), theirs.W_dec.detach().float())
    rows = source.encoder_rows(0, source.n)
    assert rows is not None
    if architecture.endswith("transcoder"):  # ours are on the raw stream, theirs behind the norm
        assert info.d_out == theirs.cfg.d_out
        gain = 1.0 + Checkpoint(models["gemma2"]).tensor("layers.1.pre_feedforward_layernorm.weight")
        assert torch.equal(rows, theirs.W_enc.detach().float().T * gain)
    else:
        assert torch.equal(rows, theirs.W_enc.detach().float().T)


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk"])
def test_what_we_write_is_what_sae_lens_reads(architecture: str, models: dict[str, Path], tmp_path: Path) -> None:
    """The fixtures' own layout, new and flat, loads in SAELens: other rooms test against real files."""
    flats = (False, True) if architecture == "standard" else (False,)
    for flat in flats:
        folder = tiny_sae(tmp_path, models["llama"], architecture=architecture, flat=flat)
        theirs = load(folder, architecture)
        info, source = source_of(models["llama"], folder)
        assert theirs.cfg.metadata.hook_name == info.hook_name
        assert torch.equal(source.decoder_rows(0, source.n), theirs.W_dec.detach())


def test_inference_save_of_batchtopk(models: dict[str, Path], tmp_path: Path) -> None:
    """A BatchTopK SAE saved for inference becomes a JumpReLU folder, decoder norms folded; directions stay."""
    checkpoint = tiny_sae(tmp_path, models["llama"], architecture="batchtopk", saved_by="sae_lens")
    theirs = load(checkpoint, "batchtopk")
    theirs.save_inference_model(tmp_path / "inference")
    assert json.loads((tmp_path / "inference" / "cfg.json").read_text())["architecture"] == "jumprelu"
    info, source = source_of(models["llama"], tmp_path / "inference")
    assert info.architecture == "jumprelu"
    reloaded = load(tmp_path / "inference", "jumprelu")
    assert torch.equal(source.decoder_rows(0, source.n), reloaded.W_dec.detach())
    assert torch.equal(source.encoder_rows(0, source.n), reloaded.W_enc.detach().T)
    _, before = source_of(models["llama"], checkpoint)
    for name in ("decoder_rows", "encoder_rows"):
        directions = [torch.nn.functional.normalize(getattr(s, name)(0, 40), dim=1) for s in (source, before)]
        assert torch.allclose(*directions, atol=1e-6)


def test_every_registered_architecture_is_covered() -> None:
    """A new SAELens that saves something else must be looked at, not ignored."""
    import sae_lens  # noqa: F401  (registers)
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    assert set(SAE_CLASS_REGISTRY) | set(SAE_TRAINING_CLASS_REGISTRY) == set(SAE_ARCHITECTURES)


@pytest.mark.parametrize(
    ("site", "normalize"), [("resid_post", "layer_norm"), ("hook_z", "none"), ("resid_pre", "expected_average_only_in")]
)
def test_pre_activations_follow_from_our_rows(
    site: str, normalize: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """What SAELens feeds its gate is, up to its per-token scale and biases, the hook's activation times our encoder."""
    folder = tiny_sae(
        tmp_path, models["gemma2"], site=site, normalize_activations=normalize, apply_b_dec_to_input=False
    )
    theirs = load(folder, "standard")
    info, source = source_of(models["gemma2"], folder)
    x = torch.randn(5, info.d_in, generator=torch.Generator().manual_seed(0))
    shaped = x.view(5, 4, 12) if site == "hook_z" else x
    with torch.no_grad():
        pre = theirs.process_sae_in(shaped) @ theirs.W_enc
    e = source.encoder_rows(0, source.n)
    if site == "hook_z":
        assert e is None
        return
    assert e is not None
    scale = x.std(1, keepdim=True) + 1e-5 if normalize == "layer_norm" else 1.0
    assert torch.allclose(x @ e.T / scale, pre, atol=1e-4)
