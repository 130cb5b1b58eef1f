"""A model checkpoint read lazily: config and headers at first, then the named tensors alone, mapped.

No model is ever built (design, "What must hold" 1).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.catalog.architectures import Architecture, Dimensions, architecture_of, dimensions
from wbtui.catalog.models import model_config
from wbtui.catalog.tensors import resolve, tensor_files
from wbtui.errors import WeightsError
from wbtui.floats import widened
from wbtui.sources import raw
from wbtui.tensorfile import Header, TensorEntry, read_header

if TYPE_CHECKING:
    import torch


class Checkpoint:
    """A Hugging Face folder: ``config.json`` and safetensors, in one file or in shards with an index.

    Args:
        folder: the checkpoint's folder.

    Attributes:
        config: in its effective form: flat, the class's own values where the file lacks a field.

    Raises:
        WeightsError: no or bad config, an unknown model type, no safetensors.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        where = self.folder / "config.json"
        self.config: dict[str, Any] = model_config(self.folder)
        self.architecture: Architecture = architecture_of(self.config, str(where))
        self.dims: Dimensions = dimensions(self.config, str(where))
        self._files = tensor_files(self.folder)
        self._headers: dict[Path, Header] = {}
        self._mapped: dict[str, torch.Tensor] = {}

    def resolve(self, name: str) -> str:
        """The full name of a tensor, behind whichever prefix these files use.

        Raises:
            WeightsError: no such tensor under any prefix.
        """
        return resolve(self._files, self.architecture, name, str(self.folder))

    def has(self, name: str) -> bool:
        """Whether there is such a tensor, under any prefix."""
        return any(prefix + name in self._files for prefix in (*self.architecture.prefixes, ""))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from its header.

        Raises:
            WeightsError: no such tensor, or its file cannot be read.
        """
        return self._entry(self.resolve(name))[1].shape

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """A tensor in the checkpoint's dtype, mapped: reading it costs when it is used. Shared: do not write into it.

        Args:
            name: as in :mod:`wbtui.catalog.architectures`, with the layer filled in, without prefix.
            shape: what the config says it must be.

        Raises:
            WeightsError: missing tensor or shard, truncated file, a dtype that is not floating point, another shape.
        """
        from wbtui.sources.mapped import mapped  # imports torch, which a lone row does without

        path, entry = self.place(name, shape)
        if entry.name not in self._mapped:
            self._mapped[entry.name] = mapped(path, entry)
        return self._mapped[entry.name]

    def raw(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """As :meth:`tensor`, in numpy (:data:`wbtui.floats.RAW`)."""
        return raw.view(*self.place(name, shape))

    def floats(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A small tensor as a float32 copy."""
        return widened(self.raw(name, shape))

    def place(self, name: str, shape: tuple[int, ...] | None = None) -> tuple[Path, TensorEntry]:
        """File and header entry of a tensor, its shape checked; see :meth:`tensor`."""
        path, entry = self._entry(self.resolve(name))
        if shape is not None and entry.shape != shape:
            raise WeightsError(
                f"{path}: {entry.name} has shape {list(entry.shape)}",
                f"{list(shape)} by {self.folder / 'config.json'}",
                "weights and config are of different models",
            )
        return path, entry

    def _entry(self, full: str) -> tuple[Path, TensorEntry]:
        """File and header entry of a resolved tensor name."""
        path = self._files[full]
        if path not in self._headers:
            if not path.is_file():
                raise WeightsError(
                    f"{path}: no such file",
                    f"the shard that model.safetensors.index.json names for {full}",
                    "the download or copy is not complete",
                )
            self._headers[path] = read_header(path)
        entry = self._headers[path].tensors.get(full)
        if entry is None:
            raise WeightsError(f"{path}: no tensor {full}", "the tensor that model.safetensors.index.json names there")
        return path, entry
