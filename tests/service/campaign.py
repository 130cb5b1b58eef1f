"""Faults of every kind over a mixed workload, and the table of what came of them.

    python -m tests.service.campaign [faults of each kind] [first seed] [--results FILE]

With ``--results`` each trial is appended to a file as a line of JSON, and the table is of all that it holds: a long
campaign can be run in parts.

Each trial has a fresh cache, a batch of two SAEs from one client, lone rows from another, and one fault at a seeded
moment in the midst. Afterwards: every number is right, the cache verifies, no shard that was on disk at the time of the
fault was computed again (but one that the fault itself damaged), nothing took longer than the deadline. The time to
recover is from the fault to the next answer of a lone row to a client that comes then. In the suite:
``test_campaign.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.service import fake_work
from tests.service.conftest import Place, processes, wait_until
from wbtui.errors import WbtuiError
from wbtui.service import connect, place, protocol
from wbtui.service.client import Client, stop
from wbtui.service.config import ServiceConfig
from wbtui.service.running import run_jobs
from wbtui.service.start import spawn_detached, with_package
from wbtui.service.wishes import ComputeRequest, RowRequest
from wbtui.store import places
from wbtui.store.keys import ProductSpec
from wbtui.store.products import Product
from wbtui.store.verify import verify

DEADLINE = 60.0
"""Seconds of a trial after which it counts as hanging."""
PRODUCTS = [["vocab", 0, 0], ["mask", 64, 32], ["null", 64, 32], ["tokens", 192, 32]]

CLIENT = """
import json, sys
from wbtui.service.running import run_jobs
from wbtui.service.config import ServiceConfig
from wbtui.service.wishes import ComputeRequest
requests = [ComputeRequest(**fields) for fields in json.loads(sys.argv[2])]
run_jobs(requests, lambda event: print(event["event"], flush=True), config=ServiceConfig.from_text(sys.argv[1]))
"""


@dataclasses.dataclass
class Result:
    """One trial."""

    kind: str
    seed: int
    recovery: float = 0.0
    seconds: float = 0.0
    midst: bool = False
    """Whether the fault met work that was under way."""
    wrong: str = ""
    """What should not have been; empty where all is well."""


class Trial:
    """One workload with one fault.

    Args:
        here: a private place, whose service lives from trial to trial.
        kind: of :data:`KINDS`.
        seed: of everything random.
    """

    def __init__(self, here: Place, kind: str, seed: int) -> None:
        self.here = here
        self.kind = kind
        self.rng = random.Random(f"{kind} {seed}")
        self.result = Result(kind, seed)
        self.config: ServiceConfig = here.config(pulse=2.5, heartbeat=30.0, check_every=0.1, stop_grace=1.0)
        self.cache = here.root / f"{re.sub('[^a-z]+', '-', kind.lower())}-{seed}"
        self.cache.mkdir()
        steering: dict[str, Any] = {"products": PRODUCTS, "slices": 3, "heavy": 10}
        if kind in IN_THE_WORK:
            where = self.rng.choice(["mask:32", "null:0", "tokens:64", "tokens:160"])
            steering["faults"] = {where: [IN_THE_WORK[kind].format(self.rng.randrange(12)), 1]}
        self.requests = [
            ComputeRequest(
                "fake", f"L{n}", {"name": f"{seed}", "trace": str(self.trace(n)), **steering}, str(self.cache)
            )
            for n in range(2)
        ]
        self.allowed: set[tuple[str, int]] = set()
        """(analysis, first row) of shards that the fault itself damaged."""

    # The workload ---------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """All of it; never raises."""
        began = time.monotonic()
        try:
            self._run()
        except Exception as error:
            self.result.wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        finally:
            self.result.seconds = time.monotonic() - began
            shutil.rmtree(self.cache, ignore_errors=True)
        return self.result

    def _run(self) -> None:
        with self.client() as client:
            wait_until(lambda: client.status()["workers"][0].get("pid"), DEADLINE, "a worker is ready")
        if self.kind == "client killed":
            finish = self._client_process()
        else:
            finish = self._client_thread()
        wait_until(self.lines, DEADLINE, "the work begins")
        time.sleep(self.rng.random() * 0.25)
        landed = self.on_disk()
        before = self.begun()
        self.result.midst = len(landed) < sum(len(Product(self.cache, s).ranges()) for s in self.specs())
        at = time.monotonic()
        FAULTS.get(self.kind, lambda trial: None)(self)
        self._probe()
        self.result.recovery = time.monotonic() - at
        finish()
        if self.kind in IN_THE_WORK:
            self.result.midst = any(self.cache.glob("fault-*"))
        self._check(landed, before)

    def _client_thread(self) -> Callable[[], None]:
        """A batch from this process; a disk that refuses fails it with a clear error, and it is asked for again."""
        out: list[Any] = []
        thread = threading.Thread(target=lambda: out.append(self._batch()), daemon=True)
        thread.start()

        def finish() -> None:
            thread.join(DEADLINE)
            if thread.is_alive():
                raise TimeoutError("the batch hangs")
            if not out:
                raise RuntimeError("the batch's client died")
            if isinstance(out[0], Exception):
                raise out[0]

        return finish

    def _batch(self) -> Exception | None:
        try:
            for _ in range(3):
                results = run_jobs(self.requests, lambda event: None, config=self.config, timeout=DEADLINE)
                errors = [r for r in results if isinstance(r, WbtuiError)]
                if not errors:
                    return None
                if self.kind not in REFUSALS:
                    return errors[0]
                if not all(e.do for e in errors):
                    return RuntimeError(f"a refusal without a remedy: {errors[0].line()}")
            return errors[0]
        except Exception as error:
            return error

    def _client_process(self) -> Callable[[], None]:
        """A batch from a process that is killed; the service finishes it all the same."""
        fields = json.dumps([dataclasses.asdict(request) for request in self.requests])
        self.child = subprocess.Popen(
            [sys.executable, "-c", CLIENT, self.config.to_text(), fields],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=with_package(dict(os.environ)),
        )  # fmt: skip
        assert self.child.stdout is not None
        seen = 0
        while seen < len(self.requests):
            seen += b"planned" in self.child.stdout.readline()

        def finish() -> None:
            self.child.stdout.close()  # type: ignore[union-attr]
            self.child.wait()
            products = [Product(self.cache, spec) for spec in self.specs()]

            # Nobody is told when the service is done: a product is complete a moment before its shards are gone.
            def done(product: Product) -> bool:
                return product.state == "complete" and not (product.path / places.SHARDS).exists()

            wait_until(lambda: all(map(done, products)), DEADLINE, "the service finishes alone")

        return finish

    def client(self) -> Client:
        """A client that starts a service if need be."""
        return Client.connect(config=self.config, timeout=DEADLINE)

    def _probe(self) -> None:
        """Until a lone row is answered, rightly."""
        feature = self.rng.randrange(192)
        [spec] = [s for s in self.specs(0) if s.analysis == "tokens"]
        request = RowRequest(**self.requests[0].plan_request(), feature=feature)
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                with self.client() as client:
                    row = client.row(request, timeout=DEADLINE)
                break
            except WbtuiError:
                if time.monotonic() > deadline:
                    raise
        expected = fake_work.numbers(spec.key, feature, feature + 1)["values"][0]
        if row["values"] != [float(v) for v in expected]:
            raise AssertionError("a row with wrong numbers")

    # What must hold -------------------------------------------------------------------------------------------------

    def specs(self, *which: int) -> list[ProductSpec]:
        """The products of the requests, each once."""
        chosen = [self.requests[n] for n in which] or self.requests
        found = {s.relative: s for request in chosen for s in fake_work.products(request.plan_request())}
        return list(found.values())

    def trace(self, n: int) -> Path:
        """What was done with the steering of request ``n``: a file, one line for each beginning."""
        return self.cache / f"trace-{n}"

    def lines(self) -> list[tuple[int, str]]:
        """(request, what was begun), so far."""
        files = {n: self.trace(n) for n in range(len(self.requests))}
        return [(n, line) for n, file in files.items() if file.exists() for line in file.read_text().splitlines()]

    def begun(self) -> dict[tuple[str, str, int], int]:
        """How often each shard was begun: (product, analysis, first row) -> times."""
        out: dict[tuple[str, str, int], int] = {}
        keys = {(n, spec.analysis): spec.key for n in range(len(self.requests)) for spec in self.specs(n)}
        for n, line in self.lines():
            if line.startswith("shard "):
                _, analysis, start, *_ = line.split()
                key = (keys[n, analysis], analysis, int(start))
                out[key] = out.get(key, 0) + 1
        return out

    def on_disk(self) -> set[tuple[str, str, int]]:
        """The shards that are there: (product, analysis, first row)."""
        out = set()
        for spec in self.specs():
            product = Product(self.cache, spec)
            spans = product.ranges() if product.state == "complete" else product.shards()
            out |= {(spec.key, spec.analysis, start) for start, _ in spans}
        return out

    def _check(self, landed: set[tuple[str, str, int]], before: dict[tuple[str, str, int], int]) -> None:
        for spec in self.specs():
            product = Product(self.cache, spec)
            if product.state != "complete":
                raise AssertionError(f"{spec.relative} is {product.state}")
            if spec.rows:
                expected = fake_work.numbers(spec.key, 0, spec.rows)
                with product.columns() as columns:
                    if any(columns[name].tobytes() != array.tobytes() for name, array in expected.items()):
                        raise AssertionError(f"wrong numbers in {spec.relative}")
        problems = [p for p in verify(self.cache) if p.kind not in ("temporary", "stray")]
        if problems:
            raise AssertionError(f"verify: {problems[0]}")
        again = {key for key, times in self.begun().items() if key in landed and times > before.get(key, 0)}
        again -= {key for key in again if key[1:] in self.allowed}
        # bytes that a disk could not read back once count as damaged
        if len(again) > (self.kind == "input/output error"):
            raise AssertionError(f"computed again though it was on disk: {sorted(again)}")


# The faults -----------------------------------------------------------------------------------------------------------


def _pid(trial: Trial, which: str) -> int | None:
    with contextlib.suppress(WbtuiError), Client.connect(False) as client:
        status = client.status()
        return int(status["pid"]) if which == "daemon" else status["workers"][0].get("pid")
    return None


def _signal(which: str, number: int) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        pid = _pid(trial, which)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    return act


def _pause_daemon(trial: Trial) -> None:
    pid = _pid(trial, "daemon")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.2 + trial.rng.random())
    os.kill(pid, signal.SIGCONT)


def _kill_client(trial: Trial) -> None:
    trial.child.kill()


def _damage(how: str) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        shards = sorted(trial.cache.glob("products/*/*/*/shards/[0-9]*.safetensors"))
        if not shards:
            return
        victim = trial.rng.choice(shards)
        analysis = victim.parts[-3].partition("-")[0]
        start = int(victim.stem.split("-")[0])
        trial.allowed.add((analysis, start))
        with contextlib.suppress(OSError):  # it may be put together and gone just now
            raw = bytearray(victim.read_bytes())
            if how == "cut":
                raw = raw[: trial.rng.randrange(len(raw))]
            else:
                raw[trial.rng.randrange(len(raw))] ^= 1 << trial.rng.randrange(8)
            if victim.exists():
                with open(victim, "r+b") as file:
                    file.truncate(len(raw))
                    file.write(raw)

    return act


def _remove(suffix: str) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        place.socket_path().with_suffix(suffix).unlink(missing_ok=True)

    return act


def _remove_folder(trial: Trial) -> None:
    """As the end of a login removes ``XDG_RUNTIME_DIR``, socket, lock and all."""
    shutil.rmtree(place.socket_path().parent, ignore_errors=True)


def _race(trial: Trial) -> None:
    """Two more daemons at once; with the lock's file gone for one of them in every second trial."""
    if trial.rng.random() < 0.5:
        place.socket_path().with_suffix(".lock").unlink(missing_ok=True)
    rivals = [spawn_detached(trial.config) for _ in range(2)]
    trial.rivals = rivals  # type: ignore[attr-defined]


