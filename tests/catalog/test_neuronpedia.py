"""A page of Neuronpedia is an address: of the SAE here that it shows, by SAELens's registry; and the way back."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.catalog.conftest import write_model, write_sae
from wbtui.address import Address, parse_address
from wbtui.catalog import neuronpedia as np_
from wbtui.catalog.hub import repo_snapshot
from wbtui.catalog.models import find_model
from wbtui.catalog.registry import find_entry, releases
from wbtui.catalog.saes import find_sae
from wbtui.errors import UsageError

PAGE = np_.Page("gemma-2-2b", "12-gemmascope-res-16k", 345)
SAE = "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical"


def hub_model(tmp_path: Path, repo: str) -> Path:
    """A model folder as the Hub cache keeps it."""
    return write_model(tmp_path / "hub" / ("models--" + repo.replace("/", "--")) / "snapshots" / "main")


def hub_sae(tmp_path: Path, name: str, **changes: object) -> None:
    entry = find_entry(name)
    assert entry is not None
    root = tmp_path / "hub" / ("models--" + entry.repo.replace("/", "--")) / "snapshots" / "main"
    write_sae(root / entry.path, **changes)  # type: ignore[arg-type]
    assert repo_snapshot(entry.repo) == root


@pytest.mark.parametrize(
    "text",
    [
        "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345",
        "http://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345/",
        "neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345",
        "//www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345",
        "HTTPS://WWW.Neuronpedia.org/Gemma-2-2b/12-GemmaScope-res-16k/345",
        "https://www.neuronpedia.org/api/feature/gemma-2-2b/12-gemmascope-res-16k/345",
        "https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345?embed=true&embedexplanation=true",
        "  https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345/?embed=true#lists  ",
        "https://neuronpedia.org:443/gemma-2-2b//12-gemmascope-res-16k/345",
    ],
)
def test_every_form_is_one_page(text: str) -> None:
    assert np_.is_page(text)
    assert np_.page_of(text) == PAGE
    assert np_.entry_of(PAGE).name == SAE


def test_a_source_page_has_no_feature() -> None:
    page = np_.page_of("neuronpedia.org/gpt2-small/8-res-jb/")
    assert page == np_.Page("gpt2-small", "8-res-jb", None)
    assert np_.entry_of(page).name == "gpt2-small-res-jb/blocks.8.hook_resid_pre"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://neuronpedia.org", "first page"),
        ("https://neuronpedia.org/", "first page"),
        ("https://neuronpedia.org/gemma-2-2b", "/gemma-2-2b"),
        ("https://neuronpedia.org/list/abc", "/list/abc"),
        ("https://neuronpedia.org/api/search", "/api/search"),
        ("https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345/more", "345/more"),
        ("https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/x", "'x'"),
        ("https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/-1", "'-1'"),
        ("https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/" + "9" * 40, "number"),
        ("https://neuronpedia.org/gemma-2-2b/12-gemmascope-res-17k/3", "12-gemmascope-res-16k"),
        ("https://neuronpedia.org/gemma-22b/12-gemmascope-res-16k/3", "gemma-2-2b"),
        ("https://neuronpedia.org/gemma-2-2b/gemmascope-res-16k", "a set of 26 sources"),
    ],
)
def test_other_pages_are_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_address(text)
    assert said in error.value.line()


@pytest.mark.parametrize("text", ["neuronpedia.orga/x/y", "demo@neuronpedia.org", "./neuronpedia.org/a@L3", "x"])
def test_what_only_looks_like_one(text: str) -> None:
    assert not np_.is_page(text)
    assert parse_address(text)


def test_what_is_not_here_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    """WHEN SAE, or model, or both are missing THEN the line says which, what it is, and the command."""
    url = "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/345"
    with pytest.raises(np_.NotHere) as error:
        parse_address(url)
    line = error.value.line()
    assert SAE in line and "google/gemma-2-2b" in line and "SAE and model are not on this disk" in line
    command = line.split("`")[1]
    assert shlex.split(command) == ["wbtui", "download", "google/gemma-2-2b", SAE]
    hub_sae(tmp_path, SAE)
    with pytest.raises(np_.NotHere, match="its model is not on this disk"):
        parse_address(url)
    hub_model(tmp_path, "google/gemma-2-2b")
    assert parse_address(url) == Address("google/gemma-2-2b", SAE, 345)


def test_only_the_sae_is_missing(tmp_path: Path) -> None:
    hub_model(tmp_path, "google/gemma-2-2b")
    with pytest.raises(np_.NotHere, match="the SAE is not on this disk"):
        parse_address("neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k")


def test_an_old_name_of_the_model_is_the_model(tmp_path: Path) -> None:
    """``gpt2``, ``openai-community/gpt2`` and ``gpt2-small`` are one."""
    hub_model(tmp_path, "gpt2")
    name = "gpt2-small-res-jb/blocks.1.hook_resid_pre"
    hub_sae(tmp_path, name)
    assert parse_address("neuronpedia.org/gpt2-small/1-res-jb/7") == Address("gpt2", name, 7)


def test_a_local_sae_that_names_its_source(
    tmp_path: Path, make_sae: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """WHEN an SAE's own config has a Neuronpedia id, known to the registry or not THEN its page opens it."""
    write_model(tmp_path / "roots" / "gemma-2-2b")
    monkeypatch.setenv("WBTUI_MODEL_ROOTS", str(tmp_path / "roots"))
    folder = tmp_path / "roots" / "gemma-2-2b" / "saes" / "mine"
    write_sae(
        folder, model_name="gemma-2-2b",
        metadata={
            "hook_name": "blocks.1.hook_resid_post", "model_name": "gemma-2-2b", "neuronpedia_id": "gemma-2-2b/1-mine",
        },
    )  # fmt: skip
    model = find_model("gemma-2-2b")
    assert parse_address("neuronpedia.org/gemma-2-2b/1-mine/3") == Address("gemma-2-2b", "L1", 3)
    assert np_.page_for(find_sae(model, "L1"), 3) == "https://www.neuronpedia.org/gemma-2-2b/1-mine/3"
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"]["neuronpedia_id"] = "x/\x1b[31m"
    (folder / "cfg.json").write_text(json.dumps(config))
    assert np_.page_for(find_sae(model, "L1"), 3) == ""


def test_there_and_back(tmp_path: Path) -> None:
    """Every source of the registry: its page is its own SAE's, and the SAE's page is it."""
    entries = [e for release in releases() for e in release.saes if e.neuronpedia]
    assert len(entries) > 2000
    hub_model(tmp_path, "google/gemma-2-2b")
    hub_sae(tmp_path, SAE)
    sae = find_sae(find_model("google/gemma-2-2b"), SAE)
    for entry in entries:
        url = np_.page_for(replace(sae, name=entry.name), 5)
        assert url == f"https://www.neuronpedia.org/{entry.neuronpedia}/5"
        found = np_.entry_of(np_.page_of(url))
        assert (found.repo, found.path) == (entry.repo, entry.path)
    assert np_.page_for(replace(sae, name=SAE + ":L3"), 5)  # one target of several is of the same source


def test_the_same_file_under_another_release_has_the_page(tmp_path: Path) -> None:
    named = {(e.repo, e.path): e for release in releases() for e in release.saes if e.neuronpedia}
    twins = [
        e for release in releases() for e in release.saes
        if not e.neuronpedia and (e.repo, e.path) in named
    ]  # fmt: skip
    hub_model(tmp_path, "google/gemma-2-2b")
    hub_sae(tmp_path, SAE)
    sae = find_sae(find_model("google/gemma-2-2b"), SAE)
    for twin in twins:
        assert np_.page_for(replace(sae, name=twin.name)).endswith(named[twin.repo, twin.path].neuronpedia)


@given(st.text(max_size=40))
def test_any_page_is_read_or_refused(tail: str) -> None:
    with contextlib.suppress(UsageError):
        np_.entry_of(np_.page_of("https://neuronpedia.org/" + tail))
