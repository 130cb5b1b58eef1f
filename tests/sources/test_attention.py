"""Heads rebuilt from our matrices against the attention of the real transformers models (methods 3.4, 3.5).

For every supported type a sequence of 136 tokens goes through the model (eager attention). From the stream in front of
a layer our folded matrices give every score, each at its own offset; capped, with biases, masked by the layer's window
and through a softmax they must give the model's attention. Logarithms are compared, so small masses count as much as
large ones. Each negative control is one convention wrong, and must miss by far.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures import MODEL_TYPES, tiny_model
from tests.fixtures.models import FAMILIES
from tests.sources.conftest import load_reference
from wbtui.analysis.attention import Head
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.rope import Turn, turn
from wbtui.catalog.architectures import ARCHITECTURES
from wbtui.catalog.attention import rotary_frequencies
from wbtui.compute.attention import qk_norm
from wbtui.definitions import AttentionDefinition
from wbtui.sources.attention import AttentionSource
from wbtui.sources.checkpoint import Checkpoint

LENGTH = 136
OFFSETS = (0, 1, 7, 128)
CLOSE = 1e-4

CHANGES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 256},
    "gemma2": {
        "attn_logit_softcapping": 2.0,
        "query_pre_attn_scalar": 5,
        "attention_bias": True,
        "sliding_window": 131,
    },
    "mistral": {"sliding_window": 131},
    "llama": {"attention_bias": True},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
    "qwen3": {"attention_bias": True},
    "gemma3_text": {"sliding_window": 131, "query_pre_attn_scalar": 5, "attention_bias": True},
    "gemma3": {"sliding_window": 131, "query_pre_attn_scalar": 5},
    "olmo2": {"attention_bias": True},
    "phi3": {"sliding_window": 131},
    "gpt_oss": {
        "sliding_window": 131,
        "rope_parameters": {
            "rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 32, "rope_theta": 150.0,
        },
    },
    "qwen3_5_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "qwen3_5": {"attention_bias": True},
}  # fmt: skip
"""So that caps, windows, biases and pairings (of more than one pair) are felt."""


@dataclass
class Truth:
    """One layer of a real model on one sequence."""

    stream: torch.Tensor
    """``[LENGTH, D]`` the layer's input, divided by what its norm divides by."""
    attention: torch.Tensor
    """``[H, LENGTH, LENGTH]``"""
    out: torch.Tensor
    """``[LENGTH, D]`` what attention put out, in front of a norm behind it."""


def build(folder: Path, model_type: str, **changes: Any) -> Path:
    fields = {"max_position_embeddings": 256} | CHANGES.get(model_type, {}) | changes
    if model_type == "gpt2":
        del fields["max_position_embeddings"]
    return tiny_model(folder, model_type, seed=MODEL_TYPES.index(model_type), **fields)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("attention-models")
    return {model_type: build(root, model_type) for model_type in MODEL_TYPES}


def truth(folder: Path, layer: int) -> Truth:
    """One layer of a real model; kept, since many tests look at the same."""
    key = (folder, (folder / "config.json").read_text(), layer)
    if key not in _SEEN:
        _SEEN[key] = _look(folder, layer)
    return _SEEN[key]


_SEEN: dict[tuple[Path, str, int], Truth] = {}


