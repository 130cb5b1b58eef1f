"""What the queue does when work fails, and that it empties whatever happens. No process, no clock."""

from __future__ import annotations

import random

import pytest

from tests.service.queues import DONE, PLAN, STOPPED, drain_all, name, product
from wbtui.errors import WeightsError, WorkError
from wbtui.service.scheduler import Scheduler
from wbtui.service.work import Outcome, Priority


@pytest.mark.parametrize("reason", ["killed", "stuck", "device"])
def test_a_deadly_shard_is_tried_once_more_with_half_the_tile_and_then_fails_its_product(reason):
    scheduler = Scheduler(["w"], tile=128)
    job = scheduler.add_job([product("tokens", 3)], Priority.BATCH, "a", 0.0)
    failure = Outcome("failed", reason=reason, error=WorkError("out of memory"))
    unit = scheduler.next("w", 0)
    assert unit.task["tile"] == 128
    scheduler.finished("w", failure, 1)
    unit = scheduler.next("w", 1)
    assert name(unit) == "tokens:0" and unit.task["tile"] == 64
    scheduler.finished("w", failure, 2)
    assert job.state == "failed" and scheduler.next("w", 2) is None and scheduler.idle
    assert "out of memory" in job.error.found and "rows 0-8" in job.error.found and "twice" in job.error.found


