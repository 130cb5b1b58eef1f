"""The table's design: rows of types that are not in it yet, held against their real models.

q/k norms per head (Qwen3), nested rotary parameters with local and global bases (Gemma-3), a fused tensor with fewer
key/value heads (Phi-3): each is described by an :class:`AttentionLayout` alone, without new code.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.models import randomise
from tests.sources.test_attention import CLOSE, make_head, miss, truth
from wbtui.analysis.attention import Head
from wbtui.catalog import architectures
from wbtui.catalog.attention import AttentionLayout
from wbtui.definitions import AttentionDefinition
from wbtui.errors import WeightsError
from wbtui.sources.attention import AttentionSource
from wbtui.sources.checkpoint import Checkpoint

NORMS = {
    "query_norm": "layers.{l}.self_attn.q_norm.weight",
    "key_norm": "layers.{l}.self_attn.k_norm.weight",
    "qk_norm": "head",
}
ROWS: dict[str, dict[str, Any]] = {
    "qwen3": {"like": "llama", "attention": AttentionLayout(**NORMS, windows="qwen")},
    "gemma3_text": {
        "like": "gemma2",
        "attention": AttentionLayout(scale="query_pre_attn_scalar", windows="even", window_default=4096, **NORMS),
    },
    "phi3": {
        "like": "llama",
        "attention": AttentionLayout(query=None, key=None, value=None, fused="layers.{l}.self_attn.qkv_proj.weight"),
    },
    "olmo2": {"like": "llama", "attention": AttentionLayout(norm=None, **{**NORMS, "qk_norm": "all"})},
}
FIELDS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 131, "query_pre_attn_scalar": 7, "head_dim": 12},
    "qwen3": {"head_dim": 12},
    "phi3": {"pad_token_id": 2},
    "olmo2": {},
}


def build(folder: Path, model_type: str) -> Path:
    import transformers

    config = transformers.CONFIG_MAPPING[model_type](
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        **FIELDS[model_type],
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    randomise(model, seed=5, quantized=False)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model_type: str = request.param
    row = dict(ROWS[model_type])
    like = architectures.ARCHITECTURES[row.pop("like")]
    added = dataclasses.replace(like, model_type=model_type, **row)
    monkeypatch.setitem(architectures.ARCHITECTURES, model_type, added)
    return build(tmp_path / model_type, model_type)


def with_norms(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
    query, key = source.query(index), source.key(index)
    gains = {"query_gain": query.gain, "key_gain": key.gain, "eps": source.eps}
    return make_head(source, index, definition, **gains)


@pytest.mark.parametrize("folder", ["qwen3", "gemma3_text", "phi3"], indirect=True)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_row_is_enough(folder: Path, layer: int) -> None:
    source, seen = AttentionSource(Checkpoint(folder), layer), truth(folder, layer)
    assert source.facts.n_kv_heads == 2
    for index in (0, 3):
        assert miss(source, seen, with_norms, index) < CLOSE


@pytest.mark.parametrize("folder", ["qwen3", "gemma3_text"], indirect=True)
def test_a_missing_norm_is_caught(folder: Path) -> None:
    assert miss(AttentionSource(Checkpoint(folder), 1), truth(folder, 1), make_head) > 100 * CLOSE


@pytest.mark.parametrize("folder", ["olmo2"], indirect=True)
def test_norms_over_all_heads_are_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match="all heads"):
        AttentionSource(Checkpoint(folder), 1)
