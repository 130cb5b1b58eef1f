"""The start screen's registry: what is published stands under what is on disk, and comes at a key, with its
progress."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.catalog.conftest import D, write_model
from tests.download.hub_server import Hub, served
from tests.tui.place import Place, screen_text, until
from wbtui.catalog.registry import find_entry
from wbtui.tui.draw.line import Line
from wbtui.tui.fetching import Download, Downloads, download_line, size
from wbtui.tui.screens.start import StartScreen

MODEL = "google/gemma-2-2b"
SAE = "gemma-scope-2b-pt-res-canonical/layer_1/width_16k/canonical"


def text(line: Line) -> str:
    return "".join(part[0] for part in line)


def test_a_download_on_one_line() -> None:
    """Share, bytes, rate, time left, the key; a wait and an end say themselves."""
    now = Download("google/gemma-2-2b", None)
    assert "asking the Hub" in text(download_line(now, "^x"))
    now = now.after({"event": "plan", "have": 1_000_000_000, "total": 5_230_000_000})
    now = now.after({"event": "progress", "done": 2_615_000_000, "total": 5_230_000_000, "rate": 31e6, "eta": 84.4})
    assert (
        text(download_line(now, "^x")) == "↓ 50 %  2.6 GB of 5.2 GB  31 MB/s  84 s left  ^x cancels  google/gemma-2-2b"
    )
    waits = text(download_line(now.after({"event": "waiting", "why": "connection refused"}), "^x"))
    assert waits.endswith("^x cancels  connection refused  google/gemma-2-2b"), "the name goes first where it is narrow"
    assert now.after({"event": "done"}).state == "done"
    failed = now.after({"event": "error", "found": "x is gated", "expected": "access", "do": "accept"})
    assert text(download_line(failed, "")).endswith("x is gated; expected access; accept")
    assert "kept" in text(download_line(replace(now, state="cancelled"), ""))
    assert not failed.live and now.live
    assert now.after({"event": "novel"}) == now
    assert [size(n) for n in (12, 1500, 310e6, 5.23e9)] == ["12 B", "1.5 kB", "310 MB", "5.2 GB"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with served() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        found.add_folder(MODEL, write_model(tmp_path / "remote"))
        out = io.BytesIO()
        np.savez(out, W_enc=np.ones((D, 20), "f4"), W_dec=np.ones((20, D), "f4"))
        entry = find_entry(SAE)
        assert entry is not None
        found.repos[entry.repo] = {f"{entry.path}/params.npz": out.getvalue()}
        yield found


@pytest.mark.parametrize("at", [(80, 24), (120, 40), (200, 50)])
async def test_what_is_published_stands_under_what_is_here(at: tuple[int, int], tmp_path: Path) -> None:
    app = Place(tmp_path).app(None)
    async with app.run_test(size=at) as pilot:
        start = app.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: bool(start.registry) and start.models is not None)
        assert "REGISTRY" in screen_text(app) and "demo" in screen_text(app)
        await pilot.press(*"gemma-2-2b")
        await until(pilot, lambda: MODEL in start.published)
        assert "not on this disk: ^d downloads it" in screen_text(app)
        await pilot.press("enter", *"layer_1/")
        release, _, name = SAE.partition("/")
        await until(pilot, lambda: f"▸ ↓ {name}" in screen_text(app) and release in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: any("not on this disk: ^d" in row for row in screen_text(app).splitlines()[:3]))


async def test_download_from_the_app(hub: Hub, tmp_path: Path) -> None:
    """WHEN ^d on a published SAE THEN model and SAE come, its row says so, and Enter opens it."""
    app = Place(tmp_path).app(None)
    async with app.run_test(size=(120, 40)) as pilot:
        start = app.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: bool(start.registry))
        await pilot.press(*"google/gemma-2-2b", "enter")
        await until(pilot, lambda: MODEL in start.published)
        await pilot.press(*"layer_1/")
        await until(pilot, lambda: f"▸ ↓ {SAE.partition('/')[2]}" in screen_text(app))
        await pilot.press("ctrl+d")
        await until(pilot, lambda: app.downloads.now is not None and not app.downloads.now.live)
        assert app.downloads.now is not None
        assert app.downloads.now.state == "done", app.downloads.now.note
        await until(pilot, lambda: bool(start.saes.get(MODEL)))
        assert [row.line for row in start.saes[MODEL]] == [""]
        await until(pilot, lambda: "○ …" in screen_text(app) and "✓ " in screen_text(app))
        assert start.chosen is not None and start.chosen.name == MODEL
        await pilot.press("ctrl+d")
        assert "on this disk already" in screen_text(app)


async def test_cancel_failure_and_one_at_a_time(hub: Hub, tmp_path: Path) -> None:
    hub.slow.add("model.safetensors")
    app = Place(tmp_path).app(None)
    async with app.run_test(size=(120, 40)) as pilot:
        start = app.screen
        assert isinstance(start, StartScreen)
        await until(pilot, lambda: bool(start.registry))
        await pilot.press("ctrl+x")
        assert "nothing is being downloaded" in screen_text(app)
        await pilot.press(*"google/gemma-2-2b")
        await until(pilot, lambda: MODEL in start.saes)
        await pilot.press("ctrl+d")
        part = Path(os.environ["HF_HUB_CACHE"])
        await until(pilot, lambda: any(p.stat().st_size for p in part.rglob("*.incomplete")))
        await until(pilot, lambda: "^x cancels" in screen_text(app))
        await pilot.press("ctrl+d")
        assert "one download at a time" in screen_text(app)
        await pilot.press("ctrl+x")
        await until(pilot, lambda: "what has arrived is kept" in screen_text(app))
        process = app.downloads._process
        assert process is not None
        await asyncio.wait_for(process.wait(), 20)
        assert any(p.stat().st_size for p in part.rglob("*.incomplete"))
        hub.gated.add(MODEL)
        hub.slow.clear()
        await pilot.press("ctrl+d")
        await until(pilot, lambda: app.downloads.now is not None and app.downloads.now.state == "failed")
        await until(pilot, lambda: "is gated" in screen_text(app))
        hub.gated.clear()
        await pilot.press("ctrl+d")
        await until(pilot, lambda: app.downloads.now is not None and app.downloads.now.state == "done")
        assert "bytes=" in hub.received("model.safetensors")[-1], "it went on where it had stopped"


async def test_a_failed_download_that_is_still_ending_is_not_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """WHEN a download is begun again before the failed one's process is gone THEN its end changes nothing."""
    gates = [asyncio.Event(), asyncio.Event()]
    says = [b'{"event": "error", "found": "no"}\n', b'{"event": "waiting", "why": "x", "seconds": 1}\n']
    processes = []

    class Process:
        returncode = None

        def __init__(self, at: int) -> None:
            self.at = at
            self.stdout = self.lines()
            self.stderr = asyncio.StreamReader()
            self.stderr.feed_eof()

        async def lines(self):
            yield says[self.at]
            await gates[self.at].wait()

        async def wait(self) -> int:
            return 1

        def send_signal(self, number: int) -> None:
            gates[self.at].set()

    async def begin(*words: str, **more: object) -> Process:
        processes.append(Process(len(processes)))
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", begin)
    downloads = Downloads(lambda message: None)

    async def comes(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    assert downloads.start("m", None)
    await comes(lambda: downloads.now.state == "failed")
    first = downloads._task
    assert downloads.start("m", None)
    await comes(lambda: downloads.now.note == "x")
    gates[0].set()
    assert first is not None
    await first
    assert downloads.now is not None and downloads.now.live
    assert downloads.cancel() and gates[1].is_set(), "the second one's process is told"
    await downloads.close()
    assert downloads.now.state == "cancelled"
