"""Our reader against SAELens's own, for every architecture that it saves. Alone here: sae_lens takes 8 s to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures import SAE_ARCHITECTURES, tiny_sae
from tests.fixtures import sae_formats as made
from tests.fixtures.models import D_MODEL, N_LAYERS
from tests.fixtures.sae_formats import Written
from tests.sources.conftest import source_of
from wbtui.catalog.formats import FORMATS, by_loader, read_candidate, recognise
from wbtui.catalog.registry import about, releases
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import DictionaryMatrix


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


G2, GS2, CLT = "google/gemma-scope-2b-pt", "google/gemma-scope-2-1b-pt", "mntss_clt_layer_transcoder"
R1, QWEN = "fnlp/Llama-Scope-R1-Distill", "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_50"
PUBLISHED: dict[str, tuple[str, str, Any, dict[str, Any]]] = {
    # name -> (SAELens's loader, repository, writer, its arguments)
    "gemma_scope": ("gemma_2", f"{G2}-res", made.gemma_scope, {}),
    "gemma_scope-mlp": ("gemma_2", f"{G2}-mlp", made.gemma_scope, {"kind": "mlp"}),
    "gemma_scope-att": ("gemma_2", f"{G2}-att", made.gemma_scope, {"d": 48, "kind": "att"}),
    "gemma_scope-embedding": ("gemma_2", f"{G2}-res", made.gemma_scope, {"embedding": True}),
    "gemma_scope-tc": ("gemma_2_transcoder", f"{G2}-transcoders", made.gemma_scope, {"kind": "transcoders"}),
    "gemma_scope_2": ("gemma_3", GS2, made.gemma_scope_2, {}),
    "gemma_scope_2-att": ("gemma_3", GS2, made.gemma_scope_2, {"d": 48, "kind": "attn_out"}),
    "gemma_scope_2-skip": ("gemma_3", GS2, made.gemma_scope_2, {"kind": "transcoder", "skip": True}),
    "gemma_scope_2-bare": ("gemma_3", GS2, made.gemma_scope_2, {"kind": "transcoder", "config": False}),
    "gemma_scope_2-clt": ("gemma_3", GS2, made.gemma_scope_2_clt, {"n_layers": N_LAYERS}),
    "llama_scope": ("llama_scope", "fnlp/Llama3_1-8B-Base-LXR-8x", made.llama_scope, {}),
    "llama_scope-r1": ("llama_scope_r1_distill", R1, made.llama_scope_r1, {}),
    **{
        f"dictionary_learning-{kind}": (
            "dictionary_learning_1",
            "canrager/lm_sae",
            made.dictionary_learning,
            {"kind": kind},
        )
        for kind in made.DICT_CLASSES
    },
    "qwen_scope": ("qwen_scope", QWEN, made.qwen_scope, {}),
    "goodfire": ("goodfire", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", made.goodfire, {"layer": 19}),
    "qresearch": ("deepseek_r1", "qresearch/SAE-l19", made.goodfire, {"keys": "encoder"}),
    "hook_z_kk": ("connor_rob_hook_z", "ckkissane/attn-saes-gpt2-small", made.hook_z_kk, {"d": 48}),
    "transcoder_layers": ("mwhanna_transcoder", "mwhanna/qwen3-4b-transcoders", made.transcoder_layers, {}),
    "cross_layer": (CLT, "mntss/clt-gemma-2-2b-2.5M", made.cross_layer, {"n_layers": N_LAYERS}),
    "temporal": ("temporal", "canrager/temporalSAEs", made.temporal, {}),
    "sparsify": ("sparsify", "EleutherAI/sae-pythia-70m-32k", made.sparsify, {}),
}
BROKEN = {
    "sparsify": "transposes W_dec, which is stored features first, and rounds to bfloat16",
    "gemma_scope_2-clt": "sums the targets",
    "cross_layer": "sums the targets",
}
"""Where SAELens's loader is not the publisher's layout; there the layout counts (``test_sae_formats.py``)."""


def from_sae_lens(written: Written, loader: str, repo: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """(config, state dict) by SAELens's own loader, its downloads served from the folder."""
    from huggingface_hub.errors import EntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders as theirs
    from safetensors import safe_open

    def local(repo_id: str, filename: str = "", subfolder: str = "", **_: Any) -> str:
        path = written.repo / subfolder / filename
        if not path.is_file():
            raise EntryNotFoundError(str(path))
        return str(path)

    def shapes(_repo: str, filename: str) -> dict[str, list[int]]:
        with safe_open(written.repo / filename, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118

    monkeypatch.setattr(theirs, "hf_hub_download", local)
    monkeypatch.setattr(theirs, "get_safetensors_tensor_shapes", shapes)
    overrides = {"d_in": D_MODEL} if "embedding" in written.inside else {}
    cfg, state, _ = theirs.NAMED_PRETRAINED_SAE_LOADERS[loader](repo, written.inside, "cpu", False, overrides)
    return cfg, state


@pytest.mark.parametrize("case", PUBLISHED)
@pytest.mark.filterwarnings("ignore:This loads the CLT")
def test_publishers_files_equal_sae_lens(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a publisher's file THEN hook, W_enc and W_dec are SAELens's bit for bit, wherever SAELens's are right."""
    loader, repo, make, arguments = PUBLISHED[case]
    written = make(tmp_path, **{"d": D_MODEL, **arguments})
    path, _, entry = written.path.partition(":")
    fields = read_candidate(recognise(Path(path), entry))
    cfg, state = from_sae_lens(written, loader, repo, monkeypatch)
    assert fields["hook_name"] == cfg["hook_name"]
    assert fields["d_sae"] == len(written.w_dec)
    decoder = DictionaryMatrix(fields["weights"]["decoder"], fields["d_sae"], fields["d_out"]).rows(0, fields["d_sae"])
    encoder = DictionaryMatrix(fields["weights"]["encoder"], fields["d_sae"], fields["d_in"]).rows(0, fields["d_sae"])
    if case in BROKEN:
        same = state["W_dec"].shape == decoder.shape and torch.equal(state["W_dec"].float(), decoder)
        assert not same, f"SAELens no longer {BROKEN[case]}"
        if case == "sparsify":
            assert torch.equal(state["W_dec"].float().T, decoder.bfloat16().float())
        else:
            place = fields["weights"]["decoder"]
            assert torch.allclose(load_file(place["file"])[place["tensor"]].sum(1), state["W_dec"])
            assert torch.equal(encoder, state["W_enc"].float().T)
        return
    assert fields["conventions"]["apply_b_dec_to_input"] == cfg["apply_b_dec_to_input"]
    assert fields["conventions"]["normalize_activations"] == (cfg.get("normalize_activations") or "none")
    assert torch.equal(decoder, state["W_dec"].float())
    assert torch.equal(encoder, state["W_enc"].float().T)


def test_every_loader_of_sae_lens_is_read_here() -> None:
    """A new loader in SAELens, or in the registry's copy, must be looked at, not passed over."""
    from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS

    read = {loader for known in FORMATS.values() for loader in known.loaders}
    assert read == set(NAMED_PRETRAINED_SAE_LOADERS)
    assert all(by_loader(release.loader) is not None for release in releases())


def test_the_registry_is_sae_lens_s_own() -> None:
    """The copy that is shipped says the same as the installed SAELens, if that is the version it was made of."""
    import sae_lens
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    if sae_lens.__version__ not in about():
        pytest.skip(f"the copy is of {about()}, installed is {sae_lens.__version__}")
    directory = get_pretrained_saes_directory()
    ours = {release.name: release for release in releases()}
    assert set(ours) == set(directory)
    for name, lookup in directory.items():
        assert {entry.sae: entry.path for entry in ours[name].saes} == lookup.saes_map
        assert ours[name].repo == lookup.repo_id
