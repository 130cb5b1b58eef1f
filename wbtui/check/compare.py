"""Our weight formulas on the real model's streams, held against what the real model made of them.

* logits: ``norm(x) W_U`` of the last stream, bias and cap included, in units of each token's standard deviation;
* scores: differences of log attention within a row are differences of scores, so for every pair that the model lets
  see each other, the log of our softmax against the log of the model's;
* outputs: what a layer's heads add up to, ``sum_h A_h (x V_eff + b_v) O_eff`` (times the gate, where there is one), in
  units of the output's standard deviation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wbtui.analysis.attention import Head
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.rope import turn
from wbtui.catalog.attention import rotary_frequencies
from wbtui.catalog.rope import number
from wbtui.check.forward import Seen
from wbtui.compute.attention import head_of
from wbtui.definitions import AttentionDefinition
from wbtui.sources.attention import AttentionSource
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import OutputMap, input_map, norm_gain, output_map

FAINT = 1e-20
"""Attention below this is lost in the model's own fp32 softmax."""


@dataclass
class Row:
    """One line of the table: what was compared, where the largest difference is, and whether it passes."""

    what: str
    where: str
    difference: float | None
    """None: not compared, ``why`` says the reason."""
    tolerance: float
    unit: str
    why: str = ""

    @property
    def passed(self) -> bool | None:
        """None where nothing was compared. A difference that is no number fails."""
        return None if self.difference is None else self.difference <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Plain data, ``passed`` included."""
        return asdict(self) | {"passed": self.passed}


def unnormed(ckpt: Checkpoint, x: Tensor) -> Tensor:
    """Streams ``[n, D]`` divided by what the norm in front of attention, or at the end, divides by."""
    eps = float(number(ckpt.config, ckpt.architecture.norm_eps, None, str(ckpt.folder)))
    x = x.double()
    if ckpt.architecture.norm == "layer":
        return (x / (x.var(1, unbiased=False, keepdim=True) + eps).sqrt()).float()
    return (x / (x.square().mean(1, keepdim=True) + eps).sqrt()).float()


def embedding_row(ckpt: Checkpoint, seen: list[Seen], tolerance: float) -> Row:
    """Token rows times the multiplier, against what the first layer reads (plus learned positions)."""
    worst, ends = 0.0, input_map(ckpt)
    layer = min(seen[0].streams)
    unit = "of a standard deviation"
    if layer != 0:
        return Row("embedding", "", None, tolerance, unit, "the first layer has no heads")
    for one in seen:
        ours = ends.tokens[one.ids].float() * ends.scale
        if ckpt.has("wpe.weight"):
            ours = ours + ckpt.tensor("wpe.weight")[: len(one.ids)].float()
        theirs = one.streams[0]
        worst = _worse(worst, float((ours - theirs).abs().max() / theirs.std()))
    return Row("embedding", "token rows", worst, tolerance, unit)


def logits_row(ckpt: Checkpoint, seen: list[Seen], tolerance: float) -> Row:
    """Our logits of the last stream against the model's."""
    out, worst, place = output_map(ckpt), 0.0, ""
    for i, one in enumerate(seen):
        ours, theirs = logits(ckpt, out, one.last), one.logits
        size = (ours - theirs).abs().max(1).values / theirs.std(1)
        if float(size.max()) >= worst or not bool(torch.isfinite(size).all()):
            worst, place = _worse(worst, float(size.max())), f"prompt {i + 1}, token {int(size.argmax())}"
    return Row("logits", place, worst, tolerance, "of a row's standard deviation")


def logits(ckpt: Checkpoint, out: OutputMap, x: Tensor) -> Tensor:
    """Logits ``[n, V]`` of streams in front of the final norm, by our map, in slices of the vocabulary."""
    y = unnormed(ckpt, x)
    y = (y - y.mean(1, keepdim=True) if out.centre else y) * out.gain
    if out.final_norm_bias is not None:
        y = y + out.final_norm_bias
    parts = [y @ block.float().T for block in out.tokens.split(16_384)]
    found = torch.cat(parts, dim=1)
    if out.logit_bias is not None:
        found += out.logit_bias
    cap = ckpt.config.get(ckpt.architecture.final_softcap) if ckpt.architecture.final_softcap else None
    return found if not cap else cap * torch.tanh(found / cap)


