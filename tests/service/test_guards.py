"""Who may speak to the service, where it may write, and what it leaves behind after a thousand jobs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service import fake_work
from tests.service.conftest import DEADLINE, Place, alive, check_complete, processes, wait_until
from tests.service.daemons import Running, finished, listening
from tests.service.test_service import daemons, kill, start_together
from wbtui.errors import UsageError, WbtuiError
from wbtui.service import connect, local, place, protocol
from wbtui.service.aio import AsyncClient
from wbtui.service.client import Client, stop
from wbtui.service.config import PLANNER
from wbtui.store import io
from wbtui.store.cache import list_products, pin
from wbtui.store.products import Product

NOBODY = 65_534


def as_nobody(path: Path) -> str:
    """What another user meets at the socket: ``refused by the file system``, ``hung up``, or ``answered``."""
    ours, theirs = os.pipe()
    hello = protocol.encode(connect.hello())
    pid = os.fork()
    if pid == 0:  # nothing may be imported from here on: the other user cannot read our files
        said = b"crashed"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                try:
                    sock.connect(str(path))
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        sock.sendall(hello)
                    try:
                        said = b"answered" if sock.recv(1) else b"hung up"
                    except ConnectionResetError:
                        said = b"hung up"
                except PermissionError:
                    said = b"refused by the file system"
        finally:
            os.write(theirs, said)
            os._exit(0)
    os.close(theirs)
    said = os.read(ours, 100).decode()
    os.close(ours)
    os.waitpid(pid, 0)
    return said


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
def test_another_user_is_refused_by_the_folder_and_by_the_service(here: Place) -> None:
    with here.client(prestart=False) as client:
        assert as_nobody(place.socket_path()) == "refused by the file system"
        here.root.chmod(0o755)
        here.runtime.chmod(0o755)
        place.socket_path().chmod(0o666)
        assert as_nobody(place.socket_path()) == "hung up"
        assert client.status()["clients"] == 1


HOSTILE_NAMES = (
    "../../../../etc/passwd", "..", ".", "/", "/etc", "~root/x", "a/../../b", "demo@../x", "demo\n../x", "%2e%2e/x",
    "org/../..:rev", "..:..", "x" * 4000, "demo/../../..", "\\..\\..", "file:///etc", "C:\\x", "-rf", "$(touch x)",
)  # fmt: skip


async def test_names_from_clients_lead_to_no_file_outside_the_cache(here: Place) -> None:
    running = await Running(here, planner=PLANNER).up()
    before = {p for p in here.root.rglob("*") if "log" not in p.parts}
    async with AsyncClient(autostart=False) as client:
        for name in HOSTILE_NAMES:
            for model, sae in ((name, "L0"), ("demo", name)):
                wish: dict[str, Any] = {"model": model, "sae": sae, "definition": {}, "cache": str(here.cache)}
                with pytest.raises(WbtuiError):
                    await client.call("compute", DEADLINE, **wish)
                with pytest.raises(WbtuiError):
                    await client.call("row", DEADLINE, **wish, feature=0)
        for cache in ("cache", "../cache", "~/cache", "./x"):
            with pytest.raises(UsageError, match="absolute"):
                await client.call("compute", DEADLINE, model="demo", sae="L0", definition={}, cache=cache)
    new = {p for p in here.root.rglob("*") if "log" not in p.parts} - before
    assert all(here.cache in p.parents for p in new), new
    assert await running.down() == 0


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_sixteen_clients_at_once_start_one_daemon_fifty_times(here: Place) -> None:
    for _ in range(50):
        assert len(set(start_together(here, 16))) == 1
        assert len(daemons(here)) == 1
        assert stop()


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.faults)])
def test_after_a_kill_the_next_client_is_answered_soon(here: Place, times: int) -> None:
    took = []
    for _ in range(times):
        with here.client() as client:
            pid = client.status()["pid"]
        kill(pid)
        began = time.monotonic()
        with here.client() as client:
            client.status()
        took.append(time.monotonic() - began)
        wait_until(lambda: len(processes(here.runtime)) <= 2, what="the killed one's worker has gone")
    print(f"answered after {sorted(took)[times // 2]:.2f} s (median), {max(took):.2f} s (worst of {times})")
    assert min(took) < 5.0  # the aim is 0.5 s on a quiet machine: benchmarks/service.py


def leftovers(pid: int, here: Place) -> dict[str, Any]:
    """What a process and its cache hold."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = [p.name for p in here.cache.rglob("*") if io.is_temporary(p.name)]
    return {
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "rss": int(status["VmRSS"].split()[0]) * 1024,
        "processes": len(processes(here.runtime)),
        "temporary": files,
        "runtime": sorted(p.suffix for p in here.runtime.iterdir()),
    }


