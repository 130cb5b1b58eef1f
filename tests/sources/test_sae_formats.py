"""Every publisher's layout: what we read is what the publisher means, in the order that the files keep it.

Against SAELens's own loaders on the same files: ``test_sae_lens_parity.py`` (the one module that imports sae_lens).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.fixtures import sae_formats as made
from tests.fixtures.models import D_MODEL, N_LAYERS, tiny_model
from tests.fixtures.sae_formats import Written
from tests.fixtures.saes import hook_width
from tests.sources.conftest import info_of
from wbtui.catalog.formats import FORMATS
from wbtui.catalog.identity import sae_identity
from wbtui.catalog.saes import SaeInfo, list_saes, read_sae, walk
from wbtui.catalog.tensors import tensor_files
from wbtui.sources.attention import stream_mean
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import SaeSource
from wbtui.tensorfile import read_header

Make = Callable[[Path], Written]
Z = 48  # heads times head width of the tiny llama

CASES: dict[str, Make] = {
    "gemma_scope-res": lambda root: made.gemma_scope(root, D_MODEL),
    "gemma_scope-mlp": lambda root: made.gemma_scope(root, D_MODEL, kind="mlp"),
    "gemma_scope-att": lambda root: made.gemma_scope(root, Z, kind="att"),
    "gemma_scope-transcoders": lambda root: made.gemma_scope(root, D_MODEL, kind="transcoders"),
    "gemma_scope-embedding": lambda root: made.gemma_scope(root, D_MODEL, embedding=True),
    "gemma_scope-compressed": lambda root: made.gemma_scope(root, D_MODEL, compressed=True),
    "gemma_scope_2-res": lambda root: made.gemma_scope_2(root, D_MODEL),
    "gemma_scope_2-att": lambda root: made.gemma_scope_2(root, Z, kind="attn_out"),
    "gemma_scope_2-mlp": lambda root: made.gemma_scope_2(root, D_MODEL, kind="mlp_out"),
    "gemma_scope_2-transcoder": lambda root: made.gemma_scope_2(root, D_MODEL, kind="transcoder"),
    "gemma_scope_2-skip": lambda root: made.gemma_scope_2(root, D_MODEL, kind="transcoder", skip=True),
    "gemma_scope_2-no-config": lambda root: made.gemma_scope_2(root, D_MODEL, kind="transcoder", config=False),
    "gemma_scope_2-clt": lambda root: made.gemma_scope_2_clt(root, D_MODEL, N_LAYERS),
    "llama_scope-R": lambda root: made.llama_scope(root, D_MODEL),
    "llama_scope-A": lambda root: made.llama_scope(root, D_MODEL, kind="A"),
    "llama_scope-M": lambda root: made.llama_scope(root, D_MODEL, kind="M"),
    "llama_scope-TC": lambda root: made.llama_scope(root, D_MODEL, kind="TC"),
    "llama_scope-r1": lambda root: made.llama_scope_r1(root, D_MODEL),
    "openai-resid": lambda root: made.openai(root, D_MODEL),
    "openai-mid": lambda root: made.openai(root, D_MODEL, location="resid_post_attn"),
    "openai-delta": lambda root: made.openai(root, D_MODEL, location="resid_delta_mlp"),
    "openai-relu": lambda root: made.openai(root, D_MODEL, top_k=False),
    **{
        f"dictionary_learning-{kind}": lambda root, kind=kind: made.dictionary_learning(root, D_MODEL, kind=kind)  # type: ignore[misc]
        for kind in made.DICT_CLASSES
    },
    "sparsify-block": lambda root: made.sparsify(root, D_MODEL),
    "sparsify-mlp": lambda root: made.sparsify(root, D_MODEL, module="layers.1.mlp"),
    "sparsify-attention": lambda root: made.sparsify(root, D_MODEL, module="layers.1.attention"),
    "sparsify-embed": lambda root: made.sparsify(root, D_MODEL, module="embed_tokens"),
    "sparsify-transcode": lambda root: made.sparsify(root, D_MODEL, module="layers.1.mlp", transcode=True),
    "qwen_scope": lambda root: made.qwen_scope(root, D_MODEL),
    "goodfire": lambda root: made.goodfire(root, D_MODEL),
    "goodfire-qresearch": lambda root: made.goodfire(root, D_MODEL, keys="encoder"),
    "hook_z_kk": lambda root: made.hook_z_kk(root, Z),
    "transcoder_layers": lambda root: made.transcoder_layers(root, D_MODEL),
    "cross_layer": lambda root: made.cross_layer(root, D_MODEL, N_LAYERS),
    "temporal": lambda root: made.temporal(root, D_MODEL),
    "temporal-tied": lambda root: made.temporal(root, D_MODEL, tied=True),
}


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model(tmp_path_factory.mktemp("formats"), "llama", seed=2)
    import json

    assert hook_width(json.loads((folder / "config.json").read_text()), "hook_z") == Z
    return folder


def opened(model: Path, written: Written) -> tuple[SaeInfo, SaeSource]:
    info = read_sae(info_of(model), Path(written.path))
    return info, SaeSource(info, Checkpoint(model))


@pytest.mark.parametrize("case", CASES)
def test_directions_hook_and_conventions(case: str, llama: Path, tmp_path: Path) -> None:
    """GIVEN a file in a publisher's layout THEN site, hook, rows and conventions are what the publisher means."""
    written = CASES[case](tmp_path)
    info, source = opened(llama, written)
    assert info.format == case.partition("-")[0]
    assert (info.hook_name, info.site, info.conventions["reads"]) == (written.hook_name, written.site, written.reads)
    assert (info.d_sae, info.d_out) == tuple(written.w_dec.shape)
    for key, value in written.conventions.items():
        assert info.conventions[key] == value, key
    ckpt = Checkpoint(llama)
    want = written.w_dec.float()
    if info.site == "hook_z":
        through = ckpt.tensor("layers.1.self_attn.o_proj.weight").float()
        assert torch.allclose(source.decoder_rows(0, source.n), want @ through.T, atol=1e-5)
    else:
        assert torch.equal(source.decoder_rows(0, source.n), want)
    assert torch.equal(source.decoder_rows(5, 9), source.decoder_rows(0, source.n)[5:9])
    rows = source.encoder_rows(0, source.n)
    if info.conventions["reads"] == "off_stream":
        assert rows is None
        return
    assert rows is not None
    e = written.w_enc.float()
    if info.conventions["normalize_activations"] == "layer_norm":
        e = e - e.mean(1, keepdim=True)
    if info.conventions["reads"] == "gained_norm":
        e = e * ckpt.tensor("layers.1.post_attention_layernorm.weight").float()
    assert torch.equal(rows, e)
    assert torch.equal(source.encoder_rows(5, 9), e[5:9])


