"""Real processes: killed with SIGKILL at any instant, and several at the same product at once.

Children are forked (they start in milliseconds). Half of the kills come from the child itself at a chosen operation,
half from outside, whenever the parent has read so many marks from a pipe: anywhere between two system calls.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import traceback

import pytest

from tests.store.helpers import columns_bytes, faults, files_below, make_spec, rows_of, run_all
from wbtui.store import io
from wbtui.store.cache import gc, verify
from wbtui.store.columns import verify_columns
from wbtui.store.products import Product
from wbtui.store.refusals import ShardsMissing

SPEC = make_spec(rows=44, shard_rows=8)
FORK = multiprocessing.get_context("fork")
DEADLINE = 60


def stubborn(cache, order: int) -> None:
    """A whole run with shards in an order of its own, taking up again whatever is missing at the end."""
    product = Product(cache, SPEC)
    for _ in range(20):
        product.begin()
        spans = product.missing()
        random.Random(order).shuffle(spans)
        for start, stop in spans:
            product.write_shard(start, stop, rows_of(start, stop))
        try:
            product.assemble()
        except ShardsMissing:
            continue
        return
    raise AssertionError("shards were missing twenty times")


def child(work, *args):
    """Run work in a forked process that never returns into pytest."""

    def main():
        code = 1
        try:
            work(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    process = FORK.Process(target=main)
    process.start()
    return process


def finish(process) -> int:
    process.join(DEADLINE)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode


def die_at(cache, k, order):
    count = iter(range(k, -1, -1))

    def fault(op, path):
        if next(count, 0) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    io.install(fault)
    stubborn(cache, order)


def tell(cache, order, pipe):
    def fault(op, path):
        os.write(pipe, b".")

    io.install(fault)
    stubborn(cache, order)


def sound_shards(cache):
    product = Product(cache, SPEC)
    for path in product.shards().values():
        verify_columns(path)
    return set(product.shards())


@pytest.fixture(scope="module")
def want(tmp_path_factory):
    cache = tmp_path_factory.mktemp("undisturbed")
    with faults(None):
        run_all(cache, SPEC)
    return columns_bytes(cache, SPEC)


SEEDS = pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.faults) for n in range(3, 60))]
)  # fmt: skip


@SEEDS
def test_killed_again_and_again_it_comes_to_the_same_bytes(tmp_path, want, seed):
    rng = random.Random(seed)
    done: set[tuple[int, int]] = set()
    for _ in range(6):
        if rng.random() < 0.5:
            assert finish(child(die_at, tmp_path, rng.randrange(260), rng.random())) in (0, -signal.SIGKILL)
        else:
            ours, theirs = os.pipe()
            process = child(tell, tmp_path, rng.random(), theirs)
            os.close(theirs)
            left = rng.randrange(1, 260)
            while left > 0 and (marks := os.read(ours, left)):
                left -= len(marks)
            process.kill()
            assert finish(process) in (0, -signal.SIGKILL)
            os.close(ours)
        if Product(tmp_path, SPEC).state == "complete":
            assert columns_bytes(tmp_path, SPEC) == want
            break
        there = sound_shards(tmp_path)
        assert done <= there  # nothing finished is lost
        done = there
    assert not done & set(run_all(tmp_path, SPEC))
    assert columns_bytes(tmp_path, SPEC) == want
    gc(tmp_path)  # the dead left only temporary names, and their processes are known to be dead
    assert files_below(tmp_path / SPEC.relative) == ["columns.safetensors", "manifest.json"]
    assert verify(tmp_path) == []


@SEEDS
def test_processes_that_race_all_succeed_with_the_same_bytes(tmp_path, want, seed):
    barrier = FORK.Barrier(4)

    def race(order):
        barrier.wait(DEADLINE)
        stubborn(tmp_path, order)

    def housekeeping():
        barrier.wait(DEADLINE)
        for _ in range(5):
            gc(tmp_path, max_bytes=10**9)
            assert [p for p in verify(tmp_path, repair=True) if p.kind.startswith("bad")] == []

    processes = [child(race, seed * 10 + n) for n in range(3)] + [child(housekeeping)]
    assert [finish(process) for process in processes] == [0, 0, 0, 0]
    assert columns_bytes(tmp_path, SPEC) == want
    Product(
        tmp_path, SPEC
    ).assemble()  # a late shard may be left, and what a late writer put into a folder on its way out
    gc(tmp_path)
    assert files_below(tmp_path / SPEC.relative) == ["columns.safetensors", "manifest.json"]


@SEEDS
def test_one_of_two_that_race_is_killed(tmp_path, want, seed):
    rng = random.Random(seed)
    survivor = child(stubborn, tmp_path, 1)
    victim = child(die_at, tmp_path, rng.randrange(200), 2)
    assert finish(survivor) == 0
    finish(victim)
    assert columns_bytes(tmp_path, SPEC) == want
    Product(tmp_path, SPEC).assemble()
    gc(tmp_path)
    assert files_below(tmp_path / SPEC.relative) == ["columns.safetensors", "manifest.json"]


def test_a_temporary_name_tells_the_living_from_the_dead(tmp_path):
    ours, theirs = os.pipe()

    def leave():
        name = io.own_name(tmp_path / "x")
        name.write_bytes(b"")
        os.write(theirs, name.name.encode())

    process = child(leave)
    assert finish(process) == 0
    name = os.read(ours, 300).decode()
    assert io.is_stale(tmp_path / name)
    mine = io.own_name(tmp_path / "x")
    mine.write_bytes(b"")
    assert not io.is_stale(mine)
    assert not io.is_stale(tmp_path / "x")
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("moment", ["begin", "assemble"])
def test_what_a_killed_process_left_half_written_goes_with_the_next_step(tmp_path, moment):
    product = Product(tmp_path, SPEC)
    product.begin()
    mine = io.own_name(product.path / "manifest.json")
    mine.write_bytes(b"")

    def die_writing():
        io.own_name(product.path / "manifest.json").write_bytes(b"{")
        gone = io.own_name(product.path / "shards", "gone")
        gone.mkdir()
        (gone / "rows").write_bytes(b"")

    if moment == "assemble":
        run_all(tmp_path, SPEC)
    assert finish(child(die_writing)) == 0
    assert len(verify(tmp_path)) == 2
    product.assemble() if moment == "assemble" else product.begin()
    assert verify(tmp_path) == []
    assert mine.exists()


def test_a_killed_process_that_nobody_has_buried_is_dead():
    process = child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not io.alive(process.pid)
    assert io.alive(os.getpid())
    assert finish(process) == -signal.SIGKILL
    assert not io.alive(process.pid)
