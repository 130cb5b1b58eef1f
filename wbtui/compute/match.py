"""The match product: from two SAEs' files to columns. A stopped pass goes on where it was, in the same worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wbtui.analysis.assignment import assignment
from wbtui.analysis.match import Dictionary, Progressing, mutual
from wbtui.analysis.streaming import Stop
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.pairing import Pairing
from wbtui.definitions import match_from_json
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import SaeSource
from wbtui.store.keys import ProductSpec

_STOPPED: dict[str, Progressing] = {}
"""The last pass that was stopped, by product key and device: a few numbers a feature."""
ASSIGNING = 0.75
"""Share of the progress that the assignment stands for: about what it takes of the time at 4,096 and at 16,384."""


def match_columns(
    spec: ProductSpec,
    device: str,
    *,
    stop: Stop | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, np.ndarray]:
    """The columns of a ``match`` product; see :func:`wbtui.analysis.match.mutual`.

    Raises:
        Cancelled: ``stop`` said so.
        WeightsError: weights that cannot be read.
    """
    definition = match_from_json(spec.identity["definition"])
    centre = bool(spec.identity["centre"])
    assert spec.sae is not None
    a = _dictionary(str(spec.model["path"]), spec.sae, centre)
    b = _dictionary(str(spec.model["other_model"]["path"]), spec.model["other"], centre)
    share = 1.0 - ASSIGNING if definition.assign else 1.0

    def told(done: float) -> None:
        if progress is not None:
            progress(done * share)

    key = f"{spec.key} {device}"
    state = _STOPPED.pop(key, None) or Progressing()
    _STOPPED.clear()
    _STOPPED[key] = state  # taken out again when the pass is through
    out = mutual(
        a, b, n_null=definition.n_null, seed=definition.seed, device=device, stop=stop, progress=told,
        state=state,
    )  # fmt: skip
    if definition.assign:
        with Pairing(stop, lambda done: None if progress is None else progress(share + done * ASSIGNING)) as pairing:
            out |= assignment(a, b, room=pairing.room, solve=pairing.solve, device=device, stop=stop)
    _STOPPED.pop(key, None)
    return out


def _dictionary(path: str, sae: dict[str, Any], centre: bool) -> Dictionary:
    source = SaeSource(SaeInfo(**sae), Checkpoint(path))

    def rows(start: int, stop: int) -> torch.Tensor:
        return source.decoder_rows(start, stop)

    return Dictionary(rows, source.n, centre)
