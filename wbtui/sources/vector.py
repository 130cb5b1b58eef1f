"""A user's vector from a file: a probe, a steering vector, a difference of means. Data, never code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from wbtui.errors import UsageError
from wbtui.sources.mapped import mapped
from wbtui.tensorfile import read_header

MAX_BYTES = 1 << 28


def read_vector(path: str | Path, name: str, d_model: int) -> torch.Tensor:
    """One direction of the residual stream.

    Args:
        path: ``.npy`` (never with pickled objects), or ``.safetensors``.
        name: the tensor in a ``.safetensors`` file; may be empty where there is only one.
        d_model: the width that it must have; ``[1, d_model]`` is taken as ``[d_model]``.

    Returns:
        Tensor: ``[d_model]`` fp32.

    Raises:
        UsageError: no such file or tensor, not numbers, another length, not finite, zero.
        WeightsError: a damaged safetensors file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"{path}: no such file", "a vector in a .npy or .safetensors file")
    shown = str(path)
    if path.suffix == ".safetensors":
        header = read_header(path)
        if not name and len(header.tensors) == 1:
            name = next(iter(header.tensors))
        if name not in header.tensors:
            known = ", ".join(list(header.tensors)[:8]) + (" …" if len(header.tensors) > 8 else "")
            what = f"no tensor {name!r}" if name else f"{len(header.tensors)} tensors, and no name said"
            raise UsageError(f"{path}: {what}", f"one of {known}", f"name it: dir:{path.name}:NAME")
        shown = f"{path}:{name}"
        vector = mapped(path, header.tensors[name]).to(torch.float32, copy=True)
    else:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UsageError(f"{path}: {path.stat().st_size} bytes", "one vector")
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path}: not a .npy array ({error})", "a numeric array saved by numpy.save") from None
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise UsageError(f"{path}: values of type {getattr(array, 'dtype', '?')}", "real numbers")
        vector = torch.from_numpy(array.astype(np.float32))
    if vector.ndim == 2 and 1 in vector.shape:
        vector = vector.flatten()
    if tuple(vector.shape) != (d_model,):
        raise UsageError(
            f"{shown}: shape {list(vector.shape)}", f"[{d_model}], the model's d_model", "is it of another model?"
        )
    if not bool(torch.isfinite(vector).all()):
        bad = (~torch.isfinite(vector)).sum()
        raise UsageError(f"{shown}: {int(bad)} values that are not finite", "a finite vector")
    if not bool(vector.any()):
        raise UsageError(f"{shown}: the zero vector", "a direction")
    return vector
