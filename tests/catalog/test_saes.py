"""Finding SAEs: names, roots, and what does not fit the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.catalog.conftest import D, write_sae
from wbtui.catalog.models import find_model
from wbtui.catalog.saes import find_sae, list_saes
from wbtui.errors import UsageError, WeightsError


def test_saes_in_the_model_folder_get_short_names(model_folder: Path) -> None:
    write_sae(model_folder / "saes" / "blocks.0.hook_resid_post", layer=0)
    write_sae(model_folder / "saes" / "L1", layer=1)
    write_sae(model_folder / "saes" / "L1-seed2", layer=1)
    write_sae(model_folder / "saes" / "deep" / "er" / "last", layer=2)
    model = find_model(str(model_folder))
    saes = list_saes(model)
    assert [s.name for s in saes] == ["L0", "L1", "L1-seed2", "L2"]
    assert [s.reader_layer for s in saes] == [1, 2, 2, None]
    assert find_sae(model, "1").name == "L1"
    assert find_sae(model, "l2").name == "L2"
    with pytest.raises(UsageError, match="layer 7"):
        find_sae(model, "L7")
    with pytest.raises(UsageError, match="L1-seed2"):
        find_sae(model, "L1-seed3")


def test_roots_list_only_what_names_the_model(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sae(tmp_path / "roots" / "a", layer=0, model_name="org/tiny")
    write_sae(tmp_path / "roots" / "b", layer=1, model_name="other")
    monkeypatch.setenv("WBTUI_SAE_ROOTS", str(tmp_path / "roots"))
    model = find_model(str(model_folder))
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(tmp_path))
    assert [s.name for s in list_saes(find_model("tiny"))] == ["L0"]
    assert find_sae(model, str(tmp_path / "roots" / "b")).layer == 1


def test_same_layer_twice_gets_distinct_names(model_folder: Path) -> None:
    for name in ("x", "y", "z"):
        write_sae(model_folder / "saes" / name, layer=1)
    names = [s.name for s in list_saes(find_model(str(model_folder)))]
    assert len(set(names)) == 3


def test_symlink_loop_ends(model_folder: Path) -> None:
    saes = model_folder / "saes"
    write_sae(saes / "L0", layer=0)
    (saes / "loop").symlink_to(saes)
    assert any(s.name == "L0" for s in list_saes(find_model(str(model_folder))))


def test_width_that_fits_no_hook(model_folder: Path, make_sae: Callable[..., Path]) -> None:
    folder = make_sae("wide", d_in=D + 1)
    with pytest.raises(WeightsError, match=f"d_in {D + 1}.*expected {D}"):
        find_sae(find_model(str(model_folder)), str(folder))


def test_layer_the_model_has_not(model_folder: Path, make_sae: Callable[..., Path]) -> None:
    with pytest.raises(WeightsError, match="layer 9"):
        find_sae(find_model(str(model_folder)), str(make_sae("high", layer=9)))


def test_folder_without_weights(model_folder: Path, make_sae: Callable[..., Path]) -> None:
    folder = make_sae("empty")
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(WeightsError, match="sae_weights"):
        find_sae(find_model(str(model_folder)), str(folder))
    with pytest.raises(UsageError):
        find_sae(find_model(str(model_folder)), "./nowhere")
