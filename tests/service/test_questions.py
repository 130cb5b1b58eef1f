"""Questions through the daemon and without one: parts on the way, one answer, taken back when no one waits."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.service import fake_work
from tests.service.conftest import DEADLINE
from tests.service.daemons import listening
from wbtui.errors import UsageError
from wbtui.service import local, wishes
from wbtui.service.aio import AsyncClient
from wbtui.service.inprocess import InProcessWorker
from wbtui.store.products import Product


def question(here, *, args=None, what="find", **steering):
    request = here.request(products=[["vocab", 0, 0], ["tokens", 32, 32]], **steering)
    return wishes.AskRequest(**request.plan_request(), what=what, args=args or {})


async def test_an_answer_comes_with_its_parts_before_it_and_is_stored_nowhere(running, here):
    wish = question(here, args={"parts": 3, "query": "w:x"})
    async with AsyncClient(autostart=False) as client, AsyncClient(autostart=False) as other:
        events, heard = await listening(client), await listening(other)
        fields = dataclasses.asdict(dataclasses.replace(wish, ticket="mine"))
        answer = (await client.call("ask", DEADLINE, **fields))["answer"]
        assert answer["what"] == "find" and answer["args"] == {"parts": 3, "query": "w:x"}
        parts = []
        async with asyncio.timeout(DEADLINE):
            async for event in events:
                if event["event"] == "part":
                    assert event["ticket"] == "mine"
                    parts.append(event["part"])
                    if len(parts) == 3:
                        break
        assert parts == [{"n": n, "bad": None} for n in range(3)]
        await other.call("status", DEADLINE)
        assert all(e["event"] != "part" for e in other._queues[0]._items)  # no one else's business
        del heard
    states = {s.analysis: Product(here.cache, s).state for s in fake_work.products(wish.plan_request())}
    assert states == {"vocab": "complete", "tokens": "absent"}


async def test_a_question_that_is_given_up_is_stopped(running, here):
    wish = question(here, args={"wait": True})
    async with AsyncClient(autostart=False) as client:
        waiting = asyncio.create_task(client.call("ask", DEADLINE, **dataclasses.asdict(wish)))
        scheduler = running.daemon.engine.scheduler
        async with asyncio.timeout(DEADLINE):
            while not any(line.startswith("ask") for line in here.traced()):
                await asyncio.sleep(0)
            waiting.cancel()
            while scheduler.rows or not scheduler.idle:
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert here.traced()[-1] == "stopped ask find"


async def test_a_question_that_no_one_knows_is_refused(running, here):
    async with AsyncClient(autostart=False) as client:
        fields = dataclasses.asdict(question(here))
        with pytest.raises(UsageError, match="riddle"):
            await client.call("ask", DEADLINE, **{**fields, "what": "riddle"})
        with pytest.raises(UsageError, match="args"):
            await client.call("ask", DEADLINE, **{**fields, "args": 7})


def test_the_same_without_a_service(here):
    parts: list[dict] = []
    workers = {"0": InProcessWorker("cpu", "tests.service.fake_work")}
    with local.LocalRunner(here.config(), workers) as runner:
        answer = runner.ask(question(here, args={"parts": 2}), parts.append, DEADLINE)
        assert answer["args"] == {"parts": 2} and [p["n"] for p in parts] == [0, 1]
        assert runner.ask(question(here, what="flow"), None, DEADLINE)["what"] == "flow"


async def test_the_blocking_client_hears_parts_too(running, here):
    from wbtui.service.client import Client

    def work() -> tuple[dict, list[dict]]:
        parts: list[dict] = []
        with Client.connect(False) as client:
            return client.ask(question(here, args={"parts": 2}), parts.append, DEADLINE), parts

    answer, parts = await asyncio.to_thread(work)
    assert answer["what"] == "find" and [p["n"] for p in parts] == [0, 1]