@pytest.mark.parametrize("jobs", [40, pytest.param(1000, marks=pytest.mark.faults)])
@pytest.mark.timeout(1800)
def test_nothing_is_left_after_many_jobs(here: Place, jobs: int) -> None:
    def some(first: int, count: int) -> None:
        for n in range(first, first + count):
            request = here.request(f"job {n}", products=[["tokens", 64, 32]], slices=1)
            with Client.connect(False) as client:
                job = client.compute(request)["job"]
                if n % 7 == 0:
                    client.cancel(job)
                elif n % 5 != 0:  # every fifth client goes without a word
                    list(client.wait(job, DEADLINE))

    with here.client() as client:
        pid = client.status()["pid"]

        def quiet() -> bool:
            status = client.status()
            return status["jobs"] == 0 and status["clients"] == 1 and not any(w["busy"] for w in status["workers"])

        some(0, 10)
        wait_until(quiet)
        before = leftovers(pid, here)
        some(10, jobs)
        wait_until(quiet)
        after = leftovers(pid, here)
    assert after["fds"] <= before["fds"] + 1 and after["threads"] <= before["threads"] + 6  # planning's thread pool
    assert after["processes"] == before["processes"] == 2 and alive(pid)
    assert after["temporary"] == [] and after["runtime"] == before["runtime"]
    assert after["rss"] < before["rss"] + (16 << 20) + 20_000 * jobs


async def test_a_cache_beyond_its_limit_loses_what_was_used_longest_ago_and_never_what_is_pinned(here: Place) -> None:
    running = await Running(here, cache_gb=0.0, check_every=0.05).up()
    names = ["old pinned", "old", "newer", "newest"]
    products = {}
    async with AsyncClient(autostart=False) as client:
        events = await listening(client)
        for age, name in enumerate(reversed(names)):
            request = here.request(name, products=[["tokens", 64, 32]])
            await finished(events, (await client.compute(**request.plan_request()))["job"])
            [spec] = fake_work.products(request.plan_request())
            products[name] = Product(here.cache, spec)
            stamp = time.time() - 7200 * (age + 1)
            os.utime(products[name].path / "manifest.json", (stamp, stamp))
        pin(here.cache, products["old pinned"].spec.relative)
        size = max(entry.bytes for entry in list_products(here.cache))
        running.daemon.config = dataclasses.replace(running.daemon.config, cache_gb=2.5 * size / 1e9)
        with products["newer"].hold():
            again = here.request("newest", products=[["tokens", 64, 32]])
            await client.compute(**again.plan_request())
            async with asyncio.timeout(DEADLINE):
                while products["old"].state == "complete":
                    await asyncio.sleep(0.01)
            # while it is held: three are still too many, so the next look may take it once it is let go
            assert products["old pinned"].state == "complete"
            assert products["newer"].state == "complete"
    assert await running.down() == 0


def test_two_services_on_one_folder_do_the_same_work_side_by_side(here: Place) -> None:
    """Two hosts that share a cache: each finishes, with the same bytes, and what one has done the other does not."""
    request = here.request(products=[["vocab", 0, 0], ["tokens", 640, 32]], heavy=1)
    failures: list[Exception] = []

    def host() -> None:
        try:
            local.run_job(request, lambda event: None, config=here.config(), timeout=DEADLINE)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=host) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
    assert not failures
    check_complete(here, request)
    shards = [line for line in here.traced() if line.startswith("shard tokens")]
    assert len(set(shards)) == 20 and len(shards) < 40
