"""The asyncio client, for the app: reconnects by itself, never blocks the loop. Stdlib only."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from wbtui.errors import ServiceError, TimedOut, WbtuiError
from wbtui.service import connect, protocol
from wbtui.service.config import ServiceConfig

MAX_EVENTS = 10_000
BACKOFF = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds until the next attempt to reconnect."""

Event = dict[str, Any]


class EventQueue:
    """Events for one listener. A newer progress of a job replaces the one still waiting; past the limit the oldest go
    and the listener is told, so that it can look anew."""

    def __init__(self) -> None:
        self._items: deque[Event] = deque()
        self._there = asyncio.Event()
        self._closed = False

    def put(self, event: Event) -> None:
        """Add one; never blocks."""
        if event["event"] == "progress":
            for n, waiting in enumerate(self._items):
                if waiting["event"] == "progress" and waiting.get("job") == event.get("job"):
                    self._items[n] = event
                    return
        if len(self._items) >= MAX_EVENTS:
            self._items.clear()
            self._items.append({"event": "overflow"})
        self._items.append(event)
        self._there.set()

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._there.set()

    async def get(self) -> Event | None:
        """The next event; None at the end."""
        while not self._items:
            if self._closed:
                return None
            self._there.clear()
            await self._there.wait()
        return self._items.popleft()


