"""The page of jobs: what is listed, in which order, and that the cursor keeps to its job."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tui.place import FakeClient, Place, screen_text, until
from wbtui.tui.draw.jobs import how_many, in_order, job_lines
from wbtui.tui.draw.line import text_of
from wbtui.tui.screens.jobs import JobsScreen


def job(number: int, state: str, priority: str = "batch", **more: Any) -> dict[str, Any]:
    return {"job": number, "state": state, "priority": priority, "label": f"demo@L{number}", "fraction": 0.5, **more}


def lines(jobs: list[dict[str, Any]], at: int, height: int, width: int = 80) -> list[str]:
    return [text_of(line) for line in job_lines(jobs, at, "up", "", width, height=height)]


def test_what_runs_then_what_waits_then_what_has_ended() -> None:
    jobs = [
        job(1, "done"), job(2, "queued"), job(3, "running"), job(4, "failed"), job(5, "queued", "screen"),
        job(6, "queued"), {"job": 7, "state": "queued"},
    ]  # fmt: skip
    assert [j["job"] for j in in_order(jobs)] == [3, 5, 2, 6, 7, 4, 1]


@pytest.mark.parametrize("height", [8, 20, 22, 40])
def test_the_cursor_is_on_the_screen_however_many_jobs_there_are(height: int) -> None:
    products = [{"analysis": "tokens", "rows": 100, "rows_done": 40, "state": "computing"}]
    jobs = [job(n, "queued", products=products) for n in range(1, 61)]
    for at in range(len(jobs)):
        shown = lines(jobs, at, height)
        assert len(shown) <= height
        assert any(line.startswith(f"▸ {at + 1:>4}") for line in shown), at
        assert all(len(line) <= 80 for line in shown)
        if height >= 20:
            assert any("40 of 100" in line for line in shown), "the cursor's job with its products"
            assert any("list: " in line and f" of {len(jobs)}" in line for line in shown)
    assert not any("list: " in line for line in lines(jobs[:2], 0, 22))


def test_the_work_left_is_told_where_it_is_known_of_all() -> None:
    jobs = [job(1, "running", eta=20.0), job(2, "queued", eta=100.0), job(3, "done", eta=None)]
    assert how_many(jobs) == "1 running, 1 waiting, 1 ended · at most 2 min of work left"
    assert how_many([*jobs, job(4, "queued", eta=None)]) == "1 running, 2 waiting, 1 ended"


async def test_the_cursor_keeps_to_its_job_while_the_list_moves(ready: Place) -> None:
    """GIVEN the cursor on a job that waits WHEN it and others change places THEN ``x`` cancels that job still."""
    listed = [job(1, "running"), job(2, "queued"), job(3, "queued")]
    cancelled: list[int] = []
    client = FakeClient(jobs=lambda: {"jobs": listed}, cancel=lambda job: cancelled.append(job) or {"cancelled": True})
    app = ready.app(ready.address(), client)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.desk.state == "up")
        await pilot.press("J")
        await until(pilot, lambda: isinstance(app.screen, JobsScreen) and "demo@L3" in screen_text(app))
        await pilot.press("j", "j")
        await until(pilot, lambda: "▸    3" in screen_text(app))
        client.queue.put_nowait({"event": "job", **job(1, "done", fraction=1.0)})
        client.queue.put_nowait({"event": "job", **job(3, "running")})
        client.queue.put_nowait({"event": "job", **job(4, "running", "screen")})
        await until(pilot, lambda: "demo@L4" in screen_text(app) and "100 %" in screen_text(app))
        assert "▸    3" in screen_text(app)
        await pilot.press("x")
        await until(pilot, lambda: cancelled == [3])


async def test_another_service_counts_anew_and_what_was_said_of_the_former_goes(ready: Place) -> None:
    """GIVEN the cursor on job 3 of a service that dies WHEN the next has a job 3 too THEN the cursor is not on it."""
    client = FakeClient(jobs=lambda: {"jobs": [job(n, "queued") for n in (1, 2, 3)]})
    app = ready.app(ready.address(), client)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.desk.state == "up")
        await pilot.press("J")
        await until(pilot, lambda: "demo@L3" in screen_text(app))
        await pilot.press("j", "j")
        await until(pilot, lambda: "▸    3" in screen_text(app))
        client.queue.put_nowait({"event": "disconnected"})
        await until(pilot, lambda: "the service has gone" in screen_text(app))
        client.queue.put_nowait({"event": "connected", "jobs": [job(n, "queued") for n in (2, 3)], "devices": []})
        await until(pilot, lambda: "▸    2" in screen_text(app))
        assert "the service has gone" not in screen_text(app)
