"""The same work without a service (``--no-daemon``): the same plan, scheduler, workers and events, in this process's
own life. Ctrl-C stops what runs and leaves the finished shards where they are."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

from wbtui.errors import Cancelled, TimedOut, WbtuiError, WorkError
from wbtui.service import connect, planning, protocol, wishes
from wbtui.service.client import _absolute
from wbtui.service.config import ServiceConfig
from wbtui.service.engine import Engine, WorkerLike
from wbtui.service.running import outcome_of
from wbtui.service.work import Outcome, PlannedProduct, Priority

Event = dict[str, Any]
_OWNER = "local"


class LocalRunner:
    """Computations in workers that live no longer than this object.

    Args:
        config: devices and limits; from the environment if None.
        workers: other workers than one process for each device (:class:`wbtui.service.inprocess.InProcessWorker`).
    """

    def __init__(self, config: ServiceConfig | None = None, workers: dict[str, WorkerLike] | None = None) -> None:
        self.config = config or ServiceConfig.from_env()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._answers: dict[tuple[str, int], Outcome] = {}
        self._rows = 0
        self._ticked = time.monotonic()
        self.engine = Engine(self.config, self._inbox.put, self._events.append, self._answers.__setitem__, workers)
        self._planner = planning.load_planner(self.config.planner)

    def __enter__(self) -> LocalRunner:
        self.engine.prestart()
        return self

    def __exit__(self, *exc: object) -> None:
        self.engine.close()

    def compute(
        self,
        request: wishes.ComputeRequest,
        on_event: Callable[[Event], None],
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As :func:`wbtui.service.running.run_job`, without a service.

        Raises:
            TimedOut, KeyboardInterrupt (with everything stopped), or the job's own error.
        """
        [result] = self.compute_many([request], on_event, timeout)
        if isinstance(result, WbtuiError):
            raise result
        return result

    def compute_many(
        self,
        requests: Sequence[wishes.ComputeRequest],
        on_event: Callable[[Event], None],
        timeout: float | None = None,
    ) -> list[dict[str, Any] | WbtuiError]:
        """As :func:`wbtui.service.running.run_jobs`, without a service."""
        deadline = None if timeout is None else time.monotonic() + timeout
        scheduler = self.engine.scheduler
        out: dict[int, dict[str, Any] | WbtuiError] = {}
        jobs: dict[int, list[int]] = {}
        try:
            for n, request in enumerate(requests):
                try:
                    answer = self._ask(_absolute(request))
                except WbtuiError as error:
                    out[n] = error
                    continue
                out[n] = answer
                jobs.setdefault(answer["job"], []).append(n)
                on_event({"event": "planned", "request": n, **answer})
                self.engine.pump()  # workers need not wait until everything is planned
            while jobs:
                self._turn(deadline)
                events, self._events[:] = list(self._events), []
                for event in events:
                    if event.get("job") not in jobs:
                        continue
                    if event["event"] == "job" and event["state"] in protocol.FINAL_STATES:
                        why = outcome_of(event)
                        for n in jobs.pop(event["job"]):
                            out[n] = why or out[n]
                    on_event(event)
        except BaseException:
            for job in jobs:
                scheduler.cancel(job, time.monotonic())
            for name in scheduler.to_stop():
                self.engine.workers[name].stop()
            raise
        return [out[n] for n in range(len(requests))]

    def _ask(self, request: wishes.ComputeRequest) -> dict[str, Any]:
        planned = planning.plan(self._planner, request.wish())
        label = request.label
        job = self.engine.scheduler.add_job(
            planned, Priority.named(request.priority), _OWNER, time.monotonic(), label=label, around=request.around
        )
        products = [
            {"analysis": p.analysis, "key": p.key, "relative": p.relative, "rows": p.rows, "complete": p.complete}
            for p in planned
        ]
        return {"job": job.id, "state": job.state, "products": products}

    def row(self, request: wishes.RowRequest, timeout: float | None = None) -> dict[str, Any]:
        """As :meth:`wbtui.service.client.Client.row`, without a service."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if request.first:
            found = planning.first_look(request)
            return self._lone(found.id, found.task, (), deadline)
        planned = planning.plan(self._planner, {**request.plan_request(), "checks": False})
        target = next(p for p in planned if p.analysis == "tokens")
        words = [p for p in planned if p.analysis == "vocab" and not p.complete]
        task = {"kind": "row", "request": {"cache": request.cache, "spec": target.spec}, "feature": request.feature}
        return self._lone(f"{target.id}\n{request.feature}", task, words, deadline)

    def page(self, request: wishes.PageRequest, timeout: float | None = None) -> dict[str, Any]:
        """As :meth:`wbtui.service.client.Client.page`, without a service."""
        deadline = None if timeout is None else time.monotonic() + timeout
        plans = [planning.plan(self._planner, wish) for wish in request.wishes()]
        found = planning.page_task(request, plans)
        return self._lone(found.id, found.task, found.words, deadline)

    def ask(
        self,
        request: wishes.AskRequest,
        on_part: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """As :meth:`wbtui.service.client.Client.ask`, without a service."""
        deadline = None if timeout is None else time.monotonic() + timeout
        model, sae = connect.absolute(request.model), connect.absolute(request.sae)
        request = dataclasses.replace(request, model=model, sae=sae, cache=connect.cache(request.cache))
        found = planning.ask_task(request, planning.plan(self._planner, request.plan_request()))
        self.engine.on_part = None if on_part is None else lambda _, part: on_part(part)
        return self._lone(found.id, found.task, found.words, deadline)

    def _lone(
        self, name: str, task: dict[str, Any], words: Sequence[PlannedProduct], deadline: float | None
    ) -> dict[str, Any]:
        scheduler = self.engine.scheduler
        if words:
            scheduler.add_job(words, Priority.SCREEN, _OWNER, time.monotonic(), label="vocabulary")
        self._rows += 1
        waiter = (_OWNER, self._rows)
        scheduler.add_row(name, task, waiter, tuple(p.id for p in words))
        while waiter not in self._answers:
            self._turn(deadline)
            self._events.clear()  # the vocabulary's: no one listens, and what waits to be heard holds up the next turn
        outcome = self._answers.pop(waiter)
        if outcome.state != "done":
            raise outcome.error or Cancelled("stopped")
        if not isinstance(outcome.value, dict):
            raise WorkError(f"a row that is {type(outcome.value).__name__}")
        return outcome.value

    def _turn(self, deadline: float | None) -> None:
        """Begin what can begin, then hear of one thing that has happened."""
        self.engine.pump()
        if self._events or self._answers:
            return
        with contextlib.suppress(queue.Empty):
            self._inbox.get(timeout=0.5)()
        if time.monotonic() - self._ticked > 1.0:  # also while other workers have much to say
            self._ticked = time.monotonic()
            self.engine.tick()
        if deadline is not None and time.monotonic() > deadline:
            raise TimedOut("not done in time")


def run_job(
    request: wishes.ComputeRequest,
    on_event: Callable[[Event], None],
    *,
    timeout: float | None = None,
    config: ServiceConfig | None = None,
) -> dict[str, Any]:
    """One computation in this process's own worker; see :func:`wbtui.service.running.run_job`."""
    with LocalRunner(config) as runner:
        return runner.compute(request, on_event, timeout)