class AsyncClient:
    """A connection that is kept up until :meth:`close`.

    Beside the service's own events, listeners are told ``{event: "connected", jobs, devices}`` after each
    (re)connection, ``{event: "disconnected"}``, ``{event: "refused", error}`` where the service is of another version
    or none can be started, and ``{event: "overflow"}`` where events were dropped. A service that was told to end
    (``ending``) is started again only by the next call.

    Args:
        autostart: start a service if there is none, also when reconnecting.
        timeout: seconds for one attempt to connect.
        config: for a service that is started.
    """

    def __init__(
        self, *, autostart: bool = True, timeout: float = connect.CONNECT_WITHIN, config: ServiceConfig | None = None
    ) -> None:
        self.autostart = autostart
        self.timeout = timeout
        self.config = config
        self.service: dict[str, Any] | None = None
        """The service's {protocol, version} while connected."""
        self.error: WbtuiError | None = None
        """Why the last attempt failed."""
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._queues: list[EventQueue] = []
        self._changed = asyncio.Condition()
        self._runner: asyncio.Task[None] | None = None
        self._given_up = threading.Event()
        self._attempts = 0
        self._wake = asyncio.Event()
        self._told_to_end = False
        """The service was ended on request: it is not started again before something is asked of it."""
        self._refused = ""

    @property
    def connected(self) -> bool:
        """Whether calls go through right now."""
        return self._writer is not None

    async def connect(self) -> None:
        """Begin, and wait for the first attempt. Later losses are mended in the background.

        Raises:
            ServiceError: the first attempt failed; further ones are made all the same, until :meth:`close`.
        """
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="wbtui-service")
        async with self._changed:
            await self._changed.wait_for(lambda: self.connected or self._attempts > 0)
        if not self.connected:
            raise self.error or ServiceError("no service")

    async def close(self) -> None:
        """End the connection and every listener."""
        self._given_up.set()
        async with self._changed:
            self._changed.notify_all()
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None
        for queue in self._queues:
            queue.close()

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def call(self, op: str, timeout: float | None = None, **fields: Any) -> Any:
        """One request and its answer. A cancelled call takes its request back (a row that is off the screen again).
        While there is no connection it waits for the next attempt to make one.

        Raises:
            ServiceError: no connection, or it is lost before the answer. TimedOut. WbtuiError: the answer.
        """
        writer = self._writer or await self._reached()
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            writer.write(protocol.encode(protocol.Request(number, op, fields).to_message()))
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            self._take_back(number)
            raise TimedOut(f"no answer to {op!r} in {timeout:g} s") from None
        except asyncio.CancelledError:
            self._take_back(number)
            raise
        finally:
            self._pending.pop(number, None)

    async def _reached(self) -> asyncio.StreamWriter:
        """A connection made now, and a service started for it if need be."""
        self._told_to_end = False
        self._wake.set()
        before = self._attempts
        async with self._changed:  # one attempt may be under way that began before this wish
            await self._changed.wait_for(lambda: self.connected or self._ended or self._attempts > before + 1)
        if self._writer is None:
            raise self.error or ServiceError("not connected to the service")
        return self._writer

    @property
    def _ended(self) -> bool:
        return self._runner is None or self._runner.done() or self._given_up.is_set()

    def _take_back(self, number: int) -> None:
        if self._writer is not None and not self._writer.is_closing():
            cancel = protocol.Request(next(self._numbers), "cancel", {"request": number})
            self._writer.write(protocol.encode(cancel.to_message()))

    async def compute(
        self, model: str, sae: str, definition: dict[str, Any], cache: str, **more: Any
    ) -> dict[str, Any]:
        """``compute``, with paths made absolute: {job, state, products}. ``more``: priority, checks, around."""
        cache = connect.cache(cache)
        names: dict[str, Any] = {"model": connect.absolute(model), "sae": connect.absolute(sae), "cache": cache}
        return dict(await self.call("compute", definition=definition, **names, **more))

    async def row(self, model: str, sae: str, definition: dict[str, Any], cache: str, feature: int) -> dict[str, Any]:
        """One feature's columns, provisional; a non-finite number is None."""
        cache = connect.cache(cache)
        names: dict[str, Any] = {"model": connect.absolute(model), "sae": connect.absolute(sae), "cache": cache}
        return dict((await self.call("row", definition=definition, feature=feature, **names))["columns"])

    async def events(self) -> AsyncIterator[Event]:
        """Events from now on, until :meth:`close`. Each listener has its own queue."""
        queue = EventQueue()
        self._queues.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.remove(queue)

    def _emit(self, event: Event) -> None:
        for queue in self._queues:
            queue.put(event)

    async def _run(self) -> None:
        failures = 0
        try:
            while True:
                try:
                    reader = await self._open()
                    failures = 0
                    await self._read(reader)
                except WbtuiError as error:
                    self._failed(error)
                if self.connected:
                    await self._lost()
                    self._emit({"event": "disconnected"})
                async with self._changed:
                    self._attempts += 1
                    self._changed.notify_all()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), BACKOFF[min(failures, len(BACKOFF) - 1)])
                self._wake.clear()
                failures += 1
        finally:
            await self._lost()

    def _failed(self, error: WbtuiError) -> None:
        self.error = error
        if not self.connected and self._refused != error.line():  # told once, not at every attempt
            self._refused = error.line()
            self._emit({"event": "refused", "error": error.to_json()})

    async def _open(self) -> asyncio.StreamReader:
        sock, service = await asyncio.to_thread(
            connect.open_socket,
            autostart=self.autostart and not self._told_to_end,
            timeout=self.timeout,
            config=self.config,
            given_up=self._given_up,
        )
        try:
            reader, writer = await asyncio.open_unix_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        self.service, self._writer = service, writer
        watch = protocol.Request(next(self._numbers), "watch", {})
        writer.write(protocol.encode(watch.to_message()))
        while True:
            message = await protocol.receive_async(reader)
            if message is None:
                raise protocol.Disconnected("the service has gone")
            if message.get("id") == watch.id:
                break
            self._hear(message)
        found = protocol.result(message)
        self.error, self._refused, self._told_to_end = None, "", False
        async with self._changed:
            self._attempts += 1
            self._changed.notify_all()
        self._emit({"event": "connected", "jobs": found["jobs"], "devices": found.get("devices", [])})
        return reader

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while (message := await protocol.receive_async(reader)) is not None:
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._told_to_end |= message["event"] == "ending"
            self._emit(message)
            return
        future = self._pending.get(message.get("id", -1))
        if future is None or future.done():
            return
        try:
            future.set_result(protocol.result(message))
        except WbtuiError as error:
            future.set_exception(error)

    async def _lost(self) -> None:
        writer, self._writer, self.service = self._writer, None, None
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ServiceError("the connection to the service was lost"))
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