def _half_a_frame(trial: Trial) -> None:
    for _ in range(10):
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(str(place.socket_path()))
            if trial.rng.random() < 0.8:
                sock.sendall(protocol.encode(connect.hello()))
            frame = protocol.encode({"v": 1, "id": 5, "op": "compute", "x": "y" * trial.rng.randrange(2000)})
            sock.sendall(frame[: trial.rng.randrange(1, len(frame))])


IN_THE_WORK = {
    "out of memory in a tile": "memory",
    "disk full": "ENOSPC@{}",
    "input/output error": "EIO@{}",
    "read-only disk": "EROFS@{}",
    "permission lost": "EACCES@{}",
    "clock a day ahead": "tomorrow",
    "clock a year back": "last year",
}
"""Faults that the work itself meets: kinds of :mod:`tests.service.fake_work`."""
REFUSALS = ("disk full", "input/output error", "read-only disk", "permission lost")
FAULTS: dict[str, Callable[[Trial], None]] = {
    "worker killed": _signal("worker", signal.SIGKILL),
    "service killed": _signal("daemon", signal.SIGKILL),
    "client killed": _kill_client,
    "worker halted (SIGSTOP)": _signal("worker", signal.SIGSTOP),
    "service halted, then let go": _pause_daemon,
    "shard cut short": _damage("cut"),
    "bit flipped in a shard": _damage("flip"),
    "socket removed": _remove(".sock"),
    "lock file removed": _remove(".lock"),
    "runtime folder removed": _remove_folder,
    "two services racing": _race,
    "half a frame, then gone": _half_a_frame,
}
KINDS = (*FAULTS, *IN_THE_WORK)


