"""Which of the equivalent ways this machine multiplies fastest: measured once, kept in the cache, said in the log.

Three things differ between machines and change no list: the library behind fp32 products (oneDNN's kernel is two to
three times MKL's on AMD CPUs), the number of threads (two a core are often worse than one), and whether a product in
fewer bits with everything that lists need done again in fp32 (:mod:`wbtui.analysis.rounded`) is faster than fp32
itself. What is measured is what runs: :func:`wbtui.analysis.streaming.product` beside the rounded product with its
lists settled. A kernel whose fp32 is not fp32 is never taken. The choice may move last digits, so it is made once per
machine, torch and device, and read back afterwards; the setting ``product`` overrides the bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wbtui import settings
from wbtui.analysis import streaming
from wbtui.analysis.rounded import Rounded, RoundedTile, prepare_rounded, rounded_product
from wbtui.analysis.streaming import TILE, TileBuffer
from wbtui.errors import WorkError
from wbtui.store import io

FOLDER = "machine"
VERSION = 1
"""Of what is measured: older files are measured again."""
LEAST = 1 << 24
"""Elements of a token matrix below which nothing is measured: the work is over before it would pay."""
DIM, TOKENS, TOKENS_DEVICE = 1024, 16_384, 65_536
ROOM = 4 << 30
"""Bytes that must be free on a device for measuring it."""
REPEATS = 3
CLOSE = 2e-6
"""Largest error of an fp32 product, as a share of the largest score (speed notes, a)."""
FASTER = 1.25
"""Times faster that another way must be to be taken: what a shared machine's noise does not make up."""
LIST = 48
"""List length settled in the measurement: what the ``tokens`` analysis asks for."""


