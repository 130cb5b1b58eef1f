"""Asking the service for one or many computations and staying until they have ended, whatever happens to the service.

A service that is killed meanwhile is started again and asked for what is still missing; one that was told to end is
not. Ctrl-C cancels what was asked for here. Whoever goes without a word (a dropped SSH session) leaves its batches
running.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from wbtui.errors import Cancelled, ServiceError, WbtuiError
from wbtui.service import protocol, wishes
from wbtui.service.client import Client
from wbtui.service.config import ServiceConfig

RESUBMIT = 3
"""Times in a row that jobs are asked for again after their service was killed without one more shard."""

Event = dict[str, Any]


def run_jobs(
    requests: Sequence[wishes.ComputeRequest],
    on_event: Callable[[Event], None],
    *,
    timeout: float | None = None,
    config: ServiceConfig | None = None,
    autostart: bool = True,
) -> list[dict[str, Any] | WbtuiError]:
    """Ask for computations, all at once, and wait for the end of each.

    Args:
        requests: what to compute, most wanted first.
        on_event: told every event of these jobs, and ``{event: "planned", job, products, request}`` first (``request``
            is its place in ``requests``).
        timeout: seconds for all of it.

    Returns:
        list: for each request the answer to ``compute`` {job, state, products}, or why it failed.

    Raises:
        TimedOut, ServiceError (none can be reached, or it was told to end), KeyboardInterrupt.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    out: dict[int, dict[str, Any] | WbtuiError] = {}
    tries = 0
    while True:
        jobs: dict[int, list[int]] = {}
        try:
            with Client.connect(autostart, config=config) as client:
                for n, request in enumerate(requests):
                    if n not in out:
                        _ask(client, n, request, out, jobs, on_event)
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                for event in client.follow(jobs, left):
                    if event["event"] == "shard":
                        tries = 0
                    if event["event"] == "job" and event["state"] in protocol.FINAL_STATES:
                        error = outcome_of(event)
                        for n in jobs.pop(event["job"]):
                            out[n] = error or out[n]
                    on_event(event)
                return [out[n] for n in range(len(requests))]
        except protocol.Disconnected:
            out = {n: result for n, result in out.items() if not any(n in waiting for waiting in jobs.values())}
            tries += 1
            if tries > RESUBMIT:
                raise
            on_event({"event": "disconnected"})
        except KeyboardInterrupt:
            with contextlib.suppress(WbtuiError), Client.connect(False) as client:
                for job in jobs:
                    client.cancel(job)
            raise


def _ask(
    client: Client,
    n: int,
    request: wishes.ComputeRequest,
    out: dict[int, dict[str, Any] | WbtuiError],
    jobs: dict[int, list[int]],
    on_event: Callable[[Event], None],
) -> None:
    try:
        answer = client.compute(request)
    except ServiceError:
        raise
    except WbtuiError as error:  # this one cannot be planned; the others can
        out[n] = error
        return
    out[n] = answer
    jobs.setdefault(int(answer["job"]), []).append(n)
    on_event({"event": "planned", "request": n, **answer})


def outcome_of(event: Event) -> WbtuiError | None:
    """The error that a job's last event tells; None where it is done."""
    if event["state"] == "failed":
        return WbtuiError.from_json(event["error"])
    return Cancelled("the job was cancelled") if event["state"] == "cancelled" else None


def run_job(
    request: wishes.ComputeRequest,
    on_event: Callable[[Event], None],
    *,
    timeout: float | None = None,
    config: ServiceConfig | None = None,
    autostart: bool = True,
) -> dict[str, Any]:
    """One computation; see :func:`run_jobs`.

    Returns:
        dict: the answer to ``compute``: {job, state, products}.

    Raises:
        TimedOut, Cancelled, ServiceError, or the job's own error.
    """
    [result] = run_jobs([request], on_event, timeout=timeout, config=config, autostart=autostart)
    if isinstance(result, WbtuiError):
        raise result
    return result