def _look(folder: Path, layer: int) -> Truth:
    model = load_reference(folder)
    name = next(
        n
        for n, _ in model.named_modules()
        if n.endswith((f".{layer}.attn", f".{layer}.self_attn", f".{layer}.attention")) and "vision" not in n
    )
    outputs: list[torch.Tensor] = []
    model.get_submodule(name).register_forward_hook(lambda _module, _args, output: outputs.append(output[0][0]))
    ids = torch.randint(3, 390, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = model(ids, output_attentions=True, output_hidden_states=True)
    x = out.hidden_states[layer][0].double()
    config = model.config.get_text_config()
    if config.model_type in ("gpt2", "gpt_neox", "phi"):
        eps = config.layer_norm_epsilon if config.model_type == "gpt2" else config.layer_norm_eps
        divisor = (x.var(1, unbiased=False, keepdim=True) + eps).sqrt()
    elif config.model_type == "olmo2":  # its heads read the stream as it is
        divisor = torch.ones_like(x[:, :1])
    else:
        divisor = (x.square().mean(1, keepdim=True) + config.rms_norm_eps).sqrt()
    return Truth((x / divisor).float(), out.attentions[layer][0], outputs[0])


def make_head(source: AttentionSource, index: int, definition: AttentionDefinition, **changes: Any) -> Head:
    facts = source.facts
    folded = source.__dict__.setdefault("folded for tests", {})  # one folding serves all offsets
    if index not in folded:
        folded[index] = source.query(index), source.key(index)
    query, key = folded[index]
    angles = rotary_frequencies(facts.rope, facts.d_head) if facts.rope is not None else []
    head = Head(
        query=query.matrix,
        key=key.matrix,
        scale=source.multiplier,
        query_bias=query.bias,
        key_bias=key.bias,
        query_norm=qk_norm(query),
        key_norm=qk_norm(key),
        softcap=facts.softcap,
        sink=source.sink(index),
        turn=turn(angles, definition),
        centre=source.centre,
    )
    return dataclasses.replace(head, **changes)


def logits(head: Head, x: torch.Tensor) -> torch.Tensor:
    """Capped and biased scores ``[n, n]`` of every row of ``x`` with every other, at the head's one offset.

    Here a query's own term counts, because the key bias turns with each key's offset.
    """
    q, k = head.queries(x)[0], head.keys(x)[0]
    scores = q @ k.T
    if head.biased:
        scores += head.query_terms(q)[:, None]
    return Softmax(head.softcap, head.biased).logits_(scores, torch.zeros(len(q)), head.prior(k), False)


def rebuilt(source: AttentionSource, index: int, x: torch.Tensor, make: Any = make_head) -> torch.Tensor:
    """Log attention ``[n, n]`` of one head over a whole sequence, offset by offset."""
    n = len(x)
    whole = torch.full((n, n), -torch.inf)
    for offset in range(n if source.facts.window is None else min(n, source.facts.window)):
        scores = logits(make(source, index, AttentionDefinition(offset=offset)), x)
        rows = torch.arange(offset, n)
        whole[rows, rows - offset] = scores[rows, rows - offset]
    sink = make(source, index, AttentionDefinition()).sink
    return whole - Softmax(None, False, sink).with_sink(whole.logsumexp(1, keepdim=True))


def miss(source: AttentionSource, seen: Truth, make: Any = make_head, index: int = 1) -> float:
    """The largest difference in log attention of one head, over all pairs that the model lets see each other."""
    ours, theirs = rebuilt(source, index, seen.stream, make), seen.attention[index].log()
    allowed = torch.isfinite(ours)
    assert torch.equal(allowed, torch.isfinite(theirs)), "the model masks other pairs"
    return float((ours - theirs)[allowed].abs().max())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("layer", [0, 1])
def test_attention_of_every_architecture(folders: dict[str, Path], model_type: str, layer: int) -> None:
    source = AttentionSource(Checkpoint(folders[model_type]), layer)
    seen = truth(folders[model_type], layer)
    for index in range(source.facts.n_heads) if layer else [3]:
        assert miss(source, seen, index=index) < CLOSE, index


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_scores_at_offsets_are_the_models_own(
    folders: dict[str, Path], model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single scores: the queries and keys that the model multiplies, after its rotation, taken at offsets."""
    import importlib

    kind = model_type.removesuffix("_text")
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    caught: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = module.eager_attention_forward

    def spy(attention: Any, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        caught.append((query[0].detach(), key[0].detach()))
        return original(attention, query, key, *args, **kwargs)

    monkeypatch.setattr(module, "eager_attention_forward", spy)
    seen = _look(folders[model_type], 1)
    source = AttentionSource(Checkpoint(folders[model_type]), 1)
    query, key = caught[1]  # turned, and so stretched where cosines and sines carry a factor
    scale = source.facts.scale
    for index in range(source.facts.n_heads):
        theirs = query[index] @ key[source.kv_head(index) if len(key) < len(query) else index].T * scale
        for offset in OFFSETS:
            head = make_head(source, index, AttentionDefinition(offset=offset), softcap=None)
            q, k = head.queries(seen.stream)[0], head.keys(seen.stream)[0]
            ours = q @ k.T + head.query_terms(q)[:, None] + head.prior(k)
            rows = torch.arange(offset, LENGTH)
            torch.testing.assert_close(ours[rows, rows - offset], theirs[rows, rows - offset], atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_values_and_outputs_sum_to_the_attention_output(folders: dict[str, Path], model_type: str) -> None:
    ckpt = Checkpoint(folders[model_type])
    source, seen = AttentionSource(ckpt, 1), truth(folders[model_type], 1)
    assert_outputs(ckpt, source, seen)


def assert_outputs(ckpt: Checkpoint, source: AttentionSource, seen: Truth) -> None:
    """The heads' outputs from our matrices sum to what the model's attention put out."""
    total = torch.zeros_like(seen.stream)
    for index in range(source.facts.n_heads):
        value = source.value(index)
        v = seen.stream @ value.matrix
        mixed = seen.attention[index] @ (v if value.bias is None else v + value.bias)
        total += (mixed * gate(ckpt, seen, index)) @ source.out(index)
    name = ckpt.architecture.attention_out.format(l=1).removesuffix("weight") + "bias"
    theirs = seen.out - ckpt.tensor(name) if ckpt.has(name) else seen.out
    post = ckpt.architecture.post_attention_norm
    if post is not None:
        theirs = theirs * (ckpt.architecture.gain_offset + ckpt.tensor(post.format(l=1)))
    torch.testing.assert_close(total, theirs, atol=CLOSE, rtol=CLOSE)


def gate(ckpt: Checkpoint, seen: Truth, index: int) -> torch.Tensor:
    """What each token multiplies a head's output by (Qwen3.5: the second half of each head's rows of ``q_proj``)."""
    if not ckpt.architecture.attention.gated:
        return torch.ones(1)
    x = seen.stream * (1 + ckpt.tensor("layers.1.input_layernorm.weight"))
    rows = slice((2 * index + 1) * ckpt.dims.d_head, (2 * index + 2) * ckpt.dims.d_head)
    y = x @ ckpt.tensor("layers.1.self_attn.q_proj.weight")[rows].T
    if ckpt.has("layers.1.self_attn.q_proj.bias"):
        y = y + ckpt.tensor("layers.1.self_attn.q_proj.bias")[rows]
    return torch.sigmoid(y)


# --- negative controls: one convention wrong each --------------------------------------------------------------------


class Interleaved(Turn):
    """The wrong pairing: dims 2m and 2m + 1."""

    def keys(self, k: torch.Tensor) -> torch.Tensor:
        r = 2 * len(self.cos)
        a, b = k[:, 0:r:2], k[:, 1:r:2]
        turned = torch.stack([a * self.cos + b * self.sin, b * self.cos - a * self.sin], dim=2).flatten(1)
        return torch.cat([turned, k[:, r:]], dim=1)


class Backwards(Turn):
    """The wrong direction: keys turned forwards."""

    def keys(self, k: torch.Tensor) -> torch.Tensor:
        return Turn(self.cos, -self.sin).keys(k)


ROTARY = [t for t in FAMILIES if ARCHITECTURES[t].attention.rope != "none"]


@pytest.mark.parametrize(
    ("model_type", "wrong"),
    [*((t, Interleaved) for t in ROTARY), ("llama", Backwards), ("gpt_neox", Backwards), ("gpt_oss", Backwards)],
)
def test_wrong_rotation_is_caught(folders: dict[str, Path], model_type: str, wrong: type[Turn]) -> None:
    source, seen = AttentionSource(Checkpoint(folders[model_type]), 1), truth(folders[model_type], 1)

    def make(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
        head = make_head(source, index, definition)
        return head if head.turn is None else dataclasses.replace(head, turn=wrong(head.turn.cos, head.turn.sin))

    assert miss(source, seen, make) > 100 * CLOSE


@pytest.mark.parametrize("model_type", [t for t in FAMILIES if ARCHITECTURES[t].gain_offset])
def test_w_in_place_of_one_plus_w_is_caught(folders: dict[str, Path], model_type: str) -> None:
    ckpt, seen = Checkpoint(folders[model_type]), truth(folders[model_type], 1)
    ckpt.architecture = dataclasses.replace(ckpt.architecture, gain_offset=0.0)
    assert miss(AttentionSource(ckpt, 1), seen) > 100 * CLOSE


@pytest.mark.parametrize("model_type", [t for t in FAMILIES if ARCHITECTURES[t].attention.n_kv_heads is not None])
def test_wrong_key_head_is_caught(folders: dict[str, Path], model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = AttentionSource(Checkpoint(folders[model_type]), 1), truth(folders[model_type], 1)
    assert source.facts.n_kv_heads == 2
    assert [source.kv_head(h) for h in range(4)] == [0, 0, 1, 1]
    monkeypatch.setattr(source, "kv_head", lambda head: head % 2)
    assert miss(source, seen) > 100 * CLOSE


@pytest.mark.parametrize(("model_type", "wrong"), [("gpt2", "heads"), ("gpt_neox", "blocks")])
def test_wrong_fused_order_is_caught(folders: dict[str, Path], model_type: str, wrong: str) -> None:
    source, seen = AttentionSource(Checkpoint(folders[model_type]), 1), truth(folders[model_type], 1)
    source.layout = dataclasses.replace(source.layout, fused_order=wrong)
    assert miss(source, seen) > 100 * CLOSE


@pytest.mark.parametrize("what", ["softcap", "bias", "scale"])
def test_missing_parts_are_caught(folders: dict[str, Path], what: str) -> None:
    source, seen = AttentionSource(Checkpoint(folders["gemma2"]), 1), truth(folders["gemma2"], 1)
    wrong: dict[str, Any] = {"softcap": {"softcap": None}, "bias": {"bias": False}, "scale": {"scale": 12**-0.5}}[what]

    def make(source: AttentionSource, index: int, definition: AttentionDefinition) -> Head:
        return make_head(source, index, definition, **wrong)

    assert miss(source, seen, make) > 100 * CLOSE


def test_uncentred_weights_are_caught(folders: dict[str, Path]) -> None:
    source, seen = AttentionSource(Checkpoint(folders["gpt2"]), 1), truth(folders["gpt2"], 1)
    source.centre = False
    assert miss(source, seen) > 100 * CLOSE
