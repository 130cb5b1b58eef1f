"""A steering vector as lm-evaluation-harness loads it without an SAE library (``--model steered``, a ``.pt``).

One dictionary, ``{hookpoint: {steering_vector, steering_coefficient, action, bias, head_index}}``: the decoder row as
it is written into the residual stream ``[d_model]`` fp32, and ``b_dec`` where the action is ``clamp`` (the
harness takes it off before it measures the direction, and refuses one with ``add``).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from wbtui.catalog.saes import SaeInfo
from wbtui.compute.child import answer
from wbtui.errors import StoreError, UsageError, WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.mapped import mapped
from wbtui.sources.sae import SaeSource
from wbtui.tensorfile import read_header


def write_steering(request: dict[str, Any]) -> dict[str, Any]:
    """Write the file, whole or not at all.

    Args:
        request: {model: path of the checkpoint, sae: ``SaeInfo`` as data, feature, hookpoint, coefficient, action,
            out}.

    Returns:
        dict: {norm: of the decoder row}.

    Raises:
        UsageError: no such feature.
        WeightsError: weights that cannot be read; a decoder row that is zero or not finite.
        StoreError: the file cannot be written.
    """
    info = SaeInfo(**request["sae"])
    feature, out = int(request["feature"]), Path(request["out"])
    if not 0 <= feature < info.d_sae:
        raise UsageError(f"feature {feature} of {info.name}", f"0 to {info.d_sae - 1}")
    row = SaeSource(info, Checkpoint(request["model"])).decoder_rows(feature, feature + 1)[0]
    if not bool(torch.isfinite(row).all()) or not bool(row.any()):
        raise WeightsError(f"{info.name}#{feature}: its decoder row is zero or not finite", "a direction")
    entry = {
        "steering_vector": row.clone(),
        "steering_coefficient": float(request["coefficient"]),
        "action": request["action"],
        "bias": _bias(info, len(row)) if request["action"] == "clamp" else None,
        "head_index": None,
    }
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                torch.save({request["hookpoint"]: entry}, file)
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: {error.strerror or error}", "a place that can be written") from None
    return {"norm": float(row.double().norm())}


def _bias(info: SaeInfo, width: int) -> torch.Tensor | None:
    """``b_dec``, where it stands beside the decoder in its file."""
    path = Path(info.places["decoder"]["file"])
    entry = read_header(path).tensors.get("b_dec")
    if entry is None or entry.shape != (width,):
        return None
    return mapped(path, entry).to(torch.float32, copy=True)


if __name__ == "__main__":
    sys.exit(answer(write_steering))
