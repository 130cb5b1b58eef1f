"""Scheduler and workers together: what the daemon and a run without a daemon have in common.

Not for several threads: what happens on other threads (a future's end, progress) comes in through ``post``, which
must run a function on the thread that owns the engine.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from wbtui.errors import Cancelled, WbtuiError, WorkError
from wbtui.service.config import ServiceConfig
from wbtui.service.executor import Broken, WorkerProcess
from wbtui.service.scheduler import Scheduler
from wbtui.service.work import Outcome, Running, Unit

log = logging.getLogger("wbtui.service")

PROGRESS_EVERY = 0.5
"""Seconds between progress events of one job; landed shards are always told."""
LATE = 5.0
"""Seconds between two looks after which this very process was halted: what the workers said meanwhile is unread yet."""


class WorkerLike(Protocol):
    """What the engine needs of a worker; :class:`WorkerProcess` in earnest."""

    info: dict[str, Any]

    @property
    def last_sign(self) -> float: ...
    @property
    def last_pulse(self) -> float: ...
    @property
    def alive(self) -> bool: ...
    @property
    def busy(self) -> bool: ...
    def start(self) -> None: ...
    def submit(self, task: dict[str, Any], on_progress: Callable[..., None] | None = None) -> Future[Any]: ...
    def stop(self) -> None: ...
    def kill(self, reason: str, why: str) -> None: ...
    def close(self, grace: float = 5.0) -> None: ...


class Engine:
    """Drives workers by the scheduler.

    Args:
        config: devices, tile, time limits.
        post: runs a function on the engine's thread, soon; safe from any thread.
        on_event: told every event, on the engine's thread.
        on_answer: told the outcome of each row request as ((client, request number), outcome).
        workers: by name; the default is one process for each device.
        log_fd: where the workers' own output goes.
        on_part: told what is known of a question's answer before its end, as on_answer is told its end.
    """

    def __init__(
        self,
        config: ServiceConfig,
        post: Callable[[Callable[[], None]], None],
        on_event: Callable[[dict[str, Any]], None],
        on_answer: Callable[[tuple[str, int], Outcome], None],
        workers: dict[str, WorkerLike] | None = None,
        log_fd: int | None = None,
        on_part: Callable[[tuple[str, int], dict[str, Any]], None] | None = None,
    ) -> None:
        self.config = config
        self.post = post
        self.on_event = on_event
        self.on_answer = on_answer
        self.on_part = on_part
        if workers is None:
            beside = max(1, sum(device in ("cpu", "auto") for device in config.devices))
            workers = {
                f"{n}:{device}": WorkerProcess(device, config.work, log_fd, beside)
                for n, device in enumerate(config.devices)
            }
        self.workers = workers
        self.scheduler = Scheduler(workers, config.tile)
        self.last_work = time.monotonic()
        self._told: dict[int, float] = {}
        self._pumping = False
        self._looked = time.monotonic()
        self._memory: dict[str, Any] = {}
        self._suspects: dict[str, Running] = {}
        """Units that a worker had nothing to say about at the last look though it has no task."""
        self.closing = False
        """Set before :meth:`close`: nothing new is begun."""

    def prestart(self) -> None:
        """Start the workers, so that their imports are done when the first request comes."""
        if self.closing:
            return
        for worker in self.workers.values():
            worker.start()

    def pump(self) -> None:
        """Give idle workers work, ask those to stop that must make way, pass on what has happened."""
        if self._pumping or self.closing:
            return
        self._pumping = True
        try:
            self._pump()
        finally:
            self._pumping = False

    def _pump(self) -> None:
        now = time.monotonic()
        for name in self.workers:
            while (unit := self.scheduler.next(name, now)) is not None:
                self.last_work = now
                if self._submit(name, unit):
                    break
        for name in self.scheduler.to_stop():
            self.workers[name].stop()
        events, answers = self.scheduler.drain()
        for event in events:
            if event["event"] in ("job", "product", "retry"):
                log.info("%s", {k: v for k, v in event.items() if k not in ("cache", "products")})
            self._tell(lambda event=event: self.on_event(event))  # type: ignore[misc]
        for waiter, outcome in answers:
            self._tell(lambda waiter=waiter, outcome=outcome: self.on_answer(waiter, outcome))  # type: ignore[misc]

    def _tell(self, say: Callable[[], None]) -> None:
        """Pass one thing on. What cannot be told must not keep back what comes after it: a job's end, an answer."""
        try:
            say()
        except Exception:
            log.exception("an event or answer could not be passed on")

    def _submit(self, name: str, unit: Unit) -> bool:
        """Hand a unit to a worker; False where the worker could not even take it (the unit has then failed)."""
        running = self.scheduler.workers[name]
        progress = functools.partial(self._progress_elsewhere, name, running)
        try:
            future = self.workers[name].submit(unit.task, progress)
        except Exception as error:
            if not isinstance(error, WbtuiError):
                log.exception("worker %s takes no work", name)
                error = WorkError(f"{type(error).__name__}: {error}", do="see `wbtui daemon logs`")
            self.scheduler.finished(name, Outcome("failed", reason="start", error=error), time.monotonic())
            return False
        future.add_done_callback(lambda f: self.post(lambda: self._finished(name, running, f)))
        return True

    def _progress_elsewhere(self, name: str, running: Running | None, share: float, part: Any = None) -> None:
        self.post(lambda: self._progress(name, running, share, part))

    def _progress(self, name: str, running: Running | None, share: float, part: Any) -> None:
        if self.scheduler.workers[name] is not running:
            return
        if part is not None and self.on_part is not None:
            on_part = self.on_part
            for waiter in self.scheduler.waiters(name):
                self._tell(functools.partial(on_part, waiter, part))
        job_id = self.scheduler.progress(name, share)
        now = time.monotonic()
        job = self.scheduler.jobs.get(job_id)
        if job is not None and job.live and now - self._told.get(job_id, 0.0) >= PROGRESS_EVERY:
            self._told[job_id] = now
            self._tell(lambda: self.on_event({"event": "progress", **self.scheduler.describe(job, now)}))

    def _finished(self, name: str, running: Running | None, future: Future[Any]) -> None:
        if self.scheduler.workers[name] is not running:
            return  # given up meanwhile
        now = self.last_work = time.monotonic()
        error = future.exception()
        if error is None:
            outcome = Outcome("done", value=future.result())
        elif isinstance(error, Broken):
            outcome = Outcome("failed", reason=error.reason, error=error.error, value=error.ranges)
            # for the log file: whoever asked is told, and a warning would be a second line on a command's stderr
            log.info("worker %s: %s (%s)", name, error.error.line(), error.reason)
        elif isinstance(error, Cancelled):
            outcome = Outcome("stopped", error=error)
        elif isinstance(error, WbtuiError):
            outcome = Outcome("failed", reason="user", error=error)
        else:
            outcome = Outcome("failed", reason="bug", error=WorkError(f"{type(error).__name__}: {error}"))
        self.scheduler.finished(name, outcome, now)
        self.pump()

    def tick(self) -> None:
        """Look for workers that are stuck, and let weights go after a while without work. About once a second.

        It also pumps: should a wake-up ever be lost, work goes on a second later.
        """
        now = time.monotonic()
        late, self._looked = now - self._looked > LATE, now
        for name, worker in self.workers.items():
            running = self.scheduler.workers[name]
            if running is None or late:
                self._suspects.pop(name, None)
                continue
            silent, still = now - worker.last_sign, now - worker.last_pulse
            if worker.busy and silent > self.config.heartbeat:
                worker.kill("stuck", f"gave no sign of progress for {silent:.0f} s")
            elif worker.busy and still > self.config.pulse:
                worker.kill("stuck", f"was halted: no sign of life for {still:.0f} s")
            elif worker.busy or self._suspects.get(name) is not running:
                self._suspects.pop(name, None)
                if not worker.busy:
                    self._suspects[name] = running
            else:  # its end was looked for twice, a second apart, and never came
                log.error("worker %s is idle, but %s was never heard of again", name, running.unit)
                lost = WorkError(f"the worker {name} lost its task", do="see `wbtui daemon logs`")
                self.scheduler.finished(name, Outcome("failed", reason="killed", error=lost), now)
        self.pump()
        if self.scheduler.idle and now - self.last_work > self.config.idle_unload:
            for name, worker in self.workers.items():
                if worker.alive:
                    log.info("worker %s ends: no work for %.0f s", name, now - self.last_work)
                    worker.close(min(1.0, self.config.stop_grace))  # an idle worker goes at once or is halted
        self._tell(self._tell_devices)
        live = {job.id for job in self.scheduler.jobs.values() if job.live}
        self._told = {job_id: when for job_id, when in self._told.items() if job_id in live}

    def devices(self) -> list[dict[str, Any]]:
        """Each worker as people see it: name, device, memory [used, total] in bytes, alive, busy, what it is at."""
        out = []
        for name, worker in self.workers.items():
            running = self.scheduler.workers[name]
            at = running.unit.kind if running is not None else None
            out.append({"name": name, "alive": worker.alive, "busy": running is not None, "at": at, **worker.info})
        return out

    def _tell_devices(self) -> None:
        """What workers are at and memory, to those who watch, where either changed (memory by a twentieth of a
        gigabyte)."""
        found = {
            d["name"]: [d.get("device"), d["alive"], d["at"], *(round(n / 5e7) for n in d.get("memory") or ())]
            for d in self.devices()
        }
        if found != self._memory:
            self._memory = found
            self.on_event({"event": "devices", "devices": self.devices()})

    def close(self) -> None:
        """Stop what runs and end the workers; a shard that does not stop in time is lost and computed again later."""
        self.closing = True
        for worker in self.workers.values():
            worker.stop()
        for worker in self.workers.values():
            worker.close(self.config.stop_grace)
