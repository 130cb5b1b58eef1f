"""E1 against what people run today, as patterns written here, at the shapes of real models with random weights.

* ``notebook``: the whole product, then ``topk`` both ways, moments and entropy with full-size temporaries;
* ``dashboard``: feature by feature, ``topk`` both ways and a histogram (the pattern of SAEDashboard);
* ``thousand``: feature by feature, the 1,000 best and their z within them (the pattern of WeightLens).

wbtui computes more than any of them (both signs, masks, z, coherence, words). Peers get the unembedding as they would
have it, a transposed view of ``[vocab, d_model]``. Loops are timed on fewer features and scaled. Run with ``python -m
benchmarks.peers``; ``--json FILE`` writes all numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import SHAPES, PeakMemory, made_up_vocabulary, timed, weights
from wbtui.analysis.side import prepare_side
from wbtui.analysis.streaming import TileBuffer
from wbtui.analysis.tokens import token_rows
from wbtui.definitions import TokensDefinition

K = 25


def notebook(directions: torch.Tensor, unembed: torch.Tensor) -> None:
    """Everything at once."""
    logits = directions @ unembed
    logits.topk(K)
    logits.topk(K, largest=False)
    mean, std = logits.mean(1, keepdim=True), logits.std(1, keepdim=True)
    z = (logits - mean) / std
    (z**3).mean(1)
    (z**4).mean(1)
    logp = torch.log_softmax(2 * z, dim=1)
    -(logp.exp() * logp).sum(1)


def dashboard(directions: torch.Tensor, unembed: torch.Tensor) -> None:
    """One feature at a time: both lists and a histogram of the logits."""
    for d in directions:
        logits = d @ unembed
        logits.topk(K)
        logits.topk(K, largest=False)
        np.histogram(logits.numpy(), bins=50)


def thousand(directions: torch.Tensor, unembed: torch.Tensor) -> None:
    """One feature at a time: the thousand best, standardised among themselves, those beyond 5.5."""
    for d in directions:
        values, ids = (d @ unembed).topk(1000)
        z = (values - values.mean()) / values.std()
        ids[z > 5.5].tolist()


def measure(name: str, features: int, loop: int, repeat: int) -> dict[str, Any]:
    """Seconds for 1,000 features of one shape, ours and the peers', and our speed-up over each."""
    shape = SHAPES[name]
    source = weights(shape.vocab, shape.d_model)
    keep = np.random.default_rng(1).random(shape.vocab) >= 0.02
    side = prepare_side(
        source, centre_values=False, keep=keep, definition=TokensDefinition(), **made_up_vocabulary(shape.vocab)
    )
    del source
    unembed = side.rows.T
    d = torch.randn((features, shape.d_model), generator=torch.Generator().manual_seed(2))
    buffer = TileBuffer()

    def ours() -> None:
        token_rows(d, side, buffer=buffer)

    runs: dict[str, tuple[Callable[[], None], int]] = {
        "wbtui": (ours, features),
        "notebook": (lambda: notebook(d, unembed), features),
        "dashboard": (lambda: dashboard(d[:loop], unembed), loop),
        "thousand": (lambda: thousand(d[:loop], unembed), loop),
    }
    ours()
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    memory: dict[str, float | None] = {}
    for _ in range(repeat):
        for who, (run, n) in runs.items():
            with PeakMemory() as peak:
                seconds[who].append(timed(run) / n * 1000)
            memory[who] = peak.peak_mb
    ratios = {
        who: statistics.median(t / o for t, o in zip(seconds[who], seconds["wbtui"], strict=True))
        for who in runs
        if who != "wbtui"
    }
    return {
        "features": features,
        "loop_features": loop,
        "seconds_per_1000": {who: statistics.median(times) for who, times in seconds.items()},
        "peak_mb": memory,
        "speed_up": ratios,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", nargs="+", default=["gpt2-small", "gemma-2-2b"], choices=list(SHAPES))
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--loop", type=int, default=24, help="features that the per-feature patterns are timed on")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="file for all numbers")
    args = parser.parse_args(argv)
    out = {name: measure(name, args.features, args.loop, args.repeat) for name in args.shapes}
    for name, found in out.items():
        own = found["seconds_per_1000"]["wbtui"]
        print(f"{name}: 1,000 features in {own:.1f} s")
        for who, ratio in found["speed_up"].items():
            print(f"  {who:10} {found['seconds_per_1000'][who]:8.1f} s   {ratio:5.1f} x slower")
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
