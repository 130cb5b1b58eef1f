"""No task is ever lost between service and worker: not to a worker that dies just then, speaks of what the service does
not know, goes deaf, is halted, or to an event that cannot be told."""

from __future__ import annotations

import dataclasses
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from tests.service.conftest import DEADLINE, FAKE, check_complete, wait_until
from tests.service.queues import product
from tests.service.test_worker import tasks
from wbtui.errors import WbtuiError, WorkError
from wbtui.service import local
from wbtui.service.config import ServiceConfig
from wbtui.service.engine import Engine
from wbtui.service.executor import Broken, WorkerProcess
from wbtui.service.work import Outcome, Priority


class DiesAsItIsAsked(WorkerProcess):
    """Its idle process ends, and its reader has gone, between the look at it and the task."""

    def start(self) -> None:
        super().start()
        if self.starts == 1 and self._process is not None and not self._lost:
            assert self.ready.wait(DEADLINE)
            reader = self._reader
            self._process.kill()
            assert reader is not None
            reader.join(DEADLINE)


def test_a_worker_that_dies_just_as_it_is_given_a_task_does_not_swallow_it(here):
    worker = DiesAsItIsAsked("cpu", FAKE)
    assert worker.submit(tasks(here)[0]).result(DEADLINE)
    assert worker.starts == 2
    worker.close()


CHILD = """
import json, socket, struct, sys
sock = socket.socket(fileno=int(sys.argv[1]))
def say(message):
    body = json.dumps(message).encode()
    sock.sendall(struct.pack(">I", len(body)) + body)
say({"ready": json.loads(sys.argv[2])})
(length,) = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))
number = json.loads(sock.recv(length, socket.MSG_WAITALL))["task"]
say({**json.loads(sys.argv[3]), "failed": number})
sock.recv(1)
"""


class Other(WorkerProcess):
    """A child of other code than the service's: the package was changed while the service ran."""

    about: dict[str, Any]
    failure: dict[str, Any]

    def command(self, fd: int) -> list[str]:
        import json

        return [sys.executable, "-c", CHILD, str(fd), json.dumps(self.about), json.dumps(self.failure)]


@pytest.mark.parametrize(
    ("about", "failure"),
    [
        ({"version": "9.9.9"}, {}),
        ({}, {}),
        (None, {"reason": "bug"}),
        (None, {"reason": "bug", "error": "not an object", "ranges": []}),
        (None, {"reason": "bug", "error": {}, "ranges": [1, 2]}),
    ],
)
def test_a_worker_of_other_code_is_an_error_with_a_remedy_and_not_a_silence(here, about, failure):
    import wbtui

    worker = Other("cpu", FAKE)
    worker.about = {"version": wbtui.__version__} if about is None else about
    worker.failure = failure
    with pytest.raises(Broken) as caught:
        worker.submit(tasks(here)[0]).result(DEADLINE)
    assert caught.value.reason == "start" and "wbtui daemon restart" in caught.value.do
    worker.close()


def test_a_worker_that_is_told_nonsense_ends_instead_of_going_deaf(here):
    worker = WorkerProcess("cpu", FAKE, log=os.open(os.devnull, os.O_WRONLY))
    gate = here.root / "gate"
    future = worker.submit(tasks(here, gate=str(gate))[0])
    wait_until(here.traced)
    assert worker._sock is not None
    worker._send(worker._sock, {"halt": "the third"})
    with pytest.raises(Broken):
        future.result(DEADLINE)
    gate.touch()
    assert worker.submit(tasks(here)[0]).result(DEADLINE)
    worker.close()


