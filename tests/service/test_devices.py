"""Several devices: who works on what, how much memory there is, and which a machine has."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.service.conftest import DEADLINE, check_complete, wait_until
from wbtui.compute import memory
from wbtui.errors import UsageError
from wbtui.service import config as configuration
from wbtui.service import local
from wbtui.service.aio import AsyncClient
from wbtui.service.config import ServiceConfig
from wbtui.service.executor import WorkerProcess
from wbtui.service.start import with_package


def test_two_workers_are_both_busy_and_no_shard_is_done_twice(here):
    """Two CPU workers stand for two accelerators."""
    gate = here.root / "gate"
    request = here.request(gate=str(gate), products=[["tokens", 320, 32]])

    def open_the_gate() -> None:
        wait_until(lambda: len(here.traced()) >= 2, what="two shards are under way")
        gate.touch()

    with local.LocalRunner(here.config(devices=("cpu", "cpu"))) as runner:
        thread = threading.Thread(target=open_the_gate)
        thread.start()
        runner.compute(request, lambda event: None, DEADLINE)
        thread.join()
        pids = {worker.info["pid"] for worker in runner.engine.workers.values()}
    assert gate.exists() and len(pids) == 2
    shards = [line for line in here.traced() if line.startswith("shard")]
    assert len(shards) == len(set(shards)) == 10
    check_complete(here, request)


def test_workers_on_one_machine_share_its_cores(here, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert WorkerProcess("cpu", "x", beside=2).environment()["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert WorkerProcess("cpu", "x").environment()["OMP_NUM_THREADS"] == str(cores)
    engine = local.LocalRunner(here.config(devices=("cpu", "cpu", "cuda:0"))).engine
    assert {worker.beside for worker in engine.workers.values()} == {2}


@pytest.mark.parametrize(
    ("files", "visible", "expected"),
    [
        (2, None, ("cuda:0", "cuda:1")),
        (4, "2,3", ("cuda:0", "cuda:1")),
        (4, "GPU-8f", ("cuda:0",)),
        (2, "", ("auto",)),
        (2, "-1", ("auto",)),
        (3, "0,-1,2", ("cuda:0",)),
        (0, "0,1", ("auto",)),
    ],
)
def test_all_means_the_devices_that_this_process_may_see(tmp_path, monkeypatch, files, visible, expected):
    for n in range(files):
        (tmp_path / f"nvidia{n}").touch()
    for other in ("nvidiactl", "nvidia-uvm", "nvidia-modeset"):
        (tmp_path / other).touch()
    monkeypatch.setattr(configuration, "DEVICE_FILES", tmp_path)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert ServiceConfig(devices=("all",)).devices == expected
    assert ServiceConfig(devices=("cpu", "all")).devices == ("cpu", *expected)
    with pytest.raises(UsageError, match="or all"):
        ServiceConfig(devices=("some",))


def test_a_tile_is_what_half_of_the_free_memory_takes(monkeypatch):
    def has(free: int) -> None:
        monkeypatch.setattr(memory, "used_and_total", lambda device: (10**12 - free, 10**12))

    row = 256_000 * 4 * 1.5
    for free, expected in ((10**12, 128), (row * 2 * 100, 96), (row * 2 * 33, 32), (0, 16)):
        has(int(free) + 1)
        assert memory.tile_for(128, 256_000, "cpu") == expected
    monkeypatch.setattr(memory, "used_and_total", lambda device: None)
    assert memory.tile_for(64, 256_000, "mps") == 64


def test_host_memory_is_the_kernels(monkeypatch):
    found = memory.used_and_total("cpu")
    assert found is not None and 0 < found[0] <= found[1]
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert found[1] <= total


def test_a_gpu_is_asked_only_when_it_is_in_use_already(monkeypatch):
    cuda = SimpleNamespace(is_initialized=lambda: False, mem_get_info=lambda device: (1 << 30, 24 << 30))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert memory.used_and_total("cuda:0") is None
    cuda.is_initialized = lambda: True
    assert memory.used_and_total("cuda:0") == (23 << 30, 24 << 30)
    cuda.memory_reserved, cuda.memory_allocated = (lambda device: 3 << 30), (lambda device: 1 << 30)
    assert memory.tile_for(1 << 20, 1 << 18, "cuda:0") == (3 << 30) // 2 // (4 * 3 // 2 << 18)


def test_memory_is_in_the_status_and_told_to_those_who_watch(here):
    with here.client() as client:
        client.call("watch")
        wait_until(lambda: client.status()["workers"][0].get("memory"), what="a pulse with memory")
        [worker] = client.status()["workers"]
        assert worker["memory"] == [3 << 30, 24 << 30] and worker["device"] == "cpu"
        told = (e["devices"][0] for e in client.events(DEADLINE) if e["event"] == "devices")
        assert next(device for device in told if device.get("memory"))["memory"] == [3 << 30, 24 << 30]


def test_those_who_watch_are_told_when_a_device_begins_and_ends_work(here):
    gate = here.root / "gate"
    with here.client() as client:
        client.call("watch")
        client.compute(here.request(gate=str(gate), products=[["tokens", 32, 32]]))
        told = (e["devices"][0] for e in client.events(DEADLINE) if e["event"] == "devices")
        assert next(device for device in told if device["at"])["at"] == "shard"
        gate.touch()
        assert next(device for device in told if not device["at"])["busy"] is False


async def test_who_connects_later_is_told_the_devices_at_once(running):
    running.daemon.engine.workers["0:cpu"].info = {"device": "cpu", "memory": [1, 2]}
    client = AsyncClient(autostart=False)
    events = client.events()
    first = asyncio.create_task(anext(events))
    await asyncio.sleep(0)
    await client.connect()
    event = await first
    assert event["event"] == "connected" and event["devices"][0]["memory"] == [1, 2]
    await client.close()


def test_a_unit_file_names_this_python_and_says_what_lingering_is_for(here):
    code = "import sys; from wbtui.cli import main; main(['daemon', 'unit'])"
    env = with_package({**os.environ, "HF_TOKEN": "secret", "WBTUI_TILE": "6 4%"})
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert f"ExecStart={sys.executable} -P -m wbtui daemon run" in ran.stdout
    assert "loginctl enable-linger" in ran.stdout and "secret" not in ran.stdout
    assert f"Environment=WBTUI_RUNTIME_DIR={here.runtime}\n" in ran.stdout
    assert 'Environment="WBTUI_TILE=6 4%%"\n' in ran.stdout
