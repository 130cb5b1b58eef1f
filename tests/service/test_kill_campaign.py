"""``kill -9`` of worker, daemon and both, at seeded moments: nothing is lost but the shards in flight."""

from __future__ import annotations

import pytest

from tests.service.kill_campaign import demo_campaign, fake_campaign


def test_a_few_kills(here):
    campaign = fake_campaign(here)
    for seed in range(6):
        campaign.strike(seed)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_many_kills(here):
    campaign = fake_campaign(here)
    for seed in range(60):
        campaign.strike(seed)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_many_kills_of_the_real_work_on_the_demo(here):
    campaign = demo_campaign(here)
    for seed in range(20):
        campaign.strike(seed)
