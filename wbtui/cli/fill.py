"""``wbtui compute`` over many SAEs: what it will cost, said first; then all of it, here or on many machines."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbtui import paths
from wbtui.cli.cache import human
from wbtui.cli.common import offering_restart, print_json, print_table, say, status_line
from wbtui.errors import UsageError, WbtuiError

if TYPE_CHECKING:
    from wbtui.catalog.cost import Bill
    from wbtui.catalog.models import ModelInfo
    from wbtui.catalog.saes import SaeInfo
    from wbtui.service.wishes import ComputeRequest


def saes_of(model: ModelInfo, sae: str | None, release: str | None) -> list[SaeInfo]:
    """The SAEs that a command means: one, those of a release, or all that are known of the model.

    A release is a folder of SAEs (a path), a published one of the registry (those of it that are on this disk), or the
    name of a folder that known SAEs lie below.

    Raises:
        UsageError: none.
    """
    from wbtui.address import is_path
    from wbtui.catalog.registry import releases_of
    from wbtui.catalog.saes import find_sae, list_saes, walk

    if sae is not None:
        return [find_sae(model, sae)]
    if release is not None and is_path(release):
        folder = Path(release).expanduser()
        inside = [str(c.path) + (f":{c.entry}" if c.entry else "") for c in walk(folder)]
        if not inside:
            raise UsageError(f"{release}: no SAE below it", "a folder of SAE folders")
        return [find_sae(model, path if is_path(path) else f"./{path}") for path in inside]
    known = list_saes(model)
    if not known and release is None:
        raise UsageError(f"{model.name}: no SAE is known here", "at least one", f"`wbtui saes {model.name}`")
    if release is None:
        return known
    chosen = [s for s in known if s.name.startswith(f"{release}/") or release in Path(s.path).parts]
    if not chosen:
        published = {item.name for item in releases_of(model.name)}
        if release in published:
            do = f"`wbtui saes {model.name} --release {release}` lists them, `wbtui download` fetches one"
            raise UsageError(f"release {release}: none of its SAEs is on this disk", "at least one", do)
        names = sorted({s.name.partition("/")[0] if "/" in s.name else Path(s.path).parent.name for s in known})
        raise UsageError(f"release {release!r} of {model.name}", "one of " + (", ".join(names) or "none known here"))
    return chosen


def requests_of(
    model: ModelInfo, saes: Sequence[SaeInfo], analysis: str, definition: str, cache: Path, *, checks: bool, **more: Any
) -> list[ComputeRequest]:
    """One request for each SAE and analysis; ``all`` is every analysis that the SAE's hook has."""
    from wbtui.catalog.plan_attention import no_reader
    from wbtui.definitions import AttentionDefinition, NeighboursDefinition, named_definition, to_json
    from wbtui.service.wishes import ComputeRequest

    bodies = {
        "tokens": to_json(named_definition(definition)),
        "attention": to_json(AttentionDefinition()),
        "neighbours": to_json(NeighboursDefinition()),
    }
    out = []
    for name in bodies if analysis == "all" else (analysis,):
        for sae in saes:
            if analysis == "all" and name == "attention" and no_reader(model, sae):
                continue
            request = ComputeRequest(
                model=model.name if model.kind != "folder" else model.path,
                sae=sae.path if sae.name.startswith(("/", ".", "~")) else sae.name,
                definition=bodies[name],
                cache=str(cache.absolute()),
                checks=checks,
                analysis=name,
            )
            out.append(dataclasses.replace(request, **{k: v for k, v in more.items() if v is not None}))
    return out


def bill_of(model: ModelInfo, requests: Sequence[ComputeRequest], cache: Path) -> tuple[list[list[str]], Bill]:
    """Lines of a plan, one for each request, and the sum; products that several share are counted once in it."""
    from wbtui.catalog.cost import bill
    from wbtui.service.planning import look, products_of
    from wbtui.store.products import Product

    rows, everything = [], []
    for request in requests:
        part = []
        for spec in products_of(request.wish()):
            found = look(cache, spec)
            missing = sum(stop - start for start, stop in found.missing) if spec.rows else len(found.missing)
            if not found.complete:
                missing = max(missing, 1)  # all shards are there, and they are still to be put together
            seconds = Product(cache, spec).manifest().get("seconds") if found.complete else None
            part.append((spec, model, missing, seconds))
        everything += part
        one = bill(part)
        state = "complete" if not one.products else f"{one.products} of {one.products + one.complete}"
        flops = f"{one.flops / 1e9:,.1f}" if one.flops else ""
        rows.append([request.sae, request.analysis, state, flops, human(one.bytes) if one.bytes else ""])
    return rows, bill(everything)


