"""Both ends of a model: what the residual stream writes as logits, and what tokens write into the stream.

The last hidden state ``x`` of a token becomes logits by ``norm(x) = x P / scale(x) * gain + bias`` and the unembedding,
so up to a positive factor per token a direction ``d`` moves the logits by ``d P diag(gain) W_U`` (methods 3.1, 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.catalog.architectures import embedding_multiplier
from wbtui.errors import WeightsError
from wbtui.floats import widened
from wbtui.sources.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

_SLICE = 8192


@dataclass
class OutputMap:
    """From the residual stream to logits."""

    tokens: torch.Tensor
    """``[V, D]``, the rows of W_U transposed, in the checkpoint's dtype, mapped."""
    gain: torch.Tensor
    """``[D]`` float32, what the final norm multiplies by (``1 + w`` where the model computes that)."""
    centre: bool
    """LayerNorm: the mean over the width is subtracted first (P of methods 0)."""
    final_norm_bias: torch.Tensor | None
    """``[D]`` float32; a constant, dropped from what one feature writes (methods 3.2)."""
    logit_bias: torch.Tensor | None
    """``[V]`` float32; likewise."""


@dataclass
class InputMap:
    """From tokens to the residual stream."""

    tokens: torch.Tensor
    """``[V, D]``, the rows of W_E, in the checkpoint's dtype, mapped."""
    scale: float
    """alpha, the model's embedding multiplier."""
    centre: bool
    """LayerNorm: every reader of the stream is blind to the all-ones component of these rows."""


def output_map(ckpt: Checkpoint) -> OutputMap:
    """The output end of a checkpoint.

    A tied model's ``tokens`` are its embedding, the same mapped tensor as :func:`input_map` gives.

    Raises:
        WeightsError: a tensor is missing or does not fit the config; "tied" beside another unembedding.
    """
    import torch

    arch, dims = ckpt.architecture, ckpt.dims
    return OutputMap(
        tokens=ckpt.tensor(unembedding_name(ckpt), (dims.d_vocab, dims.d_model)),
        gain=norm_gain(ckpt, arch.final_norm),
        centre=arch.norm == "layer",
        final_norm_bias=_bias(ckpt, arch.final_norm, dims.d_model, torch),
        logit_bias=_bias(ckpt, arch.unembedding, dims.d_vocab, torch),
    )


def unembedding_name(ckpt: Checkpoint) -> str:
    """The tensor whose rows are the columns of W_U: a tied model's embedding.

    Raises:
        WeightsError: it is missing; "tied" beside another unembedding.
    """
    arch, dims = ckpt.architecture, ckpt.dims
    table = (dims.d_vocab, dims.d_model)
    if dims.tied:
        if ckpt.has(arch.unembedding):
            _check_tied(ckpt, table)
        return arch.embedding
    if not ckpt.has(arch.unembedding):
        raise WeightsError(
            f"{ckpt.folder}: no tensor {arch.unembedding}, and the config says that embeddings are not tied",
            f"{arch.unembedding} {list(table)}, or tie_word_embeddings true in config.json",
        )
    return arch.unembedding


def input_map(ckpt: Checkpoint) -> InputMap:
    """The input end of a checkpoint (learned positions are left out: they are no token's).

    Raises:
        WeightsError: the embedding is missing or does not fit the config.
    """
    arch, dims = ckpt.architecture, ckpt.dims
    return InputMap(
        tokens=ckpt.tensor(arch.embedding, (dims.d_vocab, dims.d_model)),
        scale=embedding_multiplier(arch, dims.d_model),
        centre=arch.norm == "layer",
    )


def norm_gain(ckpt: Checkpoint, name: str) -> torch.Tensor:
    """:func:`gain_of` as a tensor."""
    import torch

    return torch.from_numpy(gain_of(ckpt, name))


def gain_of(ckpt: Checkpoint, name: str) -> np.ndarray:
    """A norm's effective gain ``[d_model]`` in float32: the weight, plus one where the model adds one (methods 3.1).

    Raises:
        WeightsError: no such tensor, of another width, or not finite.
    """
    gain = ckpt.floats(name, (ckpt.dims.d_model,)) + np.float32(ckpt.architecture.gain_offset)
    if not np.isfinite(gain).all():
        raise WeightsError(f"{ckpt.folder}: {name} is not finite", "finite weights", "copy or download the file again")
    return gain


def _bias(ckpt: Checkpoint, weight_name: str, width: int, torch: Any) -> Any:
    """The bias beside a weight, in float32, where there is one."""
    name = weight_name.removesuffix("weight") + "bias"
    return torch.from_numpy(ckpt.floats(name, (width,))) if ckpt.has(name) else None


def _check_tied(ckpt: Checkpoint, table: tuple[int, int]) -> None:
    """A checkpoint may repeat its tied matrix; if the two differ, config and weights contradict each other."""
    name = ckpt.architecture.unembedding
    tokens, other = ckpt.raw(ckpt.architecture.embedding, table), ckpt.raw(name, table)
    for start in range(0, len(tokens), _SLICE):
        ours, theirs = tokens[start : start + _SLICE], other[start : start + _SLICE]
        if ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes():
            continue
        if not np.array_equal(widened(ours), widened(theirs)):
            raise WeightsError(
                f"{ckpt.folder}: {name} differs from the embedding, but the config says that they are tied",
                "equal tensors, or tie_word_embeddings false in config.json",
                "set tie_word_embeddings to false if the model was trained untied",
            )
