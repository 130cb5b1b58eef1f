"""The page of jobs as lines: devices, the list around the cursor, one job's products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wbtui.display import fit, safe_token_text
from wbtui.errors import WbtuiError
from wbtui.tui.draw.frame import ANALYSES, SERVICE_WORDS, duration
from wbtui.tui.draw.line import Line, cut, rule, wrap

LIVE = ("queued", "running")
URGENT = ("screen", "near", "batch")
LEAST_ROWS = 4
"""Jobs that are listed however little room there is."""


def in_order(jobs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What runs, then what waits, the more urgent and the older first; then what has ended, newest first."""

    def key(job: Mapping[str, Any]) -> tuple[int, int, int]:
        state, number = job.get("state"), int(job["job"])
        if state not in LIVE:
            return 2, 0, -number
        priority = str(job.get("priority"))
        return int(state != "running"), URGENT.index(priority) if priority in URGENT else len(URGENT), number

    return sorted(jobs, key=key)


def device_lines(devices: Sequence[Mapping[str, Any]], width: int) -> list[Line]:
    """One line for each worker: its device, memory in use by anyone and in all, what it is at."""
    out: list[Line] = []
    for device in devices:
        memory = device.get("memory")
        text = ""
        if isinstance(memory, list) and len(memory) == 2:
            used, total = (float(n) / 2**30 for n in memory)
            filled = round(min(max(used / total, 0.0), 1.0) * 20) if total else 0
            text = f"{'█' * filled}{'░' * (20 - filled)} {used:.1f} of {total:.1f} GiB in use (by anyone)"
        at = str(device.get("at") or ("idle" if device.get("alive") else "asleep"))
        name = fit(safe_token_text(str(device.get("device") or device.get("name"))), 9)
        out.append(cut([(f"  {name} ", "text"), (fit(safe_token_text(at), 9) + " ", "text"), (text, "dim")], width))
    return out


def job_lines(
    jobs: Sequence[Mapping[str, Any]],
    at: int,
    service: str,
    note: str,
    width: int,
    devices: Sequence[Mapping[str, Any]] = (),
    *,
    height: int,
) -> list[Line]:
    """The screen's text.

    Args:
        jobs: in their order (:func:`in_order`).
        at: the cursor's row.
        service: the desk's word for how the service stands.
        note: what was last said.
        width, height: of the screen, in cells; the list is cut to what leaves room for the cursor's job.
        devices: the service's workers.
    """
    words, role = SERVICE_WORDS[service]
    out: list[Line] = [[("JOBS", "strong"), ("   ", "text"), (words or "service not asked yet", role)]]
    if note:
        out += wrap(safe_token_text(note).split(), width, "warn")
    out += device_lines(devices, width)
    if not jobs:
        return [*out, [], [("nothing runs, nothing waits", "dim")]]
    about = about_job(jobs[at], width)
    rows = max(LEAST_ROWS, height - len(out) - 2 - len(about))
    first = max(0, min(at - rows // 2, len(jobs) - rows))
    shown = jobs[first : first + rows]
    out[0] = cut([*out[0], ("   " + how_many(jobs), "dim")], width)
    if len(shown) < len(jobs):
        about[1] = rule(width, f"JOB {jobs[at]['job']}", f"list: {first + 1}-{first + len(shown)} of {len(jobs)}")
    label_width = max(16, min(44, width - 52))
    head = f"  {'job':>4}  {fit('what', label_width)} {fit('state', 10)} {'done':>6}  {'left':>7}  priority"
    out += [[], cut([(head, "head")], width)]
    for n, job in enumerate(shown, first):
        state = safe_token_text(str(job.get("state") or "–"))
        live = state in LIVE
        eta = job.get("eta")
        left = duration(float(eta)) if live and isinstance(eta, (int, float)) else ""
        share = float(job.get("fraction") or 0.0) * 100
        label = safe_token_text(str(job.get("label") or "…"))
        priority = safe_token_text(str(job.get("priority") or " "))
        line: Line = [("▸ " if n == at else "  ", "strong"), (f"{job['job']:>4}  ", "dim")]
        line += [(fit(label, label_width) + " ", "text" if live else "dim")]
        line += [(fit(state, 10), "error" if state == "failed" else "text" if live else "dim")]
        line += [
            (f" {share:>4.0f} %  {left:>7}  ", "text" if live else "dim"),
            (priority, "dim"),
        ]
        out.append(cut(line, width))
    return (out + about)[: max(height, 1)]


def how_many(jobs: Iterable[Mapping[str, Any]]) -> str:
    """``1 running, 17 waiting, 7 ended · at most 3 min of work left``; the time only where it is known of each (two
    that want the same product count it twice)."""
    states = [str(job.get("state", "")) for job in jobs]
    runs, waits = states.count("running"), states.count("queued")
    ended = len(states) - runs - waits
    parts = [f"{n} {word}" for n, word in ((runs, "running"), (waits, "waiting"), (ended, "ended")) if n]
    left = [job.get("eta") for job in jobs if job.get("state") in LIVE]
    known = [float(eta) for eta in left if isinstance(eta, (int, float))]
    work = f" · at most {duration(sum(known))} of work left" if known and len(known) == len(left) else ""
    return ", ".join(parts) + work


def about_job(job: Mapping[str, Any], width: int) -> list[Line]:
    """One job: its error, and each product with how far it is."""
    out: list[Line] = [[], rule(width, f"JOB {job['job']}")]
    error = job.get("error")
    if isinstance(error, dict):
        out += wrap(safe_token_text(WbtuiError.from_json(error).line()).split(), width, "error")
    for product in job.get("products") or []:
        if not isinstance(product, dict):
            continue
        rows, done = int(product.get("rows") or 0), int(product.get("rows_done") or 0)
        state = safe_token_text(str(product.get("state") or "–"))
        analysis = str(product.get("analysis"))
        name = ANALYSES.get(analysis, safe_token_text(analysis))
        amount = f"{done:,} of {rows:,}" if rows else ""
        share_ = done / rows if rows else float(state == "complete")
        filled = round(min(max(share_, 0.0), 1.0) * 20)
        out.append(
            cut(
                [(fit(name, 16), "text"), ("█" * filled, "reads"), ("░" * (20 - filled), "faint"),
                 (f"  {amount:>20}  ", "dim"), (state, "dim")],
                width,
            )
        )  # fmt: skip
    return out
