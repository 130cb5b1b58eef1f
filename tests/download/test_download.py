"""Downloads against a loopback hub: only what is needed, resumed, checked, refused in words; then offline, no
request."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from tests.catalog.conftest import LAYERS, D, write_model, write_sae
from tests.download.hub_server import COMMIT, Hub, served
from wbtui.catalog.architectures import ARCHITECTURES
from wbtui.catalog.models import find_model, hub_snapshot, list_models
from wbtui.catalog.registry import Entry, find_entry, releases
from wbtui.catalog.saes import find_sae, list_saes
from wbtui.cli import main
from wbtui.download import fetch
from wbtui.download.fetch import fetch_model, fetch_sae, hub_id, on_disk
from wbtui.download.hub import _words, offline
from wbtui.download.wants import model_files, path_files, sae_files, shards
from wbtui.errors import StoreError, UsageError, WeightsError, WorkError

MODEL = "google/gemma-2-2b"
RELEASE = "gemma-scope-2b-pt-res-canonical"
SAE = f"{RELEASE}/layer_1/width_16k/canonical"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, no token, no waits."""
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HUGGINGFACE_HUB_CACHE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("WBTUI_CONFIG_DIR", "WBTUI_CACHE_DIR", "WBTUI_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("WBTUI_DOWNLOAD_PAUSE", "0.001")
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with served() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        folder = write_model(tmp_path / "remote", num_hidden_layers=LAYERS)
        found.add_folder(MODEL, folder)
        found.repos[MODEL] |= {"README.md": b"words", "model.onnx": b"other" * 100, "pytorch_model.bin": b"pickle"}
        entry = find_entry(SAE)
        assert entry is not None
        out = io.BytesIO()
        rng = np.random.default_rng(0)
        np.savez(out, W_enc=rng.normal(size=(D, 20)).astype("f4"), W_dec=rng.normal(size=(20, D)).astype("f4"))
        found.repos[entry.repo] = {f"{entry.path}/params.npz": out.getvalue(), "layer_9/width_16k/x/params.npz": b"no"}
        yield found


class Said(list[dict[str, Any]]):
    """Events as they are said."""

    def __call__(self, event: dict[str, Any]) -> None:
        self.append(event)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self if event["event"] == kind]


# -- what is fetched ---------------------------------------------------------------------------------------------------


def test_a_model_comes_with_its_needed_files_and_opens(hub: Hub, cache: Path) -> None:
    said = Said()
    assert not on_disk(MODEL)
    done = fetch_model(MODEL, said)
    assert sorted(done.files) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert on_disk(MODEL)
    model = find_model(MODEL)
    assert (model.d_model, model.kind) == (D, "hub")
    snapshot = Path(done.snapshot)
    assert snapshot == cache / "models--google--gemma-2-2b" / "snapshots" / COMMIT
    assert (cache / "models--google--gemma-2-2b" / "refs" / "main").read_text() == COMMIT
    assert (snapshot / "model.safetensors").is_symlink()
    assert not list(cache.rglob("*.incomplete"))
    assert not [r for r in hub.requests if "onnx" in r or "bin" in r or "README" in r]
    last = said.of("progress")[-1]
    assert last["done"] == last["total"] == len(hub.repos[MODEL]["model.safetensors"])
    assert said.of("plan")[0]["files"] == 1