def test_every_format_has_a_case() -> None:
    assert {case.partition("-")[0] for case in CASES} | {"saelens"} == set(FORMATS)


@pytest.mark.parametrize("case", CASES)
def test_keys_tell_sae_from_sae(case: str, llama: Path, tmp_path: Path) -> None:
    """An SAE's identity is its bytes and how they are read: it survives a move, and changes with a byte."""
    written = CASES[case](tmp_path / "a")
    info, _ = opened(llama, written)
    ckpt = Checkpoint(llama)
    names, memo = tensor_files(llama), tmp_path / "memo"

    def identity(sae: SaeInfo) -> dict[str, object]:
        return sae_identity(names, ckpt.architecture, sae, str(llama), memo)

    first = identity(info)
    assert identity(info) == first
    moved, _ = opened(llama, CASES[case](tmp_path / "b"))
    assert identity(moved) == first
    for file in moved.files:  # the Hub cache keeps files under names without an ending
        blob = tmp_path / f"blob-{file.name.replace('.', '-')}"
        file.rename(blob)
        file.symlink_to(blob)
    assert identity(moved) == first
    file = Path(info.places["decoder"]["file"])
    raw = bytearray(file.read_bytes())

    raw[read_header(file).tensors[info.places["decoder"]["tensor"]].end - 1 - 40 * ("compressed" in case)] ^= 1
    file.write_bytes(raw)
    assert identity(info)["fingerprint"] != first["fingerprint"]


