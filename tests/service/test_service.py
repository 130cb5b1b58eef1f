"""The service as its users meet it: real processes, started, killed, stopped."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.service import fake_work
from tests.service.conftest import DEADLINE, Place, alive, check_complete, processes, socket_there, wait_until
from wbtui.definitions import DEFINITIONS, to_json
from wbtui.errors import Cancelled, ServiceError, TimedOut, UsageError, WbtuiError, WeightsError
from wbtui.service import connect, place, protocol
from wbtui.service.client import AsyncClient, Client, restart, stop
from wbtui.service.config import ServiceConfig
from wbtui.service.running import run_job
from wbtui.service.start import with_package
from wbtui.service.wishes import RowRequest
from wbtui.store.products import Product

STARTER = """
import json, sys
from wbtui.service.client import Client
from wbtui.service.config import ServiceConfig
sys.stdin.readline()
with Client.connect(config=ServiceConfig.from_text(sys.argv[1]), timeout=60) as client:
    print(client.status()["pid"], flush=True)
    sys.stdin.readline()
"""


def start_together(here: Place, count: int) -> list[int]:
    """Clients in processes of their own, let go at one moment; the daemons that they met."""
    command = [sys.executable, "-c", STARTER, here.config(prestart=False).to_text()]
    env = with_package(dict(os.environ))
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)
        for _ in range(count)
    ]
    for made in clients:
        assert made.stdin is not None
        made.stdin.write("go\n")
        made.stdin.flush()
    pids = []
    for made in clients:
        assert made.stdout is not None and made.stdin is not None
        pids.append(int(made.stdout.readline()))
    for made in clients:
        made.communicate("\n", timeout=DEADLINE)
        assert made.returncode == 0
    return pids


def daemons(here: Place) -> list[int]:
    """Living daemons of this place."""
    return [p for p in processes(here.runtime) if b"wbtui.service.daemon" in Path(f"/proc/{p}/cmdline").read_bytes()]


def kill(pid: int) -> None:
    """``kill -9``, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("trial", range(2))
def test_eight_clients_at_once_start_one_daemon(here, trial):
    assert len(set(start_together(here, 8))) == 1
    assert len(daemons(here)) == 1


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_eight_clients_at_once_start_one_daemon_two_hundred_times(here):
    for _ in range(200):
        assert len(set(start_together(here, 8))) == 1
        assert len(daemons(here)) == 1
        assert stop()


def test_a_daemon_has_no_terminal_and_survives_a_hang_up_and_its_starter(here):
    [pid] = start_together(here, 1)
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGHUP)
    with Client.connect(False) as client:
        assert client.status()["pid"] == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    stop()
    log = (here.root / "log" / "daemon.log").read_text()
    assert "started" in log and "stopped on request" in log


