"""Deliberate faults in the table's rows, one convention wrong each: every one must be seen by the tests on real models.

The measures are those of the tests themselves: attention of a head (:func:`tests.sources.test_attention.miss`), sums of
head outputs, and logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sources.conftest import IDS, Tap, load_reference
from tests.sources.test_attention import CLOSE, assert_outputs, build, make_head, miss, truth
from tests.sources.test_model import FINAL_NORM, error, our_logits
from wbtui.analysis.attention import Head
from wbtui.definitions import AttentionDefinition
from wbtui.sources.attention import AttentionSource
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import output_map

TYPES = ("qwen3", "qwen3_moe", "gemma3_text", "gemma3", "olmo2", "phi", "phi3", "gpt_oss", "qwen3_5_text", "qwen3_5")
FAR = 50 * CLOSE


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("faulty-models")
    return {t: build(root, t) for t in TYPES}


def altered(folder: Path, **layout: Any) -> Checkpoint:
    """A checkpoint whose row says something else about attention."""
    ckpt = Checkpoint(folder)
    attention = dataclasses.replace(ckpt.architecture.attention, **layout)
    ckpt.architecture = dataclasses.replace(ckpt.architecture, attention=attention)
    return ckpt


def shifted(folder: Path) -> Checkpoint:
    ckpt = Checkpoint(folder)
    ckpt.architecture = dataclasses.replace(ckpt.architecture, gain_offset=1.0 - ckpt.architecture.gain_offset)
    return ckpt


def changed(**fields: Any) -> Callable[[AttentionSource, int, AttentionDefinition], Head]:
    def make(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
        return make_head(source, index, definition, **fields)

    return make


def without(part: str) -> Callable[[AttentionSource, int, AttentionDefinition], Head]:
    """Heads whose q/k norms lack a part: ``bias``, ``whole``, ``centre``."""

    def make(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
        head = make_head(source, index, definition)
        lacks: dict[str, Any] = {"centre": False} if part == "centre" else {part: None}
        norms = [dataclasses.replace(n, **lacks) for n in (head.query_norm, head.key_norm) if n is not None]
        return dataclasses.replace(head, query_norm=norms[0], key_norm=norms[1])

    return make


def plain_scale(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
    return make_head(source, index, definition, scale=source.facts.scale)


def other_scale(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
    scale = source.multiplier
    return make_head(source, index, definition, scale=scale * 1.2)


def swapped(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
    head = make_head(source, index, definition)
    return dataclasses.replace(
        head,
        query=head.key,
        key=head.query,
        query_bias=head.key_bias,
        key_bias=head.query_bias,
        query_norm=head.key_norm,
        key_norm=head.query_norm,
    )


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("fault", [other_scale, swapped])
def test_scores(folders: dict[str, Path], model_type: str, fault: Any) -> None:
    source, seen = AttentionSource(Checkpoint(folders[model_type]), 1), truth(folders[model_type], 1)
    assert miss(source, seen, fault) > FAR


@pytest.mark.parametrize("model_type", [t for t in TYPES if t not in ("olmo2", "phi")])
def test_gain_of_the_norm_in_front(folders: dict[str, Path], model_type: str) -> None:
    """``w`` for ``1 + w``, and the other way round."""
    seen = truth(folders[model_type], 1)
    assert miss(AttentionSource(shifted(folders[model_type]), 1), seen) > FAR


@pytest.mark.parametrize("model_type", ["qwen3", "qwen3_moe", "gemma3_text", "gemma3", "olmo2", "phi", "qwen3_5"])
def test_q_and_k_norms(folders: dict[str, Path], model_type: str) -> None:
    folder = folders[model_type]
    seen = truth(folder, 1)
    bare = altered(folder, qk_norm="none", query_norm=None, key_norm=None, qk_norm_switch=None)
    assert miss(AttentionSource(bare, 1), seen) > FAR, "no norm at all"
    source = AttentionSource(Checkpoint(folder), 1)
    parts = {"olmo2": ("whole",), "phi": ("bias", "centre")}.get(model_type, ())
    for part in parts:
        assert miss(source, seen, without(part)) > FAR, part


@pytest.mark.parametrize("model_type", ["qwen3", "gemma3_text", "olmo2", "phi", "gpt_oss", "qwen3_5"])
def test_dropped_biases_of_queries(folders: dict[str, Path], model_type: str) -> None:
    source, seen = AttentionSource(Checkpoint(folders[model_type]), 1), truth(folders[model_type], 1)
    assert source.query(1).bias is not None
    assert miss(source, seen, changed(query_bias=None)) > FAR


def test_sinks_and_stretch_of_gpt_oss(folders: dict[str, Path]) -> None:
    source, seen = AttentionSource(Checkpoint(folders["gpt_oss"]), 1), truth(folders["gpt_oss"], 1)
    assert source.facts.rotary_gain > 1.2
    assert miss(source, seen, changed(sink=None)) > FAR
    assert miss(source, seen, plain_scale) > FAR, "YaRN's factor"


def test_fused_orders(folders: dict[str, Path]) -> None:
    seen = truth(folders["phi3"], 1)
    with pytest.raises(AssertionError):
        assert miss(AttentionSource(altered(folders["phi3"], fused_order="heads"), 1), seen) < FAR


@pytest.mark.parametrize("model_type", ["phi", "qwen3_5", "gemma3"])
def test_rotary_share_and_bases(folders: dict[str, Path], model_type: str) -> None:
    ckpt, seen = Checkpoint(folders[model_type]), truth(folders[model_type], 1)
    rope = ckpt.config["rope_parameters"]
    if model_type == "gemma3":
        rope["full_attention"] = dict(rope["sliding_attention"])
    else:
        rope["partial_rotary_factor"] = 1.0
    assert miss(AttentionSource(ckpt, 1), seen) > FAR


@pytest.mark.parametrize("model_type", ["gemma3", "olmo2", "qwen3_5"])
def test_outputs(folders: dict[str, Path], model_type: str) -> None:
    """A gate left out, a post-norm's gain left out or with the wrong offset, the next key/value head."""
    folder = folders[model_type]
    ckpt, seen = Checkpoint(folder), truth(folder, 1)
    assert_outputs(ckpt, AttentionSource(ckpt, 1), seen)
    wrong = Checkpoint(folder)
    if model_type == "qwen3_5":
        wrong.architecture = dataclasses.replace(
            wrong.architecture, attention=dataclasses.replace(wrong.architecture.attention, gated=False)
        )
        with pytest.raises(AssertionError):
            assert_outputs(wrong, AttentionSource(ckpt, 1), seen)
    else:
        wrong.architecture = dataclasses.replace(wrong.architecture, post_attention_norm=None)
        with pytest.raises(AssertionError):
            assert_outputs(ckpt, AttentionSource(wrong, 1), seen)
    source = AttentionSource(ckpt, 1)
    source.kv_head = lambda head: head % 2  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        assert_outputs(ckpt, source, seen)


@pytest.mark.parametrize("model_type", TYPES)
def test_logits(folders: dict[str, Path], model_type: str) -> None:
    """The final norm's offset; where there is one, the bias of the unembedding."""
    model = load_reference(folders[model_type])
    tap = Tap(model, FINAL_NORM.get(model_type, "model.norm"))
    with torch.no_grad():
        logits = model(IDS).logits[0]
    (x,), config = tap.inputs.values(), model.config.get_text_config()
    assert error(our_logits(x, output_map(Checkpoint(folders[model_type])), config), logits) < CLOSE
    assert error(our_logits(x, output_map(shifted(folders[model_type])), config), logits) > FAR
    if model_type == "phi":
        out = output_map(Checkpoint(folders[model_type]))
        out.logit_bias = None
        assert error(our_logits(x, out, config), logits) > FAR
