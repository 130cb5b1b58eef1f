"""Shards of the E2 and OV products: one head each, from files to columns; and one lone feature for the head page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui import schema_attention as schema
from wbtui.analysis import nulls
from wbtui.analysis.attention import Head, QKNorm, Rows, Vectors, project
from wbtui.analysis.attention_pairs import TILE
from wbtui.analysis.attention_record import (
    Members,
    direction_record,
    feature_record,
    members,
    partition_sums,
    stability,
    usual_gains,
)
from wbtui.analysis.output_value import OutputValue, ov_record
from wbtui.analysis.rope import turn
from wbtui.analysis.streaming import Stop, TileBuffer
from wbtui.catalog.attention import rotary_frequencies
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.kernels import kernels_for
from wbtui.compute.weights import _RESIDENT, BLOCK
from wbtui.definitions import AttentionDefinition, NullDefinition, attention_from_json
from wbtui.errors import WorkError
from wbtui.sources.attention import AttentionSource, Projection, stream_mean
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import SaeSource
from wbtui.store.keys import ProductSpec

OV_SEED = 0


class LayerWork:
    """What the shards of one layer's product share. Heads are folded and projected as they are asked for.

    Args:
        spec: an ``attention``, ``attention_null``, ``ov`` or ``ov_null`` product.
        device: a torch device.
    """

    def __init__(self, spec: ProductSpec, device: str) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self.definition: AttentionDefinition = attention_from_json(spec.identity.get("definition") or {})
        path = spec.model["path"]
        key = ("attention checkpoint", path, spec.identity["model"])
        self.checkpoint: Checkpoint = _RESIDENT.get(key, lambda: Checkpoint(path), lambda _: 0)
        self.source = AttentionSource(self.checkpoint, int(spec.identity["layer"]))
        self.sae_info = None if spec.sae is None else SaeInfo(**spec.sae)

    @property
    def sae(self) -> SaeSource:
        """The product's SAE."""
        info = self.sae_info
        if info is None:
            raise WorkError("a product without an SAE was asked for its features")
        key = ("attention sae", self.spec.model["path"], self.spec.identity["model"], *self._sae_key)
        return _RESIDENT.get(key, lambda: SaeSource(info, self.checkpoint), lambda _: 0)

    @property
    def frequencies(self) -> list[float]:
        """The layer's angles per position; none with learned positions."""
        facts = self.source.facts
        return [] if facts.rope is None else rotary_frequencies(facts.rope, facts.d_head)

    def head(self, index: int) -> Head:
        """Query head ``index`` with the definition's offset, cap and biases."""
        definition = self.definition
        uses_rope = definition.rope != "offset" or definition.offset > 0
        if uses_rope and self.source.facts.rope is None:
            raise WorkError("an offset for a model with learned positions", "offset 0")
        return head_of(self.source, index, definition, self.frequencies if uses_rope else [], self._there)

    def output_value(self, index: int) -> OutputValue:
        """Value and output matrices of query head ``index``."""
        source = self.source
        return OutputValue(self._there(source.value(index).matrix), self._there(source.out(index)), source.centre)

    def decoder_rows(self) -> Iterator[Tensor]:
        """The dictionary's decoder rows in blocks, in the residual stream."""
        sae = self.sae
        for start in range(0, sae.n, BLOCK):
            yield sae.decoder_rows(start, min(sae.n, start + BLOCK))

    def null_directions(self, null: NullDefinition) -> Tensor:
        """A null's directions ``[n, d_model]``: those of E1's writes side, so that row i of both is one direction."""
        if null.kind == "isotropic":
            d_model = self.checkpoint.dims.d_model
            return nulls.directions(null.kind, null.n, null.seed * 2, d_model=d_model)
        key = ("attention null", null, *self._sae_key)

        def make() -> Tensor:
            return nulls.directions(null.kind, null.n, null.seed, rows=self.decoder_rows)

        return _RESIDENT.get(key, make, lambda t: t.numel() * t.element_size())

    def members(self, index: int, stop: Stop | None) -> Members:
        """The features as one head sees them."""
        head = self.head(index)
        return members(head, project(head, self.decoder_rows, self.definition, self.device, stop), self.definition)

    def partition_sums(self, index: int, make: Callable[[], Tensor]) -> Tensor:
        """The features' log partition sums in a head, kept for the nulls: one more pass over all pairs otherwise."""
        identity = {k: self.spec.identity[k] for k in ("model", "layer", "facts", "definition")}
        key = ("partition sums", str(sorted(identity.items())), *self._sae_key, index, str(self.device))
        return _RESIDENT.get(key, make, lambda t: t.numel() * t.element_size())

    @property
    def _sae_key(self) -> tuple[Any, ...]:
        assert self.sae_info is not None
        identity = self.spec.identity.get("sae") or {}
        return (self.sae_info.path, identity.get("fingerprint"), identity.get("through"))

    def _there(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)


