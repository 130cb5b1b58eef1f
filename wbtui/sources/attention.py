"""The heads of one layer as matrices that act on the raw residual stream, and the facts their scores need.

With a stream direction ``x`` (row vector) and the norm in front of attention folded in (methods 0, 3.1)::

    Q_eff = P diag(gain) W_Q     q = x Q_eff          b_q = bias_Q + beta W_Q
    K_eff = P diag(gain) W_K     k = x K_eff          b_k likewise
    V_eff = P diag(gain) W_V     v = x V_eff          O_eff = W_O diag(gain of the norm after attention)

up to the positive 1/rms of each token. Query head ``h`` uses key/value head ``h // (H / H_kv)``. Only the named tensors
of the layer are read; fused ones are sliced. Where a head's output is multiplied by a gate of the query's token
(Qwen3.5), V and O are those of a gate of one: OV is per unit of the gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from wbtui.catalog.attention import AttentionFacts, active_layout, attention_facts
from wbtui.catalog.rope import number
from wbtui.catalog.saes import SaeInfo
from wbtui.errors import UsageError, WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.mapped import mapped
from wbtui.sources.model import norm_gain
from wbtui.tensorfile import read_header


@dataclass(frozen=True)
class ProjectionNorm:
    """A q/k norm as one head meets it.

    Attributes:
        gain: ``[d_head]`` fp32, ``1 + w`` where the model computes that.
        bias: ``[d_head]`` fp32 behind the norm, None where there is none.
        centre: LayerNorm.
        whole: ``[d_model, n * d_head]`` fp32, every head's folded matrix: the norm runs over all of them; else None.
        whole_bias: ``[n * d_head]``, or None.
        eps: under the root.
    """

    gain: Tensor
    bias: Tensor | None
    centre: bool
    whole: Tensor | None
    whole_bias: Tensor | None
    eps: float


@dataclass(frozen=True)
class Projection:
    """One head's map from the stream, everything constant folded.

    Attributes:
        matrix: ``[d_model, d_head]`` fp32.
        bias: ``[d_head]`` fp32; None where there is none.
        norm: the q/k norm behind it; None where there is none.
    """

    matrix: Tensor
    bias: Tensor | None
    norm: ProjectionNorm | None = None


class AttentionSource:
    """One layer's heads.

    Args:
        ckpt: the model's checkpoint.
        layer: the layer whose heads read the stream.

    Attributes:
        facts: head counts, score scale, softcap, rotary embedding, window.
        centre: LayerNorm: the mean over the width is subtracted in front of every projection.
        eps: of the q/k norms.

    Raises:
        UsageError: no such layer, or one without heads.
        WeightsError: tensors missing or not fitting the config.
    """

    def __init__(self, ckpt: Checkpoint, layer: int) -> None:
        if not 0 <= layer < ckpt.dims.n_layers:
            raise UsageError(f"attention layer {layer}", f"0 to {ckpt.dims.n_layers - 1}")
        self._ckpt = ckpt
        self._wholes: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.layer = layer
        self.layout = active_layout(ckpt.config, ckpt.architecture.attention)
        dims = ckpt.dims
        where = str(ckpt.folder / "config.json")
        self.facts: AttentionFacts = attention_facts(ckpt.config, self.layout, dims.n_heads, dims.d_head, layer, where)
        self.centre = ckpt.architecture.norm == "layer"
        self.eps = float(number(ckpt.config, ckpt.architecture.norm_eps, None, where))

    @property
    def multiplier(self) -> float | Tensor:
        """What scores are multiplied by: s_att, or ``[d_head]`` where the turning dims' part carries YaRN's factor."""
        facts = self.facts
        if facts.rotary_gain == 1.0:
            return facts.scale
        gains = torch.full((facts.d_head,), facts.scale)
        gains[: facts.rotary_dims] *= facts.rotary_gain
        return gains

    def sink(self, head: int) -> float | None:
        """The logit that joins a head's softmax without a value; None where the model has none."""
        if self.layout.sinks is None:
            return None
        value = float(self._ckpt.tensor(self.layout.sinks.format(l=self.layer), (self.facts.n_heads,))[head])
        if not math.isfinite(value):
            raise WeightsError(
                f"{self._ckpt.folder}: the sink of layer {self.layer}, head {head}, is not finite", "finite weights"
            )
        return value

    def kv_head(self, head: int) -> int:
        """The key/value head that query head ``head`` uses."""
        return head // (self.facts.n_heads // self.facts.n_kv_heads)

    def query(self, head: int) -> Projection:
        """Q_eff and b_q of a query head."""
        return self._fold("q", head)

    def key(self, head: int) -> Projection:
        """K_eff and b_k, by query head."""
        return self._fold("k", self.kv_head(head))

    def value(self, head: int) -> Projection:
        """V_eff and b_v, by query head."""
        return self._fold("v", self.kv_head(head))

    def gate(self, head: int) -> Projection | None:
        """What sets a query head's gate: its output is multiplied by ``sigmoid(x matrix + bias)``; None without one."""
        return Projection(*self._folded("gate", head, *self._raw("gate", head))) if self.layout.gated else None

    def out(self, head: int) -> Tensor:
        """O_eff ``[d_head, d_model]`` of a query head: what it writes into the stream per unit of its value."""
        arch, dims = self._ckpt.architecture, self._ckpt.dims
        width = dims.n_heads * dims.d_head
        columns = slice(head * dims.d_head, (head + 1) * dims.d_head)
        shape = (width, dims.d_model) if arch.input_major else (dims.d_model, width)
        weight = self._ckpt.tensor(arch.attention_out.format(l=self.layer), shape)
        part = weight[columns] if arch.input_major else weight[:, columns].T
        matrix = part.to(torch.float32, copy=True)
        if arch.post_attention_norm is not None:
            matrix *= norm_gain(self._ckpt, arch.post_attention_norm.format(l=self.layer))
        if not bool(torch.isfinite(matrix).all()):
            raise WeightsError(
                f"{self._ckpt.folder}: an output weight of layer {self.layer}, head {head}, is not finite",
                "finite weights",
            )
        return matrix.contiguous()

    # --- inside -------------------------------------------------------------------------------------------------------

    @cached_property
    def _norm(self) -> tuple[Tensor | None, Tensor | None]:
        """Gain and bias ``[d_model]`` of the norm in front of attention."""
        if self.layout.norm is None:
            return None, None
        name = self.layout.norm.format(l=self.layer)
        return norm_gain(self._ckpt, name), self._bias_beside(name, slice(None), self._ckpt.dims.d_model)

    def _fold(self, which: str, head: int) -> Projection:
        matrix, bias = self._folded(which, head, *self._raw(which, head))
        return Projection(matrix, bias, self._qk_norm(which, head))

    def _folded(
        self, which: str, head: int | None, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """A projection with the norm in front of attention folded in, checked to be finite."""
        gain, beta = self._norm
        for what, value in (("weight", weight), ("bias", bias), ("norm gain", gain), ("norm bias", beta)):
            if value is not None and not bool(torch.isfinite(value).all()):
                whose = "" if head is None else f", head {head}"
                raise WeightsError(
                    f"{self._ckpt.folder}: a {what} of the {which} projection of layer {self.layer}{whose}, "
                    "is not finite",
                    "finite weights",
                )
        bias = torch.zeros(weight.shape[1]) if bias is None and beta is not None else bias
        if beta is not None and bias is not None:
            bias = bias + beta @ weight
        if gain is not None:
            weight = gain[:, None] * weight
        if self.centre:
            weight = weight - weight.mean(0, keepdim=True)
        return weight.contiguous(), bias

    def _qk_norm(self, which: str, head: int) -> ProjectionNorm | None:
        name = {"q": self.layout.query_norm, "k": self.layout.key_norm}.get(which)
        if name is None:
            return None
        layout, facts, name = self.layout, self.facts, name.format(l=self.layer)
        count, width = {"q": facts.n_heads, "k": facts.n_kv_heads}[which], facts.d_head
        together = layout.qk_norm == "all"
        total = count * width if together else width
        rows = slice(head * width, (head + 1) * width) if together else slice(None)
        gain = self._ckpt.tensor(name, (total,))[rows].to(torch.float32, copy=True)
        gain += self._ckpt.architecture.gain_offset
        bias = self._bias_beside(name, rows, total)
        for what, value in (("gain", gain), ("bias", bias)):
            if value is not None and not bool(torch.isfinite(value).all()):
                raise WeightsError(
                    f"{self._ckpt.folder}: a {what} of the {which} norm of layer {self.layer} is not finite",
                    "finite weights",
                )
        whole, whole_bias = self._whole(which) if together else (None, None)
        return ProjectionNorm(gain, bias, layout.qk_norm == "layer", whole, whole_bias, self.eps)

    def _whole(self, which: str) -> tuple[Tensor, Tensor | None]:
        """Every head's folded matrix side by side ``[d_model, n * d_head]`` and bias."""
        if which not in self._wholes:
            count = {"q": self.facts.n_heads, "k": self.facts.n_kv_heads}[which]
            parts = [self._folded(which, None, *self._raw(which, head)) for head in range(count)]
            biases = [bias for _, bias in parts if bias is not None]
            self._wholes[which] = (torch.cat([m for m, _ in parts], dim=1), torch.cat(biases) if biases else None)
        return self._wholes[which]

    def _raw(self, which: str, head: int) -> tuple[Tensor, Tensor | None]:
        """``[d_model, d_head]`` fp32 and the bias ``[d_head]`` of one of a layer's query or key/value heads."""
        layout, dims, facts = self.layout, self._ckpt.dims, self.facts
        heads, kv, width = facts.n_heads, facts.n_kv_heads, facts.d_head
        counts = {"q": heads, "gate": heads, "k": kv, "v": kv}
        if layout.fused is None:
            name = {"q": layout.query, "gate": layout.query, "k": layout.key, "v": layout.value}[which]
            step = 2 * width if layout.gated and which in ("q", "gate") else width  # per head: query, then gate
            total, start = counts[which] * step, head * step + (width if which == "gate" else 0)
        else:
            name, total = layout.fused, (heads + 2 * kv) * width
            if layout.fused_order == "heads":
                start = (3 * head + "qkv".index(which)) * width
            elif layout.fused_order == "blocks":
                start = {"q": 0, "k": heads, "v": heads + kv}[which] * width + head * width
            else:
                raise WeightsError(f"fused order {layout.fused_order!r}", "blocks or heads")
        assert name is not None
        name = name.format(l=self.layer)
        rows = slice(start, start + width)
        if self._ckpt.architecture.input_major:
            weight = self._ckpt.tensor(name, (dims.d_model, total))[:, rows].to(torch.float32, copy=True)
        else:
            weight = self._ckpt.tensor(name, (total, dims.d_model))[rows].to(torch.float32).T.contiguous()
        return weight, self._bias_beside(name, rows, total)

    def _bias_beside(self, name: str, rows: slice, width: int) -> Tensor | None:
        name = name.removesuffix("weight") + "bias"
        if not self._ckpt.has(name):
            return None
        return self._ckpt.tensor(name, (width,))[rows].to(torch.float32, copy=True)


def stream_mean(info: SaeInfo) -> Tensor | None:
    """``b_dec``, close to the mean activation, as a direction of the stream (methods 1.3, "The rest of the stream").

    Returns:
        Tensor | None: ``[d_model]`` fp32; None where the SAE has none, or its hook is not the stream itself (the mean
        of a sublayer's output is no mean of the stream).
    """
    if not info.site.startswith("resid_"):
        return None
    place = info.places.get("mean")
    if place is None:
        return None
    path = Path(place["file"])
    entry = read_header(path).tensors.get(place["tensor"])
    if entry is None:
        return None
    if entry.shape != (info.d_out,):
        raise WeightsError(f"{path}: {entry.name} has shape {list(entry.shape)}", f"[{info.d_out}], the SAE's width")
    return mapped(path, entry).to(torch.float32, copy=True)
