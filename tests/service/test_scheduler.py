"""What runs next: order, priorities, pre-emption, coalescing, cancelling, retries. No process, no clock."""

from __future__ import annotations

import pytest

from tests.service.queues import DONE, PLAN, STOPPED, drain_all, name, product
from wbtui.errors import Cancelled, WeightsError
from wbtui.service.eta import Rates
from wbtui.service.scheduler import Scheduler
from wbtui.service.work import Outcome, Priority


def test_products_come_in_order_and_each_is_put_together_once():
    scheduler = Scheduler(["w"])
    job = scheduler.add_job(PLAN, Priority.BATCH, "a", 0.0)
    assert drain_all(scheduler) == [
        *("vocab:0", "mask:0", "mask:8", "mask:end", "null:0", "null:8", "null:end"),
        *("tokens:0", "tokens:8", "tokens:16", "tokens:end"),
    ]
    assert job.state == "done" and scheduler.idle and not scheduler.products


def test_only_what_is_missing_is_done():
    scheduler = Scheduler(["w"])
    plan = [product("vocab", 1, complete=True), product("mask", 2, missing=[]), product("tokens", 3, missing=[1])]
    scheduler.add_job(plan, Priority.BATCH, "a", 0.0)
    assert drain_all(scheduler) == ["mask:end", "tokens:8", "tokens:end"]
    done = scheduler.add_job([product("vocab", 1, complete=True)], Priority.BATCH, "a", 0.0)
    assert done.state == "done"


def test_two_workers_share_but_wait_for_vocabulary_and_mask():
    scheduler = Scheduler(["w", "x"])
    scheduler.add_job(PLAN, Priority.BATCH, "a", 0.0)
    assert name(scheduler.next("w", 0)) == "vocab:0"
    assert name(scheduler.next("x", 0)) == "mask:0"
    scheduler.finished("x", DONE, 1)
    assert name(scheduler.next("x", 1)) == "mask:8"
    scheduler.finished("w", DONE, 1)
    assert scheduler.next("w", 1) is None  # the mask is not whole yet
    scheduler.finished("x", DONE, 2)
    assert name(scheduler.next("x", 2)) == "mask:end"
    scheduler.finished("x", DONE, 3)
    assert [name(scheduler.next(w, 3)) for w in "wx"] == ["null:0", "null:8"]
    scheduler.finished("w", DONE, 4)
    assert name(scheduler.next("w", 4)) == "tokens:0"  # null:8 still runs: null is not put together
    scheduler.finished("x", DONE, 5)
    assert name(scheduler.next("x", 5)) == "null:end"


def test_the_same_product_asked_for_twice_is_one_piece_of_work():
    scheduler = Scheduler(["w"])
    first = scheduler.add_job(PLAN, Priority.BATCH, "a", 0.0)
    second = scheduler.add_job(PLAN, Priority.NEAR, "b", 0.0)
    assert first is not second
    assert len(drain_all(scheduler)) == 11
    assert (first.state, second.state) == ("done", "done")
    assert scheduler.add_job(PLAN, Priority.NEAR, "b", 0.0) is scheduler.add_job(PLAN, Priority.NEAR, "b", 0.0)


def test_screen_before_near_before_batch():
    scheduler = Scheduler(["w"])
    for priority in (Priority.BATCH, Priority.NEAR, Priority.SCREEN):
        scheduler.add_job([product(f"tokens-{priority.name}", 1)], priority, "a", 0.0)
    assert drain_all(scheduler) == [f"tokens-{p}:{u}" for p in ("SCREEN", "NEAR", "BATCH") for u in ("0", "end")]


def test_batches_take_turns_by_the_time_they_had():
    scheduler = Scheduler(["w"])
    for job in "ab":
        scheduler.add_job([product(f"tokens-{job}", 3)], Priority.BATCH, job, 0.0)
    order = drain_all(scheduler)
    assert order[:6] == ["tokens-a:0", "tokens-b:0", "tokens-a:8", "tokens-b:8", "tokens-a:16", "tokens-b:16"]


def test_a_new_batch_does_not_starve_an_old_one():
    scheduler = Scheduler(["w"])
    old = scheduler.add_job([product("tokens-a", 40)], Priority.BATCH, "a", 0.0)
    for n in range(20):
        scheduler.next("w", n)
        scheduler.finished("w", DONE, n + 1)
    new = scheduler.add_job([product("tokens-b", 40)], Priority.BATCH, "b", 20.0)
    seen = []
    for n in range(20, 26):
        seen.append(name(scheduler.next("w", n))[:8])
        scheduler.finished("w", DONE, n + 1)
    assert sorted(seen) == ["tokens-a"] * 3 + ["tokens-b"] * 3
    assert old.live and new.live


def test_shards_around_the_shown_row_come_first():
    scheduler = Scheduler(["w"])
    scheduler.add_job([product("tokens", 5)], Priority.SCREEN, "a", 0.0, around=25)
    assert drain_all(scheduler)[:3] == ["tokens:24", "tokens:16", "tokens:32"]


