"""Which worker does what next. Pure: no clock, no file, no socket, no thread; time comes in as an argument.

Jobs become products in their order, products become missing shards. Lone rows first, then what is on screen, then its
neighbours, then batches; among equals the job that has had least worker time, among batches the client that has: its
own come in the order asked. A shard that kills its worker is tried once more with half the tile (one that ran out of
memory, down to the smallest), then its product fails with the reason, so that no shard can go round for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wbtui.definitions import TILE_STEP
from wbtui.errors import WorkError
from wbtui.service.orders import GATES, Orders
from wbtui.service.work import ASSEMBLE, Job, Outcome, Priority, ProductWork, Running, Unit

RETRIED = ("memory", "device", "killed", "stuck")
"""Reasons of failure that a second try with half the tile may mend; ``memory`` has more, down to the smallest tile."""


class Scheduler(Orders):
    """The queue.

    Args:
        workers: names of the workers, one for each device.
        tile: feature rows of a tile, halved for a second try.
    """

    def __init__(self, workers: Iterable[str], tile: int = 256) -> None:
        super().__init__(workers, tile)
        self.tiles: dict[tuple[str, str], int] = {}
        """(worker, analysis) -> the tile to begin with, where a larger one has run out of memory."""

    # What begins ------------------------------------------------------------------------------------------------------

    def next(self, worker: str, now: float) -> Unit | None:
        """Give an idle worker its next unit, or None if there is nothing for it to do."""
        if self.workers[worker] is not None:
            return None
        unit = next(self._startable(), None)
        if unit is None:
            return None
        self.workers[worker] = Running(unit, now)
        if unit.kind == "row":
            self.rows[unit.of].running = True
            return unit
        product, job = self.products[unit.of], self.jobs[unit.job]
        product.running.add(unit.range)
        known = self.tiles.get((worker, product.planned.analysis), self.tile)
        unit.task["tile"] = min(unit.task["tile"], known)
        product.tile = min(product.tile, unit.task["tile"]) if unit.kind == "shard" else product.tile
        if unit.kind == "assemble":
            product.state = "assembling"
        else:
            product.pending.remove(unit.range)
            product.state = "computing"
        if job.state == "queued":
            job.state = "running"
            self._event("job", job, state=job.state)
        return unit

    def _startable(self) -> Iterator[Unit]:
        """Every unit that could start now, best first."""
        for row in self.rows.values():
            if not row.running and row.waiters and self._complete(row.requires):
                yield Unit("row", row.id, (0, 0), row.task)
        seen: set[str] = set()
        for job in sorted((j for j in self.jobs.values() if j.live), key=lambda j: (j.priority, self._turn(j), j.id)):
            for product_id in job.products:
                product = self.products[product_id]
                if product_id in seen or not product.live or not self._complete(product.requires):
                    continue
                seen.add(product_id)
                yield from self._units(product, job)

    def _units(self, product: ProductWork, job: Job) -> Iterator[Unit]:
        planned = product.planned
        task: dict[str, Any] = {"cache": planned.cache, "spec": planned.spec}
        if not product.pending and not product.running:
            facts = {"seconds": round(product.seconds, 3), "tile": product.tile}
            task |= {"kind": "assemble", "start": 0, "stop": 0, "tile": self.tile, "facts": facts}
            yield Unit("assemble", product.id, ASSEMBLE, task, job.id)
            return
        order = product.pending[::-1] if product.backwards else product.pending
        if job.around is not None and planned.analysis not in GATES and planned.analysis != "null":
            around = job.around
            order = sorted(order, key=lambda r: (max(r[0] - around, around - r[1] + 1, 0), r))
        for start, stop in order:
            tile = self.tile
            for _ in range(product.attempts.get((start, stop), 0)):
                tile = halved(tile)
            shard = {**task, "kind": "shard", "start": start, "stop": stop, "tile": tile}
            yield Unit("shard", product.id, (start, stop), shard, job.id)

    # What makes way ---------------------------------------------------------------------------------------------------

    def to_stop(self) -> list[str]:
        """Workers whose unit must make way, or is not wanted any more; each is named once."""
        out = []
        for name, running in self.workers.items():
            if running is not None and not running.stopping and not self._wanted(running.unit):
                running.stopping = "unwanted"
                out.append(name)
        if any(running is None for running in self.workers.values()):
            return out
        freed = sum(1 for running in self.workers.values() if running is not None and running.stopping)
        waiting: list[Priority] = []
        for unit in self._startable():
            rank = self._rank(unit)
            if rank > Priority.SCREEN or len(waiting) == len(self.workers):
                break
            waiting.append(rank)
        for rank in waiting[freed:]:
            victims = [
                (self._rank(running.unit), running.since, name)
                for name, running in self.workers.items()
                if running is not None and not running.stopping and running.unit.kind == "shard"
            ]
            victims = [v for v in victims if v[0] > rank]
            if not victims:
                break
            _, _, name = max(victims)  # the least urgent, and of these the one that loses least
            stopped = self.workers[name]
            assert stopped is not None
            stopped.stopping = "preempted"
            out.append(name)
        return out

    def waiters(self, worker: str) -> list[tuple[str, int]]:
        """Who waits for the row or question that a worker is at."""
        running = self.workers[worker]
        row = self.rows.get(running.unit.of) if running is not None and running.unit.kind == "row" else None
        return list(row.waiters) if row is not None else []

    def progress(self, worker: str, share: float) -> int:
        """A worker tells the share of its unit that is done. Returns the job that it works for, 0 for none."""
        running = self.workers[worker]
        if running is None:
            return 0
        running.share = min(max(share, 0.0), 1.0)
        return running.unit.job

    # What has ended ---------------------------------------------------------------------------------------------------

    def finished(self, worker: str, outcome: Outcome, now: float) -> None:
        """A worker's unit has ended; the worker is idle again."""
        running = self.workers[worker]
        assert running is not None
        self.workers[worker] = None
        unit = running.unit
        if unit.kind == "row":
            self._row_finished(unit, running, outcome)
            return
        product = self.products[unit.of]
        product.running.discard(unit.range)
        spent = now - running.since
        if unit.job in self.jobs:
            self.jobs[unit.job].served += spent
            if self.jobs[unit.job].priority == Priority.BATCH:
                owner = self.jobs[unit.job].owner
                self._served[owner] = self._served.get(owner, 0.0) + spent
        if outcome.state == "done":
            self._unit_done(product, unit, spent, outcome.value)
        elif not product.live:
            pass  # failed by another shard meanwhile
        elif outcome.state == "stopped" and running.stopping:
            self._again(product, unit)
        else:
            if outcome.reason == "memory" and unit.kind == "shard":
                self.tiles[worker, product.planned.analysis] = halved(unit.task["tile"])
            self._unit_failed(product, unit, outcome)
        self._settle(now)
        self._forget()

    def _unit_done(self, product: ProductWork, unit: Unit, spent: float, value: Any) -> None:
        product.seconds += spent
        if unit.kind == "assemble" or product.planned.rows == 0:
            product.state = "complete"
            self._product_event("product", product, state="complete")
            return
        start, stop = unit.range
        product.done_rows += stop - start
        if isinstance(value, str) and value.endswith(product.planned.relative):
            product.backwards = True  # not a shard of ours: another host is at it too; meet it from the other end
        else:
            self.rates_of(product).add(product.planned.analysis, stop - start, spent)
        self._product_event("shard", product, start=start, stop=stop)

    def _again(self, product: ProductWork, unit: Unit) -> None:
        if unit.kind == "shard":
            product.pending.append(unit.range)
            product.pending.sort()

    def _unit_failed(self, product: ProductWork, unit: Unit, outcome: Outcome) -> None:
        error = outcome.error or WorkError("work stopped by itself")
        tries = product.attempts.get(unit.range, 0) + 1
        product.attempts[unit.range] = tries
        if outcome.reason == "missing" and tries < 3:  # shards that turned out damaged when they were read back
            product.pending = sorted(outcome.value)
            product.done_rows = product.planned.rows - sum(stop - start for start, stop in product.pending)
            product.state = "computing"
            return
        smaller = outcome.reason == "memory" and unit.kind == "shard" and unit.task["tile"] > TILE_STEP
        if smaller or (tries < 2 and (outcome.reason in RETRIED or outcome.state == "stopped")):
            self._again(product, unit)
            self._product_event("retry", product, reason=error.line(), start=unit.range[0], stop=unit.range[1])
            return
        if outcome.reason != "user":
            where = f"rows {unit.range[0]}-{unit.range[1]}" if unit.kind == "shard" else "putting it together"
            again = "" if tries < 2 else ", twice" if tries == 2 else f", {tries} times"
            error = WorkError(f"{product.planned.relative}, {where}: {error.found}{again}", error.expected, error.do)
        product.state, product.error, product.pending = "failed", error, []
        self._product_event("product", product, state="failed", error=error.to_json())
        for row in [r for r in self.rows.values() if product.id in r.requires and not r.running]:
            self._answers += [(waiter, Outcome("failed", reason=outcome.reason, error=error)) for waiter in row.waiters]
            del self.rows[row.id]

    def _row_finished(self, unit: Unit, running: Running, outcome: Outcome) -> None:
        row = self.rows[unit.of]
        row.running = False
        if outcome.state == "stopped" and row.waiters and running.stopping:
            return  # asked for again while it was stopping
        row.attempts += 1
        if outcome.state == "failed" and outcome.reason in RETRIED and row.attempts < 2 and row.waiters:
            return
        self._answers += [(waiter, outcome) for waiter in row.waiters]
        del self.rows[unit.of]


def halved(tile: int) -> int:
    """Half a tile, as a whole number of steps."""
    return max(TILE_STEP, tile // 2 // TILE_STEP * TILE_STEP)
