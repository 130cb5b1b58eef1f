"""The lazy checkpoint reader: what it reads, and that bad files end in a ``WeightsError`` and nothing else."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.fixtures import MODEL_TYPES, tiny_model
from wbtui.errors import WeightsError
from wbtui.sources import raw
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.mapped import mapped
from wbtui.sources.model import input_map, output_map
from wbtui.tensorfile import read_header

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_tensors_equal_safetensors_own_reader(model_type: str, dtype: str, tmp_path: Path) -> None:
    """GIVEN a sharded checkpoint THEN every tensor equals what the reference implementation loads, bit for bit."""
    folder = tiny_model(tmp_path, model_type, dtype=dtype, sharded=True)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    ckpt = Checkpoint(folder)
    count = 0
    for path in shards:
        for name, tensor in load_file(path).items():
            ours = ckpt.tensor(name)
            assert ours.dtype == tensor.dtype
            assert torch.equal(ours, tensor)
            assert ckpt.shape(name) == tuple(tensor.shape)
            count += 1
    assert count > 10


def test_nothing_is_read_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a checkpoint maps no tensor; asking for both ends maps those alone."""
    folder = tiny_model(tmp_path, "llama", sharded=True)
    mapped_names: list[str] = []
    memory = raw.memory
    monkeypatch.setattr(raw, "memory", lambda path, entry: mapped_names.append(entry.name) or memory(path, entry))
    ckpt = Checkpoint(folder)
    assert mapped_names == []
    output_map(ckpt)
    input_map(ckpt)
    assert sorted(mapped_names) == ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]


def test_writing_into_a_mapped_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "gpt2")
    before = (folder / "model.safetensors").read_bytes()
    Checkpoint(folder).tensor("wte.weight").mul_(0.0)
    assert (folder / "model.safetensors").read_bytes() == before
    assert Checkpoint(folder).tensor("wte.weight").abs().sum() > 0


def test_unaligned_and_empty_tensors(tmp_path: Path) -> None:
    """A writer that does not pad its header leaves tensors at odd offsets; they are read all the same."""
    value = torch.arange(6, dtype=torch.float32)
    header = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [24, 24]},
        }
    ).encode()
    header += b" " * ((1 - len(header)) % 4)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + value.numpy().tobytes())
    entries = read_header(path).tensors
    assert entries["a"].begin % 4 == 1
    tensor = mapped(path, entries["a"])
    assert torch.equal(tensor, value.view(2, 3))
    assert tensor.data_ptr() % 4 == 0, "vector code may fault on unaligned tensors"
    assert mapped(path, entries["none"]).shape == (0, 3)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "gemma2", sharded=True)
    ckpt = Checkpoint(folder)
    shard = ckpt._files[ckpt.resolve("embed_tokens.weight")]
    shard.unlink()
    with pytest.raises(WeightsError, match=shard.name) as caught:
        input_map(ckpt)
    assert "embed_tokens" in caught.value.expected
    assert caught.value.do


def test_truncated_shard_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "gemma2")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="bytes"):
        input_map(Checkpoint(folder))


def test_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    """No mapping beyond the end of a file: that would kill the process."""
    folder = tiny_model(tmp_path, "gemma2")
    ckpt = Checkpoint(folder)
    ckpt.shape("norm.weight")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(WeightsError, match="cannot map"):
        input_map(ckpt)


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"norm\.weight"):
        output_map(Checkpoint(folder))


def test_index_that_names_a_tensor_its_shard_has_not(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama", sharded=True)
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    files = sorted(set(table["weight_map"].values()))
    here = table["weight_map"]["model.norm.weight"]
    table["weight_map"]["model.norm.weight"] = next(f for f in files if f != here)
    index.write_text(json.dumps(table))
    with pytest.raises(WeightsError, match=r"no tensor model\.norm\.weight"):
        output_map(Checkpoint(folder))


def test_pickled_weights_alone_are_refused_with_a_way_out(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickled") as caught:
        Checkpoint(folder)
    assert "convert" in caught.value.do


def test_no_weights_at_all(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights"):
        Checkpoint(folder)


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="dtype I8"):
        output_map(Checkpoint(folder))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": None}, "model_type"),
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"vocab_size": 2.5}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"num_hidden_layers": 10**6}, "layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"intermediate_size": None}, "intermediate_size"),
    ],
)
def test_absurd_configs_are_refused(change: dict[str, object], match: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(WeightsError, match=match):
        Checkpoint(folder)


def test_fields_that_a_class_fills_in(tmp_path: Path) -> None:
    """Old configs lack fields: Gemma's heads are 256 wide by default, whatever d_model is; GPT-2's MLP is 4 d_model."""
    folder = tiny_model(tmp_path, "gemma2")
    config = json.loads((folder / "config.json").read_text())
    del config["head_dim"], config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    dims = Checkpoint(folder).dims
    assert (dims.d_head, dims.tied) == (256, True)
    folder = tiny_model(tmp_path, "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_inner": None}))
    assert Checkpoint(folder).dims.d_mlp == 4 * 32


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_CONFIG_KEYS = st.sampled_from(
    [
        "model_type",
        "hidden_size",
        "vocab_size",
        "num_hidden_layers",
        "num_attention_heads",
        "head_dim",
        "intermediate_size",
    ]
)


@FUZZ
@given(st.dictionaries(_CONFIG_KEYS, _JSON, min_size=1, max_size=3))
def test_any_config_reads_or_is_refused(models: dict[str, Path], change: dict[str, object]) -> None:
    """Whatever stands in a config: a checkpoint, or a WeightsError."""
    folder = models["llama"]
    original = (folder / "config.json").read_text()
    (folder / "config.json").write_text(json.dumps({**json.loads(original), **change}))
    try:
        with contextlib.suppress(WeightsError):
            ckpt = Checkpoint(folder)
            output_map(ckpt)
            assert ckpt.dims.d_model == 32
    finally:
        (folder / "config.json").write_text(original)


@FUZZ
@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_any_damage_to_a_header_is_refused_or_harmless(
    models: dict[str, Path], tmp_path: Path, junk: bytes, at: int, cut: bool
) -> None:
    """Bytes overwritten or cut off anywhere in the header: a WeightsError, or tensors of the right shape."""
    folder = tmp_path
    data = (models["llama"] / "model.safetensors").read_bytes()
    (folder / "config.json").write_text((models["llama"] / "config.json").read_text())
    (folder / "model.safetensors").write_bytes(data[:at] + junk + (b"" if cut else data[at + len(junk) :]))
    with contextlib.suppress(WeightsError):
        out = output_map(Checkpoint(folder))
        assert out.tokens.shape[1] == 32
        out.tokens.sum()


@FUZZ
@given(_JSON)
def test_any_index_is_refused_or_read(models: dict[str, Path], tmp_path: Path, weight_map: object) -> None:
    folder = tmp_path
    (folder / "config.json").write_text((models["llama"] / "config.json").read_text())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError):
        output_map(Checkpoint(folder))
