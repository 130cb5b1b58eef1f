"""The background service: one process per user and host, asyncio, no torch. It owns the lock, the socket and the queue.

``run()`` is the whole life of a daemon in the foreground; :func:`wbtui.service.start.spawn_detached` runs it detached.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import wbtui
from wbtui import build
from wbtui.errors import ServiceError, WbtuiError, WorkError
from wbtui.service import logs, place, planning, protocol
from wbtui.service.config import ServiceConfig
from wbtui.service.engine import Engine
from wbtui.service.session import Session
from wbtui.service.work import Outcome, PlannedProduct

log = logging.getLogger("wbtui.service")

MAX_CLIENTS = 128
EXIT_NOT_ME = 3
"""Exit status where another daemon holds the lock."""


class Daemon:
    """One service.

    Args:
        config: see :class:`ServiceConfig`.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.config = config
        self.planner = planning.load_planner(config.planner)
        self.lock = place.Lock()
        self.sessions: dict[str, Session] = {}
        self.started = time.time()
        self.ending = asyncio.Event()
        self.why_ending = ""
        self.retiring = False
        """Another daemon has our place: finish the queue, take no new client."""
        self.last_client = time.monotonic()
        self._full: set[str] = set()
        """Caches that were written to since they were last looked at for their size."""
        self._tidying: asyncio.Task[None] | None = None
        self._plans: dict[str, asyncio.Task[list[PlannedProduct]]] = {}
        self._listener: place.Listener | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._next_client = 1
        self.loop = asyncio.get_running_loop()
        self.engine = Engine(config, self.post, self.on_event, self.on_answer, on_part=self.on_part)

    def post(self, function: Callable[[], None]) -> None:
        """Run a function on the loop's thread; nothing where the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function)

    async def serve(self, handle_signals: bool = True) -> int:
        """The daemon's life. Returns the exit status."""
        place.folder()
        if not self.lock.acquire():
            log.info("another service holds %s (process %s)", self.lock.path, self.lock.holder())
            return EXIT_NOT_ME
        try:
            if handle_signals:
                for number in (signal.SIGTERM, signal.SIGINT):
                    self.loop.add_signal_handler(number, self.end, signal.Signals(number).name)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of an SSH session is not ours
            await self.listen()
            what = f"{wbtui.__version__} (build {build.stamp()})"
            log.info("service %s started, process %d, %s", what, os.getpid(), place.socket_path())
            if self.config.prestart:
                self.prestart()
            watch = asyncio.create_task(self.watch())
            ended = asyncio.create_task(self.ending.wait())
            await asyncio.wait({watch, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if watch.done():
                watch.result()  # an error in it must be seen
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)  # it must not look after a place that is given up
            return 0
        finally:
            await self.close()

    def prestart(self) -> None:
        """Start the workers; one that cannot be is an error of the first who needs it, and not the service's end."""
        try:
            self.engine.prestart()
        except WbtuiError as error:
            log.error("%s", error.line())

    def end(self, why: str) -> None:
        """Begin to end."""
        self.why_ending = self.why_ending or why
        self.ending.set()

    async def listen(self) -> None:
        """Bind, and serve from now on; a former socket of ours is let go."""
        self._listener = place.Listener()
        former, self._server = (
            self._server,
            await asyncio.start_unix_server(self.connected, sock=self._listener.socket, **_NO_CLEANUP),
        )
        if former is not None:
            former.close()

    async def watch(self) -> None:
        """Once a second: stuck workers, idleness; every other second: is the place still ours."""
        checked = time.monotonic()
        while not self.ending.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.ending.wait(), min(1.0, self.config.check_every))
            if self.ending.is_set():  # also where Python 3.11 forgets that this was cancelled just then
                return
            self.engine.tick()
            now = time.monotonic()
            if self.sessions or not self.engine.scheduler.idle or self._plans:
                self.last_client = now
            elif now - self.last_client > self.config.idle_exit:
                self.end(f"no client and no work for {self.config.idle_exit:g} s")
            if now - checked >= self.config.check_every:
                checked = now
                await self.check_place()
            if self._full and self.engine.scheduler.idle and not self._plans and self._tidying is None:
                self._tidying = asyncio.create_task(self._tidy())
            if self.retiring and self.engine.scheduler.idle and not self._plans:
                self.end("another service has taken over")

    async def _tidy(self) -> None:
        """Keep caches within their limit; nothing is planned meanwhile, so that nothing that a plan counts on goes."""
        caches, self._full = self._full, set()
        try:
            for cache in sorted(caches):
                report = await asyncio.to_thread(planning.tidy, cache, int(self.config.cache_gb * 1e9))
                if report["removed"]:
                    log.info("cache %s: evicted %s", cache, report)
        except WbtuiError as error:
            log.warning("the cache cannot be kept within its limit: %s", error.line())
        except Exception:
            log.exception("tidying")
        finally:
            self._tidying = None

    async def check_place(self) -> None:
        """Cleaners of temporary files may have taken the socket or the lock; make them anew, or give way."""
        if self.retiring:
            return
        try:
            place.folder()
            if not self.lock.ours() and not self.lock.acquire():
                log.warning("the lock is another's now: taking no new clients")
                self.retiring = True
                if self._server is not None:
                    self._server.close()
                return
            if self._listener is None or not self._listener.in_place():
                log.warning("the socket is gone: making it anew")
                await self.listen()
        except (ServiceError, OSError) as error:
            log.error("the service's place cannot be kept: %s", error)

    async def close(self) -> None:
        """Take no more clients, end the workers, remove the socket, let go of the lock."""
        log.info("service ends: %s", self.why_ending or "an error")
        self.engine.closing = True
        if self._server is not None:
            self._server.close()
        if self._listener is not None and self.lock.ours():
            self._listener.remove()
        self.on_event({"event": "ending", "why": self.why_ending})
        gone = ServiceError("the service has ended", do="run the command again")
        for session in list(self.sessions.values()):
            session.fail_all(gone)
        for task in list(self._connections):
            task.cancel()
        await asyncio.to_thread(self.engine.close)
        for task in list(self._connections):  # who was let in just before the door closed would be waited for for ever
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self.lock.release()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client has come: check who it is, then serve it until it goes."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        name = f"c{self._next_client}"
        self._next_client += 1
        session = Session(self, name, reader, writer)
        try:
            if not place.is_ours(writer.get_extra_info("socket")) or len(self.sessions) >= MAX_CLIENTS:
                return
            self.sessions[name] = session
            await session.serve()
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("client %s", name)
        finally:
            self.sessions.pop(name, None)
            self._connections.discard(task)
            self.last_client = time.monotonic()
            session.close()
            self.engine.scheduler.client_gone(name, time.monotonic())
            if not self.ending.is_set():
                self.engine.pump()

    def on_event(self, event: dict[str, Any]) -> None:
        """Pass an event to everyone who watches."""
        message = {"v": protocol.PROTOCOL, **event}
        for session in list(self.sessions.values()):
            if session.watching:
                session.tell(message)

    def on_answer(self, waiter: tuple[str, int], outcome: Outcome) -> None:
        """A row is there, or has failed."""
        session = self.sessions.get(waiter[0])
        if session is not None:
            session.answer_row(waiter[1], outcome)

    def on_part(self, waiter: tuple[str, int], part: dict[str, Any]) -> None:
        """A part of an answer is there."""
        session = self.sessions.get(waiter[0])
        if session is not None:
            session.tell_part(waiter[1], part)

    async def plan(self, request: dict[str, Any]) -> list[PlannedProduct]:
        """The products of a request, made in a thread; the same request at the same time is planned once."""
        if self._tidying is not None:
            await asyncio.shield(self._tidying)
        if self.config.cache_gb > 0:
            self._full.add(str(request["cache"]))
        key = repr(sorted(request.items(), key=lambda item: item[0]))
        task = self._plans.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(planning.plan, self.planner, request))
            self._plans[key] = task
            task.add_done_callback(lambda _: self._plans.pop(key, None))
        try:
            return await asyncio.shield(task)
        except (WbtuiError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("planning")
            raise WorkError(f"{type(error).__name__}: {error}", do="see `wbtui daemon logs`") from None

    def status(self) -> dict[str, Any]:
        """What `wbtui daemon status` shows."""
        scheduler = self.engine.scheduler
        return {
            "pid": os.getpid(),
            "version": wbtui.__version__,
            "protocol": protocol.PROTOCOL,
            "started": self.started,
            "socket": str(place.socket_path()),
            "clients": len(self.sessions),
            "retiring": self.retiring,
            "jobs": sum(job.live for job in scheduler.jobs.values()),
            "rows": len(scheduler.rows),
            "workers": self.engine.devices(),
        }


_NO_CLEANUP: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


def run(config: ServiceConfig | None = None, *, foreground: bool = True) -> int:
    """Be the daemon until idle, stopped or signalled.

    Returns:
        int: 0, or 3 where another service is running already.
    """
    config = config or ServiceConfig.from_env()
    logs.set_up(foreground)
    faulthandler.enable()

    async def life() -> int:
        return await Daemon(config).serve()

    try:
        return asyncio.run(life())
    except WbtuiError as error:
        log.error("%s", error.line())
        return error.exit_code
    finally:
        logging.shutdown()


def main(argv: list[str] | None = None) -> int:
    """``python -m wbtui.service.daemon --config JSON``, as clients start it: not for people, and soon there."""
    words = sys.argv[1:] if argv is None else argv
    if words and (len(words) != 2 or words[0] != "--config"):
        print("usage: python -m wbtui.service.daemon [--config JSON]", file=sys.stderr)
        return 2
    os.chdir("/")  # hold no one's disk
    return run(ServiceConfig.from_text(words[1]) if words else None, foreground=False)


if __name__ == "__main__":
    sys.exit(main())
