"""Finding models: demo, folders, local Hub cache; and the errors for what cannot be one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.catalog.conftest import LAYERS, D, V, write_model
from wbtui.catalog.models import find_model, list_models
from wbtui.errors import UsageError, WeightsError


def test_folder(model_folder: Path) -> None:
    info = find_model(str(model_folder))
    assert (info.d_model, info.d_vocab, info.n_layers, info.d_head, info.tied) == (D, V, LAYERS, 8, True)


def test_roots_and_hub_cache_are_listed(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(model_folder, snapshot)
    (tmp_path / "hub" / "models--org--tiny" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--tiny" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(tmp_path))
    names = {m.name: m.kind for m in list_models()}
    assert names["org/tiny"] == "hub"
    assert names["tiny"] == "folder"
    assert find_model("org/tiny").path == str(snapshot)
    assert find_model("org/tiny:abc").path == str(snapshot)
    with pytest.raises(UsageError):
        find_model("org/tiny:other")


@pytest.mark.parametrize("name", ["nothing", "org/nothing", "../../etc", "a//b", "./none", "..", "org/../x", "x\0y"])
def test_unknown_names_are_usage_errors(name: str) -> None:
    with pytest.raises((UsageError, WeightsError)):
        find_model(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"model_type": None}, "model_type"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": -3}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_attention_heads": True}, "num_attention_heads"),
    ],
)
def test_bad_configs_say_what_is_wrong(tmp_path: Path, change: dict[str, object], words: str) -> None:
    folder = write_model(tmp_path / "bad", **change)
    with pytest.raises(WeightsError, match=words) as caught:
        find_model(str(folder))
    assert "config.json" in caught.value.line()


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", '"x"', "[" * 100_000])
def test_config_that_is_not_an_object(model_folder: Path, text: str) -> None:
    (model_folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError):
        find_model(str(model_folder))


def test_demo_is_there() -> None:
    info = find_model("demo")
    config = json.loads((Path(info.path) / "config.json").read_text())
    assert info.kind == "demo"
    assert info.d_vocab == config["vocab_size"]