def test_sigterm_ends_it_cleanly_in_the_midst_of_work_and_what_was_done_stays(here):
    gate = here.root / "gate"
    request = here.request(gate=str(gate), products=[["tokens", 96, 32]])
    client = here.client()
    client.compute(request)
    wait_until(here.traced)
    pid = client.status()["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not processes(here.runtime), what="daemon and worker have gone")
    assert not socket_there()
    client.close()
    gate.touch()
    events: list[dict] = []
    run_job(request, events.append, config=here.config(), timeout=DEADLINE)
    check_complete(here, request)


def test_a_daemon_that_was_killed_leaves_no_worker_and_no_lock(here):
    gate = here.root / "gate"
    client = here.client()
    client.compute(here.request(gate=str(gate)))
    wait_until(here.traced)
    pid = client.status()["pid"]
    kill(pid)
    wait_until(lambda: not processes(here.runtime), what="the worker has gone")
    assert socket_there()  # a stale socket
    with pytest.raises(ServiceError, match="no service is running"):
        Client.connect(False)
    with pytest.raises(protocol.Disconnected):
        client.call("status")
    with here.client() as again:
        assert again.status()["pid"] != pid


def test_stale_files_of_every_kind_do_no_harm(here):
    place.folder()
    path = place.socket_path()
    for stale in ("file", "socket", "dangling"):
        path.unlink(missing_ok=True)
        if stale == "file":
            path.write_text("not a socket")
        elif stale == "dangling":
            path.symlink_to(here.root / "nowhere")
        else:
            import socket

            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        path.with_suffix(".lock").write_text("99999999\n")
        path.with_suffix(".1234.new").write_text("")
        with here.client(prestart=False) as client:
            client.status()
        assert stop()
        assert not list(here.runtime.glob("*.new"))


def test_an_own_sockets_file_is_never_a_port(here):
    """No TCP, no UDP: the daemon's only sockets are of the unix kind."""
    with here.client() as client:
        pid = client.status()["pid"]
        inodes = {
            os.readlink(fd)[8:-1] for fd in Path(f"/proc/{pid}/fd").iterdir() if os.readlink(fd).startswith("socket:")
        }
        assert inodes
        for table in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                assert line.split()[9] not in inodes


def test_a_worker_killed_in_the_midst_of_work_is_replaced_and_nothing_is_lost(here):
    gate = here.root / "gate"
    request = here.request(gate=str(gate), products=[["tokens", 96, 32]])
    with here.client() as client:
        job = client.compute(request)["job"]
        wait_until(here.traced)
        [worker] = client.status()["workers"]
        client.call("watch")  # before the kill: the service may tell of the second try at once
        os.kill(worker["pid"], signal.SIGKILL)
        events = []
        for event in client.wait(job, DEADLINE):
            events.append(event)
            if event["event"] == "retry":
                gate.touch()
        assert sum(e["event"] == "retry" for e in events) == 1
        assert "SIGKILL" in next(e["reason"] for e in events if e["event"] == "retry")
    check_complete(here, request)
    assert [line for line in here.traced() if "tokens 0 32" in line] == [
        "shard tokens 0 32 tile=64",
        "shard tokens 0 32 tile=32",
    ]


def test_a_poisoned_shard_fails_its_job_once_and_the_service_lives(here):
    request = here.request(products=[["tokens", 96, 32]], faults={"tokens:32": ["segv", 9]})
    with here.client() as client:
        job = client.compute(request)["job"]
        with pytest.raises(WbtuiError, match=r"SIGSEGV.*twice"):
            list(client.wait(job, DEADLINE))
        assert sum("tokens 32" in line for line in here.traced()) == 2
        fine = here.request("fine", products=[["tokens", 32, 32]])
        list(client.wait(client.compute(fine)["job"], DEADLINE))


def test_a_worker_without_a_sign_of_life_is_killed_and_its_shard_tried_again(here):
    request = here.request(products=[["tokens", 32, 32]], faults={"tokens:0": ["hang", 1]})
    with here.client(heartbeat=2.5) as client:
        events = list(client.wait(client.compute(request)["job"], DEADLINE))
        [retry] = [e for e in events if e["event"] == "retry"]
        assert "no sign of progress" in retry["reason"]
    check_complete(here, request)


def test_a_first_look_needs_neither_torch_nor_the_weights_read_whole(here):
    """GIVEN no service and nothing kept THEN a feature of the demo is answered for with its words, before torch."""
    config = ServiceConfig(devices=("cpu",))
    with Client.connect(config=config) as client:
        request = RowRequest("demo", "L3", to_json(DEFINITIONS["folded"]), str(here.cache), 67, first=True)
        row = client.row(request, DEADLINE)
        [worker] = client.status()["workers"]
        assert "torch" not in Path(f"/proc/{worker['pid']}/maps").read_text()
        with pytest.raises(UsageError, match="feature 100000"):
            client.row(dataclasses.replace(request, feature=100_000), DEADLINE)
        client.stop()
    assert row["texts"][str(row["writes.top_ids"][0])] == " color"
    assert row["unmasked"] is True and not [p for p in here.cache.rglob("*") if p.is_file()]


def test_damaged_shards_are_computed_again(here):
    """A shard whose data rotted on disk after it was written is found when the product is put together."""
    gate = here.root / "gate"
    request = here.request(products=[["tokens", 96, 32]], gate=str(gate))
    [spec] = fake_work.products(request.plan_request())
    product = Product(here.cache, spec)
    product.begin()
    path = product.write_shard(0, 32, fake_work.numbers(spec.key, 0, 32))
    data = bytearray(path.read_bytes())
    data[-5] ^= 255
    path.write_bytes(data)
    gate.touch()
    run_job(request, lambda event: None, config=here.config(), timeout=DEADLINE)
    check_complete(here, request)


def test_idle_workers_give_their_memory_back_and_come_again(here):
    request = here.request(products=[["tokens", 32, 32]])
    with here.client(idle_unload=0.2) as client:
        list(client.wait(client.compute(request)["job"], DEADLINE))
        wait_until(lambda: not client.status()["workers"][0]["alive"])
        other = here.request("b", products=[["tokens", 32, 32]])
        list(client.wait(client.compute(other)["job"], DEADLINE))


def test_an_idle_daemon_ends(here):
    with here.client(idle_exit=0.2, idle_unload=0.1, check_every=0.05, prestart=False) as client:
        pid = client.status()["pid"]
    wait_until(lambda: not alive(pid))
    assert not socket_there()


def test_restart_and_stop(here):
    assert not stop()
    with here.client(prestart=False) as client:
        first = client.status()["pid"]
    second = restart(here.config(prestart=False))["pid"]
    assert second != first and not alive(first)
    assert stop() and not stop()


def test_a_job_survives_the_death_of_its_service(here):
    gate = here.root / "gate"
    request = here.request(gate=str(gate), products=[["tokens", 96, 32]])
    events: list[dict] = []
    killed = []

    def on_event(event: dict) -> None:
        events.append(event)
        if event["event"] == "planned" and not killed:
            wait_until(here.traced)
            [pid] = daemons(here)
            killed.append(pid)
            kill(pid)
            gate.touch()

    run_job(request, on_event, config=here.config(), timeout=DEADLINE)
    assert [e["event"] for e in events].count("planned") == 2
    check_complete(here, request)


def test_a_users_timeout_and_a_jobs_own_error(here):
    gate = here.root / "gate"
    with pytest.raises(TimedOut):
        run_job(here.request(gate=str(gate)), lambda event: None, config=here.config(), timeout=0.3)
    gate.touch()
    bad = here.request("bad", faults={"vocab:0": ["user", 1]})
    with pytest.raises(WeightsError, match="cut short"):
        run_job(bad, lambda event: None, config=here.config(), timeout=DEADLINE)
    with Client.connect(False) as client:
        answer = client.compute(here.request("c", gate=str(here.root / "never")))
        client.cancel(answer["job"])
        with pytest.raises(Cancelled):
            list(client.wait(answer["job"], DEADLINE))
        with pytest.raises(UsageError, match="job 999"):
            list(client.wait(999, DEADLINE))


def test_a_service_that_cannot_start_says_why(here):
    config = here.config(planner="tests.service.fake_work:no_such_planner")
    with pytest.raises(ServiceError, match=r"wbtui daemon run"):
        Client.connect(config=config, timeout=DEADLINE)


def test_a_relative_path_is_the_clients(here, monkeypatch):
    monkeypatch.chdir(here.root)
    assert connect.absolute("./model") == str(here.root / "model")
    assert connect.absolute("~/m") == os.path.expanduser("~/m")
    assert connect.absolute("org/name:rev") == "org/name:rev" and connect.absolute("demo") == "demo"
    assert connect.cache("here") == str(here.root / "here")


async def test_the_app_reconnects_to_a_new_service(here):
    config = here.config(prestart=False)
    async with AsyncClient(config=config, timeout=DEADLINE) as client:
        first = (await client.call("status"))["pid"]
        queue = client.events()
        listener = asyncio.create_task(anext(queue))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE):
            assert (await listener)["event"] == "disconnected"
            assert (await anext(queue))["event"] == "connected"
        assert (await client.call("status"))["pid"] != first
        assert client.connected and client.error is None