def test_a_screen_request_stops_a_running_batch_shard_and_the_shard_comes_back():
    scheduler = Scheduler(["w"])
    scheduler.add_job([product("tokens-a", 2)], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    assert scheduler.to_stop() == []
    scheduler.add_job([product("tokens-b", 1)], Priority.SCREEN, "b", 0.0)
    assert scheduler.to_stop() == ["w"]
    assert scheduler.to_stop() == []  # asked once
    scheduler.finished("w", STOPPED, 1)
    assert drain_all(scheduler) == ["tokens-b:0", "tokens-b:end", "tokens-a:0", "tokens-a:8", "tokens-a:end"]


def test_near_does_not_stop_batch_and_screen_does_not_stop_screen():
    for running, asked in ((Priority.BATCH, Priority.NEAR), (Priority.SCREEN, Priority.SCREEN)):
        scheduler = Scheduler(["w"])
        scheduler.add_job([product("tokens-a", 2)], running, "a", 0.0)
        scheduler.next("w", 0)
        scheduler.add_job([product("tokens-b", 1)], asked, "b", 0.0)
        assert scheduler.to_stop() == []


def test_a_batch_shard_that_the_screen_wants_too_is_left_alone():
    scheduler = Scheduler(["w"])
    scheduler.add_job(PLAN, Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.add_job(PLAN, Priority.SCREEN, "b", 0.0)
    assert scheduler.to_stop() == []


def test_only_as_many_are_stopped_as_wait_and_the_youngest_first():
    scheduler = Scheduler(["w", "x", "y"])
    scheduler.add_job([product("tokens-a", 9)], Priority.BATCH, "a", 0.0)
    for n, worker in enumerate("wxy"):
        scheduler.next(worker, float(n))
    scheduler.add_row("r1", {}, ("b", 1))
    assert scheduler.to_stop() == ["y"]
    assert scheduler.to_stop() == []
    scheduler.add_row("r2", {}, ("b", 2))
    assert scheduler.to_stop() == ["x"]


def test_nothing_is_stopped_while_a_worker_is_free():
    scheduler = Scheduler(["w", "x"])
    scheduler.add_job([product("tokens-a", 1)], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.add_row("r", {}, ("b", 1))
    assert scheduler.to_stop() == []
    assert name(scheduler.next("x", 0)) == "row:r"


def test_a_lone_row_goes_before_everything_and_answers_all_who_asked():
    scheduler = Scheduler(["w"])
    scheduler.add_job([product("tokens-a", 2)], Priority.SCREEN, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.add_row("r", {"feature": 3}, ("b", 1))
    scheduler.add_row("r", {"feature": 3}, ("c", 9))
    assert scheduler.to_stop() == ["w"]
    scheduler.finished("w", STOPPED, 1)
    unit = scheduler.next("w", 1)
    assert name(unit) == "row:r" and unit.task == {"feature": 3}
    scheduler.finished("w", Outcome("done", value={"x": 1}), 2)
    _, answers = scheduler.drain()
    assert [(who, o.value) for who, o in answers] == [(("b", 1), {"x": 1}), (("c", 9), {"x": 1})]
    assert not scheduler.rows


def test_a_row_waits_for_its_vocabulary_and_fails_with_it():
    for outcome, expected in ((DONE, "row:r"), (Outcome("failed", reason="user", error=WeightsError("no")), "-")):
        scheduler = Scheduler(["w"])
        vocab = product("vocab", 1)
        scheduler.add_job([vocab], Priority.SCREEN, "b", 0.0)
        scheduler.add_row("r", {}, ("b", 1), (vocab.id,))
        assert name(scheduler.next("w", 0)) == "vocab:0"
        scheduler.finished("w", outcome, 1)
        assert name(scheduler.next("w", 1)) == expected
        if expected == "-":
            [(who, answer)] = scheduler.drain()[1]
            assert who == ("b", 1) and isinstance(answer.error, WeightsError) and scheduler.idle


def test_a_cancelled_job_gives_up_its_work_but_not_that_of_others():
    scheduler = Scheduler(["w"])
    both = product("tokens-both", 2)
    first = scheduler.add_job([product("null-a", 2), both], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    second = scheduler.add_job([both], Priority.BATCH, "b", 0.0)
    assert scheduler.cancel(first.id, 1.0)
    assert not scheduler.cancel(first.id, 1.0) and not scheduler.cancel(99, 1.0)
    assert scheduler.to_stop() == ["w"]  # null-a is wanted by no one
    scheduler.finished("w", STOPPED, 2)
    assert drain_all(scheduler) == ["tokens-both:0", "tokens-both:8", "tokens-both:end"]
    assert (first.state, second.state) == ("cancelled", "done") and scheduler.idle


def test_a_shard_that_ends_just_as_it_is_cancelled_leaves_nothing_behind():
    scheduler = Scheduler(["w"])
    job = scheduler.add_job([product("tokens", 2)], Priority.BATCH, "a", 0.0)
    scheduler.next("w", 0)
    scheduler.cancel(job.id, 0.5)
    scheduler.to_stop()
    scheduler.finished("w", DONE, 1)
    assert scheduler.idle and not scheduler.products and scheduler.next("w", 1) is None


def test_a_vanished_client_takes_its_screen_work_with_it_and_leaves_its_batches():
    scheduler = Scheduler(["w"])
    jobs = {p: scheduler.add_job([product(f"tokens-{p}", 1)], p, "a", 0.0) for p in list(Priority)[1:]}
    scheduler.add_row("r", {}, ("a", 1))
    scheduler.add_row("s", {}, ("a", 2))
    scheduler.add_row("s", {}, ("b", 1))
    assert name(scheduler.next("w", 0)) == "row:r"
    scheduler.client_gone("a", 1.0)
    assert [jobs[p].state for p in list(Priority)[1:]] == ["cancelled", "cancelled", "queued"]
    assert scheduler.to_stop() == ["w"]  # the row is not wanted any more
    scheduler.finished("w", STOPPED, 1)
    assert drain_all(scheduler) == ["row:s", "tokens-3:0", "tokens-3:end"]
    assert [who for who, _ in scheduler.drain()[1]] == [("b", 1)]


def test_a_row_is_taken_back():
    scheduler = Scheduler(["w"])
    scheduler.add_row("r", {}, ("a", 1))
    assert scheduler.cancel_row(("a", 1)) and not scheduler.cancel_row(("a", 1))
    assert scheduler.next("w", 0) is None
    [(who, outcome)] = scheduler.drain()[1]
    assert who == ("a", 1) and isinstance(outcome.error, Cancelled)


def test_a_product_that_another_machine_finished_is_not_done_again():
    scheduler = Scheduler(["w"])
    first = scheduler.add_job([product("tokens", 3)], Priority.BATCH, "a", 0.0)
    second = scheduler.add_job([product("tokens", 3, complete=True)], Priority.BATCH, "b", 0.0)
    assert second.state == "done"
    assert scheduler.next("w", 0) is None
    assert first.state == "done"


def test_every_change_of_a_job_says_all_that_a_list_shows():
    """A list that hears of a job by events alone has its priority, its products and how far it is."""
    scheduler = Scheduler(["w"])
    scheduler.add_job(PLAN, Priority.BATCH, "a", 0.0)
    drain_all(scheduler)
    events = [e for e in scheduler.drain()[0] if e["event"] == "job"]
    assert [e["state"] for e in events] == ["queued", "running", "done"]
    assert {e["priority"] for e in events} == {"batch"} and all(e["products"] for e in events)
    assert [e["fraction"] for e in events][::2] == [0.0, 1.0]
    assert events[-1]["rows_done"] == events[-1]["rows"] == sum(p["rows"] for p in events[0]["products"])


def test_events_tell_what_landed_and_progress_counts_rows():
    scheduler = Scheduler(["w"])
    job = scheduler.add_job([product("tokens", 2)], Priority.BATCH, "a", 0.0, label="demo@L0")
    scheduler.next("w", 0.0)
    scheduler.progress("w", 0.5)
    seen = scheduler.describe(job, 2.0)
    assert (seen["rows_done"], seen["rows"], seen["fraction"]) == (4, 16, 0.25)
    assert seen["eta"] == pytest.approx(6.0)  # 2 rows a second, 12 rows left
    scheduler.finished("w", DONE, 4.0)
    scheduler.next("w", 4.0)
    scheduler.finished("w", DONE, 8.0)
    scheduler.next("w", 8.0)
    scheduler.finished("w", DONE, 9.0)
    events, _ = scheduler.drain()
    assert [(e["event"], e.get("state"), e.get("start")) for e in events] == [
        ("job", "queued", None),
        ("job", "running", None),
        ("shard", None, 0),
        ("shard", None, 8),
        ("product", "complete", None),
        ("job", "done", None),
    ]
    last = scheduler.describe(job, 10.0)
    assert (last["fraction"], last["rows_done"], last["eta"], last["label"]) == (1.0, 16, None, "demo@L0")


def test_rates_stand_in_for_each_other_only_where_rows_cost_alike():
    rates = Rates(workers=2)
    assert rates.eta([("tokens", 10)]) is None
    rates.hint("tokens", 10, 10)
    assert rates.eta([("null", 10)]) == 5.0
    rates.add("tokens", 40, 10)
    assert rates.eta([("tokens", 40), ("null", 40)]) == 10.0
    assert rates.eta([("mask", 1)]) is None and rates.eta([("mask", 0)]) == 0.0


def test_where_another_host_is_at_the_same_product_this_one_begins_at_the_other_end():
    scheduler = Scheduler(["w"])
    scheduler.add_job([product("tokens", 6)], Priority.BATCH, "a", 0.0)
    seen = []
    while (unit := scheduler.next("w", 0.0)) is not None:
        seen.append(name(unit))
        there = name(unit) == "tokens:8"  # made by the other host while we were at it
        value = f"/c/{unit.of.partition(chr(10))[2]}" if there else "/c/products/tokens/shards/x.safetensors"
        scheduler.finished("w", Outcome("done", value=value), 1.0)
    assert seen == [f"tokens:{n}" for n in (0, 8, 40, 32, 24, 16, "end")]
