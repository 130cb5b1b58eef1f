"""The blocking client, for the command line. Stdlib only. The asyncio one is :class:`AsyncClient`."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from wbtui.errors import Cancelled, ServiceError, TimedOut, UsageError, WbtuiError
from wbtui.service import connect, protocol, wishes
from wbtui.service.aio import AsyncClient
from wbtui.service.config import ServiceConfig

__all__ = ["AsyncClient", "Client", "restart", "stop"]

CALL_WITHIN = 30.0
"""Seconds for an answer, except of ``compute`` and ``row``, which may hash or compute first."""
MAX_EVENTS = 10_000

Event = dict[str, Any]


class Client:
    """One connection. Calls from several threads take turns.

    Use as a context manager, or call :meth:`close`.
    """

    def __init__(self, sock: socket.socket, service: dict[str, Any]) -> None:
        self.service = service
        """The service's {protocol, version}."""
        self._sock = sock
        self._lock = threading.RLock()
        self._number = 0
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)

    @classmethod
    def connect(
        cls,
        autostart: bool = True,
        *,
        timeout: float = connect.CONNECT_WITHIN,
        config: ServiceConfig | None = None,
        any_version: bool = False,
    ) -> Client:
        """Connect, starting the service if need be.

        Raises:
            ServiceError: see :func:`wbtui.service.connect.open_socket`.
        """
        return cls(*connect.open_socket(autostart=autostart, timeout=timeout, config=config, any_version=any_version))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; work of priority ``batch`` goes on."""
        connect.close_quietly(self._sock)

    def call(
        self,
        op: str,
        timeout: float | None = CALL_WITHIN,
        *,
        _heard: Callable[[Event], bool] | None = None,
        **fields: Any,
    ) -> Any:
        """One request and its answer; events that come meanwhile, and are not ``_heard``, are kept for :meth:`events`.

        Raises:
            TimedOut: no answer in ``timeout`` seconds (None waits for ever). ServiceError: the service has gone.
            WbtuiError: what the service answered.
        """
        with self._lock:
            self._number += 1
            number = self._number
            deadline = None if timeout is None else time.monotonic() + timeout
            self._sock.settimeout(timeout)
            protocol.send(self._sock, protocol.Request(number, op, fields).to_message())
            while True:
                message = self._receive(deadline)
                if "event" in message:
                    if _heard is None or not _heard(message):
                        self._events.append(message)
                elif message.get("id") in (number, None):
                    return protocol.result(message)

    def _receive(self, deadline: float | None) -> dict[str, Any]:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut("no answer from the service in time")
            self._sock.settimeout(left)
        else:
            self._sock.settimeout(None)
        message = protocol.receive(self._sock)
        if message is None:
            raise protocol.Disconnected("the service has gone")
        return message

    def compute(self, request: wishes.ComputeRequest) -> dict[str, Any]:
        """Queue a computation: {job, state, products}. Paths and cache of the request are made absolute."""
        answer: dict[str, Any] = self.call("compute", None, **dataclasses.asdict(_absolute(request)))
        return answer

    def row(self, request: wishes.RowRequest, timeout: float | None = None) -> dict[str, Any]:
        """One feature's columns, provisional; a non-finite number is None. A first look (``request.first``) has
        ``texts`` too: {token id as text: the token} of every token that it names."""
        fields = dataclasses.asdict(request)
        fields.update(model=connect.absolute(request.model), sae=connect.absolute(request.sae))
        answer = self.call("row", timeout, **fields)
        return dict(answer["columns"])

    def page(self, request: wishes.PageRequest, timeout: float | None = None) -> dict[str, Any]:
        """One feature in all heads of a layer: see :func:`wbtui.compute.attention_lone.head_page`."""
        fields = dataclasses.asdict(request)
        fields.update({n: connect.absolute(v) for n in ("model", "sae", "target") if (v := fields[n]) is not None})
        return dict(self.call("page", timeout, **fields)["page"])

    def ask(
        self,
        request: wishes.AskRequest,
        on_part: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """A question about every feature: see :mod:`wbtui.compute.ask`. ``on_part`` is told what comes before the end.

        Raises:
            TimedOut, or what the service answered. A connection that is closed meanwhile takes the question back.
        """
        fields = dataclasses.asdict(request)
        fields.update(model=connect.absolute(request.model), sae=connect.absolute(request.sae))
        fields.update(cache=connect.cache(request.cache), ticket=None)
        if on_part is None:
            return dict(self.call("ask", timeout, **fields)["answer"])
        fields["ticket"] = ticket = f"ask {self._number + 1}"

        def heard(event: Event) -> bool:
            mine = event["event"] == "part" and event.get("ticket") == ticket
            if mine:
                on_part(event["part"])
            return mine

        return dict(self.call("ask", timeout, _heard=heard, **fields)["answer"])

    def status(self) -> dict[str, Any]:
        """{pid, version, clients, jobs, workers, …}."""
        return dict(self.call("status"))

    def jobs(self) -> list[dict[str, Any]]:
        """Live jobs and the last finished ones."""
        return list(self.call("jobs")["jobs"])

    def cancel(self, job: int) -> bool:
        """Cancel a job; False if it had ended."""
        return bool(self.call("cancel", job=job)["cancelled"])

    def stop(self) -> int:
        """End the service; its process id. It is gone when :meth:`events` or a call says so."""
        return int(self.call("stop")["pid"])

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come (after ``watch``), until the service goes.

        Raises:
            TimedOut: ``timeout`` seconds have passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                event = self._events.popleft() if self._events else self._receive(deadline)
            if "event" in event:
                yield event

    def follow(self, jobs: Iterable[int], timeout: float | None = None) -> Iterator[Event]:
        """Events of some jobs, beginning with how each stands, until the last of them has ended.

        Raises:
            UsageError: no such job. TimedOut. ServiceError: the service was told to end.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = dict.fromkeys(jobs)
        known = {job["job"]: job for job in self.call("watch")["jobs"]} if waiting else {}
        for job in list(waiting):
            if job not in known:
                raise UsageError(f"job {job}", "a job of this service that it still remembers")
            yield {"event": "progress", **known[job]}
            if known[job]["state"] in protocol.FINAL_STATES:
                del waiting[job]
                yield {"event": "job", **known[job]}
        if not waiting:
            return
        for event in self.events(None if deadline is None else max(deadline - time.monotonic(), 0.0)):
            if event["event"] == "ending":
                raise ServiceError(f"the service was ended ({event['why']})", do="run the command again")
            if event.get("job") not in waiting:
                continue
            if event["event"] == "job" and event["state"] in protocol.FINAL_STATES:
                del waiting[event["job"]]
            yield event
            if not waiting:
                return

    def wait(self, job: int, timeout: float | None = None) -> Iterator[Event]:
        """Events of one job until it ends; the last is a ``job`` event with its final state.

        Raises:
            UsageError: no such job. TimedOut. WbtuiError: the job's own error. Cancelled: it was cancelled.
        """
        for event in self.follow([job], timeout):
            yield _final(event) if event["event"] == "job" and event["state"] in protocol.FINAL_STATES else event


