"""Directions of an SAE as one safetensors file that any tool reads, written block by block in a process of its own.

A row a feature, in the order asked for: ``W_dec`` ``[n, d_out]`` unit decoder rows in the hook's own basis and
``decoder_norm`` ``[n]`` their lengths (``W_dec * decoder_norm`` is the SAE's); ``W_enc_columns`` ``[n, d_in]`` the
encoder columns as they are; ``b_enc``, ``threshold`` and the other values of a feature where the SAE has them ``[n]``;
``b_dec`` ``[d_in]``; ``feature`` ``[n]`` the numbers. Where the hook is not the stream itself, ``direction``
``[n, d_model]`` holds the unit directions in the residual stream (methods 3.6).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbtui import __version__
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.child import answer
from wbtui.errors import WorkError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.mapped import mapped
from wbtui.sources.sae import DictionaryMatrix, SaeSource
from wbtui.store.refusals import reported
from wbtui.store.writer import writing
from wbtui.tensorfile import read_header

BLOCK = 2048
PER_FEATURE = ("b_enc", "threshold", "log_threshold", "b_mag", "b_gate", "r_mag")
STREAM = ("resid_pre", "resid_mid", "resid_post")


def write_vectors(request: dict[str, Any]) -> dict[str, Any]:
    """Write the file, whole or not at all.

    Args:
        request: {model: path of the checkpoint, sae: ``SaeInfo`` as data, rows: numbers, None for all, out: path,
            metadata: text}.

    Returns:
        dict: {rows, tensors, bytes}.

    Raises:
        WeightsError: weights that cannot be read.
        StoreError: the file cannot be written.
    """
    info = SaeInfo(**request["sae"])
    source = SaeSource(info, Checkpoint(request["model"]))
    numbers = np.arange(info.d_sae) if request["rows"] is None else np.asarray(request["rows"], dtype=np.int64)
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < info.d_sae):
        raise WorkError(f"features {numbers.min()} to {numbers.max()}", f"0 to {info.d_sae - 1}")
    places = info.places
    decoder = DictionaryMatrix(places["decoder"], info.d_sae, info.d_out)
    encoder = None if places["encoder"] is None else DictionaryMatrix(places["encoder"], info.d_sae, info.d_in)
    extra = _values(decoder.path, info, numbers)
    n = len(numbers)
    f4, i8 = np.dtype("<f4"), np.dtype("<i8")
    layout: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
        "feature": (i8, (n,)),
        "W_dec": (f4, (n, info.d_out)),
        "decoder_norm": (f4, (n,)),
        "W_enc_columns": (f4, (n, info.d_in)),
        **{name: (f4, values.shape) for name, values in extra.items()},
    }
    if info.site not in STREAM:
        layout["direction"] = (f4, (n, source.decoder_rows(0, min(1, info.d_sae)).shape[1]))
    out = Path(request["out"])
    with reported(out, "write it"), writing(out, layout, _metadata(request["metadata"], info)) as file:
        file.put("feature", 0, numbers.astype(i8))
        for name, values in extra.items():
            file.put(name, 0, values)
        for at in range(0, n, BLOCK):
            part = numbers[at : at + BLOCK]
            rows = _pick(decoder.rows, part)
            unit, norm = _unit(rows)
            file.put("W_dec", at, unit)
            file.put("decoder_norm", at, norm)
            columns = rows if encoder is None else _pick(encoder.rows, part)
            file.put("W_enc_columns", at, np.ascontiguousarray(columns.numpy(), f4))
            if "direction" in layout:
                file.put("direction", at, _unit(_pick(source.decoder_rows, part))[0])
    return {"rows": n, "tensors": sorted(layout), "bytes": out.stat().st_size}


def _pick(read: Any, numbers: np.ndarray) -> torch.Tensor:
    """Rows by number: one read of the span where they lie close, else one each."""
    low, high = int(numbers.min()), int(numbers.max()) + 1
    if high - low <= 4 * len(numbers):
        return read(low, high)[torch.from_numpy(numbers - low)]
    return torch.cat([read(int(i), int(i) + 1) for i in numbers])


def _unit(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows and lengths, by fp64; a row without a length stays as it is."""
    exact = rows.double()
    length = torch.linalg.vector_norm(exact, dim=1)
    good = torch.isfinite(length) & (length > 0)
    unit = torch.where(good[:, None], exact / length[:, None], exact)
    return unit.float().numpy(), length.float().numpy()


def _values(path: Path, info: SaeInfo, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Biases and thresholds that stand beside the decoder in its file, under SAELens's names."""
    tensors = read_header(path).tensors
    out = {}
    for name in PER_FEATURE:
        if name in tensors and tensors[name].shape == (info.d_sae,):
            out[name] = mapped(path, tensors[name]).to(torch.float32).numpy()[numbers]
    if "b_dec" in tensors and tensors["b_dec"].shape == (info.d_in,):
        out["b_dec"] = mapped(path, tensors["b_dec"]).to(torch.float32).numpy().copy()
    return out


def _metadata(given: dict[str, str], info: SaeInfo) -> dict[str, str]:
    about = {
        "schema": "wbtui.vectors/1",
        "wbtui_version": __version__,
        "hook_name": info.hook_name,
        "site": info.site,
        "layer": str(info.layer),
        "architecture": info.architecture,
        "conventions": json.dumps(info.conventions, sort_keys=True),
        "sae_format": info.format,
        "reading": "W_dec: unit decoder rows; W_dec * decoder_norm: the SAE's own rows; W_enc_columns: columns of "
        "W_enc, one a row; feature: their numbers; direction, where it is there: unit rows in the residual stream",
    }
    return {**about, **{str(k): str(v) for k, v in given.items()}}


if __name__ == "__main__":
    sys.exit(answer(write_vectors))