def test_a_halted_worker_is_replaced_long_before_a_silent_one(here):
    """SIGSTOP stops the pulse; a long silent piece of work does not."""
    slow = here.request(products=[["tokens", 64, 32]], gate=str(here.root / "gate"))
    config = here.config(pulse=4.0, heartbeat=600.0)
    with local.LocalRunner(config) as runner:
        worker = runner.engine.workers["0:cpu"]
        events: list[dict[str, Any]] = []

        def on_event(event: dict[str, Any]) -> None:
            events.append(event)
            if event["event"] == "retry":
                (here.root / "gate").touch()

        def halt() -> None:
            wait_until(here.traced)
            assert isinstance(worker, WorkerProcess) and worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)

        thread = threading.Thread(target=halt)
        thread.start()
        runner.compute(slow, on_event, DEADLINE)
        thread.join()
    [retry] = [e for e in events if e["event"] == "retry"]
    assert "halted" in retry["reason"]
    check_complete(here, slow)


class Toy:
    """A worker of no process: ends its tasks on another thread after a random moment, in random ways."""

    def __init__(self, seed: int, loses: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.loses = loses
        self.info: dict[str, Any] = {}
        self.last_sign = self.last_pulse = time.monotonic()
        self.busy = False
        self.alive = True
        self.done: list[tuple[str, int, int]] = []
        self._stop = threading.Event()

    def start(self) -> None: ...

    def submit(self, task: dict[str, Any], on_progress: Callable[[float], None] | None = None) -> Future[Any]:
        assert not self.busy, "two tasks at once"
        future: Future[Any] = Future()
        self.last_sign = self.last_pulse = time.monotonic()
        if self.rng.random() < 0.03:
            raise WorkError("no process could be started")
        self._stop = threading.Event()
        if self.rng.random() < self.loses:
            return future  # never heard of again, and the worker is idle
        self.busy = True
        threading.Thread(target=self._run, args=(future, task, on_progress, self._stop, self.rng.random())).start()
        return future

    def _run(self, future: Any, task: dict[str, Any], on_progress: Any, stop: threading.Event, fate: float) -> None:
        for share in (0.3, 0.6, 1.0):
            stopped = stop.wait(self.rng.random() * 0.004)
            if on_progress is not None:
                on_progress(share)
            if stopped:
                break
        self.busy = False
        if stop.is_set() and fate < 0.9:
            from wbtui.errors import Cancelled

            future.set_exception(Cancelled("stopped"))
        elif fate < 0.05:
            future.set_exception(Broken("killed", WorkError("died")))
        elif fate < 0.07:
            future.set_exception(ZeroDivisionError())
        else:
            if task.get("kind") != "row":
                self.done.append((task["spec"]["analysis"], task["start"], task["stop"]))
            future.set_result("path")

    def stop(self) -> None:
        self._stop.set()

    def kill(self, reason: str, why: str) -> None:
        self._stop.set()

    def close(self, grace: float = 5.0) -> None:
        self._stop.set()


def stress(seed: int, loses: float = 0.0) -> None:
    """Random jobs, rows and cancels over toy workers, with events that cannot be told; all must come to an end."""
    rng = random.Random(seed)
    inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    ended: set[int] = set()
    answered: set[tuple[str, int]] = set()

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "job" and event["state"] in ("done", "failed", "cancelled"):
            ended.add(event["job"])
        if rng.random() < 0.2:
            raise ValueError("an event that cannot be told")

    workers = {f"{n}:cpu": Toy(seed * 10 + n, loses) for n in range(rng.randint(1, 3))}
    engine = Engine(
        ServiceConfig(devices=("cpu",), idle_unload=1e9), inbox.put, on_event,
        lambda who, outcome: answered.add(who), dict(workers),
    )  # fmt: skip
    scheduler, jobs, asked = engine.scheduler, [], set()
    deadline = time.monotonic() + DEADLINE
    for step in range(40):
        what = rng.random()
        now = time.monotonic()
        if what < 0.35:
            plan = [product("vocab", 1), product("mask", 2), product(f"tokens-{rng.randrange(3)}", 4)]
            jobs.append(scheduler.add_job(plan, rng.choice(list(Priority)[1:]), rng.choice("ab"), now))
        elif what < 0.6:
            asked.add(("c", step))
            scheduler.add_row(f"r{rng.randrange(3)}", {"kind": "row"}, ("c", step))
        elif what < 0.7 and jobs:
            scheduler.cancel(rng.choice(jobs).id, now)
        engine.pump()
        while rng.random() < 0.7 and not inbox.empty():
            inbox.get()()
    ticked = time.monotonic()
    while not scheduler.idle:
        assert time.monotonic() < deadline, (seed, scheduler.workers, scheduler.products, scheduler.rows)
        try:
            inbox.get(timeout=0.02)()
        except queue.Empty:
            pass
        if time.monotonic() - ticked > 0.05:
            ticked = time.monotonic()
            engine.tick()
    engine.pump()
    assert {job.id for job in jobs} == ended
    assert asked == answered


@pytest.mark.parametrize("seed", range(6))
def test_random_delays_never_leave_a_job_hanging(seed):
    stress(seed)


@pytest.mark.faults
@pytest.mark.parametrize("loses", [0.0, 0.1])
def test_random_delays_never_leave_a_job_hanging_five_hundred_times(loses):
    for seed in range(250):
        stress(1000 + seed, loses)


def test_a_task_that_a_worker_lost_is_found_and_done_again():
    stress(77, loses=0.15)


def test_an_answer_comes_though_the_event_before_it_could_not_be_told():
    answers: list[Outcome] = []
    told: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        told.append(event["event"])
        raise ValueError("NaN")

    toy = Toy(1)
    inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    config = ServiceConfig(devices=("cpu",))
    engine = Engine(config, inbox.put, on_event, lambda who, outcome: answers.append(outcome), {"0": toy})
    job = engine.scheduler.add_job([product("tokens", 1)], Priority.BATCH, "a", 0.0)
    engine.scheduler.add_row("r", {"kind": "row"}, ("a", 1))
    engine.pump()
    deadline = time.monotonic() + DEADLINE
    while not engine.scheduler.idle and time.monotonic() < deadline:
        inbox.get(timeout=DEADLINE)()
    assert answers and job.state in ("done", "failed") and "job" in told


def test_after_this_process_was_halted_no_worker_is_blamed(monkeypatch):
    toy = Toy(3)
    inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    config = dataclasses.replace(ServiceConfig(devices=("cpu",)), pulse=10.0, heartbeat=10.0)
    engine = Engine(config, inbox.put, lambda event: None, lambda who, outcome: None, {"0": toy})
    killed: list[str] = []
    monkeypatch.setattr(toy, "kill", lambda reason, why: killed.append(why))
    monkeypatch.setattr(toy, "_run", lambda *args: None)
    engine.scheduler.add_job([product("tokens", 1)], Priority.BATCH, "a", 0.0)
    engine.pump()
    began = time.monotonic()
    toy.busy = True
    clock = iter([began + 1000.0, began + 1001.0, began + 1002.0])
    monkeypatch.setattr("wbtui.service.engine.time.monotonic", lambda: next(clock, began + 1003.0))
    engine.tick()
    assert not killed  # a thousand seconds in which nothing was read: ours, not the worker's
    engine.tick()
    assert len(killed) == 1


@pytest.mark.parametrize("code", [WbtuiError("x"), OSError(5, "x")])
def test_a_worker_that_takes_no_work_fails_the_job_and_does_not_stop_the_queue(code, monkeypatch):
    toy = Toy(1)

    def refuses(task: Any, on_progress: Any = None) -> Any:
        raise code

    monkeypatch.setattr(toy, "submit", refuses)
    config = ServiceConfig(devices=("cpu",))
    engine = Engine(config, lambda f: None, lambda event: None, lambda who, outcome: None, {"0": toy})
    job = engine.scheduler.add_job([product("tokens", 2)], Priority.BATCH, "a", 0.0)
    engine.pump()
    assert job.state == "failed" and engine.scheduler.idle
