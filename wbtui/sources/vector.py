"""A user's vector from a file: a probe, a steering vector, a difference of means. Data, never code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from wbtui.errors import UsageError
from wbtui.sources.mapped import DTYPES, mapped
from wbtui.tensorfile import read_header

AGAIN = "save it with numpy.save(FILE, vector.astype('float32'))"


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
        raise UsageError(
            f"{path}: no such file", "a vector in a .npy or .safetensors file", "give its path from the working folder"
        )
    vector = _tensor(path, name, d_model) if path.suffix == ".safetensors" else _array(path, d_model)
    shown = f"{path}:{name}" if name else str(path)
    if not bool(torch.isfinite(vector).all()):
        bad = int((~torch.isfinite(vector)).sum())
        raise UsageError(
            f"{shown}: {bad} values that are not finite",
            "a finite vector",
            "look at how it was computed, and save it anew",
        )
    if not bool(vector.any()):
        raise UsageError(f"{shown}: the zero vector", "a direction", "look at how it was computed, and save it anew")
    return vector


def _tensor(path: Path, name: str, d_model: int) -> torch.Tensor:
    header = read_header(path)
    if not name and len(header.tensors) == 1:
        name = next(iter(header.tensors))
    if name not in header.tensors:
        known = ", ".join(list(header.tensors)[:8]) + (" …" if len(header.tensors) > 8 else "")
        what = f"no tensor {name!r}" if name else f"{len(header.tensors)} tensors, and no name said"
        raise UsageError(f"{path}: {what}", f"one of {known or 'none'}", f"name it: dir:{path.name}:NAME")
    entry = header.tensors[name]
    if entry.dtype not in DTYPES:
        raise UsageError(f"{path}:{name}: values of type {entry.dtype}", "real numbers", AGAIN)
    _check_shape(f"{path}:{name}", entry.shape, d_model)
    return mapped(path, entry).to(torch.float32, copy=True).flatten()


def _array(path: Path, d_model: int) -> torch.Tensor:
    try:  # mapped: a header may claim any size, and an array of objects would have to be unpickled
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, OverflowError, SyntaxError, TypeError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not a .npy array of numbers ({why})", "a numeric array", AGAIN) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UsageError(f"{path}: values of type {getattr(array, 'dtype', '?')}", "real numbers", AGAIN)
    _check_shape(str(path), array.shape, d_model)
    return torch.from_numpy(array.astype(np.float32)).flatten()


def _check_shape(shown: str, shape: tuple[int, ...], d_model: int) -> None:
    """``[d_model]`` or ``[1, d_model]``, told by the header alone."""
    if tuple(n for n in shape if n != 1 or len(shape) == 1) != (d_model,):
        raise UsageError(
            f"{shown}: shape {list(shape)}",
            f"[{d_model}], the model's d_model",
            "give one vector of this model's stream (is it another model's?)",
        )
