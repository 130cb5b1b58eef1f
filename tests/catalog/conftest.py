"""Folders as users have them, made with numpy: the catalog never needs torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

D, V, LAYERS = 16, 40, 3


def write_model(folder: Path, **changes: Any) -> Path:
    """A gemma2-shaped folder: only the tensors that E1 uses."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "gemma2", "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "head_dim": 8,
        "intermediate_size": 24, "vocab_size": V, "tie_word_embeddings": True,
    }  # fmt: skip
    config.update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    tensors = {
        "model.embed_tokens.weight": rng.normal(size=(V, D)).astype("float32"),
        "model.norm.weight": rng.normal(size=D).astype("float32"),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_sae(folder: Path, layer: int = 1, d_in: int = D, model_name: str = "tiny", **changes: Any) -> Path:
    """A SAELens folder of the ``standard`` architecture."""
    folder.mkdir(parents=True)
    config = {
        "architecture": "standard", "d_in": d_in, "d_sae": 20, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": model_name},
    }  # fmt: skip
    config.update(changes)
    (folder / "cfg.json").write_text(json.dumps(config))
    rng = np.random.default_rng(layer)
    save_file(
        {
            "W_enc": rng.normal(size=(d_in, 20)).astype("float32"),
            "W_dec": rng.normal(size=(20, d_in)).astype("float32"),
            "b_enc": np.zeros(20, "float32"),
            "b_dec": np.zeros(d_in, "float32"),
        },
        folder / "sae_weights.safetensors",
    )
    return folder


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


@pytest.fixture
def make_sae(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, **kwargs: Any) -> Path:
        return write_sae(tmp_path / name, **kwargs)

    return make


@pytest.fixture(autouse=True)
def no_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own caches and roots stay out of the tests."""
    for name in ("WBTUI_MODEL_ROOTS", "WBTUI_SAE_ROOTS", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