def _final(event: Event) -> Event:
    if event["state"] == "failed":
        raise WbtuiError.from_json(event["error"])
    if event["state"] == "cancelled":
        raise Cancelled("the job was cancelled")
    return event


def _absolute(request: wishes.ComputeRequest) -> wishes.ComputeRequest:
    model, sae = connect.absolute(request.model), connect.absolute(request.sae)
    return dataclasses.replace(request, model=model, sae=sae, cache=connect.cache(request.cache))


def stop(timeout: float = 20.0) -> bool:
    """End the service, of whatever version, and wait until it is gone. False if none was running.

    Raises:
        ServiceError: it does not go in time.
    """
    try:
        client = Client.connect(False, any_version=True)
    except ServiceError as error:
        if "no service is running" in error.found:
            return False
        raise
    with client:
        pid = client.stop()
        try:
            for _ in client.events(timeout):
                pass
        except protocol.Disconnected:
            pass
        except TimedOut:
            raise ServiceError(f"the service (process {pid}) does not end", do=f"end it with `kill {pid}`") from None
    _await_lock(pid, timeout)
    return True


def _await_lock(pid: int, timeout: float) -> None:
    """Until the lock is free: only then has the former service gone for good."""
    from wbtui.service.place import Lock

    lock = Lock()
    deadline = time.monotonic() + timeout
    while not lock.acquire():
        if time.monotonic() > deadline or lock.holder() != pid:
            break
        time.sleep(0.02)
    lock.release()


def restart(config: ServiceConfig | None = None) -> dict[str, Any]:
    """End the service if there is one, and start one of this version. Returns its status."""
    stop()
    with Client.connect(True, config=config) as client:
        return client.status()