def test_a_retry_that_works_is_no_failure():
    scheduler = Scheduler(["w"])
    job = scheduler.add_job([product("tokens", 2)], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.finished("w", Outcome("failed", reason="killed", error=WorkError("x")), 1)
    assert drain_all(scheduler) == ["tokens:0", "tokens:8", "tokens:end"]
    assert job.state == "done"


@pytest.mark.parametrize("reason", ["user", "bug", "start"])
def test_what_cannot_mend_itself_is_not_tried_again(reason):
    scheduler = Scheduler(["w"])
    error = WeightsError("cut short", "40 bytes", "download it again")
    job = scheduler.add_job(PLAN, Priority.BATCH, "a", 0.0)
    assert name(scheduler.next("w", 0)) == "vocab:0"
    scheduler.finished("w", Outcome("failed", reason=reason, error=error), 1)
    assert drain_all(scheduler) == ["mask:0", "mask:8", "mask:end"]  # which does not need the vocabulary
    assert job.state == "failed" and "cut short" in job.error.found
    assert scheduler.idle


def test_shards_found_damaged_are_computed_again_but_not_for_ever():
    scheduler = Scheduler(["w"])
    job = scheduler.add_job([product("tokens", 3)], Priority.BATCH, "a", 0.0)
    gone = Outcome("failed", value=((8, 16),), reason="missing", error=WorkError("1 shard missing"))
    seen = []
    while (unit := scheduler.next("w", 0)) is not None:
        seen.append(name(unit))
        scheduler.finished("w", gone if unit.kind == "assemble" else DONE, 1)
    assert seen == ["tokens:0", "tokens:8", "tokens:16", "tokens:end", *["tokens:8", "tokens:end"] * 2]
    assert job.state == "failed"


def test_an_error_of_the_users_comes_through_as_it_is():
    scheduler = Scheduler(["w"])
    error = WeightsError("cut short", "40 bytes", "download it again")
    job = scheduler.add_job([product("tokens", 2)], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.finished("w", Outcome("failed", reason="user", error=error), 1)
    assert job.error is error


def test_a_failed_product_may_be_asked_for_again():
    scheduler = Scheduler(["w", "x"])
    failure = Outcome("failed", reason="bug", error=WorkError("x"))
    plan = [product("tokens-bad", 2), product("null-good", 3)]
    first = scheduler.add_job(plan, Priority.BATCH, "a", 0.0)
    assert [name(scheduler.next(w, 0)) for w in "wx"] == ["tokens-bad:0", "tokens-bad:8"]
    scheduler.finished("w", failure, 1)
    second = scheduler.add_job(plan, Priority.BATCH, "b", 1.0)  # while its other shard still runs
    scheduler.finished("x", DONE, 2)
    assert drain_all(scheduler) == [
        "tokens-bad:0",
        "tokens-bad:end",
        "null-good:0",
        "null-good:8",
        "null-good:16",
        "null-good:end",
    ]
    assert (first.state, second.state) == ("done", "done")


def test_other_shards_of_a_failed_product_are_stopped():
    scheduler = Scheduler(["w", "x"])
    scheduler.add_job([product("tokens", 4), product("null", 9)], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.next("x", 0)
    scheduler.finished("w", Outcome("failed", reason="bug", error=WorkError("x")), 1)
    assert scheduler.to_stop() == ["x"]
    scheduler.finished("x", STOPPED, 2)
    assert name(scheduler.next("x", 2)) == "null:0"


def test_a_shard_that_stops_by_itself_does_not_go_round_for_ever():
    scheduler = Scheduler(["w"])
    job = scheduler.add_job([product("tokens", 1)], Priority.BATCH, "a", 0.0)
    for n in range(2):
        assert name(scheduler.next("w", n)) == "tokens:0"
        scheduler.finished("w", STOPPED, n + 1)
    assert job.state == "failed"


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_the_queue_empties_and_no_shard_is_lost(seed):
    """Random jobs, cancels, vanishing clients, stops, failures: every job ends, every wanted product is done exactly
    once unless it failed, and nothing stays behind."""
    rng = random.Random(seed)
    workers = ["w", "x"][: rng.randint(1, 2)]
    scheduler = Scheduler(workers)
    landed: dict[tuple[str, tuple[int, int]], int] = {}
    failed: set[str] = set()
    jobs, now, asked, answered = [], 0.0, set(), []
    for step in range(2000):
        now += 1.0
        action = rng.random()
        if step < 120 and action < 0.15:
            plan = [product("vocab", 1), product("mask", 2), product(f"tokens-{rng.randrange(4)}", 3)]
            priority = rng.choice(list(Priority)[1:])
            jobs.append(scheduler.add_job(plan, priority, rng.choice("abc"), now, around=rng.choice([None, 9])))
        elif step < 120 and action < 0.25:
            waiter = (rng.choice("abc"), step)
            asked.add(waiter)
            scheduler.add_row(f"r{rng.randrange(3)}", {}, waiter)
        elif action < 0.28 and jobs:
            scheduler.cancel(rng.choice(jobs).id, now)
        elif action < 0.3:
            gone = rng.choice("abc")
            scheduler.client_gone(gone, now)
            asked = {w for w in asked if w[0] != gone}
        for worker in workers:
            running = scheduler.workers[worker]
            if running is None:
                unit = scheduler.next(worker, now)
                if unit is not None and unit.kind != "row":
                    assert all(
                        other is None or (other.unit.of, other.unit.range) != (unit.of, unit.range)
                        for key, other in scheduler.workers.items()
                        if key != worker
                    )
            elif rng.random() < 0.5:
                outcome = DONE
                if running.stopping and rng.random() < 0.8:
                    outcome = STOPPED
                elif rng.random() < 0.05:
                    outcome = Outcome("failed", reason=rng.choice(["killed", "bug", "memory"]), error=WorkError("x"))
                unit = running.unit
                scheduler.finished(worker, outcome, now)
                if outcome is DONE and unit.kind == "shard":
                    landed[(unit.of, unit.range)] = landed.get((unit.of, unit.range), 0) + 1
                if outcome.state == "failed":
                    failed.add(unit.of)
        scheduler.to_stop()
        answered += [who for who, _ in scheduler.drain()[1]]
        if step > 120 and scheduler.idle:
            break
    assert scheduler.idle and not scheduler.products and not scheduler.rows
    assert all(not job.live for job in jobs)
    assert len(answered) == len(set(answered)) and asked <= set(answered)


def test_a_job_that_shares_a_product_of_another_ends_when_what_that_one_needs_fails():
    """Found by the model: the second job does not name the mask, and nothing else would ever have ended it."""
    scheduler = Scheduler(["w"])
    first = scheduler.add_job([product("mask", 1), product("attention", 2)], Priority.NEAR, "a", 0.0)
    second = scheduler.add_job([product("attention", 2)], Priority.BATCH, "a", 0.0)
    assert name(scheduler.next("w", 0)) == "mask:0"
    scheduler.finished("w", Outcome("failed", reason="user", error=WeightsError("no")), 1)
    assert (first.state, second.state) == ("failed", "failed") and scheduler.idle


def test_out_of_memory_halves_the_tile_as_far_as_it_goes_and_the_device_remembers():
    scheduler = Scheduler(["w", "x"], tile=128)
    job = scheduler.add_job([product("tokens", 9), product("null", 1)], Priority.BATCH, "a", 0.0)
    full = Outcome("failed", reason="memory", error=WorkError("out of memory"))
    tiles = []
    for _ in range(2):
        unit = scheduler.next("w", 0)
        assert name(unit) == "tokens:0"
        tiles.append(unit.task["tile"])
        scheduler.finished("w", full, 1)
    unit = scheduler.next("w", 1)
    tiles.append(unit.task["tile"])
    scheduler.finished("w", DONE, 2)
    assert tiles == [128, 64, 32]
    assert scheduler.next("w", 2).task["tile"] == 32  # another shard, the same device: not again by trial and error
    assert scheduler.next("x", 2).task["tile"] == 128  # another device has memory of its own
    assert job.live


def test_a_shard_that_has_not_even_memory_for_the_smallest_tile_fails():
    scheduler = Scheduler(["w"], tile=128)
    job = scheduler.add_job([product("tokens", 3)], Priority.BATCH, "a", 0.0)
    tiles = []
    while (unit := scheduler.next("w", 0)) is not None:
        tiles.append(unit.task["tile"])
        scheduler.finished("w", Outcome("failed", reason="memory", error=WorkError("out of memory")), 1)
    assert tiles == [128, 64, 32, 16]
    assert job.state == "failed" and "4 times" in job.error.found and "rows 0-8" in job.error.found and scheduler.idle
