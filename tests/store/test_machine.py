"""Random histories of one product: work, crashes, damage, repair, in any order.

What is sound on disk is told by comparing bytes with an undisturbed run (equal arrays give equal bytes), so that the
model cannot drift from the disk. Every step but damage must keep what is sound: a shard, or the columns in its place.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.store.helpers import KillAt, columns_bytes, killed, make_spec, refusal, rows_of, run_all
from wbtui.store.cache import gc, list_products, verify
from wbtui.store.products import Product
from wbtui.store.refusals import ShardsMissing

SPEC = make_spec(rows=20, shard_rows=8)
SPANS = [(0, 8), (8, 16), (16, 20)]


class History(RuleBasedStateMachine):
    """One product folder and its owner."""

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        reference = Product(self.root / "reference", SPEC)
        self.shards = {span: reference.write_shard(*span, rows_of(*span)).read_bytes() for span in SPANS}
        run_all(self.root / "reference", SPEC)
        self.columns = columns_bytes(self.root / "reference", SPEC)
        self.cache = self.root / "cache"
        self.product = Product(self.cache, SPEC)

    def teardown(self):
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    def sound(self) -> set:
        """Spans whose rows are soundly on disk."""
        path = self.product.path / "columns.safetensors"
        if path.exists() and path.read_bytes() == self.columns:
            return set(SPANS)
        return {
            span
            for span, want in self.shards.items()
            if self.product.shard_path(*span).exists() and self.product.shard_path(*span).read_bytes() == want
        }

    def step(self, work, k=None, short=None) -> bool:
        """Do the work, dying at operation k; True if it died. What was sound still is."""
        before = self.sound()
        died = killed(KillAt(k, short), work)
        assert before <= self.sound()
        if died:
            self.product = Product(self.cache, SPEC)
        return died

    @rule()
    def restart(self):
        self.product = Product(self.cache, SPEC)

    @rule(k=st.none() | st.integers(0, 40))
    def begin(self, k):
        self.step(self.product.begin, k)

    @rule(span=st.sampled_from(SPANS), k=st.none() | st.integers(0, 20), short=st.sampled_from([None, 100]))
    def write(self, span, k, short):
        was_complete = self.product.state == "complete"
        if not self.step(lambda: self.product.write_shard(*span, rows_of(*span)), k, short):
            assert was_complete or span in self.sound()

    @rule()
    def write_what_is_missing(self):
        for span in self.product.missing():
            self.step(lambda span=span: self.product.write_shard(*span, rows_of(*span)))
        assert self.product.missing() == []

    @rule(k=st.none() | st.integers(0, 90))
    def assemble(self, k):
        claimed = self.product.state == "complete"
        sound = self.sound()

        def work():
            lacking = refusal(self.product.assemble)
            if lacking is not None:
                assert isinstance(lacking, ShardsMissing)
                assert lacking.ranges
                assert not set(lacking.ranges) & sound
            else:
                assert claimed or sound == set(SPANS)
                assert self.product.state == "complete"

        self.step(work, k)

    @rule(k=st.none() | st.integers(0, 90))
    def repair(self, k):
        if not self.step(lambda: verify(self.cache, repair=True), k):
            assert [p for p in verify(self.cache) if p.kind in ("bad-shard", "bad-columns")] == []

    @rule(hours=st.integers(0, 3), k=st.none() | st.integers(0, 60))
    def collect(self, hours, k):
        self.step(lambda: gc(self.cache, max_bytes=10**9, now=4e9 + hours * 3600), k)

    @rule()
    def finish(self):
        sound = self.sound()
        hidden = self.product.state == "complete" and sound != set(SPANS)  # a flipped bit that only verify can see
        for _ in range(len(SPANS) + 1):  # damage that only assembly sees needs another round
            computed: list = []
            if refusal(lambda computed=computed: computed.extend(run_all(self.cache, SPEC))) is None:
                break
        assert not set(computed) & sound
        assert self.product.state == "complete"
        assert hidden or columns_bytes(self.cache, SPEC) == self.columns

    # --- damage -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.product.shards())
    @rule(
        pick=st.randoms(use_true_random=False),
        how=st.sampled_from(["short", "flip header", "flip data", "flip data", "empty", "gone"]),
    )
    def harm_shard(self, pick, how):
        self.harm(self.product.shards()[pick.choice(sorted(self.product.shards()))], pick, how)

    @precondition(lambda self: (self.product.path / "columns.safetensors").exists())
    @rule(
        pick=st.randoms(use_true_random=False),
        how=st.sampled_from(["short", "flip header", "flip data", "flip data", "empty", "gone"]),
    )
    def harm_columns(self, pick, how):
        self.harm(self.product.path / "columns.safetensors", pick, how)

    @precondition(lambda self: (self.product.path / "manifest.json").exists())
    @rule(content=st.sampled_from([None, b"", b"{]", b"{}", b"\x00" * 80]))
    def harm_manifest(self, content):
        path = self.product.path / "manifest.json"
        path.unlink() if content is None else path.write_bytes(content)

    @staticmethod
    def harm(path, pick, how):
        raw = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
        elif how.startswith("flip") and raw:
            at = pick.randrange(len(raw)) if how == "flip header" else -1 - pick.randrange(min(len(raw), 80))
            raw[at] ^= 1 << pick.randrange(8)
            path.write_bytes(raw)
        else:
            path.write_bytes(raw[: pick.randrange(len(raw)) if how == "short" and raw else 0])

    # --- always -------------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_sound_is_computed_again(self):
        if not hasattr(self, "root"):
            return
        assert not set(Product(self.cache, SPEC).missing()) & self.sound()

    @invariant()
    def what_is_called_complete_has_its_size_at_least(self):
        if not hasattr(self, "root"):
            return
        if Product(self.cache, SPEC).state == "complete":
            assert len(columns_bytes(self.cache, SPEC)) == len(self.columns)
        for entry in list_products(self.cache):
            assert (entry.state == "complete") == (self.product.state == "complete")


@pytest.mark.parametrize("examples", [25, pytest.param(1500, marks=[pytest.mark.faults, pytest.mark.timeout(1800)])])
def test_any_history_ends_well(examples):
    how = settings(max_examples=examples, stateful_step_count=25, deadline=None, derandomize=examples < 100)
    run_state_machine_as_test(History, settings=how)
