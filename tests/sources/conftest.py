"""Tiny models of every type, built once per session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures import MODEL_TYPES, tiny_model
from wbtui.catalog.models import ModelInfo, model_info
from wbtui.catalog.saes import SaeInfo, read_sae
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import SaeSource


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model type -> folder; some of them sharded."""
    root = tmp_path_factory.mktemp("models")
    return {
        t: tiny_model(root, t, seed=i, sharded=t in ("gemma2", "gpt2", "gemma3", "qwen3_5"))
        for i, t in enumerate(MODEL_TYPES)
    }


def load_reference(folder: Path) -> Any:
    """The real model, in float32, from the same files."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def info_of(folder: Path) -> ModelInfo:
    """The catalog's entry for a folder."""
    return model_info(folder.name, folder, "folder")


def source_of(model_folder: Path, sae_folder: Path) -> tuple[SaeInfo, SaeSource]:
    """An SAE as the catalog and the sources room see it."""
    info = read_sae(info_of(model_folder), sae_folder)
    return info, SaeSource(info, Checkpoint(model_folder))


class Tap:
    """Input and output of modules of a real model, by name, during one forward pass."""

    def __init__(self, model: Any, *names: str) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        for name in names:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], output: Any) -> None:
            self.inputs[name] = args[0].detach()[0]
            self.outputs[name] = (output[0] if isinstance(output, tuple) else output).detach()[0]

        return hook


IDS = torch.tensor([[0, 17, 301, 250, 5, 99, 390, 61]])
