"""Queues for tests of the scheduler."""

from __future__ import annotations

from wbtui.service.scheduler import Scheduler
from wbtui.service.work import Outcome, PlannedProduct, Unit

DONE = Outcome("done", value="path")
STOPPED = Outcome("stopped")


def product(name: str, shards: int, *, complete: bool = False, missing: list[int] | None = None) -> PlannedProduct:
    analysis = name.split("-")[0]
    rows = 0 if analysis == "vocab" else shards * 8
    ranges = [(n * 8, n * 8 + 8) for n in (range(shards) if missing is None else missing)] if rows else [(0, 0)]
    spec = {"analysis": analysis, "rows": rows, "model_slug": "m"}
    return PlannedProduct("/c", spec, f"products/{name}", name, () if complete else tuple(ranges), complete)


PLAN = [product("vocab", 1), product("mask", 2), product("null", 2), product("tokens", 3)]


def name(unit: Unit | None) -> str:
    """A unit in short: tokens:8, tokens:end, row:…"""
    if unit is None:
        return "-"
    if unit.kind == "row":
        return f"row:{unit.of}"
    what = unit.of.rpartition("/")[2]
    return f"{what}:end" if unit.kind == "assemble" else f"{what}:{unit.range[0]}"


def drain_all(scheduler: Scheduler, worker: str = "w") -> list[str]:
    """Let one worker do everything there is."""
    out, now = [], 0.0
    while (unit := scheduler.next(worker, now)) is not None:
        out.append(name(unit))
        now += 1.0
        scheduler.finished(worker, DONE, now)
    return out