def campaign(here: Place, each: int, first: int = 0, told: Callable[[Result], None] = lambda r: None) -> list[Result]:
    """Trials of every kind, mixed."""
    results = []
    for seed in range(first, first + each):
        for kind in KINDS:
            result = Trial(here, kind, seed).run()
            told(result)
            results.append(result)
    stop()
    wait_until(lambda: not processes(here.runtime), DEADLINE, "every process has gone")
    return results


def table(results: list[Result]) -> str:
    """Markdown: one line a kind."""
    out = ["| fault | trials | in the midst | wrong, lost, hanging | answers again after (median; worst) |"]
    out.append("|---|---|---|---|---|")
    for kind in KINDS:
        mine = [r for r in results if r.kind == kind]
        if not mine:
            continue
        times = [r.recovery for r in mine]
        bad = sum(bool(r.wrong) for r in mine)
        hit = sum(r.midst for r in mine)
        out.append(f"| {kind} | {len(mine)} | {hit} | {bad} | {statistics.median(times):.2f} s; {max(times):.2f} s |")
    hit, bad = sum(r.midst for r in results), sum(bool(r.wrong) for r in results)
    out.append(f"| all | {len(results)} | {hit} | {bad} | |")
    return "\n".join(out)


def main(argv: list[str]) -> int:
    """By hand."""
    parser = argparse.ArgumentParser(prog="tests.service.campaign")
    parser.add_argument("each", nargs="?", type=int, default=30)
    parser.add_argument("first", nargs="?", type=int, default=0)
    parser.add_argument("--results", type=Path)
    args = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="wb", dir="/tmp"))
    for name in ("RUNTIME", "LOG", "DATA", "CONFIG", "CACHE"):
        os.environ[f"WBTUI_{name}_DIR"] = str(root / name.lower())
    os.environ["OMP_NUM_THREADS"] = "1"
    here = Place(root)
    here.runtime = root / "runtime"

    def told(result: Result) -> None:
        if result.wrong:
            print(f"{result.kind} {result.seed}: {result.wrong}", flush=True)
        if args.results:
            with open(args.results, "a") as file:
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")

    try:
        results = campaign(here, args.each, args.first, told)
    finally:
        with contextlib.suppress(WbtuiError):
            stop()
        for pid in processes(here.runtime):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    bad = any(r.wrong for r in results)
    if args.results:
        results = [Result(**json.loads(line)) for line in args.results.read_text().splitlines()]
    print(table(results))
    if not bad:
        shutil.rmtree(root, ignore_errors=True)
    else:
        print(f"logs: {root}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