def test_huggingface_hub_finds_what_we_fetched(hub: Hub, cache: Path) -> None:
    """The layout is huggingface_hub's own: it opens the files without a request."""
    fetch_model(MODEL, Said())
    code = (
        "from huggingface_hub import try_to_load_from_cache, snapshot_download\n"
        f"print(try_to_load_from_cache({MODEL!r}, 'model.safetensors'))\n"
        f"print(snapshot_download({MODEL!r}, local_files_only=True, allow_patterns=['config.json']))\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert str(cache) in out and "None" not in out


def test_a_registry_sae_comes_alone_and_its_address_resolves(hub: Hub) -> None:
    fetch_model(MODEL, Said())
    model = find_model("gemma-2-2b") if hub_snapshot("gemma-2-2b") else find_model(MODEL)
    with pytest.raises(UsageError, match=f"not on this disk.*wbtui download {MODEL}"):
        find_sae(model, SAE)
    done = fetch_sae(SAE, Said())
    assert len(done.files) == 1 and done.files[0].endswith("params.npz")
    assert not hub.received("layer_9")
    sae = find_sae(model, SAE)
    assert (sae.format, sae.layer, sae.site, sae.notes) == ("gemma_scope", 1, "resid_post", [])
    assert [s.name for s in list_saes(model)] == [SAE]


def test_a_repository_that_the_registry_does_not_know(hub: Hub, tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "new" / "my-sae", model_name=MODEL)
    hub.add_folder("someone/saes", folder.parent)
    hub.repos["someone/saes"]["notes.txt"] = b"x"
    fetch_model(MODEL, Said())
    done = fetch_sae("someone/saes/my-sae", Said())
    assert sorted(done.files) == ["my-sae/cfg.json", "my-sae/sae_weights.safetensors"]
    assert [s.name for s in list_saes(find_model(MODEL))] == ["someone/saes/my-sae"]
    assert find_sae(find_model(MODEL), "someone/saes/my-sae").layer == 1
    with pytest.raises(UsageError, match="holds nothing at 'other'"):
        fetch_sae("someone/saes/other", Said())
    with pytest.raises(UsageError, match="no SAE 'nothing'"):
        fetch_sae("nothing", Said())


def test_a_layout_that_only_saelens_knows_comes_with_the_configs_around_it(hub: Hub) -> None:
    """Weights at the path, and small files beside it and at the top, where a loader may look for its config."""
    hub.repos["acme/saes"] = {
        "L1/a.safetensors": b"1", "L1/b.safetensors": b"2", "L1/a.json": b"{}", "L2/a.json": b"{}", "config.yaml": b"x",
        "README.md": b"words",
    }  # fmt: skip
    done = fetch.fetch_below("acme/saes", "L1/a.safetensors", Said())
    assert sorted(done.files) == ["L1/a.json", "L1/a.safetensors", "config.yaml"]
    assert not hub.received("L2/") and not hub.received("README") and not hub.received("L1/b")


def test_only_shards_with_what_the_analyses_read() -> None:
    """Experts and vision towers stay where they are; a shard with one norm in it comes."""
    arch = ARCHITECTURES["gemma2"]
    table = {
        "model.embed_tokens.weight": "1",
        "model.layers.0.self_attn.q_proj.weight": "2",
        "model.layers.11.self_attn.o_proj.weight": "3",
        "model.layers.11.mlp.down_proj.weight": "4",
        "model.layers.11.mlp.experts.3.gate_proj.weight": "5",
        "model.vision_tower.layers.0.self_attn.q_proj.weight": "6",
        "model.norm.weight": "7",
        "model.layers.11.mlp.up_proj.weight": "8",
    }
    assert shards(table, arch) == ["1", "2", "3", "4", "7"]


def test_the_files_of_every_registry_entry_are_known() -> None:
    for release in releases():
        for entry in (release.saes[0], release.saes[-1]):
            assert sae_files(entry).needed
    with pytest.raises(UsageError, match="layout 'new'"):
        sae_files(Entry("r", "s", "m", "o/r", "p", "new", None))


def test_wanted_files() -> None:
    held = ["config.json", "tokenizer.json", "model.safetensors.index.json", "model.safetensors", "x.bin"]
    assert "model.safetensors" not in model_files(held).of(held, "x")
    with pytest.raises(WeightsError, match="only pickled weights"):
        model_files(["config.json", "pytorch_model.bin"])
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        model_files(["model.safetensors"]).of(["model.safetensors"], "x")
    assert path_files(["a/b.pt", "a/c.txt", "ab/d.pt", "e.npz"], "a") == ["a/b.pt"]


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a/..", "a//b", "gemma:../../x"])
def test_names_that_are_no_hub_names(name: str) -> None:
    with pytest.raises(UsageError):
        hub_id(name)


def test_registry_names_are_hub_names() -> None:
    assert hub_id("gpt2-small") == ("openai-community/gpt2", "main")
    assert hub_id("gemma-2-2b:v1") == (MODEL, "v1")


def test_an_unsupported_model_is_refused_before_its_weights_come(hub: Hub) -> None:
    hub.repos[MODEL]["config.json"] = json.dumps({"model_type": "mamba"}).encode()
    with pytest.raises(WeightsError, match="mamba"):
        fetch_model(MODEL, Said())
    assert not hub.received("model.safetensors")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_connection_that_breaks_is_resumed(hub: Hub) -> None:
    """WHEN the server breaks off three times THEN each attempt asks for the rest only, and the bytes are right."""
    hub.cut["model.safetensors"] = [1000, 500, 1]
    said = Said()
    done = fetch_model(MODEL, said)
    ranges = [r.split()[-1] for r in hub.received("/cdn/google/gemma-2-2b/model.safetensors")]
    assert ranges[1:] == ["bytes=1000-", "bytes=1500-", "bytes=1501-"]
    assert (Path(done.snapshot) / "model.safetensors").read_bytes() == hub.repos[MODEL]["model.safetensors"]
    assert len(said.of("waiting")) == 3


def test_a_connection_that_never_gets_further_is_given_up_and_kept(hub: Hub, cache: Path) -> None:
    hub.cut["model.safetensors"] = [1000] + [0] * 50
    with pytest.raises(WorkError, match="no connection .* that lasts.*what has arrived is kept"):
        fetch_model(MODEL, Said())
    (part,) = cache.rglob("*.incomplete")
    assert part.stat().st_size == 1000
    hub.cut.clear()
    hub.requests.clear()
    fetch_model(MODEL, Said())
    assert hub.received("/cdn/")[0].endswith("bytes=1000-")


def test_a_server_without_ranges_starts_anew(hub: Hub) -> None:
    hub.cut["model.safetensors"] = [1000]
    hub.no_ranges = True
    said = Said()
    done = fetch_model(MODEL, said)
    assert (Path(done.snapshot) / "model.safetensors").read_bytes() == hub.repos[MODEL]["model.safetensors"]
    assert said.of("progress")[-1]["done"] == said.of("progress")[-1]["total"]


def test_gated_without_and_with_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add(MODEL)
    with pytest.raises(
        WeightsError, match=f"{MODEL} is gated: no Hub token.*accept its terms at .*/{MODEL}.*hf auth login"
    ):
        fetch_model(MODEL, Said())
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(WeightsError, match="this account has not been let in"):
        fetch_model(MODEL, Said())
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    hub.tokens.clear()
    fetch_model(MODEL, Said())
    sent = dict(hub.tokens)
    assert all(key is None for path, key in sent.items() if path.startswith("/cdn/")), "the token stays with the Hub"
    assert any(key == "Bearer hf_good" for key in sent.values())


def test_missing_repository_revision_and_file(hub: Hub) -> None:
    with pytest.raises(UsageError, match="no repository google/nothing"):
        fetch_model("google/nothing", Said())
    with pytest.raises(UsageError, match="no such revision"):
        fetch_model(f"{MODEL}:v9", Said())
    del hub.repos[MODEL]["config.json"]
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        fetch_model(MODEL, Said())


def test_a_rate_limit_is_waited_out(hub: Hub) -> None:
    hub.limits = [(429, "0.01"), (429, "0.01"), (503, "")]
    said = Said()
    fetch_model(MODEL, said)
    assert [event["why"] for event in said.of("waiting")] == ["the Hub limits requests"] * 2 + ["the Hub answers 503"]


def test_a_rate_limit_that_is_too_long_is_said(hub: Hub) -> None:
    hub.limits = [(429, "86400")]
    with pytest.raises(WorkError, match=r"limits requests \(429\).*try again later, or log in"):
        fetch_model(MODEL, Said())


def test_bytes_with_a_wrong_checksum_are_fetched_once_more_then_refused(hub: Hub, cache: Path) -> None:
    hub.wrong["model.safetensors"] = 1
    said = Said()
    fetch_model(MODEL, said)
    assert any("checksum" in event["why"] for event in said.of("waiting"))
    assert said.of("progress")[-1]["done"] == said.of("progress")[-1]["total"]
    shutil.rmtree(cache)
    hub.wrong["model.safetensors"] = 2
    with pytest.raises(WeightsError, match=r"does not have the checksum.*twice.*nothing of it is kept"):
        fetch_model(MODEL, Said())
    assert not list(cache.rglob("*.incomplete"))
    assert not on_disk(MODEL)
    shutil.rmtree(cache)
    hub.wrong["tokenizer.json"] = 2  # a small file: Git's checksum
    with pytest.raises(WeightsError, match=r"tokenizer\.json does not have the checksum"):
        fetch_model(MODEL, Said())


def test_a_part_of_other_bytes_is_found_out(hub: Hub, cache: Path) -> None:
    """A part that something else left under the name is not trusted because of its size."""
    hub.cut["model.safetensors"] = [1000] + [0] * 50
    with pytest.raises(WorkError):
        fetch_model(MODEL, Said())
    hub.cut.clear()
    (part,) = cache.rglob("*.incomplete")
    part.write_bytes(b"\1" * 900)
    done = fetch_model(MODEL, Said())
    assert (Path(done.snapshot) / "model.safetensors").read_bytes() == hub.repos[MODEL]["model.safetensors"]


def test_a_full_disk(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first byte where it can be known; in the middle, the part is kept and the words say so."""
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage._replace(free=fetch.SPARE_BYTES))
    with pytest.raises(StoreError, match=r"GB to fetch, .* GB free.*HF_HOME"):
        fetch_model(MODEL, Said())
    monkeypatch.undo()


def test_a_disk_that_fills_in_the_middle(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open
    left = [1500]

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *exc: object) -> None:
            self.file.close()

        def write(self, data: Any) -> int:
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            took = int(self.file.write(bytes(data)[: left[0]]))
            left[0] -= took
            return took

    def opened(path: Any, mode: str = "r", **kwargs: Any) -> Any:
        file = real(path, mode, **kwargs)
        return Full(file) if str(path).endswith(".incomplete") and "b" in mode and mode != "rb" else file

    monkeypatch.setattr(fetch, "open", opened, raising=False)
    with pytest.raises(StoreError, match=r"disk of .* is full.*what has arrived is kept"):
        fetch_model(MODEL, Said())
    monkeypatch.setattr(fetch, "open", real, raising=False)
    done = fetch_model(MODEL, Said())
    assert (Path(done.snapshot) / "model.safetensors").read_bytes() == hub.repos[MODEL]["model.safetensors"]


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(StoreError, match="HF_HOME"):
        fetch_model(MODEL, Said())


def test_nobody_listens(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WorkError, match=r"no connection to http://127.0.0.1:9 that lasts \(connection refused\)"):
        fetch_model(MODEL, Said())


# -- as a process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (URLError(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")), "connection refused"),
        (URLError(socket.gaierror(-2, "Name or service not known")), "the name of the Hub cannot be looked up"),
        (URLError(ssl.SSLCertVerificationError(1, "certificate has expired")), "no secure connection"),
        (TimeoutError("timed out"), "no answer in time"),
        (RemoteDisconnected("Remote end closed"), "the connection broke off"),
        (IncompleteRead(b"12", 5), "the connection broke off"),
        (URLError("no host given"), "no host given"),
        (OSError(), "OSError"),
    ],
)
def test_what_went_wrong_in_words(error: Exception, words: str) -> None:
    assert _words(error).startswith(words)


@pytest.mark.parametrize(
    ("how", "background"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_a_slow_server_is_cancelled_at_once_and_the_part_is_kept(
    how: signal.Signals, background: bool, hub: Hub, cache: Path
) -> None:
    hub.slow.add("model.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-m", "wbtui", "download", MODEL, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None,
    )
    half = len(hub.repos[MODEL]["model.safetensors"]) // 2
    try:
        end = time.monotonic() + 60
        while not any(p.stat().st_size == half for p in cache.rglob("*.incomplete")):
            assert process.poll() is None and time.monotonic() < end
            hub.over.wait(0.02)
        start = time.monotonic()
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert time.monotonic() - start < 10
    assert b"Traceback" not in err
    assert json.loads(out.splitlines()[0])["event"] == "plan"
    hub.slow.clear()
    hub.requests.clear()
    fetch_model(MODEL, Said())
    assert hub.received("/cdn/")[0].endswith(f"bytes={half}-")


def test_the_command_says_what_it_did(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", f"{MODEL}@{SAE}"]) == 0
    out, err = capsys.readouterr()
    assert "3 files" in out and "google/gemma-scope-2b-pt-res: 1 files" in out and "MB" in err
    count = len(hub.requests)
    assert main(["download", MODEL, SAE]) == 0
    assert "already" in capsys.readouterr().err
    assert main(["download", "https://www.neuronpedia.org/gemma-2-2b/1-gemmascope-res-16k/345"]) == 0
    assert f"{SAE} is in the local Hub cache already" in capsys.readouterr().err
    assert len(hub.requests) == count, "what is here is not asked for again"
    assert main(["download", "google/nothing", "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["event"] == "error" and err.startswith("wbtui: no repository")
    assert main(["download", "demo"]) == 2


# -- offline -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WBTUI_OFFLINE"])
def test_offline_no_request_of_any_kind(
    how: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GIVEN a model and an SAE on disk WHEN offline THEN everything works and not one request is made; counted."""
    assert main(["download", MODEL, SAE]) == 0
    monkeypatch.setenv(how, "1")
    assert offline()
    hub.requests.clear()
    assert main(["saes", MODEL]) == 0
    assert main(["models"]) == 0
    assert main(["releases", "gemma-scope-2b"]) == 0
    assert main(["saes", MODEL, "--release", RELEASE]) == 0
    out = capsys.readouterr().out
    assert SAE in out and RELEASE in out
    assert any(m.name == MODEL for m in list_models())
    assert find_sae(find_model(MODEL), SAE).d_sae == 20
    assert main(["download", MODEL, SAE]) == 0, "it is here already"
    assert main(["download", "google/gemma-2-9b"]) == 2
    assert "forbids every request" in capsys.readouterr().err
    assert hub.requests == []
