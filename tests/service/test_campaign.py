"""A sample of the fault campaign; all of it with ``make faults`` or ``python -m tests.service.campaign``."""

from __future__ import annotations

import pytest

from tests.service.campaign import KINDS, Trial, campaign, table

SAMPLE = (
    "worker killed",
    "service killed",
    "client killed",
    "service halted, then let go",
    "bit flipped in a shard",
    "socket removed",
    "lock file removed",
    "runtime folder removed",
    "two services racing",
    "half a frame, then gone",
    "out of memory in a tile",
    "disk full",
    "input/output error",
    "clock a day ahead",
)


def test_one_fault_of_each_kind(here):
    results = [Trial(here, kind, 7).run() for kind in SAMPLE]
    assert not [r for r in results if r.wrong]
    assert sum(r.midst for r in results) > len(SAMPLE) // 2
    assert "| all | 14 |" in table(results)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_five_hundred_faults(here):
    results = campaign(here, 30)
    print(table(results))
    assert len(results) == 30 * len(KINDS) >= 500
    assert not [r for r in results if r.wrong]
