"""The README's tables are what the registries say, and the registry of published SAEs can be searched offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.readme_tables import README, filled
from wbtui.catalog import registry
from wbtui.catalog.formats import FORMATS, by_loader, table


def test_the_readme_says_what_the_format_registry_says() -> None:
    """WHEN a format is added THEN `python tools/readme_tables.py` has to be run."""
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text
    assert all(known.title in text and known.layout in text for known in FORMATS.values())
    assert len(table().splitlines()) == len(FORMATS) + 2


def test_registry_is_whole_and_searchable() -> None:
    assert len(registry.releases()) >= 170
    assert sum(len(release.saes) for release in registry.releases()) >= 13_857
    assert [r.name for r in registry.search("gemma-scope-2b res canonical")] == ["gemma-scope-2b-pt-res-canonical"]
    assert registry.search("no such thing at all") == []
    assert all(by_loader(release.loader) for release in registry.releases())
    assert "sae_lens" in registry.about()


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("gpt2-small", "openai-community/gpt2"),
        ("gpt2", "openai-community/gpt2"),
        ("google/gemma-2-2b", "google/gemma-2-2b"),
        ("google/gemma-2-2b:main", "google/gemma-2-2b"),
        ("./models/gemma-2-2b/", "google/gemma-2-2b"),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B"),
        ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1"),
    ],
)
def test_models_are_found_by_any_of_their_names(name: str, hub: str) -> None:
    found = registry.releases_of(name)
    assert found and {release.model for release in found} == {hub}


def test_a_base_model_and_its_instructed_twin_are_two() -> None:
    assert not {r.name for r in registry.releases_of("gemma-2-9b")} & {
        r.name for r in registry.releases_of("gemma-2-9b-it")
    }


def test_every_registry_model_has_a_hub_id() -> None:
    assert all("/" in model for model in registry.models())


def test_entries_are_found_by_name() -> None:
    entry = registry.find_entry("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical")
    assert entry is not None and entry.path.startswith("layer_12/width_16k/average_l0_")
    assert registry.find_entry("gemma-scope-2b-pt-res-canonical/layer_99") is None
    assert registry.find_entry("nonsense") is None


def test_reading_the_registry_needs_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys; from wbtui.catalog.registry import releases; releases();"
        "print([m for m in ('sae_lens', 'torch', 'yaml', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
