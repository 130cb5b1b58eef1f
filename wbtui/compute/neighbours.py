"""Shards of the neighbours products: from two SAEs' files to columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wbtui import schema_neighbours as schema
from wbtui.analysis import nulls
from wbtui.analysis.neighbours import nearest, unit_rows
from wbtui.analysis.streaming import TILE, Stop, TileBuffer, poll
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.weights import _RESIDENT, BLOCK
from wbtui.definitions import NullDefinition, neighbours_from_json
from wbtui.errors import WorkError
from wbtui.schema import SIDES
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import SaeSource
from wbtui.store.keys import ProductSpec

KEEP_BYTES = 4_000_000_000
"""Unit rows of a dictionary up to this size stay in memory between shards; a larger one is read again for each."""
COLUMNS = 16_384
"""Rows of the other dictionary in one tile."""


class _Dictionary:
    """One SAE's directions of one kind (decoder or encoder) as unit rows, in blocks."""

    def __init__(self, info: SaeInfo, identity: dict[str, Any], path: str, kind: str, centre: bool, device: str):
        self.n = info.d_sae
        self.kind = kind
        self.centre = centre
        self.device = torch.device(device)
        self._key = ("unit rows", kind, path, info.path, identity["fingerprint"], identity["through"], centre, device)
        self.source = SaeSource(info, Checkpoint(path))
        self.absent = kind == schema.ENC and self.source.reads_absent is not None

    def raw(self, start: int, stop: int) -> Tensor:
        """Rows as they stand in the residual stream ``[stop - start, D]``."""
        rows = self.source.decoder_rows if self.kind == schema.DEC else self.source.encoder_rows
        found = rows(start, stop)
        assert found is not None
        return found

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Unit rows and which of them have no direction."""
        unit, gone = unit_rows(self.raw(start, stop), centre=self.centre)
        return unit.to(self.device), gone.to(self.device)

    def blocks(self, stop: Stop | None) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them in blocks of ``COLUMNS``, kept in memory where they have room."""
        dim = self.source.decoder_rows(0, 0).shape[1]
        if self.n * dim * 4 > KEEP_BYTES:
            for start in range(0, self.n, COLUMNS):
                poll(stop)
                yield self.rows(start, min(self.n, start + COLUMNS))
            return

        def make() -> tuple[Tensor, Tensor]:
            unit = torch.empty((self.n, dim), device=self.device)
            gone = torch.empty(self.n, dtype=torch.bool, device=self.device)
            for start in range(0, self.n, BLOCK):
                poll(stop)
                end = min(self.n, start + BLOCK)
                unit[start:end], gone[start:end] = self.rows(start, end)
            return unit, gone

        whole = _RESIDENT.get(self._key, make, lambda pair: pair[0].numel() * 4 + pair[1].numel())
        yield from zip(whole[0].split(COLUMNS), whole[1].split(COLUMNS), strict=True)

    def raw_blocks(self) -> Iterator[Tensor]:
        """All rows as they are, for their covariance."""
        for start in range(0, self.n, BLOCK):
            yield self.raw(start, min(self.n, start + BLOCK))


def neighbour_rows(
    spec: ProductSpec,
    start: int,
    stop_row: int,
    device: str,
    *,
    tile: int = TILE,
    stop: Stop | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, np.ndarray]:
    """The columns of rows [start, stop_row) of a ``neighbours`` or ``neighbours_null`` product.

    Args:
        spec: the product; where the SAEs lie stands in its ``sae`` and in ``model["other"]``.
        start, stop_row: features, or random directions.
        device: a torch device.
        tile: rows multiplied at once.
        stop: polled between slices of a product.
        progress: told the share done.

    Raises:
        Cancelled: ``stop`` said so.
        WeightsError: weights that cannot be read.
        WorkError: not a product of this kind.
    """
    if spec.analysis not in schema.ANALYSES:
        raise WorkError(f"analysis {spec.analysis!r}", "one of " + ", ".join(schema.ANALYSES))
    path, identity = str(spec.model["path"]), spec.identity
    info = SaeInfo(**spec.model["other"])
    centre = bool(identity["centre"])
    null = NullDefinition(**identity["null"]) if "null" in identity else None
    k = 1 if null is not None else neighbours_from_json(identity["definition"]).k
    buffer = TileBuffer(device)
    out: dict[str, np.ndarray] = {}
    columns = schema.neighbours_columns() if null is None else schema.null_columns()
    for at, kind in enumerate(schema.KINDS):
        other = _Dictionary(info, identity["other"], path, kind, centre, device)
        own = None
        if spec.sae is not None:
            own = _Dictionary(SaeInfo(**spec.sae), identity["sae"], path, kind, centre, device)
        if other.absent or (own is not None and own.absent):
            for name, column in columns.items():
                if name.startswith(kind + "."):
                    out[name] = schema.empty_near(column, stop_row - start, k)
            continue

        def step(done: int, before: int = at, of: int = other.n) -> None:
            if progress is not None:
                progress((before + done / of) / len(schema.KINDS))

        if null is not None:
            directions = _directions(null, own, kind, other, stop)[start:stop_row]
            rows, gone = (x.to(other.device) for x in unit_rows(directions, centre=centre))
        else:
            assert own is not None
            rows, gone = own.rows(start, stop_row)
        same = null is None and identity["sae"] == identity["other"]
        cosines, ids = nearest(
            rows,
            gone,
            other.blocks(stop),
            k,
            itself=start if same else None,
            tile=tile,
            buffer=buffer,
            stop=stop,
            progress=step,
        )
        if null is not None:
            out[f"{kind}.best"] = cosines[:, 0].cpu().numpy()
        else:
            out[f"{kind}.cos"] = cosines.cpu().numpy()
            out[f"{kind}.id"] = ids.cpu().numpy().astype(np.int32)
    return out


def _directions(
    null: NullDefinition, own: _Dictionary | None, kind: str, other: _Dictionary, stop: Stop | None
) -> Tensor:
    """A null's directions ``[n, D]``: those of E1's sides, so that row i of all nulls is one direction."""
    if own is None:
        dim = other.source.decoder_rows(0, 0).shape[1]
        return nulls.directions(null.kind, null.n, null.seed * len(SIDES) + (kind == schema.ENC), d_model=dim)
    return nulls.directions(null.kind, null.n, null.seed, rows=own.raw_blocks, stop=stop)