async def test_a_service_that_was_told_to_end_is_started_again_only_by_a_wish(here):
    async with AsyncClient(config=here.config(prestart=False), timeout=DEADLINE) as client:
        first = (await client.call("status"))["pid"]
        events = client.events()
        seen = [asyncio.create_task(anext(events))]
        await asyncio.sleep(0)
        await asyncio.to_thread(stop)
        async with asyncio.timeout(DEADLINE):
            told = [(await seen[0])["event"]]
            while told[-1] != "disconnected":  # devices that begin or end work are told of in between
                told.append((await anext(events))["event"])
            assert "ending" in told
            assert (await anext(events))["event"] == "refused"
            assert set(daemons(here)) <= {first}  # which may still be on its way out
            second = (await client.call("status"))["pid"]
            assert (await anext(events))["event"] == "connected"
        assert second != first


def test_blocking_calls_from_two_threads_take_turns(here):
    with here.client(prestart=False) as client:
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(client.status()["pid"])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert len(seen) == 8 and len(set(seen)) == 1


def test_a_client_that_waits_at_the_start_gives_up_at_its_deadline(here, monkeypatch):
    monkeypatch.setattr("wbtui.service.start.spawn_detached", lambda config: subprocess.Popen(["sleep", "30"]))
    began = time.monotonic()
    with pytest.raises(ServiceError, match="no service came up"):
        Client.connect(timeout=0.2)
    assert time.monotonic() - began < DEADLINE