def layer_rows(ckpt: Checkpoint, layer: int, seen: list[Seen], tolerance: float) -> tuple[Row, Row]:
    """Scores and outputs of one layer's heads."""
    source = AttentionSource(ckpt, layer)
    streams = [one.streams[layer] for one in seen]
    if ckpt.architecture.attention.norm is not None:
        streams = [unnormed(ckpt, x) for x in streams]
    scores, place = 0.0, ""
    totals = [torch.zeros_like(x) for x in streams]
    angles = [] if source.facts.rope is None else rotary_frequencies(source.facts.rope, source.facts.d_head)
    for h in range(source.facts.n_heads):
        head = head_of(source, h, AttentionDefinition(), [])
        value, gate, out = source.value(h), source.gate(h), source.out(h)
        for one, x, total in zip(seen, streams, totals, strict=True):
            theirs = one.attention[layer][h]
            found = attention_miss(head, angles, source.facts.window, x, theirs)
            if found >= scores or found != found:
                scores, place = _worse(scores, found), f"layer {layer} head {h}"
            v = x @ value.matrix
            mixed = theirs @ (v if value.bias is None else v + value.bias)
            if gate is not None:
                mixed = mixed * torch.sigmoid(x @ gate.matrix + (0.0 if gate.bias is None else gate.bias))
            total += mixed @ out
    outputs = 0.0
    for one, total in zip(seen, totals, strict=True):
        theirs, bias = one.out[layer], _out_bias(ckpt, layer)
        post = ckpt.architecture.post_attention_norm
        if post is not None:  # what the real norm put out, its division undone
            bias = bias * norm_gain(ckpt, post.format(l=layer))
            eps = float(number(ckpt.config, ckpt.architecture.norm_eps, None, str(ckpt.folder)))
            theirs = one.behind[layer] * (theirs.square().mean(1, keepdim=True) + eps).sqrt()
        theirs = theirs - bias
        outputs = _worse(outputs, float((total - theirs).abs().max() / theirs.std()))
    return (
        Row("attention scores", place, scores, tolerance, "in log attention"),
        Row("head outputs", f"layer {layer}", outputs, tolerance, "of a standard deviation"),
    )


def attention_miss(head: Head, angles: list[float], window: int | None, x: Tensor, theirs: Tensor) -> float:
    """The largest difference in log attention of one head on one prompt; infinite where the masks differ."""
    n = len(x)
    q, k = head.queries(x)[0], head.keys(x)[0]
    ours = torch.full((n, n), -torch.inf)
    softmax = Softmax(head.softcap, head.biased, head.sink)
    for offset in range(n if window is None else min(n, window)):
        moved = turn(angles, AttentionDefinition(offset=offset)) if angles else None
        turned = k if moved is None else moved.keys(k)
        here = Head(
            head.query, head.key, head.scale, head.query_bias, head.key_bias, head.query_norm, head.key_norm, turn=moved
        )
        rows = torch.arange(offset, n)
        # a query's own term counts here: the key bias turns with each key's offset
        scores = (
            (q[rows] * turned[rows - offset]).sum(1) + here.query_terms(q)[rows] + here.prior(turned)[rows - offset]
        )
        ours[rows, rows - offset] = scores if head.softcap is None else head.softcap * torch.tanh(scores / head.softcap)
    ours = ours - softmax.with_sink(ours.logsumexp(1, keepdim=True))
    if bool(((theirs > FAINT) & ~torch.isfinite(ours)).any()) or bool(((theirs == 0) & (ours > -60)).any()):
        return float("inf")
    seen = torch.isfinite(ours) & (theirs > FAINT)
    return float((ours - theirs.log())[seen].abs().max())


def _out_bias(ckpt: Checkpoint, layer: int) -> Tensor | float:
    name = ckpt.architecture.attention_out.format(l=layer).removesuffix("weight") + "bias"
    return ckpt.tensor(name).float() if ckpt.has(name) else 0.0


def _worse(a: float, b: float) -> float:
    """The larger of two differences; not a number counts as the worst."""
    return float("inf") if b != b else max(a, b)
