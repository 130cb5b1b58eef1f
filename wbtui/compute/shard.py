"""``compute_shard``: from (product, row range) to a file in the cache. Everything a worker does goes through here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbtui import schema, schema_attention, schema_neighbours
from wbtui.analysis.features import feature_rows, instant_row, null_rows
from wbtui.analysis.mask import neighbour_counts
from wbtui.analysis.nulls import NoRows
from wbtui.compute.memory import tile_for
from wbtui.compute.weights import Weights
from wbtui.compute.work import ShardTask, ignore, never, write_vocabulary
from wbtui.definitions import MaskDefinition, NullDefinition
from wbtui.errors import WbtuiError, WeightsError, WorkError
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product

DEVICE_TILES = 8
"""Tiles that a GPU takes at once where its memory allows: one is over sooner than its kernels are launched."""


def compute_shard(
    task: ShardTask,
    *,
    stop: Callable[[], bool] = never,
    progress: Callable[[float], None] = ignore,
) -> str:
    """Compute one shard, or assemble a product; idempotent.

    Args:
        task: what to do.
        stop: polled between vocabulary slices; True abandons the shard.
        progress: told the share of this shard that is done, in [0, 1].

    Returns:
        str: the path of the file written; the product's folder where another process had made these rows meanwhile.

    Raises:
        Cancelled: ``stop`` said so.
        WeightsError: weights that cannot be read.
        StoreError: a cache that cannot be written.
    """
    cache = Path(task.cache)
    spec = ProductSpec.from_json(task.spec)
    product = Product(cache, spec)
    if task.kind == "assemble":
        facts = dict(task.facts)
        if spec.analysis in ("tokens", "null"):
            with contextlib.suppress(WbtuiError):  # a model that has gone since: its shards are here all the same
                facts["dtype"] = Weights(cache, spec, task.device).kernels(measure=False).dtype
        product.assemble(facts)
        return str(product.path)
    if product.has(task.start, task.stop):  # another daemon or machine on the same cache was faster
        progress(1.0)
        return str(product.path)
    product.begin()
    if spec.analysis == "vocab":
        return write_vocabulary(product, task, progress)
    if spec.analysis == "match":
        from wbtui.compute.match import match_columns

        columns = match_columns(spec, task.device, stop=stop, progress=progress)
        product.write_whole(columns, task.facts)
        progress(1.0)
        return str(product.path)
    try:
        columns = _columns(cache, spec, task, stop, progress)
    except NoRows as error:
        where = (spec.sae or {}).get("path", spec.sae_slug)
        raise WeightsError(f"{where}: {error.found}", error.expected, "copy or download the file again") from None
    progress(1.0)
    if product.has(task.start, task.stop):
        return str(product.path)
    return str(product.write_shard(task.start, task.stop, columns))


def _columns(
    cache: Path, spec: ProductSpec, task: ShardTask, stop: Callable[[], bool], progress: Callable[[float], None]
) -> dict[str, np.ndarray]:
    """The columns of one shard."""
    if spec.analysis in schema_attention.ANALYSES:
        from wbtui.compute.attention import head_rows

        return head_rows(cache, spec, task.start, task.stop, task.device, tile=task.tile, stop=stop, progress=progress)
    if spec.analysis in schema_neighbours.ANALYSES:
        from wbtui.compute.neighbours import neighbour_rows

        return neighbour_rows(spec, task.start, task.stop, task.device, tile=task.tile, stop=stop, progress=progress)
    weights = Weights(cache, spec, task.device)
    if spec.analysis == "mask":
        definition = MaskDefinition(**spec.identity["mask"])
        matrix = weights.matrix(spec.model["role"])
        try:
            return {"neighbours": neighbour_counts(matrix, task.start, task.stop, definition, stop=stop)}
        except WeightsError as error:
            raise weights.located(error) from None

    def step(done: int, of: int) -> None:
        progress(done / of)

    writes, reads = weights.tables()
    tile = tile_for(task.tile * (DEVICE_TILES if task.device.startswith("cuda") else 1), len(writes.ids), task.device)
    common: dict[str, Any] = {**weights.norm, "tile": tile, "stop": stop, "progress": step}
    if spec.analysis == "tokens":
        decoder = weights.sae.decoder_rows(task.start, task.stop)
        encoder = weights.sae.encoder_rows(task.start, task.stop)
        return feature_rows(decoder, encoder, writes, reads, **common)
    if spec.analysis == "null":
        definition_of_null = NullDefinition(**spec.identity["null"])
        wrote, read = (weights.null_directions(definition_of_null, side) for side in schema.SIDES)
        assert wrote is not None
        rows = slice(task.start, task.stop)
        return null_rows(wrote[rows], None if read is None else read[rows], writes, reads, **common)
    raise WorkError(f"analysis {spec.analysis!r}", "vocab, mask, tokens, null, attention, ov, neighbours or match")


def row_columns(
    cache: Path, spec: ProductSpec, feature: int, device: str, stop: Callable[[], bool]
) -> tuple[dict[str, np.ndarray], bool]:
    """One feature's columns, and whether the mask was still missing: see :func:`wbtui.compute.work.compute_row`."""
    weights = Weights(cache, spec, device)
    decoder = weights.sae.decoder_rows(feature, feature + 1)[0]
    encoder = weights.sae.encoder_rows(feature, feature + 1)
    writes, reads = weights.tables(lazy=True)
    columns = instant_row(decoder, None if encoder is None else encoder[0], writes, reads, **weights.norm, stop=stop)
    return columns, weights.unmasked


def unload() -> None:
    """Let all resident weights go (idle)."""
    Weights.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