@dataclass(frozen=True)
class Kernels:
    """How to multiply here.

    Attributes:
        product: ``fp32``, ``bf16``, ``fp16`` or ``tf32``.
        onednn: fp32 products of a CPU go through oneDNN.
        threads: of a CPU; 0 leaves what torch has.
        gflops: what was measured, by name.
    """

    product: str = "fp32"
    onednn: bool = False
    threads: int = 0
    gflops: dict[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """For the manifest."""
        return "float32" if self.product == "fp32" else f"{self.product}, lists in float32"


_known: dict[tuple[str, str], Kernels] = {}
_lock = threading.Lock()


def kernels_for(cache: Path, device: torch.device | str, elements: int, *, measure: bool = True) -> Kernels:
    """How to multiply with a token matrix of so many elements; settles the process's thread count and fp32 kernel.

    Args:
        cache: the product cache, where the measurement is kept.
        measure: measure where nothing is known; otherwise (a lone feature cannot wait) take the plain way.

    Raises:
        WorkError: the device's fp32 products are not fp32.
        UsageError: the setting ``product`` means nothing.
    """
    device = torch.device(device)
    strict(device)
    chosen = str(settings.get("product"))
    if elements < LEAST or chosen == "fp32":
        # Small work takes the plain way whatever is known, so that its digits do not depend on what ran before.
        apply(Kernels())
        return Kernels(product="fp32" if chosen == "auto" else chosen)
    with _lock:
        key = (str(cache), str(device))
        if key not in _known:
            known = _read(cache, device)
            if known is None and not measure:
                return Kernels()
            _known[key] = known or _measure(cache, device)
        found = _known[key]
    apply(found)
    return found if chosen == "auto" else dataclasses.replace(found, product=chosen)


def strict(device: torch.device) -> None:
    """fp32 products on CUDA in fp32: containers switch TF32 on by a variable (``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE``)."""
    if device.type != "cuda":
        return
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        matmul.fp32_precision = "ieee"
    else:
        matmul.allow_tf32 = False


_threads_at_first = 0


def apply(kernels: Kernels) -> None:
    """Make this process multiply so."""
    global _threads_at_first
    _threads_at_first = _threads_at_first or torch.get_num_threads()
    wanted = kernels.threads or _threads_at_first
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
    _set_onednn("bf16" if kernels.onednn else "none")


def _set_onednn(value: str) -> bool:
    """oneDNN's switch for fp32 products; ``bf16`` only allows it, and without bf16 units they stay in fp32."""
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None or not hasattr(matmul, "fp32_precision") or not torch.backends.mkldnn.is_available():
        return False
    if matmul.fp32_precision != value:
        matmul.fp32_precision = value
    return True


@contextlib.contextmanager
def _onednn() -> Iterator[bool]:
    try:
        yield _set_onednn("bf16")
    finally:
        _set_onednn("none")


def _name(device: torch.device) -> str:
    """This machine, torch and device: a measurement holds for no other."""
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    parts = [VERSION, io.host_tag(), what, available(), torch.get_num_threads(), torch.__version__, sys.platform]
    digest = hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()[:12]
    return f"{device.type}-{digest}.json"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available() -> int:
    """Cores that this process may use: its affinity, or its control group's share of time where that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def _read(cache: Path, device: torch.device) -> Kernels | None:
    try:
        data = json.loads(io.read_bytes(cache / FOLDER / _name(device)))
        found = Kernels(**{f.name: data[f.name] for f in dataclasses.fields(Kernels)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.product in ("fp32", "bf16", "fp16", "tf32") else None


def _measure(cache: Path, device: torch.device) -> Kernels:
    begin = time.perf_counter()
    path = cache / FOLDER / _name(device)
    found = probe(device)
    figures = ", ".join(f"{name} {value:.0f}" for name, value in found.gflops.items())
    threads = f", {found.threads} threads" if found.threads else ""
    print(
        f"kernels on {device}: {found.product}{', oneDNN' if found.onednn else ''}{threads} ({figures} GFLOP/s; "
        f"measured in {time.perf_counter() - begin:.1f} s)",
        file=sys.stderr,
        flush=True,
    )
    with contextlib.suppress(OSError):  # a cache that cannot be written is measured again next time
        io.make_folders(path.parent)
        io.write_bytes(path, (json.dumps(dataclasses.asdict(found), indent=1) + "\n").encode())
    return found


def probe(device: torch.device | str, *, kinds: tuple[str, ...] | None = None) -> Kernels:
    """Measure this device.

    Args:
        kinds: products in fewer bits to try; None tries what the device may be good at.

    Raises:
        WorkError: fp32 products here are not fp32.
    """
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < ROOM:
        return Kernels()
    draw = torch.Generator().manual_seed(0)
    n = TOKENS if device.type == "cpu" else TOKENS_DEVICE
    directions = (torch.randn((TILE, DIM), generator=draw) / DIM**0.5).to(device)
    tokens = torch.randn((n, DIM), generator=draw).to(device)
    out, buffer = torch.empty((TILE, n), device=device), TileBuffer(device)
    gflops: dict[str, float] = {}
    flop = 2e-9 * TILE * DIM * n

    def plain() -> None:
        streaming.product(directions, tokens, out, buffer)

    def rate(run: Callable[[], object]) -> float:
        run()
        return flop / min(_timed(run, device) for _ in range(REPEATS))

    plain()
    if (error := _error(directions, tokens, out)) > CLOSE:
        raise WorkError(
            f"fp32 products on {device} are off by {error:.0e} of the largest",
            f"at most {CLOSE:.0e}",
            "unset NVIDIA_TF32_OVERRIDE and the like, or use --device cpu",
        )
    gflops["fp32"] = fastest = rate(plain)
    onednn, threads = False, 0
    if device.type == "cpu":
        now = torch.get_num_threads()
        for fewer in sorted({min(now, available()), max(1, now // 2)} - {now}, reverse=True):
            torch.set_num_threads(fewer)
            gflops[f"fp32 on {fewer} threads"] = found = rate(plain)
            if found > fastest * 1.05:
                fastest, threads = found, fewer
        torch.set_num_threads(threads or now)
        with _onednn() as there:
            if there:
                gflops["fp32 oneDNN"] = found = rate(plain)
                plain()
                onednn = found >= FASTER * fastest and _error(directions, tokens, out) <= CLOSE
                fastest = found if onednn else fastest
        torch.set_num_threads(now)
    best = "fp32"
    for kind in _candidates(device) if kinds is None else kinds:
        if (found := rate(_settled(directions, tokens, kind, out, buffer))) >= FASTER * fastest:
            best, fastest = kind, found
        gflops[kind] = found
    return Kernels(best, onednn, threads, {name: round(value, 1) for name, value in gflops.items()})


def _candidates(device: torch.device) -> tuple[str, ...]:
    if device.type == "cuda":
        return ("tf32", "bf16") if torch.cuda.get_device_capability(device) >= (8, 0) else ("fp16",)
    return ("bf16",) if device.type == "cpu" else ()


def _settled(directions: Tensor, tokens: Tensor, kind: str, out: Tensor, buffer: TileBuffer) -> Callable[[], object]:
    """A rounded product with both lists of each row settled; the table is prepared outside."""
    n = len(tokens)
    low = prepare_rounded(tokens, kind, n, torch.zeros(DIM, dtype=torch.float64, device=tokens.device))
    assert isinstance(low, Rounded)

    def run() -> None:
        rounded_product(directions, low, out)
        tile = RoundedTile(low, tokens, n, directions, len(directions), out, buffer)
        tile.settle(LIST)
        tile.settle(LIST, largest=False)

    return run


def _timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _error(directions: Tensor, tokens: Tensor, out: Tensor) -> float:
    """Largest error of some scores as a share of the largest score."""
    part = slice(0, 1024)
    truth = directions.double().cpu() @ tokens[part].double().cpu().T
    return float((out[:, part].double().cpu() - truth).abs().max() / truth.abs().max())