def duration(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "not known: nothing of this kind was measured here yet"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def fill(
    model: ModelInfo,
    saes: Sequence[SaeInfo],
    *,
    analysis: str,
    definition: str,
    checks: bool,
    dry_run: bool,
    executor: str | None,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
    as_json: bool,
    layer: int | None = None,
    other: str | None = None,
) -> int:
    """Print the plan, then compute it. Returns the exit code: 1 where a part failed; the others are finished."""
    from wbtui.cli.compute import check_device
    from wbtui.service.config import ServiceConfig
    from wbtui.service.local import LocalRunner
    from wbtui.service.remote import DaskWorkers
    from wbtui.service.running import run_jobs

    cache = paths.cache_dir()
    config = ServiceConfig.from_env(**({"devices": tuple(device.split(","))} if device else {}))
    requests = requests_of(model, saes, analysis, definition, cache, checks=checks, layer=layer, other=other)
    lines, total = bill_of(model, requests, cache)
    plan = {
        "model": model.name,
        "products": total.products,
        "complete": total.complete,
        "gflop": total.flops / 1e9,
        "bytes": total.bytes,
        "seconds": total.seconds(len(config.devices)),
    }
    if not quiet and not as_json:
        print_table(["SAE", "analysis", "missing", "GFLOP", "size"], lines, right={3, 4})
        say(
            f"to do: {total.products} products ({total.complete} are there), {total.flops / 1e9:,.1f} GFLOP, "
            f"{human(total.bytes)}, time on {len(config.devices)} device(s): "
            f"{duration(total.seconds(len(config.devices)))}"
        )
    if dry_run:
        if as_json:
            print_json(plan)
        return 0
    said = Many(requests, quiet)
    if executor is not None:
        with DaskWorkers(executor, config.work, device or "auto") as machines:
            said.line(f"{machines.machines} workers at {executor}")
            with LocalRunner(config, machines.workers) as runner:
                results = runner.compute_many(requests, said, timeout)
    elif no_daemon:
        with LocalRunner(config) as runner:
            results = runner.compute_many(requests, said, timeout)
    else:
        if device:
            check_device(device)
        results = offering_restart(lambda: run_jobs(requests, said, timeout=timeout, config=config))
    failed = [
        (request, result) for request, result in zip(requests, results, strict=True) if isinstance(result, WbtuiError)
    ]
    for request, error in failed:
        say(f"wbtui: {model.name}@{request.sae} {request.analysis}: {error.line()}", err=True)
    if as_json:
        print_json({**plan, "failed": [f"{request.sae} {request.analysis}" for request, _ in failed]})
    else:
        say(f"{model.name}: {len(requests) - len(failed)} of {len(requests)} computed; cache {cache}")
    return 1 if failed else 0


class Many:
    """Progress of many jobs on stderr: a line for each that ends and for each second try; on a terminal also one line
    that says what is under way."""

    def __init__(self, requests: Sequence[ComputeRequest], quiet: bool) -> None:
        self.names = [f"{request.sae} {request.analysis}" for request in requests]
        self.quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._open: dict[int, list[int]] = {}
        self._done: set[int] = set()

    def line(self, text: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            if self._live:
                status_line("")
            say(f"wbtui: {text}", err=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """One event."""
        kind, job = event["event"], int(event.get("job", 0))
        if kind == "planned":
            self._open.setdefault(job, []).append(event["request"])
        elif kind == "retry":
            self.line(f"{self._name(job)}: second try: {event.get('reason', '')}")
        elif kind == "disconnected":
            self.line("the service has gone; asking again")
            self._open.clear()
        elif kind == "job" and event.get("state") in ("done", "failed", "cancelled"):
            self._done |= set(self._open.get(job, []))
            self.line(f"{len(self._done)} of {len(self.names)}: {self._name(job)} {event['state']}")
        elif kind == "progress" and self._live and event.get("state") == "running":
            eta = event.get("eta")
            left = f", {duration(float(eta))} left" if isinstance(eta, (int, float)) else ""
            share = 100 * float(event.get("fraction") or 0.0)
            text = f"{len(self._done)} of {len(self.names)} done; {self._name(job)} {share:.0f} %{left}"
            status_line(text)

    def _name(self, job: int) -> str:
        return ", ".join(self.names[n] for n in self._open.get(job, [])) or f"job {job}"