def test_target_layers_are_apart(llama: Path, tmp_path: Path) -> None:
    """A cross-layer transcoder is one SAE for each target layer; each is read by the layer behind its target."""
    for make in (made.cross_layer, made.gemma_scope_2_clt):
        root = tmp_path / make.__name__
        for target in (1, 2):
            written = make(root / str(target), D_MODEL, N_LAYERS, layer=1, target=target)
            info, source = opened(llama, written)
            assert torch.equal(source.decoder_rows(0, 40), written.w_dec)
            assert info.reader_layer == (2 if target == 1 else None)
        names = [c.entry for c in walk(root / "1")]
        assert names == ["L1-to-L1", "L1-to-L2"]


def test_a_module_output_goes_through_the_norm_behind_it(tmp_path: Path) -> None:
    """sparsify's ``layers.1.mlp`` is the MLP's own output: in Gemma-2 it reaches the stream through that norm's
    gain."""
    model = tiny_model(tmp_path, "gemma2", seed=3)
    written = made.sparsify(tmp_path, D_MODEL, module="layers.1.mlp")
    info, source = opened(model, written)
    ckpt = Checkpoint(model)
    gain = 1.0 + ckpt.tensor("layers.1.post_feedforward_layernorm.weight").float()
    assert torch.equal(source.decoder_rows(0, 40), written.w_dec * gain)
    through = sae_identity(tensor_files(model), ckpt.architecture, info, str(model), tmp_path / "memo")["through"]
    assert through, "the norm's bytes are part of the key"


def test_layer_norm_models_centre_encoders(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "gpt2", seed=1)
    written = made.openai(tmp_path, D_MODEL)
    _, source = opened(model, written)
    rows = source.encoder_rows(0, 40)
    assert rows is not None
    assert torch.allclose(rows.mean(1), torch.zeros(40), atol=1e-6)


def test_an_npz_is_read_lazily(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of a large Gemma Scope file does not make the whole of it resident, odd offsets or not."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs Linux's /proc")
    monkeypatch.setattr(made, "D_SAE", 300_000)
    info, source = opened(llama, made.gemma_scope(tmp_path, D_MODEL))  # 2 x 38 MB

    def resident() -> int:
        return sum(int(status.read_text().split(f"{name}:")[1].split()[0]) for name in ("RssFile", "RssAnon")) * 1024

    entry = read_header(info.files[0]).tensors["W_dec"]
    assert entry.begin % 4, "NumPy does not align members: the case that matters"
    source.decoder_rows(0, 16)
    before, most = resident(), 0
    for start in range(100_000, 100_000 + 40 * 256, 256):
        rows, reads = source.decoder_rows(start, start + 256), source.encoder_rows(start, start + 256)
        assert rows.shape == (256, D_MODEL) and reads is not None
        most = max(most, resident() - before)
    assert most < 12_000_000


def test_llama_scope_says_that_thresholds_are_not_verified(llama: Path, tmp_path: Path) -> None:
    info, _ = opened(llama, made.llama_scope(tmp_path, D_MODEL))
    assert any("thresholds" in note for note in info.notes)


def test_the_stream_mean_is_found_under_each_name(llama: Path, tmp_path: Path) -> None:
    for case in ("gemma_scope-res", "dictionary_learning-AutoEncoder", "temporal", "goodfire"):
        info, _ = opened(llama, CASES[case](tmp_path / case))
        mean = stream_mean(info)
        assert mean is not None
        assert torch.equal(mean, made._random(4, D_MODEL))


def test_dropped_in_folders_are_recognised(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any format below the model's ``saes`` is listed, whatever it calls its model."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(llama, model)
    made.gemma_scope(model / "saes", D_MODEL)
    made.llama_scope(model / "saes", D_MODEL, layer=0)
    made.qwen_scope(model / "saes", D_MODEL, layer=2)
    (model / "saes" / "loop").symlink_to(model / "saes")
    found = list_saes(info_of(model))
    assert sorted(sae.format for sae in found) == ["gemma_scope", "llama_scope", "qwen_scope"]
    assert len({sae.name for sae in found}) == 3
