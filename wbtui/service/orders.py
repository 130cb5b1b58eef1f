"""What is wanted: jobs of products, lone rows, and how each stands. Pure: no clock, no file, no socket, no thread.

A product asked for twice is one piece of work; what fails, fails those who wait for it; what no one wants any more is
forgotten. What is done about it, and in which order, is :mod:`wbtui.service.scheduler`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wbtui.errors import Cancelled, WbtuiError
from wbtui.service import report
from wbtui.service.eta import Rates
from wbtui.service.work import Job, Outcome, PlannedProduct, Priority, ProductWork, RowWork, Running, Unit

GATES = ("vocab", "mask")
"""Analyses that the others' shards read; the rest may run side by side."""
KEEP_FINISHED = 400


class Orders:
    """Everything that clients have asked for and that has not been forgotten.

    Args:
        workers: names of the workers, one for each device.
        tile: feature rows of a tile.
    """

    def __init__(self, workers: Iterable[str], tile: int) -> None:
        self.workers: dict[str, Running | None] = dict.fromkeys(workers)
        self.tile = tile
        self.jobs: dict[int, Job] = {}
        self.products: dict[str, ProductWork] = {}
        self.rows: dict[str, RowWork] = {}
        self.rates: dict[str, Rates] = {}
        self._events: list[dict[str, Any]] = []
        self._answers: list[tuple[tuple[str, int], Outcome]] = []
        self._next_job = 1
        self._served: dict[str, float] = {}
        """Worker time spent on each client's batches, while it has any."""

    # What is asked ----------------------------------------------------------------------------------------------------

    def add_job(
        self,
        planned: Iterable[PlannedProduct],
        priority: Priority,
        owner: str,
        now: float,
        *,
        label: str = "",
        around: int | None = None,
    ) -> Job:
        """Queue products in the given order. The same wish of the same client is the same job."""
        planned = list(planned)
        ids = [p.id for p in planned]
        for job in self.jobs.values():
            if job.live and (job.owner, job.priority, job.products) == (owner, priority, ids):
                if around is not None:
                    job.around = around
                return job
        turns = [self._turn(j) for j in self.jobs.values() if j.live and j.priority == priority]
        job = Job(self._next_job, owner, priority, ids, label, now, around, served=min(turns, default=0.0))
        self._served.setdefault(owner, job.served)
        self._next_job += 1
        self.jobs[job.id] = job
        gates = [p.id for p in planned if p.analysis in GATES]
        for p in planned:
            self._add_product(p, tuple(g for g in gates if p.analysis not in GATES and g != p.id))
        self._event("job", job, state=job.state)
        self._settle(now)
        return job

    def _add_product(self, p: PlannedProduct, requires: tuple[str, ...]) -> None:
        known = self.products.get(p.id)
        if known is not None and known.live and (not p.complete or known.running):
            return
        if known is not None and known.state == "complete":
            return
        work = ProductWork(p, requires, [] if p.complete else sorted(p.missing), tile=self.tile)
        if known is not None:  # it failed; a new wish is a new chance
            work.running = known.running
            work.pending = [r for r in work.pending if r not in known.running]
        work.done_rows = p.rows - sum(stop - start for start, stop in work.pending)
        if p.complete:
            work.state = "complete"
        self.products[p.id] = work

    def add_row(
        self, row_id: str, task: dict[str, Any], waiter: tuple[str, int], requires: tuple[str, ...] = ()
    ) -> RowWork:
        """Queue one lone row; the same row asked for twice is computed once. ``requires``: products queued already."""
        row = self.rows.get(row_id)
        if row is None:
            row = self.rows[row_id] = RowWork(row_id, task, [], requires)
        row.waiters.append(waiter)
        return row

    def cancel(self, job_id: int, now: float) -> bool:
        """Cancel a job; work that others want goes on. False if there is no such live job."""
        job = self.jobs.get(job_id)
        if job is None or not job.live:
            return False
        self._finish(job, "cancelled", now, Cancelled("cancelled on request"))
        return True

    def cancel_row(self, waiter: tuple[str, int]) -> bool:
        """Forget one request for a row; True if it was waiting (it is answered as cancelled)."""
        for row in self.rows.values():
            if waiter in row.waiters:
                row.waiters.remove(waiter)
                self._drop_unwanted_rows()
                self._answers.append((waiter, Outcome("stopped", error=Cancelled("cancelled on request"))))
                return True
        return False

    def client_gone(self, owner: str, now: float) -> None:
        """A client has vanished: what was on its screen is not wanted any more, its batches are."""
        for job in [j for j in self.jobs.values() if j.live and j.owner == owner and j.priority < Priority.BATCH]:
            self._finish(job, "cancelled", now, Cancelled("its client has gone"))
        for row in self.rows.values():
            row.waiters = [w for w in row.waiters if w[0] != owner]
        self._drop_unwanted_rows()

    def _drop_unwanted_rows(self) -> None:
        for row in [r for r in self.rows.values() if not r.waiters and not r.running]:
            del self.rows[row.id]

    # What is known ----------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not any(self.workers.values()) and not self.rows and not any(j.live for j in self.jobs.values())

    def drain(self) -> tuple[list[dict[str, Any]], list[tuple[tuple[str, int], Outcome]]]:
        """Events, and answers to row requests, since the last call."""
        events, self._events = self._events, []
        answers, self._answers = self._answers, []
        return events, answers

    def describe(self, job: Job, now: float) -> dict[str, Any]:
        """A job as clients see it (see :func:`wbtui.service.report.describe`)."""
        return report.describe(job, self.products, self.workers.values(), self.rates_of, now)

    def rates_of(self, product: ProductWork) -> Rates:
        """Measured speeds for this product's model."""
        return self.rates.setdefault(str(product.planned.spec.get("model_slug")), Rates(len(self.workers)))

    # Inside -----------------------------------------------------------------------------------------------------------

    def _turn(self, job: Job) -> float:
        """Least goes first. Batches of one client share a turn, so that the first of many SAEs is whole the sooner."""
        return self._served[job.owner] if job.priority == Priority.BATCH else job.served

    def _complete(self, required: tuple[str, ...]) -> bool:
        return all(self.products[p].state == "complete" for p in required if p in self.products)

    def _rank(self, unit: Unit) -> Priority:
        """How urgent a unit is now: its product's most urgent live job."""
        if unit.kind == "row":
            return Priority.ROW
        return min((j.priority for j in self.jobs.values() if j.live and unit.of in j.products), default=Priority.BATCH)

    def _wanted(self, unit: Unit) -> bool:
        if unit.kind == "row":
            return bool(self.rows[unit.of].waiters)
        if unit.kind == "assemble":
            return True
        return self.products[unit.of].live and any(j.live and unit.of in j.products for j in self.jobs.values())

    def _settle(self, now: float) -> None:
        """Fail products whose requirements failed, and end the jobs whose products have all ended.

        All of them: a product that failed for want of another may be in a job that does not name the other.
        """
        blocked = True
        while blocked:
            blocked = False
            for product in self.products.values():
                required = [self.products[p] for p in product.requires if p in self.products]
                failed = [p for p in required if p.state == "failed"]
                if product.live and failed and not product.running:
                    product.state, product.error, product.pending = "failed", failed[0].error, []
                    blocked = True
        for job in [j for j in self.jobs.values() if j.live]:
            products = [self.products[p] for p in job.products]
            if any(p.live for p in products):
                continue
            failed = [p for p in products if p.state == "failed"]
            self._finish(job, "failed" if failed else "done", now, failed[0].error if failed else None)

    def _finish(self, job: Job, state: str, now: float, error: WbtuiError | None) -> None:
        job.summary = report.summary([self.products[p] for p in job.products])
        job.state, job.finished, job.error = state, now, error
        self._event("job", job, state=state, error=error.to_json() if error else None)
        self._forget()

    def _forget(self) -> None:
        """Let go of products that no live job wants and no worker holds, and of old finished jobs."""
        wanted = {p for j in self.jobs.values() if j.live for p in j.products}
        held = {r.unit.of for r in self.workers.values() if r is not None}
        busy = {r.unit.job for r in self.workers.values() if r is not None}
        for product_id in [p for p in self.products if p not in wanted and p not in held]:
            del self.products[product_id]
        finished = [j.id for j in self.jobs.values() if not j.live]
        for job_id in finished[:-KEEP_FINISHED]:
            del self.jobs[job_id]
        owners = {j.owner for j in self.jobs.values() if j.live or j.id in busy}
        self._served = {owner: served for owner, served in self._served.items() if owner in owners}

    def _event(self, name: str, job: Job, **fields: Any) -> None:
        stands = report.standing(job, self.products)
        self._events.append({"event": name, "job": job.id, "label": job.label, **stands, **fields})

    def _product_event(self, name: str, product: ProductWork, **fields: Any) -> None:
        about = {"analysis": product.planned.analysis, "key": product.planned.key, "relative": product.planned.relative}
        for job in self.jobs.values():
            if job.live and product.id in job.products:
                self._events.append({"event": name, "job": job.id, "cache": product.planned.cache, **about, **fields})
