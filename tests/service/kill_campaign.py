"""``kill -9`` at random moments of a computation, and what must hold afterwards.

After each kill: what is on disk verifies; a new run computes exactly the shards that were missing; and the bytes of
every finished product equal those of a run that nobody disturbed. By hand: ``python -m tests.service.kill_campaign
[moments] [first seed] [--demo]``; in the suite by ``test_kill_campaign.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from tests.service.conftest import DEADLINE, Place, processes, wait_until
from wbtui.errors import WbtuiError
from wbtui.service import planning, wishes
from wbtui.service.client import Client, stop
from wbtui.service.config import ServiceConfig
from wbtui.service.running import run_job
from wbtui.service.work import PlannedProduct
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product
from wbtui.store.verify import verify

TARGETS = ("worker", "daemon", "both")


class Campaign:
    """One computation, run once undisturbed, then again and again with a kill in the midst of it.

    Args:
        here: a private place.
        request: the computation; its cache is replaced by one for each run.
        config: of the daemon.
    """

    def __init__(self, here: Place, request: wishes.ComputeRequest, config: ServiceConfig) -> None:
        self.here = here
        self.request = request
        self.config = config
        self.planner = planning.load_planner(config.planner)
        whole = self.with_cache("undisturbed")
        began = time.monotonic()
        run_job(whole, lambda event: None, config=config, timeout=10 * DEADLINE)
        self.seconds = time.monotonic() - began
        # again with a warm service: moments are drawn from the time that the work itself takes
        warm = self.with_cache("warm")
        began = time.monotonic()
        run_job(warm, lambda event: None, config=config, timeout=10 * DEADLINE)
        self.seconds = time.monotonic() - began
        self.expected = self.sums(whole)
        assert self.expected and self.sums(warm) == self.expected

    def with_cache(self, name: str) -> wishes.ComputeRequest:
        """The request for a cache of its own."""
        return dataclasses.replace(self.request, cache=str(self.here.root / name))

    def plan(self, request: wishes.ComputeRequest) -> list[PlannedProduct]:
        """What is on disk and what is missing."""
        return planning.plan(self.planner, {**request.plan_request(), "checks": request.checks})

    def sums(self, request: wishes.ComputeRequest) -> dict[str, str]:
        """SHA-256 of every product's columns."""
        root = Path(request.cache)
        return {p.relative: _sum(root / p.relative / "columns.safetensors") for p in self.plan(request)}

    def difference(self, request: wishes.ComputeRequest) -> dict[str, list[str]]:
        """Columns whose numbers differ from the undisturbed run's, by product."""
        out = {}
        for planned in self.plan(request):
            spec = ProductSpec.from_json(planned.spec)
            ours, theirs = (
                Product(self.here.root / name, spec).columns() for name in (Path(request.cache).name, "undisturbed")
            )
            out[planned.relative] = [n for n in ours.names if ours[n].tobytes() != theirs[n].tobytes()]
        return out

    def strike(self, seed: int) -> str:
        """One kill at one moment; returns what was hit and when, for the report."""
        rng = random.Random(seed)
        target = TARGETS[seed % len(TARGETS)]
        moment = rng.random() * self.seconds
        request = self.with_cache(f"strike-{seed}")
        with Client.connect(config=self.config, timeout=DEADLINE) as client:
            status = client.status()
            wait_until(lambda: client.status()["workers"][0].get("device"), what="the worker is ready")
            worker = client.status()["workers"][0]["pid"]
            job = client.compute(request)["job"]
            threading.Event().wait(moment)
            for pid in {"worker": [worker], "daemon": [status["pid"]], "both": [status["pid"], worker]}[target]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if target == "worker":
                with contextlib.suppress(WbtuiError):
                    for _ in client.wait(job, 10 * DEADLINE):
                        pass
        if target != "worker":
            wait_until(lambda: not processes(self.here.runtime), what="daemon and worker have gone")
            for problem in verify(Path(request.cache)):
                # the killed writer's own temporary file, or shards that were just about to go
                assert problem.kind in ("temporary", "leftover-shards"), problem
        lacking = {(p.relative, span) for p in self.plan(request) if p.rows for span in p.missing}
        landed: list[tuple[str, tuple[int, int]]] = []

        def on_event(event: dict) -> None:
            if event["event"] == "shard":
                landed.append((event["relative"], (event["start"], event["stop"])))

        run_job(request, on_event, config=self.config, timeout=10 * DEADLINE)
        assert sorted(landed) == sorted(lacking), (landed, lacking)
        assert self.sums(request) == self.expected, self.difference(request)
        left = [p for p in verify(Path(request.cache)) if p.kind != "temporary"]
        assert not left, left
        if target == "worker":
            assert not lacking, "the service did not finish the job after its worker was killed"
        shutil.rmtree(request.cache)
        return (
            f"seed {seed}: {target} after {moment * 1000:.0f} of {self.seconds * 1000:.0f} ms, {len(lacking)} missing"
        )


def fake_campaign(here: Place) -> Campaign:
    """With the stand-in for the work: real shards, some milliseconds each."""
    return Campaign(here, here.request(heavy=12, slices=3), here.config())


def demo_campaign(here: Place) -> Campaign:
    """With the real work on the embedded demo."""
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import list_saes
    from wbtui.definitions import named_definition, to_json

    sae = list_saes(find_model("demo"))[0].name
    request = wishes.ComputeRequest("demo", sae, to_json(named_definition("folded")), str(here.cache))
    return Campaign(here, request, ServiceConfig(devices=("cpu",)))


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv: list[str]) -> None:
    """By hand."""
    import tempfile

    parser = argparse.ArgumentParser(prog="tests.service.kill_campaign")
    parser.add_argument("moments", nargs="?", type=int, default=20)
    parser.add_argument("first", nargs="?", type=int, default=0)
    parser.add_argument("--demo", action="store_true", help="the real work on the embedded demo")
    args = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="wb", dir="/tmp"))
    for name in ("RUNTIME", "LOG", "DATA", "CONFIG", "CACHE"):
        os.environ[f"WBTUI_{name}_DIR"] = str(root / name.lower())
    here = Place(root)
    here.runtime = root / "runtime"
    try:
        campaign = (demo_campaign if args.demo else fake_campaign)(here)
        for seed in range(args.first, args.first + args.moments):
            print(campaign.strike(seed), flush=True)
    finally:
        stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
