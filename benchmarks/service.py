"""The service under load, on the demo and the CPU: ``python -m benchmarks.service [--dask] [--json FILE]``.

A batch keeps the device full; meanwhile a lone row that is on screen is asked for again and again, batches are
cancelled, and the service is killed. Aims: a visible request answered within 150 ms, a cancelled batch's device free
within 200 ms, first answer after ``kill -9`` within 0.5 s (all medians; the worst is printed too). With ``--dask``: the
products of one SAE on one and on three dask workers of one thread each.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from wbtui.catalog.models import find_model
from wbtui.catalog.saes import find_sae, list_saes
from wbtui.cli.fill import requests_of
from wbtui.service.client import Client, stop
from wbtui.service.config import ServiceConfig
from wbtui.service.local import LocalRunner
from wbtui.service.remote import DaskWorkers
from wbtui.service.running import run_jobs
from wbtui.service.start import with_package
from wbtui.service.wishes import ComputeRequest, RowRequest

AIM_ROW_MS, AIM_CANCEL_MS, AIM_RESTART_MS = 150.0, 200.0, 500.0


def figures(times: list[float], aim_ms: float | None = None) -> dict[str, Any]:
    """Milliseconds: median, worst, how many."""
    out = {"median_ms": 1e3 * statistics.median(times), "worst_ms": 1e3 * max(times), "n": len(times)}
    return out if aim_ms is None else {**out, "aim_ms": aim_ms, "met": out["median_ms"] <= aim_ms}


def until_free(client: Client) -> None:
    """Until no worker is busy."""
    while any(worker["busy"] for worker in client.status()["workers"]):
        time.sleep(0.001)


def fresh(root: Path, sae: str) -> ComputeRequest:
    """A batch that is not computed yet, on a cache that has what it needs."""
    [request] = requests_of(
        find_model("demo"), [find_sae(find_model("demo"), sae)], "tokens", "folded", root / "cache", checks=True
    )
    for folder in (root / "cache" / "products").glob("*/*/null-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (root / "cache" / "products").glob("*/*/tokens-*"):
        if sae.lower() in folder.parent.name.lower():
            shutil.rmtree(folder, ignore_errors=True)
    return request


def under_load(root: Path, config: ServiceConfig, repeat: int) -> dict[str, Any]:
    """Rows during batches, and cancelling them."""
    model = find_model("demo")
    warm = requests_of(model, [find_sae(model, "L3")], "tokens", "folded", root / "cache", checks=True)
    run_jobs(warm, lambda event: None, config=config)
    rows: list[float] = []
    cancels: list[float] = []
    with Client.connect(config=config) as client, Client.connect(config=config) as screen:
        wish = RowRequest(**warm[0].plan_request(), feature=0)
        screen.row(wish)
        for n in range(repeat):
            job = client.compute(fresh(root, "L0"))["job"]
            while not any(worker["busy"] for worker in client.status()["workers"]):
                time.sleep(0.001)
            time.sleep(0.02 + 0.01 * (n % 5))
            for k in range(3):
                began = time.perf_counter()
                screen.row(RowRequest(**warm[0].plan_request(), feature=(37 * n + k) % 1024))
                rows.append(time.perf_counter() - began)
            while client.status()["jobs"] and not any(worker["busy"] for worker in client.status()["workers"]):
                time.sleep(0.001)
            began = time.perf_counter()
            client.cancel(job)
            until_free(client)
            cancels.append(time.perf_counter() - began)
    return {
        "row during a batch": figures(rows, AIM_ROW_MS),
        "device free after cancel": figures(cancels, AIM_CANCEL_MS),
    }


def restarts(config: ServiceConfig, repeat: int) -> dict[str, Any]:
    """From ``kill -9`` of the service to the next client's first answer."""
    took = []
    for _ in range(repeat):
        with Client.connect(config=config) as client:
            pid = client.status()["pid"]
        os.kill(pid, signal.SIGKILL)
        began = time.perf_counter()
        with Client.connect(config=config) as client:
            client.status()
        took.append(time.perf_counter() - began)
        time.sleep(0.3)
    return figures(took, AIM_RESTART_MS)


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Any:
    """A dask scheduler and workers of one thread on loopback; gives its URL."""
    env = with_package({**os.environ, "OMP_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "error"})
    place = folder / "scheduler.json"
    place.unlink(missing_ok=True)
    common = ["--scheduler-file", str(place), "--host", "127.0.0.1", "--no-dashboard"]
    dask = [sys.executable, "-P", "-m", "dask"]
    made = [subprocess.Popen([*dask, "scheduler", *common, "--port", "0"], env=env, cwd=folder)]
    try:
        while not place.exists() or not place.read_text().rstrip().endswith("}"):
            time.sleep(0.05)
        made += [
            subprocess.Popen([*dask, "worker", *common, "--nthreads", "1", "--no-nanny"], env=env, cwd=folder)
            for _ in range(workers)
        ]
        yield json.loads(place.read_text())["address"].replace("tcp://", "dask://")
    finally:
        for process in reversed(made):
            process.kill()
            process.wait()


def on_dask(root: Path, workers: int, saes: int) -> float:
    """Seconds for all products of some of the demo's SAEs; the reading of weights is in it."""
    model = find_model("demo")
    cache = root / f"dask-{workers}"
    requests = requests_of(model, list_saes(model)[:saes], "tokens", "folded", cache, checks=True)
    config = ServiceConfig(devices=("cpu",))
    with cluster(root, workers) as url, DaskWorkers(url, config.work, "cpu") as machines:
        machines._client.wait_for_workers(workers)
        machines._client.run(importlib.import_module, config.work)  # torch's import is not what is measured
        began = time.perf_counter()
        with LocalRunner(config, machines.workers) as runner:
            results = runner.compute_many(requests, lambda event: None)
        assert all(isinstance(result, dict) for result in results), results
        return time.perf_counter() - began


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--saes", type=int, default=2, help="for --dask")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="wb", dir="/tmp"))
    for name in ("RUNTIME", "LOG", "DATA", "CONFIG", "CACHE"):
        os.environ[f"WBTUI_{name}_DIR"] = str(root / name.lower())
    config = ServiceConfig(devices=("cpu",))
    out: dict[str, Any] = {"cores": os.cpu_count()}
    try:
        out.update(under_load(root, config, args.repeat))
        out["first answer after kill -9"] = restarts(config, args.repeat)
        stop()
        if args.dask:
            one, three = on_dask(root, 1, args.saes), on_dask(root, 3, args.saes)
            out["dask"] = {"one_worker_s": one, "three_workers_s": three, "speed_up": one / three}
    finally:
        with contextlib.suppress(Exception):
            stop()
        shutil.rmtree(root, ignore_errors=True)
    for name, value in out.items():
        print(f"{name}: {json.dumps(value, default=str)}")
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
