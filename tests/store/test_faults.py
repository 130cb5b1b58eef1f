"""A fault at every single operation: the process dies, the disk refuses, or others meddle; nothing finished is lost.

The operations of one whole run are counted first; then runs are made with the fault at each of them (in the campaign,
marker ``faults``; at every fifth in the normal suite).
"""

from __future__ import annotations

import errno
import itertools
import shutil

import pytest

from tests.store.helpers import (
    FailAt,
    KillAt,
    Killed,
    MeanwhileAt,
    columns_bytes,
    faults,
    files_below,
    killed,
    make_spec,
    read_only,
    refusal,
    rows_of,
    run_all,
)
from wbtui.errors import StoreError
from wbtui.store import io
from wbtui.store.cache import gc, list_products, remove, verify
from wbtui.store.columns import verify_columns
from wbtui.store.products import Product

SPEC = make_spec(rows=12, shard_rows=8)
EVERY = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.faults)])
FINAL = ["columns.safetensors", "manifest.json"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Bytes of a run that nothing disturbs, and the number of its operations."""
    cache = tmp_path_factory.mktemp("undisturbed")
    count = KillAt(None)
    with faults(count):
        run_all(cache, SPEC)
    return columns_bytes(cache, SPEC), count.count


def finished_shards(cache):
    """Ranges whose file has its final name and the right bytes."""
    product = Product(cache, SPEC)
    out = set()
    for span, path in product.shards().items():
        verify_columns(path)  # whole or not at all: whatever has a final name is sound
        out.add(span)
    return out


@EVERY
@pytest.mark.parametrize("short", [None, 700], ids=["whole writes", "torn writes"])
def test_killed_at_any_operation_nothing_finished_is_lost_and_the_bytes_are_the_same(
    tmp_path, undisturbed, short, every
):
    want, count = undisturbed
    for k in itertools.count(every // 2, every):
        cache = tmp_path / str(k)
        if not killed(KillAt(k, short), lambda cache=cache: run_all(cache, SPEC)):
            break
        done = finished_shards(cache)
        complete = Product(cache, SPEC).state == "complete"
        # the restart dies too, at the same place or later, before it is let through
        killed(KillAt(k // 2, short), lambda cache=cache: run_all(cache, SPEC))
        computed = set(run_all(cache, SPEC))
        assert not computed & done
        assert not (complete and computed)
        assert columns_bytes(cache, SPEC) == want
        assert Product(cache, SPEC).state == "complete"
        left = [name for name in files_below(cache / SPEC.relative) if name not in FINAL]
        assert all(io.is_temporary(name.split("/")[-1]) or io.is_temporary(name.split("/")[0]) for name in left)
        gc(cache, now=2e10)
        assert files_below(cache / SPEC.relative) == FINAL
        assert verify(cache) == []
        shutil.rmtree(cache)
    assert k >= count


@EVERY
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_refused_once_at_any_operation_the_next_try_finishes(tmp_path, undisturbed, code, every):
    want, _ = undisturbed
    for k in itertools.count(every // 2, every):
        cache = tmp_path / str(k)
        fault = FailAt(code, k)
        before: set[tuple[int, int]] = set()
        with faults(fault):
            error = refusal(lambda cache=cache: run_all(cache, SPEC))
        if error is not None:
            assert str(cache) in error.found
            assert error.expected
            assert error.do
        if fault.hit is None:
            break
        if fault.hit[0] != "read":  # unreadable bytes are damage, all other refusals say nothing about a shard
            before = finished_shards(cache)
        computed = set(run_all(cache, SPEC))
        assert not computed & before
        assert columns_bytes(cache, SPEC) == want
        gc(cache, now=2e10)
        assert files_below(cache / SPEC.relative) == FINAL
        shutil.rmtree(cache)
    assert k > 50


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_stays_full_or_read_only_gives_one_clear_line(tmp_path, undisturbed, code):
    want, _ = undisturbed
    ops = frozenset({"create", "write", "fsync", "mkdir"}) if code == errno.ENOSPC else io.WRITING
    for k in itertools.count():
        cache = tmp_path / str(k)
        fault = FailAt(code, k, ops, forever=True)
        with faults(fault):
            error = refusal(lambda cache=cache: run_all(cache, SPEC))
        if error is not None:
            assert ("the disk is full" if code == errno.ENOSPC else "read-only") in error.found
            assert "WBTUI_CACHE_DIR" in error.do
            assert str(cache) in error.found
            if code == errno.ENOSPC:
                assert not any(io.is_temporary(name.split("/")[-1]) for name in files_below(cache))
        if fault.hit is None:
            break
        if error is not None:
            before = finished_shards(cache)
            assert not set(run_all(cache, SPEC)) & before
        assert columns_bytes(cache, SPEC) == want
    assert k > 10


@EVERY
def test_another_process_doing_the_same_work_at_any_instant_does_no_harm(tmp_path, undisturbed, every):
    want, count = undisturbed
    for k in range(every // 2, count, every):
        cache = tmp_path / str(k)
        fault = MeanwhileAt(k, lambda cache=cache: run_all(cache, SPEC))
        with faults(fault):
            run_all(cache, SPEC)
        assert columns_bytes(cache, SPEC) == want
        Product(cache, SPEC).assemble()  # a late shard of the other may be left; assembling again clears it
        assert files_below(cache / SPEC.relative) == FINAL
        assert verify(cache) == []
        shutil.rmtree(cache)


@EVERY
def test_gc_and_verify_at_any_instant_disturb_nobody(tmp_path, undisturbed, every):
    want, count = undisturbed

    def housekeeping(cache):
        gc(cache, max_bytes=10**9)
        found = verify(cache, repair=True)
        assert [p for p in found if p.kind != "leftover-shards"] == []
        list_products(cache)

    for k in range(every // 2, count, every):
        cache = tmp_path / str(k)
        with faults(MeanwhileAt(k, lambda cache=cache: housekeeping(cache))):
            run_all(cache, SPEC)
        assert columns_bytes(cache, SPEC) == want
        shutil.rmtree(cache)


@EVERY
def test_a_product_removed_under_a_writer_is_an_error_at_worst_and_the_next_try_finishes(tmp_path, undisturbed, every):
    want, count = undisturbed

    def evict(cache):
        refusal(lambda: remove(cache, SPEC.relative))  # it may not be there yet

    for k in range(every // 2, count, every):
        cache = tmp_path / str(k)
        with faults(MeanwhileAt(k, lambda cache=cache: evict(cache))):
            error = refusal(lambda cache=cache: run_all(cache, SPEC))
        assert error is None or str(cache) in error.found
        run_all(cache, SPEC)
        assert columns_bytes(cache, SPEC) == want
        shutil.rmtree(cache)


@EVERY
def test_killed_at_any_operation_of_repair_and_gc_the_cache_can_still_be_finished(tmp_path, undisturbed, every):
    want, _ = undisturbed
    for k in itertools.count(every // 2, every):
        cache = tmp_path / str(k)
        run_all(cache, SPEC)
        path = cache / SPEC.relative / "columns.safetensors"
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        other = make_spec(rows=12, shard_rows=8, other=1)
        Product(cache, other).write_shard(0, 8, rows_of(0, 8)).write_bytes(b"short")

        def work(cache=cache):
            verify(cache, repair=True)
            gc(cache, max_bytes=0, now=2e10)

        died = killed(KillAt(k), work)
        verify(cache, repair=True)
        run_all(cache, SPEC)
        run_all(cache, other)
        assert columns_bytes(cache, SPEC) == want
        gc(cache, now=2e10)
        assert verify(cache) == []
        shutil.rmtree(cache)
        if not died:
            break
    assert k > 30


def test_too_many_open_files_never_costs_a_shard(tmp_path):
    product = Product(tmp_path, SPEC)
    product.write_shard(0, 8, rows_of(0, 8))
    for ops in (frozenset({"open"}), frozenset({"read"})):
        with faults(FailAt(errno.EMFILE, 0, ops, forever=True)), pytest.raises(StoreError, match="Too many open files"):
            Product(tmp_path, SPEC).missing()
    assert Product(tmp_path, SPEC).missing() == [(8, 12)]


def test_a_shard_that_its_disk_cannot_read_is_computed_again(tmp_path):
    Product(tmp_path, SPEC).write_shard(0, 8, rows_of(0, 8))
    with faults(FailAt(errno.EIO, 0, frozenset({"read"}), forever=True)):
        assert Product(tmp_path, SPEC).missing() == [(0, 8), (8, 12)]


def test_short_writes_are_continued(tmp_path, undisturbed):
    for most in (1, 13):
        cache = tmp_path / str(most)
        with faults(lambda op, path, most=most: most if op == "write" else None):
            run_all(cache, SPEC)
        assert columns_bytes(cache, SPEC) == undisturbed[0]


def test_killed_while_hard_links_are_refused(tmp_path, undisturbed):
    """File systems without hard links (some network and removable ones) begin products by renaming."""

    class NoLinks(KillAt):
        def __call__(self, op, path):
            out = super().__call__(op, path)
            if op == "link":
                raise OSError(errno.EPERM, "no links", str(path))
            return out

    for k in (*range(0, undisturbed[1], 5), None):
        cache = tmp_path / str(k)
        with faults(NoLinks(k)):
            try:
                run_all(cache, SPEC)
            except Killed:
                pass
        with faults(NoLinks(None)):
            run_all(cache, SPEC)
        assert columns_bytes(cache, SPEC) == undisturbed[0]


def test_reading_goes_on_while_the_disk_is_full_or_read_only(tmp_path):
    run_all(tmp_path, SPEC)
    with faults(read_only):
        assert [entry.state for entry in list_products(tmp_path)] == ["complete"]
        assert verify(tmp_path) == []
        assert Product(tmp_path, SPEC).columns()["odd"][3] == 3
