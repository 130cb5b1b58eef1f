"""A daemon on a test's own loop, and listeners to its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tests.service.conftest import DEADLINE, Place
from wbtui.service import place, protocol
from wbtui.service.aio import AsyncClient, EventQueue
from wbtui.service.daemon import Daemon
from wbtui.service.engine import Engine
from wbtui.service.inprocess import InProcessWorker


class Running:
    """A daemon on this test's own loop; its worker is a thread."""

    def __init__(self, here: Place, **changes: Any) -> None:
        self.daemon = Daemon(here.config(**{"prestart": False, "idle_exit": 3600.0, **changes}))
        workers = {"0:cpu": InProcessWorker("cpu", "tests.service.fake_work")}
        self.daemon.engine = Engine(
            self.daemon.config,
            self.daemon.post,
            self.daemon.on_event,
            self.daemon.on_answer,
            workers,
            on_part=self.daemon.on_part,
        )
        self.task = asyncio.create_task(self.daemon.serve(handle_signals=False))

    async def up(self) -> Running:
        """Wait until it listens."""
        async with asyncio.timeout(DEADLINE):
            while not place.socket_path().exists():
                assert not self.task.done(), self.task.result()
                await asyncio.sleep(0)
        return self

    async def down(self) -> int:
        """End it."""
        self.daemon.end("the test is over")
        return await self.task

    @staticmethod
    def watches() -> list[asyncio.Task[Any]]:
        """Watches that go on."""
        return [task for task in asyncio.all_tasks() if "Daemon.watch" in repr(task.get_coro())]


async def finished(events: AsyncIterator[dict[str, Any]], job: int) -> list[dict[str, Any]]:
    """A job's events up to its end."""
    seen = []
    async with asyncio.timeout(DEADLINE):
        async for event in events:
            if event.get("job") == job:
                seen.append(event)
                if event["event"] == "job" and event["state"] in protocol.FINAL_STATES:
                    return seen
    raise AssertionError(seen)


async def listening(client: AsyncClient) -> AsyncIterator[dict[str, Any]]:
    """Events, from this moment on (a generator begins only at its first step)."""
    queue = EventQueue()
    client._queues.append(queue)

    async def generate() -> AsyncIterator[dict[str, Any]]:
        while (event := await queue.get()) is not None:
            yield event

    return generate()
