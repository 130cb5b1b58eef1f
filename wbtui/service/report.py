"""A job as clients see it: how far it is, what it is at, how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wbtui.service.eta import Rates
from wbtui.service.work import Job, ProductWork, Running


def describe(
    job: Job,
    known: Mapping[str, ProductWork],
    workers: Iterable[Running | None],
    rates_of: Callable[[ProductWork], Rates],
    now: float,
) -> dict[str, Any]:
    """One job.

    Args:
        job: any, also a finished one.
        known: the products under way.
        workers: what each worker is at.
        rates_of: measured speeds; what runs now adds a hint to them.
        now: seconds on the scheduler's clock.

    Returns:
        dict: job, label, state, priority, products, rows_done, rows, fraction, eta (seconds, None while nothing
        comparable is measured), now (the analysis under way), error.
    """
    products = [known[p] for p in job.products] if job.live else []
    done: dict[str, float] = {p.id: float(p.done_rows) for p in products}
    now_at = None
    whole = 0.0  # how far the one product is that is not made of rows
    for running in workers:
        if running is not None and running.unit.kind == "shard" and running.unit.of in done:
            rows = running.share * (running.unit.range[1] - running.unit.range[0])
            work = known[running.unit.of]
            whole = max(whole, running.share)
            done[work.id] += rows
            if running.share >= 0.2:  # before that, the reading of weights would be taken for the work's speed
                rates_of(work).hint(work.planned.analysis, rows, now - running.since)
            now_at = work.planned.analysis
    shown = summary(products) if job.live else job.summary
    total = sum(p["rows"] for p in shown)
    rows_done = sum(done.values()) if job.live else sum(p["rows_done"] for p in shown)
    left = [(p.planned.analysis, p.planned.rows - done[p.id]) for p in products if p.live]
    return {
        "job": job.id,
        "label": job.label,
        "state": job.state,
        "priority": job.priority.name.lower(),
        "products": shown,
        "rows_done": int(rows_done),
        "rows": total,
        "fraction": round(rows_done / total, 6) if total else whole if job.live else float(job.state == "done"),
        "eta": rates_of(products[0]).eta(left) if products else None,
        "now": now_at,
        "error": job.error.to_json() if job.error else None,
    }


def standing(job: Job, known: Mapping[str, ProductWork]) -> dict[str, Any]:
    """A job without what runs this moment: what its every change of state is told with, so that no listener has to ask.

    Returns:
        dict: priority, products, rows_done, rows, fraction, as in :func:`describe`.
    """
    shown = summary([known[p] for p in job.products]) if job.live else job.summary
    total, rows_done = sum(p["rows"] for p in shown), sum(p["rows_done"] for p in shown)
    return {
        "priority": job.priority.name.lower(),
        "products": shown,
        "rows_done": rows_done,
        "rows": total,
        "fraction": round(rows_done / total, 6) if total else float(job.state == "done"),
    }


def summary(products: Iterable[ProductWork]) -> list[dict[str, Any]]:
    """Products in short, as plain data."""
    return [
        {
            "analysis": p.planned.analysis,
            "key": p.planned.key,
            "relative": p.planned.relative,
            "state": p.state,
            "rows": p.planned.rows,
            "rows_done": p.done_rows,
        }
        for p in products
    ]
