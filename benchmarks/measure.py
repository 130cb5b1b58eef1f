"""What the benchmarks share: clocks, memory, pairs of runs, made-up weights and vocabularies, shapes of real models."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import numpy as np
import torch


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of the SAEs that people train on it."""

    d_model: int
    vocab: int
    d_sae: int
    layers: int


SHAPES = {
    "gpt2-small": Shape(768, 50_257, 24_576, 12),
    "gemma-2-2b": Shape(2_304, 256_000, 16_384, 26),
    "gemma-2-9b": Shape(3_584, 256_000, 16_384, 42),
    "llama-3.1-8b": Shape(4_096, 128_256, 32_768, 32),
}


class PeakMemory:
    """Highest resident size of this process inside the block above that at its start, in MB; None off Linux."""

    def __enter__(self) -> PeakMemory:
        self.peak_mb: float | None = None
        self._start = self._highest = self._resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    @staticmethod
    def _resident() -> int:
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._highest = max(self._highest, self._resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._start:
            self.peak_mb = (self._highest - self._start) / 1e6


def timed(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def made_up_vocabulary(n: int) -> dict[str, object]:
    """Strings, words and flags with the mix of a real vocabulary: three spellings a word."""
    rng = np.random.default_rng(0)
    letters = rng.integers(ord("a"), ord("z") + 1, size=(n, 8), dtype=np.uint8)
    lengths = rng.integers(1, 9, size=n)
    norms = [bytes(row[:k]).decode() for row, k in zip(letters, lengths, strict=True)]
    word = (np.arange(n) // 3 * 3).astype(np.int32)
    return {"norms": norms, "word": word, "whole_word": rng.random(n) < 0.6}


def weights(n: int, dim: int) -> torch.Tensor:
    """A bf16 token matrix ``[n, dim]``, filled in blocks."""
    out = torch.empty((n, dim), dtype=torch.bfloat16)
    rng = torch.Generator().manual_seed(0)
    for a in range(0, n, 8192):
        block = out[a : a + 8192]
        block.copy_(torch.randn(block.shape, generator=rng) * 0.05)
    return out


def paired(
    run: Callable[[], object], floor: Callable[[], object], repeat: int, before: Callable[[], object] | None = None
) -> dict[str, float]:
    """Medians of a run, of the floor before it, and of their ratio: wall time, and CPU time, which neighbours cannot
    steal (comparable on one thread only: waiting threads spin). ``before`` is called, unmeasured, before each pair."""
    pairs, cpu = [], []
    for _ in range(repeat):
        if before is not None:
            before()
        start = time.process_time()
        floor_s = timed(floor)
        middle = time.process_time()
        pairs.append((floor_s, timed(run)))
        cpu.append((time.process_time() - middle) / (middle - start))
    return {
        "cpu_ratio": statistics.median(cpu),
        "floor_s": statistics.median(f for f, _ in pairs),
        "run_s": statistics.median(r for _, r in pairs),
        "ratio": statistics.median(r / f for f, r in pairs),
    }
