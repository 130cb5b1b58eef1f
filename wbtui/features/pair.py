"""Two features' directions, read straight from their files: the cosines of a comparison. numpy only, no torch.

A row of ``W_dec`` and a column of ``W_enc`` as they stand in the residual stream (methods 3.6), centred where every
reader is a LayerNorm. What has to go through weights of the model first (heads, neurons, the MLP's norm) is not made
here: the neighbours product holds those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wbtui.catalog.architectures import architecture_of
from wbtui.catalog.models import read_json
from wbtui.schema_neighbours import DEC, KINDS
from wbtui.tensorfile import TensorEntry, read_header

if TYPE_CHECKING:
    from wbtui.catalog.models import ModelInfo
    from wbtui.catalog.saes import SaeInfo

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class PairCosines:
    """Cosines of two features of one model; NaN where one has no direction that can be read here."""

    decoder: float = math.nan
    encoder: float = math.nan


def pair_cosines(model: ModelInfo, a: SaeInfo, i: int, b: SaeInfo, j: int) -> PairCosines:
    """Cosines of feature ``i`` of ``a`` and ``j`` of ``b``, by decoder rows and by encoder columns.

    Raises:
        WeightsError: files that cannot be read.
    """
    folder = Path(model.path)
    centre = architecture_of(read_json(folder / "config.json", "a config.json"), str(folder)).norm == "layer"
    found = {}
    for kind in KINDS:
        one, two = (_direction(sae, row, kind, centre) for sae, row in ((a, i), (b, j)))
        found[kind] = math.nan if one is None or two is None else _cosine(one, two)
    return PairCosines(*(found[kind] for kind in KINDS))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    length = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.clip(a @ b / length, -1.0, 1.0)) if length > 0 and math.isfinite(length) else math.nan


def _direction(sae: SaeInfo, row: int, kind: str, centre: bool) -> np.ndarray | None:
    """float64 ``[d_model]``, or None where more than the SAE's own file is needed, or it is compressed."""
    places = sae.places
    place = places["decoder"]
    if kind == DEC:
        if sae.site in ("hook_z", "mlp_post"):
            return None
    else:
        if sae.conventions.get("reads") != "stream":
            return None
        place = places["encoder"] or place
        centre = centre or sae.conventions.get("normalize_activations") == "layer_norm"
    if place.get("index") is not None:
        return None
    header = read_header(Path(place["file"]))
    vector = _slice(header.path, header.tensors[place["tensor"]], row, int(place["features"]))
    return None if vector is None else vector - vector.mean() if centre else vector


def _slice(path: Path, entry: TensorEntry, at: int, axis: int) -> np.ndarray | None:
    """One row (axis 0) or column (axis 1) of a stored matrix, float64; None for what cannot be mapped."""
    if entry.packed or entry.dtype not in _DTYPES or len(entry.shape) != 2:
        return None
    flat = np.memmap(path, dtype=_DTYPES[entry.dtype], mode="r", offset=entry.begin, shape=math.prod(entry.shape))
    strides = None if entry.strides is None else tuple(step * flat.itemsize for step in entry.strides)
    data = (
        np.lib.stride_tricks.as_strided(flat, entry.shape, strides, writeable=False)
        if strides
        else (flat.reshape(entry.shape))
    )
    part = np.array(data[at] if axis == 0 else data[:, at])
    if entry.dtype == "BF16":
        part = (part.astype(np.uint32) << 16).view(np.float32)
    return part.astype(np.float64)