def head_of(
    source: AttentionSource,
    index: int,
    definition: AttentionDefinition,
    angles: list[float],
    move: Callable[[Tensor], Tensor] = lambda t: t,
) -> Head:
    """Query head ``index`` as the analysis takes it.

    Args:
        source: the layer's heads.
        index: the query head.
        definition: says the offset, and whether cap and biases count.
        angles: per position, of each turning pair; empty leaves keys as they are.
        move: brings tensors to a device.
    """
    query, key = source.query(index), source.key(index)
    return Head(
        query=move(query.matrix),
        key=move(key.matrix),
        scale=source.multiplier,
        query_bias=None if query.bias is None else move(query.bias),
        key_bias=None if key.bias is None else move(key.bias),
        query_norm=qk_norm(query, move),
        key_norm=qk_norm(key, move),
        softcap=source.facts.softcap if definition.softcap else None,
        sink=source.sink(index),
        turn=turn(angles, definition),
        centre=source.centre,
        bias=definition.bias,
    )


def qk_norm(projection: Projection, move: Callable[[Tensor], Tensor] = lambda t: t) -> QKNorm | None:
    """A projection's q/k norm as the analysis takes it, None without one; ``move`` brings tensors to a device."""
    norm = projection.norm
    if norm is None:
        return None
    bias, whole, whole_bias = (None if t is None else move(t) for t in (norm.bias, norm.whole, norm.whole_bias))
    return QKNorm(move(norm.gain), bias, norm.centre, whole, whole_bias, norm.eps)


def head_rows(
    cache: Path,
    spec: ProductSpec,
    start: int,
    stop_row: int,
    device: str,
    *,
    tile: int = TILE,
    stop: Stop | None = None,
    progress: Callable[[float], None] | None = None,
) -> Rows:
    """The columns of heads [start, stop_row) of an E2 or OV product: ``[heads, n]`` each.

    ``cache`` is where it stands how this machine multiplies.

    Raises:
        Cancelled: ``stop`` said so.
        WeightsError: weights that cannot be read or hold values that are not finite.
        WorkError: not a product of this kind.
    """
    work = LayerWork(spec, device)
    dims = work.checkpoint.dims
    kernels_for(cache, work.device, dims.d_vocab * dims.d_model)
    make = {"attention": _attention, "attention_null": _attention_null, "ov": _ov, "ov_null": _ov}.get(spec.analysis)
    if make is None:
        raise WorkError(f"analysis {spec.analysis!r}", "one of " + ", ".join(schema.ANALYSES))
    found: list[Rows] = []
    for index in range(start, stop_row):

        def step(done: int, of: int, before: int = len(found)) -> None:
            if progress is not None:
                progress((before + done / of) / (stop_row - start))

        found.append(make(work, index, tile, stop, step))
    return {name: np.stack([rows[name] for rows in found]) for name in found[0]}


def _attention(work: LayerWork, index: int, tile: int, stop: Stop | None, step: Callable[[int, int], None]) -> Rows:
    head, definition = work.head(index), work.definition
    of = work.members(index, stop)
    buffer = TileBuffer(work.device)
    usual = usual_gains(head, definition, work.checkpoint.dims.d_model, work.device)
    rows, log_z = feature_record(head, of, definition, usual, buffer, tile=tile, stop=stop, progress=step)
    log_z = work.partition_sums(index, lambda: log_z)
    assert work.sae_info is not None
    mean = stream_mean(work.sae_info)
    lone: Rows = {name: schema.empty_heads(c, 1) for name, c in schema.attention_columns().items()}
    if mean is not None and bool(torch.isfinite(mean).all()) and bool(mean.any()):
        vectors: Vectors = project(head, lambda: [mean[None]], definition, work.device, stop)
        lone = direction_record(head, of, log_z, vectors, definition, usual, buffer, tile=tile, stop=stop)
    straight = of.vectors
    if head.turn is not None:
        unturned = dataclasses.replace(head, turn=None)
        straight = project(unturned, work.decoder_rows, definition, work.device, stop)
    facts = work.source.facts
    angles = rotary_frequencies(facts.rope, facts.d_head) if facts.rope is not None else []
    rows[schema.STABILITY] = stability(straight.q, straight.k, angles, facts.window)
    return rows | {f"{schema.STREAM_MEAN}.{name}": values[0] for name, values in lone.items()}


def _attention_null(
    work: LayerWork, index: int, tile: int, stop: Stop | None, step: Callable[[int, int], None]
) -> Rows:
    head, definition = work.head(index), work.definition
    of = work.members(index, stop)
    buffer = TileBuffer(work.device)
    usual = usual_gains(head, definition, work.checkpoint.dims.d_model, work.device)
    log_z = None
    if not head.bound:
        log_z = work.partition_sums(index, lambda: partition_sums(of, buffer, tile=tile, stop=stop))
    step(1, 2)
    random = work.null_directions(NullDefinition(**work.spec.identity["null"]))
    vectors = project(head, lambda: [random], definition, work.device, stop)
    return direction_record(head, of, log_z, vectors, definition, usual, buffer, tile=tile, stop=stop)


def _ov(work: LayerWork, index: int, tile: int, stop: Stop | None, step: Callable[[int, int], None]) -> Rows:
    del tile, step
    null = work.spec.identity.get("null")
    if null is None:
        return ov_record(work.output_value(index), work.decoder_rows, OV_SEED, work.device, stop)
    random = work.null_directions(NullDefinition(**null))
    return ov_record(work.output_value(index), lambda: [random], OV_SEED, work.device, stop)
