"""The daemon in this process: hostile clients, versions, events, its place on disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import resource
import socket
import types
from typing import Any

import pytest

import wbtui
from tests.service import fake_work
from tests.service.conftest import DEADLINE
from tests.service.daemons import Running, finished, listening
from tests.service.test_protocol import mutations
from wbtui import build
from wbtui.errors import Cancelled, ServiceError, UsageError, WbtuiError, WeightsError
from wbtui.service import place, planning, protocol
from wbtui.service.aio import AsyncClient, EventQueue
from wbtui.service.protocol import OtherVersion
from wbtui.store.products import Product


async def raw() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(place.socket_path()))


def hello(**changes: Any) -> bytes:
    fields = {"protocol": protocol.PROTOCOL, "version": wbtui.__version__, **changes}
    return protocol.encode(protocol.Request(0, "hello", fields).to_message())


async def answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE):
        message = await protocol.receive_async(reader)
    assert message is not None
    return message


async def hostile(running: Running, count: int, seed: int) -> int:
    """Throw malformed frames at the daemon, one connection each, some without hello; returns those refused."""
    rng, refused = random.Random(seed), 0
    for n in range(count):
        reader, writer = await raw()
        with contextlib.suppress(ConnectionError):
            if n % 4:
                writer.write(hello())
            writer.write(mutations(rng))
            writer.write_eof()
            async with asyncio.timeout(DEADLINE):
                while True:
                    try:
                        message = await protocol.receive_async(reader)
                    except protocol.Disconnected:
                        break
                    if message is None:
                        break
                    refused += "error" in message
        writer.close()
    return refused


async def test_a_thousand_hostile_frames_leave_the_daemon_well(running):
    assert await hostile(running, 1500, seed=3) > 700
    async with AsyncClient(autostart=False) as client:
        status = await client.call("status")
    assert status["jobs"] == 0 and status["clients"] == 1


@pytest.mark.faults
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_hostile_frames(running, monkeypatch):
    # pytest keeps every line of the log, a kilobyte for each frame, in the process that is measured
    monkeypatch.setattr(logging.getLogger("wbtui.service"), "disabled", True)
    await hostile(running, 1500, seed=5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert await hostile(running, 100_000, seed=4) > 50_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 64 * 1024  # KiB
    async with AsyncClient(autostart=False) as client:
        assert (await client.call("status"))["clients"] == 1


async def test_another_version_may_only_look_and_stop(running, here):
    for changes in ({"version": "9.9.9"}, {"protocol": 99}, {"version": None}):
        reader, writer = await raw()
        writer.write(hello(**changes))
        assert (await answer(reader))["ok"]["same"] is False
        for number, op in enumerate(("jobs", "compute", "row", "watch"), 1):
            writer.write(protocol.encode({"v": 1, "id": number, "op": op}))
            error = (await answer(reader))["error"]
            assert error["code"] == "ServiceError" and "wbtui daemon restart" in error["do"]
        writer.write(protocol.encode({"v": 1, "id": 9, "op": "status"}))
        assert (await answer(reader))["ok"]["version"] == wbtui.__version__
        writer.close()
    reader, writer = await raw()
    writer.write(hello(protocol=99))
    writer.write(protocol.encode({"v": 99, "id": 1, "op": "stop"}))
    await answer(reader)
    assert (await answer(reader))["ok"]["stopping"]
    assert await running.task == 0
    writer.close()


async def test_a_client_refuses_a_daemon_of_another_version(running, monkeypatch):
    monkeypatch.setattr("wbtui.service.session.wbtui", types.SimpleNamespace(__version__="9.9.9"))
    client = AsyncClient(autostart=False)
    with pytest.raises(ServiceError) as caught:
        await client.connect()
    await client.close()
    assert "wbtui daemon restart" in caught.value.line()


async def test_a_service_of_the_same_version_and_other_code_is_refused_by_both(running, monkeypatch):
    """GIVEN a package updated in place under a running service THEN neither side goes on as if nothing were."""
    monkeypatch.setattr("wbtui.service.connect.build", types.SimpleNamespace(stamp=lambda: "0badc0de"))
    client = AsyncClient(autostart=False)
    with pytest.raises(OtherVersion, match="before the package was changed"):
        await client.connect()
    await client.close()
    reader, writer = await raw()
    writer.write(hello(build="0badc0de"))
    assert (await answer(reader))["ok"]["same"] is False
    writer.write(protocol.encode({"v": 1, "id": 1, "op": "jobs"}))
    assert "wbtui daemon restart" in (await answer(reader))["error"]["do"]
    writer.close()


def test_the_build_is_the_codes_content(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))
    (tmp_path / "a.py").write_text("1")
    stamps = [build.stamp.__wrapped__()]
    os.utime(tmp_path / "a.py", (0, 0))
    assert build.stamp.__wrapped__() == stamps[0]
    for name, text in (("a.py", "2"), ("b.py", "2")):
        (tmp_path / name).write_text(text)
        stamps.append(build.stamp.__wrapped__())
    assert len(set(stamps)) == 3


async def test_no_hello_is_no_service(running):
    reader, writer = await raw()
    writer.write(protocol.encode({"v": 1, "id": 1, "op": "status"}))
    assert "hello" in (await answer(reader))["error"]["expected"]
    assert await reader.read() == b""
    writer.close()


async def test_a_silent_client_is_let_go(running, monkeypatch):
    monkeypatch.setattr("wbtui.service.session.HELLO_WITHIN", 0.05)
    reader, writer = await raw()
    assert "error" in await answer(reader)
    assert await reader.read() == b""
    writer.close()


async def test_another_user_is_not_served(running, monkeypatch):
    monkeypatch.setattr("wbtui.service.place.peer_uid", lambda sock: os.getuid() + 1)
    reader, writer = await raw()
    with contextlib.suppress(ConnectionResetError):
        writer.write(hello())
        assert await reader.read() == b""
    writer.close()
    assert not running.daemon.sessions


def test_the_kernel_says_who_the_peer_is():
    a, b = socket.socketpair()
    assert place.peer_uid(a) == os.getuid() and place.is_ours(b)
    with socket.socket(socket.AF_INET) as tcp:
        assert not place.is_ours(tcp)
    a.close()
    b.close()


async def test_wrong_requests_are_answered_and_the_connection_stays(running, here):
    async with AsyncClient(autostart=False) as client:
        for op, fields in (
            ("nonsense", {}),
            ("cancel", {}),
            ("cancel", {"job": 77}),
            ("compute", {}),
            ("compute", {**here.request(model="unknown").plan_request()}),
            ("row", {**here.request().plan_request(), "feature": 10**9}),
        ):
            with pytest.raises(UsageError):
                await client.call(op, DEADLINE, **fields)
        assert (await client.call("status"))["clients"] == 1


async def test_a_bug_in_planning_is_an_answer_and_not_the_end(running, here):
    async with AsyncClient(autostart=False) as client:
        with pytest.raises(WbtuiError, match="daemon logs"):
            await client.call("compute", DEADLINE, **here.request(products=[["nonsense", 1, 1]]).plan_request())
        assert (await client.call("status"))["clients"] == 1


async def test_compute_to_the_end_with_every_shard_told(running, here):
    request = here.request()
    async with AsyncClient(autostart=False) as client:
        events = await listening(client)
        planned = await client.compute(**request.plan_request(), priority="screen")
        assert [p["missing"] for p in planned["products"]] == [1, 96, 64, 160]
        seen = await finished(events, planned["job"])
        assert sum(e["event"] == "shard" for e in seen) == 10
        assert [e["analysis"] for e in seen if e["event"] == "product"] == ["vocab", "mask", "null", "tokens"]
        again = await client.compute(**request.plan_request())
        assert again["state"] == "done" and all(p["complete"] for p in again["products"])
        [job, _] = (await client.call("jobs"))["jobs"]
        assert (job["state"], job["fraction"], job["rows_done"]) == ("done", 1.0, 320)
    for spec in fake_work.products(request.plan_request()):
        product = Product(here.cache, spec)
        assert product.state == "complete"
        if spec.analysis == "tokens":
            assert product.manifest()["device"] == "cpu" and product.manifest()["seconds"] > 0
            expected = fake_work.numbers(spec.key, 0, 160)
            assert (product.columns()["values"] == expected["values"]).all()


async def test_eight_clients_that_ask_for_the_same_get_one_computation(running, here):
    gate = here.root / "gate"
    request = here.request(plan_gate=str(gate))
    clients = [AsyncClient(autostart=False) for _ in range(8)]
    for client in clients:
        await client.connect()
    events = [await listening(client) for client in clients]
    calls = [asyncio.create_task(client.compute(**request.plan_request())) for client in clients]
    async with asyncio.timeout(DEADLINE):
        while not running.daemon._plans:
            await asyncio.sleep(0)
    gate.touch()
    jobs = [planned["job"] for planned in await asyncio.gather(*calls)]
    for listener, job in zip(events, jobs, strict=True):
        assert (await finished(listener, job))[-1]["state"] == "done"
    for client in clients:
        await client.close()
    work = [line for line in here.traced() if line.startswith(("shard", "assemble"))]
    assert len(work) == len(set(work)) == 1 + 3 + 1 + 2 + 1 + 5 + 1


async def test_a_row_is_computed_at_once_and_stored_nowhere(running, here):
    request = here.request(slices=1)
    async with AsyncClient(autostart=False) as client:
        columns = await client.row(**request.plan_request(), feature=11)
        assert columns["row"] == 11 and columns["bad"] is None
    states = {s.analysis: Product(here.cache, s).state for s in fake_work.products(request.plan_request())}
    assert states == {"vocab": "complete", "mask": "absent", "null": "absent", "tokens": "absent"}


async def test_a_row_goes_before_a_running_batch_which_then_goes_on(running, here):
    gate = here.root / "gate"
    batch = here.request("batch", gate=str(gate), products=[["tokens", 64, 32]])
    other = here.request("other", products=[["tokens", 32, 32]])
    async with AsyncClient(autostart=False) as client:
        events = await listening(client)
        job = (await client.compute(**batch.plan_request()))["job"]
        async with asyncio.timeout(DEADLINE):
            while not here.traced():
                await asyncio.sleep(0)
        columns = await client.call("row", DEADLINE, **other.plan_request(), feature=3)
        assert columns["provisional"]
        assert not gate.exists()  # the batch could not have ended
        gate.touch()
        await finished(events, job)
    lines = here.traced()
    assert lines[:3] == ["shard tokens 0 32 tile=64", "stopped tokens 0", "row 3"]
    assert lines[3:] == ["shard tokens 0 32 tile=64", "shard tokens 32 64 tile=64", "assemble tokens 0 0 tile=64"]


async def test_a_call_that_is_given_up_takes_its_row_back(running, here):
    gate = here.root / "gate"
    async with AsyncClient(autostart=False) as client:
        request = here.request(
            faults={"row:5": ["hang", 0]}, gate=str(gate), products=[["vocab", 0, 0], ["tokens", 32, 32]]
        )
        waiting = asyncio.create_task(client.row(**request.plan_request(), feature=5))
        scheduler = running.daemon.engine.scheduler
        async with asyncio.timeout(DEADLINE):
            while not scheduler.rows:
                await asyncio.sleep(0)
            waiting.cancel()
            while scheduler.rows:
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.touch()


def page_request(here, **steering):
    """One feature in two heads, with words and a target."""
    request = here.request(products=[["attention", 2, 1]], **steering)
    words = {**request.definition, "products": [["vocab", 0, 0], ["tokens", 160, 32]]}
    return {**request.plan_request(), "feature": 5, "layer": 4, "tokens": words, "target": "behind"}


async def test_a_page_of_heads_is_computed_at_once_and_stored_nowhere(running, here):
    asked = page_request(here)
    async with AsyncClient(autostart=False) as client:
        page = (await client.call("page", DEADLINE, **asked))["page"]
        target = {"name": "behind", "d_sae": 160}
        assert page == {"feature": 5, "analysis": "attention", "tokens": "tokens", "target": target}
        bare = {k: v for k, v in asked.items() if k not in ("tokens", "target")}
        page = (await client.call("page", DEADLINE, **bare))["page"]
        assert page == {"feature": 5, "analysis": "attention", "tokens": None, "target": None}
        for wrong in ({"feature": 160}, {"feature": -1}, {"layer": "4"}, {"tokens": 3}, {"target": ""}, {"more": 1}):
            with pytest.raises(UsageError):
                await client.call("page", DEADLINE, **{**asked, **wrong})
    done = [line for line in here.traced() if not line.startswith("page")]
    assert done == ["shard vocab 0 0 tile=64"]  # the words alone were made, once


async def test_a_page_that_is_given_up_is_stopped(running, here):
    asked = page_request(here, gate=str(here.root / "gate"))
    del asked["tokens"], asked["target"]  # whose vocabulary would wait at the gate too
    async with AsyncClient(autostart=False) as client:
        waiting = asyncio.create_task(client.call("page", **asked))
        scheduler = running.daemon.engine.scheduler
        async with asyncio.timeout(DEADLINE):
            while "page 5" not in here.traced():
                await asyncio.sleep(0)
            waiting.cancel()
            while scheduler.rows or not scheduler.idle:
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert here.traced()[-1] == "stopped page 5"  # the gate is still shut: it would have waited for ever


async def test_cancel_and_vanish(running, here):
    gate = here.root / "gate"
    first, second = AsyncClient(autostart=False), AsyncClient(autostart=False)
    await first.connect()
    await second.connect()
    steering = {"gate": str(gate), "products": [["tokens", 64, 32]]}
    cancelled = await first.compute(**here.request("a", **steering).plan_request())
    batch = await first.compute(**here.request("b", **steering).plan_request())
    screen = await first.compute(**here.request("c", **steering).plan_request(), priority="screen")
    events = await listening(second)
    assert (await second.call("cancel", job=cancelled["job"]))["cancelled"]
    assert not (await second.call("cancel", job=cancelled["job"]))["cancelled"]
    await first.close()
    gone = await finished(events, screen["job"])
    assert gone[-1]["state"] == "cancelled" and "client has gone" in gone[-1]["error"]["found"]
    gate.touch()
    assert (await finished(events, batch["job"]))[-1]["state"] == "done"
    states = {j["job"]: j["state"] for j in (await second.call("jobs"))["jobs"]}
    assert states == {cancelled["job"]: "cancelled", batch["job"]: "done", screen["job"]: "cancelled"}
    await second.close()


async def test_a_job_that_has_ended_can_be_asked_for_again_by_anyone(running, here):
    gate = here.root / "gate"
    async with AsyncClient(autostart=False) as first, AsyncClient(autostart=False) as second:
        wish = here.request("a", gate=str(gate), products=[["tokens", 64, 32]]).plan_request()
        job = await first.compute(**wish)
        with pytest.raises(UsageError, match="one that has ended"):
            await second.call("retry", job=job["job"])
        with pytest.raises(UsageError, match="asked for by `compute`"):
            await second.call("retry", job=9999)
        events = await listening(second)
        await first.call("cancel", job=job["job"])
        gate.touch()
        again = await second.call("retry", job=job["job"])
        assert again["job"] != job["job"]
        assert (await finished(events, again["job"]))[-1]["state"] == "done"


async def test_a_failed_job_says_why(running, here):
    request = here.request(products=[["tokens", 64, 32]], faults={"tokens:32": ["user", 1]})
    async with AsyncClient(autostart=False) as client:
        events = await listening(client)
        job = (await client.compute(**request.plan_request()))["job"]
        error = (await finished(events, job))[-1]["error"]
        with pytest.raises(WeightsError, match="cut short"):
            raise WbtuiError.from_json(error)


async def test_a_client_that_does_not_read_is_cut_off_and_others_are_served(running, monkeypatch):
    monkeypatch.setattr("wbtui.service.session.MAX_BACKLOG", 200_000)
    _, writer = await raw()
    writer.write(hello())
    writer.write(protocol.encode({"v": 1, "id": 1, "op": "watch"}))
    async with AsyncClient(autostart=False) as client:
        async with asyncio.timeout(DEADLINE):
            while sum(s.watching for s in running.daemon.sessions.values()) < 2:
                await asyncio.sleep(0)
            while len(running.daemon.sessions) > 1:
                running.daemon.on_event({"event": "job", "job": 1, "state": "x" * 20_000})
                await asyncio.sleep(0)
        assert (await client.call("status"))["clients"] == 1
    writer.close()


async def test_an_answer_that_is_too_large_is_an_error_and_not_a_hang(running, here, monkeypatch):
    monkeypatch.setattr(fake_work, "numbers", lambda *_: {"values": [["x" * (2 << 20)]]})
    async with AsyncClient(autostart=False) as client:
        with pytest.raises(ServiceError, match="cannot be sent"):
            await client.row(**here.request(products=[["tokens", 32, 32]]).plan_request(), feature=1)


async def test_ending_answers_those_who_wait(running, here):
    gate = here.root / "gate"
    async with AsyncClient(autostart=False) as client:
        request = here.request(gate=str(gate), products=[["vocab", 0, 0], ["tokens", 32, 32]])
        row = asyncio.create_task(client.row(**request.plan_request(), feature=1))
        async with asyncio.timeout(DEADLINE):
            while not here.traced():
                await asyncio.sleep(0)
        assert await running.down() == 0
        with pytest.raises((ServiceError, Cancelled)):
            await row


async def test_planning_is_not_done_twice_at_the_same_time(running, here, monkeypatch):
    calls = []
    real = planning.plan
    gate = here.root / "gate"

    def counted(planner, request):
        calls.append(request)
        return real(planner, request)

    monkeypatch.setattr(planning, "plan", counted)
    request = {**here.request(plan_gate=str(gate)).plan_request(), "checks": True}
    plans = [asyncio.create_task(running.daemon.plan(request)) for _ in range(5)]
    async with asyncio.timeout(DEADLINE):
        while not calls:
            await asyncio.sleep(0)
    gate.touch()
    results = await asyncio.gather(*plans)
    assert len(calls) == 1 and all(r is results[0] for r in results)


async def test_the_event_queue_keeps_only_the_newest_progress(monkeypatch):
    queue = EventQueue()
    for n in range(5):
        queue.put({"event": "progress", "job": 1, "n": n})
        queue.put({"event": "progress", "job": 2, "n": n})
    assert [await queue.get(), await queue.get()] == [
        {"event": "progress", "job": 1, "n": 4},
        {"event": "progress", "job": 2, "n": 4},
    ]
    monkeypatch.setattr("wbtui.service.aio.MAX_EVENTS", 3)
    for n in range(4):
        queue.put({"event": "shard", "n": n})
    assert [await queue.get(), await queue.get()] == [{"event": "overflow"}, {"event": "shard", "n": 3}]
    queue.close()
    assert await queue.get() is None
