"""A stand-in for ``wbtui.compute.shard`` that writes real shards into a real store, with numbers that anyone can check,
and with every way of failing that a worker knows. Loaded in worker processes by name.

A test steers it by the definition that it sends: ``name`` (part of the key), ``products`` [[analysis, rows,
shard_rows], …], ``slices`` of each shard, ``gate`` (a file to wait for before each shard's last slice), ``trace`` (a
file that gets one line for each thing done), ``faults`` {"analysis:start": [kind, times]}.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wbtui.definitions import METHOD_VERSIONS
from wbtui.errors import Cancelled, UsageError, WeightsError
from wbtui.store import io
from wbtui.store.keys import ProductSpec, digest
from wbtui.store.products import Product

DEFAULT = [["vocab", 0, 0], ["mask", 96, 32], ["null", 64, 32], ["tokens", 160, 32]]
STEERING = ("slices", "gate", "trace", "faults", "heavy")


def products(request: dict[str, Any]) -> list[ProductSpec]:
    """The planner: no model, no SAE, only what the definition says."""
    definition = request["definition"]
    if request["model"] == "unknown":
        raise UsageError("no model 'unknown'", "fake")
    if "plan_gate" in definition:
        wait_for(Path(definition["plan_gate"]))
    model = {key: definition[key] for key in STEERING if key in definition}
    out = []
    for analysis, rows, shard_rows in definition.get("products", DEFAULT):
        identity = {
            "analysis": analysis,
            "method_version": METHOD_VERSIONS[analysis],
            "model": digest(request["model"]),
            "sae": digest(request["sae"]) if analysis == "tokens" else None,
            "definition": {"name": definition.get("name", "")},
        }
        slug = f"fake-{identity['model'][:8]}"
        sae_slug = "sae" if analysis == "tokens" else ""
        sae = {"name": request["sae"], "d_sae": 160} if analysis in ("tokens", "attention") else None
        out.append(ProductSpec(analysis, identity, rows, shard_rows, model, sae, slug, sae_slug))
    return out


@dataclass(frozen=True)
class ShardTask:
    """As the real one."""

    cache: str
    spec: dict[str, Any]
    start: int = 0
    stop: int = 0
    device: str = "cpu"
    tile: int = 128
    kind: str = "shard"
    facts: dict[str, Any] = field(default_factory=dict)


def compute_shard(task: ShardTask, *, stop: Callable[[], bool], progress: Callable[[float], None]) -> str:
    """As the real one."""
    spec = ProductSpec.from_json(task.spec)
    product = Product(Path(task.cache), spec)
    if task.kind == "shard" and product.has(task.start, task.stop):
        return str(product.path)
    trace(spec.model, f"{task.kind} {spec.analysis} {task.start} {task.stop} tile={task.tile}")
    if task.kind == "assemble":
        fail(task.cache, spec, "assemble", task.start, stop)
        product.assemble(task.facts)
        return str(product.path)
    product.begin()
    fail(task.cache, spec, spec.analysis, task.start, stop)
    slices = int(spec.model.get("slices", 4))
    for n in range(slices):
        if n == slices - 1 and "gate" in spec.model:
            wait_for(Path(spec.model["gate"]), stop)
        if stop():
            trace(spec.model, f"stopped {spec.analysis} {task.start}")
            raise Cancelled("stopped")
        for _ in range(int(spec.model.get("heavy", 0))):
            np.sort(np.arange(20_000)[::-1])
        progress((n + 1) / slices)
    if spec.rows == 0:
        product.write_whole({"words": np.arange(64, dtype=np.int64)}, task.facts)
        return str(product.path)
    if product.has(task.start, task.stop):
        return str(product.path)
    return str(product.write_shard(task.start, task.stop, numbers(spec.key, task.start, task.stop)))


def memory(device: str) -> tuple[int, int]:
    """As the real one, in an invented machine."""
    return 3 << 30, 24 << 30


def numbers(key: str, start: int, stop: int) -> dict[str, np.ndarray]:
    """The columns of rows [start, stop): each row from its number alone."""
    rows = np.arange(start, stop, dtype=np.int64)
    values = np.sin(rows[:, None] * np.arange(1, 9) + int(key[:6], 16)).astype(np.float32)
    return {"row": rows, "values": values}


def compute_row(
    request: dict[str, Any],
    feature: int,
    device: str,
    *,
    stop: Callable[[], bool],
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """As the real one."""
    spec = ProductSpec.from_json(request["spec"])
    trace(spec.model, f"row {feature}")
    fail(request["cache"], spec, "row", feature, stop)
    columns = numbers(spec.key, feature, feature + 1)
    return {"row": feature, "values": columns["values"][0], "bad": float("nan")}


def compute_ask(
    request: dict[str, Any],
    device: str,
    *,
    stop: Callable[[], bool],
    progress: Callable[..., None],
) -> dict[str, Any]:
    """A question: tells ``args.parts`` parts, waits for its stop if ``args.wait``, answers with what was asked."""
    spec = ProductSpec.from_json(request["spec"])
    args = request["args"]
    trace(spec.model, f"ask {request['what']}")
    for n in range(args.get("parts", 0)):
        progress(n / 10, {"n": n, "bad": float("nan")})
    while args.get("wait"):
        if stop():
            trace(spec.model, f"stopped ask {request['what']}")
            raise Cancelled("stopped")
        time.sleep(0.001)
    return {"what": request["what"], "args": args, "sae": spec.sae}


def compute_page(
    request: dict[str, Any],
    feature: int,
    device: str,
    *,
    stop: Callable[[], bool],
    progress: Callable[[float], None],
) -> dict[str, Any]:
    """As the real one: says what it was given."""
    spec = ProductSpec.from_json(request["spec"])
    trace(spec.model, f"page {feature}")
    if "gate" in spec.model:
        wait_for(Path(spec.model["gate"]), stop)
        if stop():
            trace(spec.model, f"stopped page {feature}")
            raise Cancelled("stopped")
    words = ProductSpec.from_json(request["tokens"]).analysis if "tokens" in request else None
    return {"feature": feature, "analysis": spec.analysis, "tokens": words, "target": request.get("target")}


def fail(cache: str, spec: ProductSpec, what: str, start: int, stop: Callable[[], bool]) -> None:
    """Fail in the way that was asked for, as often as was asked for."""
    kind, times = spec.model.get("faults", {}).get(f"{what}:{start}", ("", 0))
    for n in range(times):
        mark = Path(cache) / f"fault-{what}-{start}-{n}"
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            continue
        if "@" in kind:
            _disk(kind)
        else:
            _FAULTS[kind](stop)


def _disk(kind: str) -> None:
    """``ENOSPC@3``: the fourth writing operation from now on fails with that error (of ``EIO``, also a reading one)."""
    name, _, left = kind.partition("@")
    code, count = getattr(errno, name), itertools.count(int(left), -1)

    def refuse(op: str, path: Path) -> None:
        if (op in io.WRITING or (name == "EIO" and op == "read")) and next(count) == 0:
            io.install(None)
            raise OSError(code, os.strerror(code), str(path))

    io.install(refuse)


def _clock(seconds: float) -> Callable[[Any], None]:
    """From now on this process's clock on the wall is off by so much."""
    real = time.time

    def jump(_: Any) -> None:
        time.time = lambda: real() + seconds

    return jump


def _hang(stop: Callable[[], bool]) -> None:
    while True:
        time.sleep(0.01)


def _raise(error: Exception) -> Callable[[Any], None]:
    def act(_: Any) -> None:
        raise error

    return act


_FAULTS: dict[str, Callable[[Any], None]] = {
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "segv": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda _: os._exit(7),
    "memory": _raise(
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes")
    ),
    "user": _raise(WeightsError("model.safetensors: cut short", "40 bytes", "download it again")),
    "bug": _raise(ZeroDivisionError("division by zero")),
    "hang": _hang,
    "tomorrow": _clock(90_000.0),
    "last year": _clock(-3e7),
}


def trace(steering: dict[str, Any], line: str) -> None:
    """One line, appended in one write."""
    if "trace" in steering:
        fd = os.open(steering["trace"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{line}\n".encode())
        os.close(fd)


def wait_for(path: Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Until the file is there, or the work is not wanted any more."""
    deadline = time.monotonic() + 60
    while not path.exists() and not stop() and time.monotonic() < deadline:
        time.sleep(0.002)
