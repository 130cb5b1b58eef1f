"""The app's side of the service: one connection, asked only for what is missing. It posts messages, touches no widget.

Nothing is contacted before the first picture is on screen. A service that cannot be reached, or is of another version,
is one line of notice: finished products are read without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wbtui.definitions import to_json
from wbtui.errors import Cancelled, ServiceError, WbtuiError
from wbtui.tui.messages import JobMoved, PageComputed, PageFailed, RowComputed, RowFailed, ServiceChanged

if TYPE_CHECKING:
    from textual.message import Message

    from wbtui.tui.data import Opened


class ClientLike(Protocol):
    """What the desk needs of ``wbtui.service.client.AsyncClient``."""

    autostart: bool

    @property
    def connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def call(self, op: str, timeout: float | None = None, **fields: Any) -> Any: ...
    def events(self) -> AsyncIterator[dict[str, Any]]: ...
    async def close(self) -> None: ...


def service_client(autostart: bool) -> ClientLike:
    """A client of this user's service on this host."""
    from wbtui.service.client import AsyncClient

    return AsyncClient(autostart=autostart)


class Desk:
    """Asks the service and passes on what it says.

    Args:
        post: takes a message to the app; called on the event loop only.
        make_client: makes an unconnected client; its argument: whether it may start a service.
    """

    def __init__(
        self, post: Callable[[Message], Any], make_client: Callable[[bool], ClientLike] = service_client
    ) -> None:
        self._post = post
        self._make = make_client
        self._client: ClientLike | None = None
        self._lock = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._rows: dict[int, asyncio.Task[None]] = {}
        self._pages: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._parts: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._tickets = 0
        self.state = "unknown"
        """``unknown``, ``starting``, ``up``, ``down``, ``other version``."""
        self.line = ""
        self.jobs: dict[int, dict[str, Any]] = {}
        """Every job that was heard of, as the service describes it."""
        self.devices: list[dict[str, Any]] = []
        """The service's workers as it last told them: device, memory [used, total], busy."""

    def _say(self, state: str, line: str = "") -> None:
        if (state, line) != (self.state, self.line):
            self.state, self.line = state, line
            self._post(ServiceChanged(state, line))

    async def look(self) -> None:
        """See whether a service runs, starting none."""
        try:
            await self._connected(autostart=False)
        except WbtuiError:
            return

    async def _connected(self, autostart: bool = True) -> ClientLike:
        async with self._lock:
            if self._client is not None and self._client.connected:
                return self._client
            await self._let_go()
            client = self._make(autostart)
            if autostart:
                self._say("starting")
            reader = asyncio.create_task(self._listen(client))
            await asyncio.sleep(0)  # its first step makes it a listener, before anything can happen
            try:
                await client.connect()
            except (WbtuiError, OSError) as error:
                await client.close()
                reader.cancel()
                line = error.line() if isinstance(error, WbtuiError) else str(error)
                self._say("other version" if "version" in line else "down", line)
                raise error if isinstance(error, WbtuiError) else ServiceError(f"no service: {error}") from None
            client.autostart = False  # a service that the user stops later stays stopped until it is needed
            self._client, self._reader = client, reader
            self._say("up")
            return client

    async def _listen(self, client: ClientLike) -> None:
        async for event in client.events():
            self._take(client, event)

    def _take(self, client: ClientLike, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "part":
            on_part = self._parts.get(str(event.get("ticket")))
            if on_part is not None and isinstance(event.get("part"), dict):
                on_part(event["part"])
        elif kind == "connected":
            self.jobs = {j["job"]: j for j in event.get("jobs", []) if isinstance(j.get("job"), int)}
            self.devices = [d for d in event.get("devices", []) if isinstance(d, dict)]
            if client is self._client:
                self._say("up")
                self._post(JobMoved({"event": "connected"}))
        elif kind == "disconnected" and client is self._client:
            self.jobs.clear()
            self.devices = []
            self._say("down", "the service has gone")
        elif kind == "devices":
            self.devices = [d for d in event.get("devices", []) if isinstance(d, dict)]
            if client is self._client:
                self._post(ServiceChanged(self.state, self.line))
        elif kind == "overflow":
            self._post(JobMoved({"event": "shard"}))
        number = event.get("job")
        if isinstance(number, int):
            known = self.jobs.setdefault(number, {"job": number})
            if kind in ("job", "progress"):
                known.update({k: v for k, v in event.items() if k not in ("event", "v")})
            self._post(JobMoved({**known, **event}))

    async def _call(self, op: str, **fields: Any) -> Any:
        client = await self._connected()
        return await client.call(op, **fields)

    async def _let_go(self) -> None:
        client, self._client = self._client, None
        reader, self._reader = self._reader, None
        if client is not None:
            await client.close()
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    @staticmethod
    def _place(opened: Opened) -> dict[str, Any]:
        from wbtui.service import connect

        return {
            "model": connect.absolute(opened.model.name),
            "sae": connect.absolute(opened.sae.name),
            "definition": to_json(opened.plan.definition),
            "cache": connect.cache(opened.cache),
        }

    async def compute(self, opened: Opened, around: int, priority: str = "screen") -> dict[str, Any]:
        """Ask for everything missing of an address, shards around a row first.

        Raises:
            WbtuiError: no service, or it refuses.
        """
        answer = dict(await self._call("compute", **self._place(opened), priority=priority, around=around))
        number = answer["job"]
        job = self.jobs.setdefault(number, {"job": number, "state": "queued", "fraction": 0.0})
        job.update({k: v for k, v in answer.items() if k != "products"})
        return dict(job)

    async def compute_heads(self, opened: Opened, layer: int, priority: str = "screen") -> dict[str, Any]:
        """Ask for how features take part in the heads of one layer.

        Raises:
            WbtuiError: no service, or it refuses.
        """
        shelf = opened.table.heads
        assert shelf is not None
        place = {**self._place(opened), "definition": to_json(shelf.definition)}
        answer = dict(await self._call("compute", **place, analysis="attention", layer=layer, priority=priority))
        job = self.jobs.setdefault(answer["job"], {"job": answer["job"], "state": "queued", "fraction": 0.0})
        job.update({k: v for k, v in answer.items() if k != "products"})
        return dict(job)

    async def compute_neighbours(
        self, opened: Opened, other: str | None = None, priority: str = "near"
    ) -> dict[str, Any]:
        """Ask for the nearest features of an SAE: in itself and those beside it, or in ``other``, or in ``all``.

        Raises:
            WbtuiError: no service, or it refuses.
        """
        shelf = opened.table.neighbours
        assert shelf is not None
        place = {**self._place(opened), "definition": to_json(shelf.definition)}
        answer = dict(await self._call("compute", **place, analysis="neighbours", other=other, priority=priority))
        job = self.jobs.setdefault(answer["job"], {"job": answer["job"], "state": "queued", "fraction": 0.0})
        job.update({k: v for k, v in answer.items() if k != "products"})
        return dict(job)

    async def ask(
        self,
        opened: Opened,
        what: str,
        args: dict[str, Any],
        on_part: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """A question about every feature (:mod:`wbtui.compute.ask`); a call that is cancelled takes it back.

        Raises:
            WbtuiError: no service, or what the question says.
        """
        self._tickets += 1
        ticket = f"app {self._tickets}"
        if on_part is not None:
            self._parts[ticket] = on_part
        try:
            answer = await self._call("ask", **self._place(opened), what=what, args=args, ticket=ticket)
            return dict(answer["answer"])
        finally:
            self._parts.pop(ticket, None)

    @property
    def asking(self) -> bool:
        """Whether a lone row or page is being waited for."""
        return bool(self._rows or self._pages)

    def ask_row(self, opened: Opened, feature: int) -> None:
        """Ask for one feature's row ahead of everything; the answer comes as a message. Earlier askings are dropped."""
        if feature in self._rows:
            return
        for task in self._rows.values():
            task.cancel()
        self._rows = {feature: asyncio.create_task(self._row(opened, feature))}

    async def _row(self, opened: Opened, feature: int) -> None:
        try:
            answer = await self._call("row", **self._place(opened), feature=feature)
            self._post(RowComputed(opened, feature, answer["columns"]))
        except Cancelled:
            pass
        except WbtuiError as error:
            self._post(RowFailed(feature, error.line()))
        finally:
            if self._rows.get(feature) is asyncio.current_task():
                del self._rows[feature]

    def ask_pages(self, opened: Opened, layer: int, target: str | None, features: Sequence[int]) -> None:
        """Ask for features in a layer's heads, the first one first; answers come as messages. What was asked for
        before and is not among them is taken back: the cursor has moved on."""
        wanted = {(layer, feature): feature for feature in features}
        for key in [k for k in self._pages if k not in wanted]:
            self._pages.pop(key).cancel()
        for key, feature in wanted.items():
            if key not in self._pages:
                self._pages[key] = asyncio.create_task(self._page(opened, layer, target, feature))

    async def _page(self, opened: Opened, layer: int, target: str | None, feature: int) -> None:
        shelf = opened.table.heads
        assert shelf is not None
        place = {**self._place(opened), "definition": to_json(shelf.definition)}
        try:
            answer = await self._call(
                "page",
                **place,
                feature=feature,
                layer=layer,
                tokens=to_json(opened.plan.definition),
                target=target,
            )
            self._post(PageComputed(opened, layer, feature, answer["page"]))
        except Cancelled:
            pass
        except WbtuiError as error:
            self._post(PageFailed(layer, feature, error.line()))
        finally:
            if self._pages.get((layer, feature)) is asyncio.current_task():
                del self._pages[layer, feature]

    async def compute_match(self, opened: Opened, other: str, definition: dict[str, Any]) -> dict[str, Any]:
        """Ask for the match with another SAE, named by an address that means the same everywhere.

        Raises:
            WbtuiError: no service, or it refuses.
        """
        place = {**self._place(opened), "definition": definition}
        answer = dict(await self._call("compute", **place, analysis="match", other=other, priority="screen"))
        job = self.jobs.setdefault(answer["job"], {"job": answer["job"], "state": "queued", "fraction": 0.0})
        job.update({k: v for k, v in answer.items() if k != "products"})
        return dict(job)

    async def cancel(self, job: int) -> None:
        """Cancel a job."""
        await self._call("cancel", job=job)

    async def restart(self) -> None:
        """End the service, of whatever version, and start one of this version.

        Raises:
            WbtuiError: it does not end, or none starts.
        """
        from wbtui.service.client import restart

        async with self._lock:
            await self._let_go()
            self._say("starting")
            try:
                await asyncio.to_thread(restart)
            except WbtuiError as error:
                self._say("down", error.line())
                raise
        await self._connected()

    async def retry(self, job: int) -> int:
        """Ask again for what a job that has ended was asked for; the new job's number.

        Raises:
            WbtuiError: no service, or it refuses.
        """
        return int((await self._call("retry", job=job))["job"])

    async def list_jobs(self) -> list[dict[str, Any]]:
        """Every job the service knows; starts no service.

        Raises:
            WbtuiError: none runs.
        """
        client = await self._connected(autostart=False)
        return [j for j in (await client.call("jobs"))["jobs"] if isinstance(j, dict)]

    async def close(self) -> None:
        """Leave; what was asked for the screen alone is then given up by the service, finished shards stay."""
        rows = [*self._rows.values(), *self._pages.values()]
        for task in rows:
            task.cancel()
        await asyncio.gather(*rows, return_exceptions=True)
        await self._let_go()
