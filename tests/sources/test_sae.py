"""SAEs mapped into the residual stream, in closed form and against the real model's own path.

A feature that adds ``a d`` to a hook adds ``a d M`` to the stream. For heads and neurons, ``M`` is checked with the
activations themselves as decoder rows: ``rows(z) = z W_O diag(gain)`` must be what the model's attention adds for
``z``, up to the post-norm's 1/rms. A transcoder's encoder on the raw stream must give the pre-activation behind the
real norm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fixtures import PLAIN_TYPES as MODEL_TYPES
from tests.fixtures import SAE_ARCHITECTURES, SITES, tiny_model, tiny_sae
from tests.sources.conftest import IDS, Tap, load_reference, source_of
from wbtui.catalog.saes import SaeInfo
from wbtui.errors import UsageError, WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.mapped import mapped
from wbtui.sources.sae import SaeSource

LAYER = 1
ATTENTION_OUT = {"gpt2": "transformer.h.1.attn.c_proj", "gpt_neox": "gpt_neox.layers.1.attention.dense"}
MLP_OUT = {"gpt2": "transformer.h.1.mlp.c_proj", "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h"}
MLP_NORM = {
    "gpt2": "transformer.h.1.ln_2",
    "gpt_neox": "gpt_neox.layers.1.post_attention_layernorm",
    "gemma2": "model.layers.1.pre_feedforward_layernorm",
}
POST_NORM = {
    "hook_z": "model.layers.1.post_attention_layernorm",
    "mlp_post": "model.layers.1.post_feedforward_layernorm",
}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae_weights.safetensors")


@pytest.mark.parametrize(
    ("model_type", "site"),
    [
        (model_type, site)
        for model_type in MODEL_TYPES
        for site in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
        if (model_type, site) != ("gpt_neox", "resid_mid")  # no such place in a parallel block
    ],
)
def test_decoders_on_the_stream_are_as_they_are(
    model_type: str, site: str, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = tiny_sae(tmp_path, models[model_type], site=site)
    _, source = source_of(models[model_type], folder)
    assert source.n == 40
    assert torch.equal(source.decoder_rows(3, 17), weights_of(folder)["W_dec"][3:17])


@pytest.mark.parametrize("site", ["hook_z", "mlp_post"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_heads_and_neurons_map_as_the_model_maps_them(
    model_type: str, site: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """GIVEN an SAE whose decoder rows are the hook's real activations THEN its rows are what the sublayer adds."""
    model = load_reference(models[model_type])
    table, own = (ATTENTION_OUT, "self_attn.o_proj") if site == "hook_z" else (MLP_OUT, "mlp.down_proj")
    name = table.get(model_type, f"model.layers.1.{own}")
    post = POST_NORM[site] if model_type == "gemma2" else None
    tap = Tap(model, name, *([post] if post else []))
    with torch.no_grad():
        model(IDS)
    z, added = tap.inputs[name], tap.outputs[name]
    bias = getattr(model.get_submodule(name), "bias", None)
    added = added - (bias.detach() if bias is not None else 0.0)
    folder = tiny_sae(tmp_path, models[model_type], site=site, layer=LAYER)
    tensors = weights_of(folder)
    tensors["W_dec"][: len(z)] = z
    save_file(tensors, folder / "sae_weights.safetensors")
    _, source = source_of(models[model_type], folder)
    rows = source.decoder_rows(0, len(z))
    if post is not None:  # the real post-norm divides by the rms of what it normalises
        rms = (added.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps).sqrt()
        assert torch.allclose(rows / rms, tap.outputs[post], atol=1e-4)
        assert not torch.allclose(added / rms, tap.outputs[post], atol=1e-2), "the gain matters here"
    else:
        assert torch.allclose(rows, added, atol=1e-4)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_hook_z_is_the_sum_over_heads(model_type: str, models: dict[str, Path], tmp_path: Path) -> None:
    """``sum_h d_h W_O^h`` with the heads cut out one by one (methods 3.5, test 6)."""
    folder = tiny_sae(tmp_path, models[model_type], site="hook_z", layer=LAYER)
    info, source = source_of(models[model_type], folder)
    ckpt = Checkpoint(models[model_type])
    stored = ckpt.tensor(ckpt.architecture.attention_out.format(l=LAYER))
    w_o = stored if model_type == "gpt2" else stored.T  # [heads * d_head, d_model]
    d_head = ckpt.dims.d_head
    d = weights_of(folder)["W_dec"]
    total = torch.zeros(info.d_sae, 32)
    for h in range(ckpt.dims.n_heads):
        part = slice(h * d_head, (h + 1) * d_head)
        total += d[:, part] @ w_o[part]
    if model_type == "gemma2":
        total *= 1.0 + ckpt.tensor("layers.1.post_attention_layernorm.weight")
    assert torch.allclose(source.decoder_rows(0, info.d_sae), total, atol=1e-5)


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2"])
def test_rows_do_not_depend_on_the_range_asked_for(model_type: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Any sub-range equals the slice of the whole, bit for bit, also of fewer than eight rows."""
    for site in ("hook_z", "mlp_post", "resid_post"):
        _, source = source_of(models[model_type], tiny_sae(tmp_path, models[model_type], site=site, d_sae=300))
        whole = source.decoder_rows(0, 300)
        for start, stop in ((0, 1), (5, 8), (299, 300), (127, 260), (40, 40)):
            assert torch.equal(source.decoder_rows(start, stop), whole[start:stop])
            reads = source.encoder_rows(start, stop)
            if reads is not None:
                assert torch.equal(reads, source.encoder_rows(0, 300)[start:stop])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_encoders_on_the_stream(model_type: str, models: dict[str, Path], tmp_path: Path) -> None:
    """As they are in RMSNorm models; centred in LayerNorm models, whose readers are blind to the all-ones component."""
    folder = tiny_sae(tmp_path, models[model_type], site="resid_post")
    _, source = source_of(models[model_type], folder)
    w_enc = weights_of(folder)["W_enc"].T
    rows = source.encoder_rows(2, 30)
    assert rows is not None
    if model_type in ("gpt2", "gpt_neox"):
        assert torch.allclose(rows, (w_enc - w_enc.mean(1, keepdim=True))[2:30], atol=1e-6)
        assert rows.sum(1).abs().max() < 1e-5
        assert w_enc.sum(1).abs().max() > 0.1
    else:
        assert torch.equal(rows, w_enc[2:30])


def test_layer_norm_convention_centres_the_encoder(models: dict[str, Path], tmp_path: Path) -> None:
    """``normalize_activations = layer_norm`` subtracts the mean of its input: e = P w_enc in any model."""
    folder = tiny_sae(tmp_path, models["gemma2"], normalize_activations="layer_norm")
    _, source = source_of(models["gemma2"], folder)
    w_enc = weights_of(folder)["W_enc"].T
    rows = source.encoder_rows(0, 40)
    assert rows is not None
    assert torch.allclose(rows, w_enc - w_enc.mean(1, keepdim=True), atol=1e-6)
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    centred = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)
    assert torch.allclose(x @ rows.T / (x.std(1, keepdim=True) + 1e-5), centred @ w_enc.T, atol=1e-5)
    assert torch.equal(source.decoder_rows(0, 40), weights_of(folder)["W_dec"])


@pytest.mark.parametrize("kind", ["expected_average_only_in", "constant_norm_rescale"])
def test_scaling_conventions_change_no_direction(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_sae(tmp_path, models["gemma2"], normalize_activations=kind)
    info, source = source_of(models["gemma2"], folder)
    assert info.conventions["normalize_activations"] == kind
    assert torch.equal(source.encoder_rows(0, 40), weights_of(folder)["W_enc"].T)
    assert torch.equal(source.decoder_rows(0, 40), weights_of(folder)["W_dec"])


@pytest.mark.parametrize("hook", ["mlp.hook_in", "ln2.hook_normalized"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_transcoder_reads_through_the_mlp_norm(
    model_type: str, hook: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """``norm(x) w_enc`` of the real norm, less its bias, is ``x e / scale(x)``; without the gain the norm is undone."""
    model = load_reference(models[model_type])
    name = MLP_NORM.get(model_type, "model.layers.1.post_attention_layernorm")
    tap = Tap(model, name)
    with torch.no_grad():
        model(IDS)
    norm = model.get_submodule(name)
    x, y = tap.inputs[name], tap.outputs[name]
    folder = tiny_sae(tmp_path, models[model_type], architecture="transcoder", layer=LAYER)
    metadata = {"hook_name": f"blocks.1.{hook}", "hook_name_out": "blocks.1.hook_mlp_out"}
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**cfg, "metadata": metadata}))
    _, source = source_of(models[model_type], folder)
    layer_norm = model_type in ("gpt2", "gpt_neox")
    y = y - (norm.bias.detach() if layer_norm else 0.0)
    gain = norm.weight.detach() + (1.0 if model_type.startswith("gemma") else 0.0)
    if hook == "ln2.hook_normalized":
        y = y / gain
    centred = x - x.mean(-1, keepdim=True) if layer_norm else x
    eps = getattr(norm, "eps", None) or norm.variance_epsilon
    scale = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    e = source.encoder_rows(0, source.n)
    assert e is not None
    want = y @ weights_of(folder)["W_enc"]
    assert torch.allclose(x @ e.T / scale, want, atol=1e-3 * float(want.std()))
    wrong = weights_of(folder)["W_enc"].T * (gain - 1.0 if model_type.startswith("gemma") else 1.0)
    if hook == "mlp.hook_in":
        assert not torch.allclose(x @ wrong.T / scale, want, atol=0.1 * float(want.std())), "the gain matters here"
    assert torch.equal(source.decoder_rows(0, 40), weights_of(folder)["W_dec"])


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "hook_z", "mlp_post"])
def test_encoders_off_the_stream_say_why(site: str, models: dict[str, Path], tmp_path: Path) -> None:
    _, source = source_of(models["gemma2"], tiny_sae(tmp_path, models["gemma2"], site=site))
    assert source.encoder_rows(0, 5) is None
    assert source.reads_absent is not None
    assert "not the residual stream" in source.reads_absent
    assert SITES[site].format(l=1) in source.reads_absent


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("architecture", SAE_ARCHITECTURES)
def test_every_architecture_and_dtype(architecture: str, dtype: str, models: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_sae(tmp_path, models["gemma2"], architecture=architecture, dtype=dtype, site=None)
    info, source = source_of(models["gemma2"], folder)
    tensors = weights_of(folder)
    assert info.architecture == architecture
    assert source.reads_absent is None
    assert source.decoder_rows(0, 9).dtype == torch.float32
    assert torch.equal(source.decoder_rows(0, 9), tensors["W_dec"][:9].float())
    rows = source.encoder_rows(0, 9)
    assert rows is not None
    assert rows.dtype == torch.float32
    if architecture.endswith("transcoder"):
        gain = 1.0 + Checkpoint(models["gemma2"]).tensor("layers.1.pre_feedforward_layernorm.weight")
        assert torch.equal(rows, tensors["W_enc"].T[:9].float() * gain)
    elif architecture == "matching_pursuit":
        assert torch.equal(rows, tensors["W_dec"][:9].float())
    else:
        assert torch.equal(rows, tensors["W_enc"].T[:9].float())


@pytest.mark.parametrize("flat", [True, False])
def test_both_config_layouts(flat: bool, models: dict[str, Path], tmp_path: Path) -> None:
    info, source = source_of(models["gpt2"], tiny_sae(tmp_path, models["gpt2"], site="resid_pre", layer=2, flat=flat))
    assert (info.site, info.layer, source.reads_absent) == ("resid_pre", 2, None)


def test_bad_rows_come_through_as_they_are(models: dict[str, Path], tmp_path: Path) -> None:
    """A zero or non-finite row is the analysis's business; it spoils no other row, not even through W_O."""
    for site in ("resid_post", "hook_z"):
        folder = tiny_sae(tmp_path, models["gemma2"], site=site, zero_rows=[3], nan_rows=[4])
        _, source = source_of(models["gemma2"], folder)
        rows = source.decoder_rows(0, 40)
        assert rows[3].abs().max() == 0
        assert rows[4].isnan().all()
        assert rows[[0, 1, 2, *range(5, 40)]].isfinite().all()


def test_returned_rows_are_copies(models: dict[str, Path], tmp_path: Path) -> None:
    _, source = source_of(models["llama"], tiny_sae(tmp_path, models["llama"]))
    before = source.decoder_rows(0, 40).clone()
    source.decoder_rows(0, 40).zero_()
    source.encoder_rows(0, 40).zero_()
    assert torch.equal(source.decoder_rows(0, 40), before)
    assert source.encoder_rows(0, 40).abs().max() > 0


@pytest.mark.parametrize(
    ("site", "key", "width"),
    [("resid_post", "d_in", 36), ("hook_z", "d_in", 32), ("mlp_post", "d_in", 44), ("attn_out", "d_in", 48)],
)
def test_an_sae_of_another_model_is_refused(
    site: str, key: str, width: int, models: dict[str, Path], tmp_path: Path
) -> None:
    """By the catalog and, should it be asked directly, by the source; both widths are named."""
    good = source_of(models["gemma2"], tiny_sae(tmp_path, models["gemma2"], site=site))[0]
    folder = tiny_sae(tmp_path, models["gemma2"], site=site, d_in=width)
    with pytest.raises(WeightsError, match=str(width)):
        source_of(models["gemma2"], folder)
    wrong = SaeInfo(**{**vars(good), "d_in": width})
    with pytest.raises(WeightsError, match=f"{key} {width}") as caught:
        SaeSource(wrong, Checkpoint(models["gemma2"]))
    assert str(good.d_in) in caught.value.expected


def info_with(models: dict[str, Path], tmp_path: Path, **changes: Any) -> SaeInfo:
    return SaeInfo(**{**vars(source_of(models["gemma2"], tiny_sae(tmp_path, models["gemma2"]))[0]), **changes})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"d_sae": 41}, r"W_dec has shape \[40, 32\]"),
        ({"d_out": 16}, "d_out 16"),
        ({"layer": 3}, "layer 3"),
        ({"layer": -1}, "layer -1"),
        ({"conventions": {}}, "reads None"),
    ],
)
def test_config_and_weights_that_disagree(
    changes: dict[str, Any], match: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        SaeSource(info_with(models, tmp_path, **changes), Checkpoint(models["gemma2"]))
    assert caught.value.expected


def test_missing_and_transposed_tensors(models: dict[str, Path], tmp_path: Path) -> None:
    for name, change in (("W_enc", lambda t: t.T.contiguous()), ("W_dec", lambda t: t.T.contiguous())):
        folder = tiny_sae(tmp_path, models["gemma2"])
        tensors = weights_of(folder)
        save_file({**tensors, name: change(tensors[name])}, folder / "sae_weights.safetensors")
        with pytest.raises(WeightsError, match=f"{name} has shape"):
            source_of(models["gemma2"], folder)
        del tensors[name]
        save_file(tensors, folder / "sae_weights.safetensors")
        with pytest.raises(WeightsError, match=f"no tensor {name}"):
            source_of(models["gemma2"], folder)


def test_resid_mid_of_a_parallel_model_is_refused(tmp_path: Path, models: dict[str, Path]) -> None:
    """GPT-NeoX's attention and MLP read the same stream: there is no place between them, unless the config says so."""
    folder = tiny_sae(tmp_path, models["gpt_neox"], site="resid_mid")
    with pytest.raises(WeightsError, match="hook_resid_mid"):
        source_of(models["gpt_neox"], folder)
    serial = tiny_model(tmp_path, "gpt_neox", use_parallel_residual=False)
    _, source = source_of(serial, folder)
    assert source.reads_absent is None


def test_ranges_outside_the_sae(models: dict[str, Path], tmp_path: Path) -> None:
    _, source = source_of(models["llama"], tiny_sae(tmp_path, models["llama"]))
    for start, stop in ((-1, 3), (0, 41), (5, 4)):
        with pytest.raises(UsageError, match="features"):
            source.decoder_rows(start, stop)
        with pytest.raises(UsageError, match="features"):
            source.encoder_rows(start, stop)


def test_truncated_weights(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tiny_sae(tmp_path, models["llama"])
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="bytes"):
        source_of(models["llama"], folder)


def test_slices_are_read_lazily(models: dict[str, Path], tmp_path: Path) -> None:
    """A slice of a large SAE does not make the whole of it resident (a million features must stream)."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs Linux's /proc")
    folder = tiny_sae(tmp_path, models["llama"], d_sae=1_000_000, dtype="bfloat16")  # 2 x 64 MB
    _, source = source_of(models["llama"], folder)

    def resident_file_bytes() -> int:
        return int(status.read_text().split("RssFile:")[1].split()[0]) * 1024

    held = mapped(folder / "sae_weights.safetensors", source._decoder.entry)  # keeps read pages counted
    before = resident_file_bytes()
    rows, reads = source.decoder_rows(500_000, 500_256), source.encoder_rows(500_000, 500_256)
    assert rows.shape == (256, 32)
    assert reads is not None
    assert resident_file_bytes() - before < 16_000_000
    held.sum()
    assert resident_file_bytes() - before > 50_000_000, "the measure sees a whole read"
