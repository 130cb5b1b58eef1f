"""Any history of jobs, rows, cancels, vanishing clients, deaths and damaged shards: the queue never stands still.

The rule that a lost wake-up would break: while no worker works and something is wanted, an idle worker is given a unit.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.service.queues import DONE, STOPPED, product
from wbtui.errors import WorkError
from wbtui.service.scheduler import Scheduler
from wbtui.service.work import Outcome, PlannedProduct, Priority, Unit

WORKERS = ("u", "v", "w")
SHARDS = {"vocab": 1, "mask": 2, "null-a": 2, "tokens-a": 3, "tokens-b": 1, "attention": 2}
REASONS = ("user", "bug", "memory", "device", "killed", "stuck", "start")


class Machine(RuleBasedStateMachine):
    """A scheduler, a disk that holds what was done, and workers that do as they please."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(WORKERS)
        self.now = 0.0
        self.serial = 0
        self.shards: dict[str, set[int]] = {name: set() for name in SHARDS}
        self.whole: set[str] = set()
        self.asked: set[tuple[str, int]] = set()
        self.answered: list[tuple[str, int]] = []
        self.ended: list[int] = []

    def planned(self, name: str) -> PlannedProduct:
        """As a planner would find it now."""
        missing = [n for n in range(SHARDS[name]) if n not in self.shards[name]]
        return product(name, SHARDS[name], complete=name in self.whole, missing=missing)

    def busy(self) -> list[str]:
        return [w for w, running in self.scheduler.workers.items() if running is not None]

    @rule(
        names=st.lists(st.sampled_from(sorted(SHARDS)), min_size=1, max_size=5, unique=True),
        priority=st.sampled_from(list(Priority)[1:]),
        owner=st.sampled_from("ab"),
        around=st.sampled_from([None, 9]),
    )
    def job(self, names, priority, owner, around):
        plan = [self.planned(name) for name in sorted(names, key=list(SHARDS).index)]
        self.scheduler.add_job(plan, priority, owner, self.now, around=around)

    @rule(row=st.integers(0, 2), owner=st.sampled_from("ab"))
    def row(self, row, owner):
        self.serial += 1
        needs = [self.planned("vocab")] if "vocab" not in self.whole else []
        if needs:
            self.scheduler.add_job(needs, Priority.SCREEN, owner, self.now)
        self.asked.add((owner, self.serial))
        self.scheduler.add_row(f"r{row}", {}, (owner, self.serial), tuple(p.id for p in needs))

    @precondition(lambda self: self.asked - set(self.answered))
    @rule(data=st.data())
    def take_back(self, data):
        self.scheduler.cancel_row(data.draw(st.sampled_from(sorted(self.asked - set(self.answered)))))

    @precondition(lambda self: self.scheduler.jobs)
    @rule(data=st.data())
    def cancel(self, data):
        self.scheduler.cancel(data.draw(st.sampled_from(sorted(self.scheduler.jobs))), self.now)

    @rule(owner=st.sampled_from("ab"))
    def vanish(self, owner):
        self.scheduler.client_gone(owner, self.now)
        self.asked = {who for who in self.asked if who[0] != owner}

    @rule(name=st.sampled_from(sorted(SHARDS)))
    def rot(self, name):
        """A product is removed from the disk."""
        self.whole.discard(name)
        self.shards[name].clear()

    @rule(worker=st.sampled_from(WORKERS))
    def give(self, worker):
        self.now += 1.0
        unit = self.scheduler.next(worker, self.now)
        if unit is None or unit.kind == "row":
            return
        others = [r.unit for w, r in self.scheduler.workers.items() if r is not None and w != worker]
        assert all((u.of, u.range) != (unit.of, unit.range) for u in others)

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), how=st.sampled_from(["done", "done", "done", "stopped", "failed"]))
    def end(self, data, how):
        worker = data.draw(st.sampled_from(self.busy()))
        running = self.scheduler.workers[worker]
        assert running is not None
        self.now += 1.0
        if how == "done" or (how == "stopped" and not running.stopping):
            self.scheduler.finished(worker, self.work(running.unit), self.now)
        elif how == "stopped":
            self.scheduler.finished(worker, STOPPED, self.now)
        else:
            reason = data.draw(st.sampled_from(REASONS))
            self.scheduler.finished(worker, Outcome("failed", reason=reason, error=WorkError("x")), self.now)

    def work(self, unit: Unit) -> Outcome:
        """What a worker that does its unit says, and what is on the disk then."""
        if unit.kind == "row":
            return DONE
        name = unit.of.rpartition("/")[2]
        if unit.kind == "shard":
            self.shards[name].add(unit.range[0] // 8)
            if name == "vocab":
                self.whole.add(name)
            return DONE
        lacking = tuple((n * 8, n * 8 + 8) for n in range(SHARDS[name]) if n not in self.shards[name])
        if lacking and name not in self.whole:
            return Outcome("failed", reason="missing", value=lacking, error=WorkError("shards are missing"))
        self.whole.add(name)
        return DONE

    @invariant()
    def never_stands_still(self):
        self.scheduler.to_stop()
        self.note()
        if not self.scheduler.idle and not self.busy():
            assert next(self.scheduler._startable(), None) is not None

    def note(self) -> None:
        events, answers = self.scheduler.drain()
        self.answered += [who for who, _ in answers]
        self.ended += [
            e["job"] for e in events if e["event"] == "job" and e["state"] in ("done", "failed", "cancelled")
        ]
        assert len(self.answered) == len(set(self.answered))
        assert len(self.ended) == len(set(self.ended))

    def teardown(self):
        """Workers that just work empty the queue; every row is answered, every job has ended."""
        for _ in range(400):
            for worker in WORKERS:
                self.scheduler.next(worker, self.now)
            for worker in self.busy():
                running = self.scheduler.workers[worker]
                assert running is not None
                self.scheduler.finished(worker, STOPPED if running.stopping else self.work(running.unit), self.now)
            self.scheduler.to_stop()
            if self.scheduler.idle:
                break
        self.note()
        assert self.scheduler.idle and not self.scheduler.products and not self.scheduler.rows
        assert all(not job.live for job in self.scheduler.jobs.values())
        assert self.asked <= set(self.answered)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("examples", [60, pytest.param(5000, marks=pytest.mark.faults)])
def test_any_history_keeps_the_queue_moving(examples):
    chosen = settings(
        max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck),
        derandomize=examples < 100,
    )  # fmt: skip
    run_state_machine_as_test(Machine, settings=chosen)
