"""Layouts that SAELens knows and we do not: its loader reads them, offline and without unpickling, and we take over.

The unknown layout is "acme": a loader and a release put into the installed SAELens for the test.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.fixtures import sae_formats as made
from tests.fixtures.models import D_MODEL, tiny_model
from tests.sources.conftest import info_of
from wbtui.catalog import from_saelens
from wbtui.catalog.formats import FORMATS, by_loader
from wbtui.catalog.models import ModelInfo
from wbtui.catalog.registry import Entry, find_entry
from wbtui.catalog.saes import SaeInfo, find_sae, list_saes
from wbtui.check.work import check
from wbtui.cli import main
from wbtui.errors import UsageError, WeightsError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.sae import SaeSource
from wbtui.sources.through_saelens import SAFE, convert, entry_of, load

REPO, D_SAE = "acme/saes", 40
NAME = "acme-res/layer_1"
Loader = Callable[[Path], tuple[dict[str, Any], dict[str, torch.Tensor]]]


def cached(hub: Path, repo: str, inside: str) -> Path:
    """A path in a repository's snapshot of a Hub cache."""
    folder = hub / ("models--" + repo.replace("/", "--"))
    commit = "f" * 40
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    path = folder / "snapshots" / commit / inside
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, ours, for us and for huggingface_hub; no network."""
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("WBTUI_CACHE_DIR", str(tmp_path / "cache"))
    for name, value in SAFE.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "hub"


@pytest.fixture
def model(tmp_path: Path) -> ModelInfo:
    return info_of(tiny_model(tmp_path / "tiny", "llama", seed=1))


@pytest.fixture
def acme(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Loader], None]:
    """Puts a loader and a release called acme-res into SAELens."""
    from huggingface_hub import hf_hub_download
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup, get_pretrained_saes_directory

    entry = PretrainedSAELookup(
        "acme-res", REPO, "tiny-llama", "acme", {"layer_1": "L1/acme.safetensors"}, {}, {}, {}, {}, None
    )
    monkeypatch.setitem(get_pretrained_saes_directory(), "acme-res", entry)
    monkeypatch.setattr(from_saelens, "saelens_has", lambda release: release == "acme-res")

    def put(read: Loader) -> None:
        def load(repo_id: str, folder_name: str, **_: Any) -> tuple[Any, Any, None]:
            return *read(Path(hf_hub_download(repo_id=repo_id, filename=folder_name))), None

        monkeypatch.setitem(loaders.NAMED_PRETRAINED_SAE_LOADERS, "acme", load)

    return put


def config(**changes: Any) -> dict[str, Any]:
    return {
        "architecture": "standard", "d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
        "hook_name": "blocks.1.hook_resid_post", "model_name": "tiny-llama", "apply_b_dec_to_input": False,
        "normalize_activations": "none", **changes,
    }  # fmt: skip


def reads(**changes: Any) -> Loader:
    """A loader of "acme" files: ``detectors [d_sae, d]`` and ``writers [d_sae, d]``, half of their real size."""

    def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        from safetensors.torch import load_file

        held = load_file(path)
        state = {
            "W_enc": (2 * held["detectors"]).T, "W_dec": 2 * held["writers"],
            "b_enc": torch.zeros(D_SAE), "b_dec": held["mean"],
        }  # fmt: skip
        return config(**changes), state

    return read


def write_acme(hub: Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    held = {k: torch.randn(D_SAE, D_MODEL, generator=generator) for k in ("detectors", "writers")}
    held["mean"] = torch.randn(D_MODEL, generator=generator)
    save_file(held, cached(hub, REPO, "L1/acme.safetensors"))
    return held


def left(hub: Path) -> list[Path]:
    folder = hub.parent / "cache" / from_saelens.FOLDER
    return sorted(folder.iterdir()) if folder.exists() else []


def test_what_only_saelens_reads_becomes_an_sae_like_any_other(
    acme: Callable[[Loader], None], hub: Path, model: ModelInfo
) -> None:
    """GIVEN a layout that we do not know, in the Hub cache WHEN SAELens has read it THEN directions, scale, hook and
    readers are what the layout means, it is listed, and it says whose word it is."""
    acme(reads())
    held = write_acme(hub)
    with pytest.raises(UsageError, match=f"does not read itself.*`wbtui download {model.name} {NAME}`"):
        find_sae(model, NAME)
    assert NAME not in [sae.name for sae in list_saes(model)]
    answer = convert(NAME)
    assert (answer["loader"], answer["repo"]) == ("acme", REPO)
    info = find_sae(model, NAME)
    assert (info.site, info.layer, info.reader_layer, info.d_sae) == ("resid_post", 1, 2, D_SAE)
    assert info.conventions["reads"] == "stream" and info.conventions["apply_b_dec_to_input"] is False
    source = SaeSource(info, Checkpoint(model.path))
    assert torch.equal(source.decoder_rows(0, D_SAE), 2 * held["writers"])
    encoder = source.encoder_rows(0, D_SAE)
    assert encoder is not None and torch.equal(encoder, 2 * held["detectors"])
    assert any("SAELens" in note and "acme" in note for note in info.notes)
    assert [sae.name for sae in list_saes(model)] == [NAME]
    other = Path(model.path).parent / "another"
    other.symlink_to(model.path)
    assert [sae.name for sae in list_saes(info_of(other))] == []  # it names tiny-llama
    assert len(left(hub)) == 1
    convert(NAME)  # again: in place of the first, nothing beside it
    assert len(left(hub)) == 1 and find_sae(model, NAME).path == info.path


def test_an_sae_of_another_model_is_named(acme: Callable[[Loader], None], hub: Path, model: ModelInfo) -> None:
    acme(reads(model_name="someone-else"))
    write_acme(hub)
    convert(NAME)
    assert any("trained on someone-else" in note for note in find_sae(model, NAME).notes)


def test_files_that_are_not_here_are_named_not_asked_for(acme: Callable[[Loader], None], hub: Path) -> None:
    acme(reads())
    answer = convert(NAME)
    assert answer["missing"] and (answer["repo"], answer["path"]) == (REPO, "L1/acme.safetensors")
    assert left(hub) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("acme-rez/layer_1", "no release 'acme-rez'.*acme-res"),
        ("acme-res/layer_2", "no SAE 'layer_2' in acme-res.*layer_1"),
        ("acme-res/layer_1", "layout 'acme', for which SAELens .* has no loader"),
    ],
)
def test_names_that_saelens_has_not(
    acme: Callable[[Loader], None], name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=words):
        convert(name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hook_name": "blocks.1.somewhere"}, "hook 'blocks.1.somewhere'"),
        ({"architecture": "nonsense"}, "SAELens .* does not read it"),
        ({"d_sae": D_SAE + 1}, "d_sae|does not read it|shape"),
        ({"normalize_activations": "whatever"}, "normalize_activations|does not read it"),
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_is_kept(
    acme: Callable[[Loader], None], hub: Path, changes: dict[str, Any], words: str
) -> None:
    acme(reads(**changes))
    write_acme(hub)
    with pytest.raises(WeightsError, match=words):
        convert(NAME)
    assert left(hub) == []


def test_no_loader_of_saelens_may_unpickle(acme: Callable[[Loader], None], hub: Path, tmp_path: Path) -> None:
    """GIVEN a loader that asks for objects THEN torch refuses the file and the object is never built."""
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return config(), torch.load(path, weights_only=False)

    acme(read)
    torch.save({"W_dec": Evil()}, cached(hub, REPO, "L1/acme.safetensors"))
    with pytest.raises(WeightsError, match="does not read it"):
        convert(NAME)
    assert not canary.exists() and left(hub) == []
    pickle.loads(pickle.dumps(Evil()))  # it would have run
    assert canary.exists()


def test_a_source_that_lies_is_no_source(hub: Path, model: ModelInfo, tmp_path: Path) -> None:
    """A folder that claims another name, or holds junk, is passed over."""
    folder = from_saelens.place("acme-res/layer_1")
    folder.mkdir(parents=True)
    for text in ("", "[]", "{", "[" * 100_000, json.dumps({"name": "acme-res/layer_2"}), json.dumps({"name": 3})):
        (folder / from_saelens.SOURCE).write_text(text)
        assert from_saelens.converted("acme-res/layer_1") is None
        assert list(from_saelens.all_converted()) == []


def test_the_registry_of_the_installed_saelens_is_read_as_text() -> None:
    assert from_saelens.saelens_has("gpt2-small-res-jb")
    assert not any(map(from_saelens.saelens_has, ("gpt2-small-res", "nothing", "repo_id", ".*", "a b")))
    assert not from_saelens.goes_through("gpt2-small-res-jb/blocks.0.hook_resid_pre", "sae_lens")
    assert from_saelens.goes_through("gpt2-small-res-jb/blocks.0.hook_resid_pre", "a loader of tomorrow")


NEOX = "sae_bench_pythia70m_sweep_standard_ctx128_0712/blocks.3.hook_resid_post__trainer_10"


def write_neox(hub: Path, tmp_path: Path) -> tuple[ModelInfo, Entry]:
    """A tiny GPT-NeoX, and a dictionary_learning SAE of the registry in the Hub cache."""
    entry = find_entry(NEOX)
    assert entry is not None
    written = made.dictionary_learning(tmp_path / "made", D_MODEL)
    for file in ("ae.pt", "config.json"):
        shutil.copyfile(Path(written.path) / file, cached(hub, entry.repo, f"{entry.path}/{file}"))
    return info_of(tiny_model(tmp_path / "tiny", "gpt_neox", seed=1)), entry


def test_a_check_holds_published_layouts_against_saelens(hub: Path, tmp_path: Path) -> None:
    """GIVEN a registry SAE that we read ourselves WHEN `wbtui check` THEN SAELens's own loader gives the same
    directions and pre-activations; what is read as another matrix fails."""
    model, _ = write_neox(hub, tmp_path)
    info = find_sae(model, NEOX)
    assert info.format == "dictionary_learning"

    def rows(sae: SaeInfo) -> dict[str, Any]:
        request = {"model": model.path, "name": "tiny", "sae": dataclasses.asdict(sae), "prompts": ["the cat sat"]}
        return {row["what"]: row for row in check(request)["rows"]}

    found = rows(info)
    assert found["decoder directions"]["passed"] and found["decoder directions"]["difference"] < 1e-7
    assert found["pre-activations"]["passed"]
    wrong = dict(info.weights, decoder=info.weights["encoder"])
    assert rows(dataclasses.replace(info, weights=wrong))["decoder directions"]["passed"] is False
    shutil.rmtree(hub)
    hub.mkdir()
    _, missing = load(NEOX, *entry_of(NEOX))
    assert missing


def test_the_command_hands_over_to_saelens_in_a_process_of_its_own(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GIVEN a dictionary_learning file in the Hub cache and our reader of such files taken away WHEN `wbtui download`
    THEN the real SAELens reads it, offline, and the directions are those that our own reader gives."""
    (model, entry), name = write_neox(hub, tmp_path), NEOX
    ours = SaeSource(find_sae(model, name), Checkpoint(model.path))
    without = dataclasses.replace(FORMATS["dictionary_learning"], loaders=())
    monkeypatch.setitem(FORMATS, "dictionary_learning", without)
    assert by_loader(entry.loader) is None
    with pytest.raises(UsageError, match="SAELens has not read it yet"):
        find_sae(model, name)
    assert main(["download", model.path, name]) == 0
    assert "is read by SAELens" in capsys.readouterr().err
    info = find_sae(model, name)
    assert (info.format, info.layer, info.site) == ("saelens", 1, "resid_post")
    theirs = SaeSource(info, Checkpoint(model.path))
    assert torch.equal(theirs.decoder_rows(0, theirs.n), ours.decoder_rows(0, ours.n))
    read, wanted = theirs.encoder_rows(0, theirs.n), ours.encoder_rows(0, ours.n)
    assert read is not None and wanted is not None and torch.equal(read, wanted)
