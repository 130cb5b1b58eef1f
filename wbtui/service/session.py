"""One client of the daemon: its requests, each its own task, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import wbtui
from wbtui import build
from wbtui.errors import Cancelled, ServiceError, UsageError, WbtuiError, WorkError
from wbtui.service import planning, protocol, wishes
from wbtui.service.work import Outcome, Priority

if TYPE_CHECKING:
    from wbtui.service.daemon import Daemon

log = logging.getLogger("wbtui.service")

HELLO_WITHIN = 10.0
"""Seconds that a new client has to say hello."""
MAX_BACKLOG = 8 << 20
"""Bytes that a client may leave unread; past it, it is cut off (it can come back and read the store)."""
MAX_REQUESTS = 256
"""Requests of one client under way at one time."""
DETAILED = 50
"""Live jobs, and finished ones, that ``jobs`` tells the products of."""
ALWAYS = ("status", "stop")
"""Operations for clients of any version, so that they can end this service."""


class Session:
    """The daemon's side of one connection.

    Args:
        daemon: whose client this is.
        name: unique among the daemon's clients.
        reader: from the client. writer: to it.
    """

    def __init__(self, daemon: Daemon, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.daemon = daemon
        self.name = name
        self.reader = reader
        self.writer = writer
        self.watching = False
        self.same_version = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._rows: dict[int, str] = {}
        """Requests for a lone row or page under way, and what the answer is called."""
        self._tickets: dict[int, str] = {}
        """Requests whose parts are told, and under which name."""
        self._ops: dict[str, Callable[[protocol.Request], Awaitable[Any]]] = {
            "status": self.status,
            "stop": self.stop,
            "compute": self.compute,
            "row": self.row,
            "page": self.page,
            "ask": self.ask,
            "cancel": self.cancel,
            "retry": self.retry,
            "jobs": self.jobs,
            "watch": self.watch,
        }

    def tell(self, message: dict[str, Any]) -> None:
        """Send without waiting; a client that does not read is cut off."""
        if self.writer.is_closing():
            return
        self.writer.write(protocol.encode(message))
        transport = self.writer.transport
        if transport.get_write_buffer_size() > MAX_BACKLOG:
            log.warning("client %s does not read: cut off", self.name)
            transport.abort()

    def close(self) -> None:
        """Let go of the connection and of what was being done for it."""
        for task in list(self._tasks.values()):
            task.cancel()
        self.writer.close()

    def fail_all(self, error: WbtuiError) -> None:
        """Answer every open request with an error: the service is ending."""
        for number in [*self._tasks, *self._rows]:
            self.tell(protocol.failure(number, error))
        self._rows.clear()

    async def serve(self) -> None:
        """Requests until the client goes. A frame that cannot be read is answered, and ends the connection."""
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                first = await protocol.receive_async(self.reader)
            if first is None:
                return
            self.hello(protocol.Request.from_message(first))
            while (message := await protocol.receive_async(self.reader)) is not None:
                self.begin(protocol.Request.from_message(message))
        except TimeoutError:
            self.tell(protocol.failure(None, protocol.ProtocolError("no hello", f"one within {HELLO_WITHIN:g} s")))
        except protocol.Disconnected:
            pass
        except protocol.ProtocolError as error:
            log.warning("client %s: %s", self.name, error.line())
            self.tell(protocol.failure(None, error))
        if not self.writer.is_closing():
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.writer.drain()

    def hello(self, request: protocol.Request) -> None:
        """The first request: which version is speaking. Another version may only ask for status and stop."""
        if request.op != "hello":
            raise protocol.ProtocolError(f"a first request {request.op!r}", "'hello'")
        theirs, version = request.fields.get("protocol"), request.fields.get("version")
        built = request.fields.get("build", build.stamp())
        self.same_version = (theirs, version, built) == (protocol.PROTOCOL, wbtui.__version__, build.stamp())
        ours = {"protocol": protocol.PROTOCOL, "version": wbtui.__version__, "build": build.stamp()}
        self.tell(protocol.reply(request.id, {**ours, "same": self.same_version}))

    def begin(self, request: protocol.Request) -> None:
        """Start one request as a task of its own, so that a long one holds up no other."""
        if request.id in self._tasks or request.id in self._rows:
            raise protocol.ProtocolError(f"request {request.id} while {request.id} is open", "a new number for each")
        if len(self._tasks) + len(self._rows) >= MAX_REQUESTS:
            error = ServiceError("too many requests at once", f"at most {MAX_REQUESTS}")
            self.tell(protocol.failure(request.id, error))
            return
        task = asyncio.create_task(self.answer(request))
        self._tasks[request.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.id, None))

    async def answer(self, request: protocol.Request) -> None:
        """Do one request and send its reply; whatever goes wrong becomes an error that names itself."""
        try:
            if not self.same_version and request.op not in ALWAYS:
                raise protocol.version_error(wbtui.__version__, "another version")
            operation = self._ops.get(request.op)
            if operation is None:
                raise UsageError(f"operation {request.op!r}", "one of " + ", ".join(self._ops))
            answer = await operation(request)
            if answer is not None:
                self.reply(request.id, answer)
        except WbtuiError as error:
            self.tell(protocol.failure(request.id, error))
        except asyncio.CancelledError:
            self.tell(protocol.failure(request.id, Cancelled("cancelled on request")))
        except Exception as error:
            log.exception("request %s of client %s", request.op, self.name)
            found = f"{type(error).__name__} in the service"
            self.tell(protocol.failure(request.id, WorkError(found, do="see `wbtui daemon logs`")))

    def reply(self, number: int, answer: Any) -> None:
        """Send an answer, or say that it does not fit a frame."""
        try:
            self.tell(protocol.reply(number, answer))
        except (protocol.ProtocolError, ValueError, TypeError) as error:
            self.tell(protocol.failure(number, ServiceError(f"an answer that cannot be sent ({error})")))

    # Operations -----------------------------------------------------------------------------------------------------

    async def status(self, request: protocol.Request) -> dict[str, Any]:
        """``status``."""
        return self.daemon.status()

    async def stop(self, request: protocol.Request) -> dict[str, Any]:
        """``stop``: the service ends after this answer."""
        self.daemon.loop.call_soon(self.daemon.end, "stopped on request")
        return {"stopping": True, "pid": self.daemon.status()["pid"]}

    async def watch(self, request: protocol.Request) -> dict[str, Any]:
        """``watch``: events from now on; the answer holds jobs and devices as they stand, so that nothing is missed."""
        self.watching = True
        return {**await self.jobs(request), "devices": self.daemon.engine.devices()}

    async def jobs(self, request: protocol.Request) -> dict[str, Any]:
        """``jobs``: live ones and the last finished ones; the products of the first live and last finished ones."""
        scheduler, now = self.daemon.engine.scheduler, time.monotonic()
        described = [scheduler.describe(job, now) for job in scheduler.jobs.values()]
        order = sorted(described, key=lambda job: (job["state"] in protocol.FINAL_STATES, job["state"] != "running"))
        live = [job for job in order if job["state"] not in protocol.FINAL_STATES]
        ended = [job for job in order if job["state"] in protocol.FINAL_STATES]
        for job in [*live[DETAILED:], *ended[:-DETAILED]]:  # hundreds of jobs must fit a frame
            job["products"] = []
        return {"jobs": described}

    async def cancel(self, request: protocol.Request) -> dict[str, Any]:
        """``cancel`` {job} for a job of any client, or {request} for an own request that has not been answered."""
        number, scheduler = request.fields.get("job"), self.daemon.engine.scheduler
        if isinstance(number, int):
            if number not in scheduler.jobs:
                raise UsageError(f"job {number}", "one of `wbtui jobs`")
            done = scheduler.cancel(number, time.monotonic())
        elif isinstance(number := request.fields.get("request"), int):
            done = scheduler.cancel_row((self.name, number))
            task = self._tasks.get(number)
            if not done and task is not None and number != request.id:
                done = task.cancel()
        else:
            raise UsageError("cancel without a number", "'job' or 'request'")
        self.daemon.engine.pump()
        return {"cancelled": done}

    async def retry(self, request: protocol.Request) -> dict[str, Any]:
        """``retry`` {job}: ask once more, as a batch, for what a finished job was asked for, whoever asked."""
        number, jobs = request.fields.get("job"), self.daemon.engine.scheduler.jobs
        job = jobs.get(number) if isinstance(number, int) else None
        if job is None or not job.wish:
            raise UsageError(f"job {number!r}", "one that was asked for by `compute`")
        if job.live:
            raise UsageError(f"job {number}, which is {job.state}", "one that has ended")
        return await self.compute(dataclasses.replace(request, fields={**job.wish, "priority": "batch"}))

    async def compute(self, request: protocol.Request) -> dict[str, Any]:
        """``compute``: plan, queue, and say what there will be."""
        wish = wishes.ComputeRequest.from_fields(request.fields)
        planned = await self.daemon.plan(wish.wish())
        label = wish.label
        priority = Priority.named(wish.priority)
        scheduler, now = self.daemon.engine.scheduler, time.monotonic()
        job = scheduler.add_job(planned, priority, self.name, now, label=label, around=wish.around)
        job.wish = dataclasses.asdict(wish)
        products = [
            {
                "analysis": p.analysis,
                "key": p.key,
                "relative": p.relative,
                "rows": p.rows,
                "missing": sum(stop - start for start, stop in p.missing) if p.rows else len(p.missing),
                "complete": p.complete,
            }
            for p in planned
        ]
        self.daemon.engine.pump()
        return {"job": job.id, "state": job.state, "products": products}

    async def row(self, request: protocol.Request) -> None:
        """``row``: one feature now. Answered later, by :meth:`answer_row`; the vocabulary is made first if need be."""
        wish = wishes.RowRequest.from_fields(request.fields)
        if wish.first:
            found = await asyncio.to_thread(planning.first_look, wish)
            self._rows[request.id] = "columns"
            self.daemon.engine.scheduler.add_row(found.id, found.task, (self.name, request.id))
            self.daemon.engine.pump()
            return
        planned = await self.daemon.plan({**wish.plan_request(), "checks": False})
        target = next(p for p in planned if p.analysis == "tokens")
        if wish.feature >= target.rows:
            raise UsageError(f"feature {wish.feature}", f"0 to {target.rows - 1}")
        scheduler, now = self.daemon.engine.scheduler, time.monotonic()
        words = [p for p in planned if p.analysis == "vocab" and not p.complete]
        if words:
            scheduler.add_job(words, Priority.SCREEN, self.name, now, label=f"{wish.model} vocabulary")
        task = {"kind": "row", "request": {"cache": wish.cache, "spec": target.spec}, "feature": wish.feature}
        self._rows[request.id] = "columns"
        row_id = f"{target.id}\n{wish.feature}"
        scheduler.add_row(row_id, task, (self.name, request.id), tuple(p.id for p in words))
        self.daemon.engine.pump()

    async def page(self, request: protocol.Request) -> None:
        """``page``: one feature in a layer's heads now; answered as a row is."""
        wish = wishes.PageRequest.from_fields(request.fields)
        plans = [await self.daemon.plan(one) for one in wish.wishes()]
        found = planning.page_task(wish, plans)
        scheduler, now = self.daemon.engine.scheduler, time.monotonic()
        if found.words:
            scheduler.add_job(found.words, Priority.SCREEN, self.name, now, label=f"{wish.model} vocabulary")
        self._rows[request.id] = "page"
        scheduler.add_row(found.id, found.task, (self.name, request.id), tuple(p.id for p in found.words))
        self.daemon.engine.pump()

    async def ask(self, request: protocol.Request) -> None:
        """``ask``: a question about every feature; parts of the answer are told, the whole is answered as a row is."""
        wish = wishes.AskRequest.from_fields(request.fields)
        found = planning.ask_task(wish, await self.daemon.plan(wish.plan_request()))
        scheduler, now = self.daemon.engine.scheduler, time.monotonic()
        if found.words:
            scheduler.add_job(found.words, Priority.SCREEN, self.name, now, label=f"{wish.model} vocabulary")
        self._rows[request.id] = "answer"
        if wish.ticket is not None:
            self._tickets[request.id] = wish.ticket
        scheduler.add_row(found.id, found.task, (self.name, request.id), tuple(p.id for p in found.words))
        self.daemon.engine.pump()

    def tell_part(self, number: int, part: dict[str, Any]) -> None:
        """What is known by now of the answer to request ``number``."""
        if number in self._tickets:
            self.tell({"v": protocol.PROTOCOL, "event": "part", "ticket": self._tickets[number], "part": part})

    def answer_row(self, number: int, outcome: Outcome) -> None:
        """The row or page that request ``number`` waits for has ended."""
        name = self._rows.pop(number, "columns")
        self._tickets.pop(number, None)
        if outcome.state == "done":
            self.reply(number, {name: outcome.value, "provisional": True})
        else:
            self.tell(protocol.failure(number, outcome.error or Cancelled("stopped")))
