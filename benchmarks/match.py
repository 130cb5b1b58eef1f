"""The match of two SAEs against its bare matrix product, at Gemma-2-2b's width (two SAEs of 16,384 × 2,304).

Random weights. The floor is the product of all rows of one SAE with all of the other, in the tiles that are fastest
here (2,048 × 2,048; the match's own can be stopped sooner) into one reused buffer, nothing kept. A run does all that a
match does: rows read and normalised, both directions, four sets of random directions. Run and floor take turns tile by
tile, the clock of each stopped while the other works, so that a neighbour who comes and goes slows both alike; the
ratio is the median of such runs. The product's tiles are those that users get. ``--shrink``
divides the features (the default, 4, is 4,096: fixed costs then weigh more than at full size, so the ratio is an upper
bound).
Run with ``python -m benchmarks.match``; ``--json FILE`` (or ``-``) writes all numbers.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import PeakMemory, timed
from wbtui.analysis.match import Dictionary, mutual
from wbtui.analysis.streaming import TileBuffer
from wbtui.definitions import MatchDefinition

FEATURES, D_MODEL = 16_384, 2304
FLOOR_TILE = 2048


def in_turn(
    run: Callable[..., None], floor: Callable[[torch.Tensor], None], rows: torch.Tensor, repeat: int
) -> dict[str, Any]:
    """Medians of a run that reports its progress, of its floor done in between, and of their ratio."""
    pairs, cpu = [], []
    for _ in range(repeat):
        parts = list(rows.split(FLOOR_TILE))
        total, spent = len(parts), [0.0, 0.0]

        def turn(
            share: float, parts: list[torch.Tensor] = parts, total: int = total, spent: list[float] = spent
        ) -> None:
            start = time.perf_counter(), time.process_time()
            while parts and total - len(parts) + 1 <= share * total + 1e-9:
                floor(parts.pop(0))
            spent[0] += time.perf_counter() - start[0]
            spent[1] += time.process_time() - start[1]

        start = time.process_time()
        all_s = timed(lambda turn=turn: run(progress=turn))
        assert not parts
        pairs.append((spent[0], all_s - spent[0]))
        cpu.append((time.process_time() - start - spent[1]) / spent[1])
    return {
        "cpu_ratio": statistics.median(cpu),
        "floor_s": statistics.median(f for f, _ in pairs),
        "run_s": statistics.median(r for _, r in pairs),
        "ratio": statistics.median(r / f for f, r in pairs),
        "ratios": [r / f for f, r in pairs],
    }


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shrink", type=int, default=4, help="divides the 16,384 features (default 4)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all numbers here (- for stdout)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n = FEATURES // args.shrink
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn((n, D_MODEL), generator=draw) for _ in range(2))

    def fresh() -> list[Dictionary]:  # a dictionary keeps its unit rows: a run must make them
        return [Dictionary(lambda start, stop, rows=rows: rows[start:stop], n, False) for rows in (left, right)]

    definition = MatchDefinition()
    buffer = TileBuffer()

    def floor(part: torch.Tensor) -> None:
        for other in right.split(FLOOR_TILE):
            torch.mm(part, other.T, out=buffer.get("cosines", len(part), len(other)))

    def run(n_null: int = definition.n_null, progress: Callable[[float], None] | None = None) -> None:
        mutual(*fresh(), n_null=n_null, seed=0, progress=progress)

    floor(left[:FLOOR_TILE])
    run()
    runs = {
        "the whole match": in_turn(run, floor, left, args.repeat),
        "without noise": in_turn(functools.partial(run, 0), floor, left, args.repeat),
    }
    with PeakMemory() as peak:
        run()
    found = {
        "features": n,
        "shrink": args.shrink,
        "d_model": D_MODEL,
        "threads": args.threads,
        "runs": runs,
        "memory": {"peak_mb": peak.peak_mb, "one_sae_mb": n * D_MODEL * 4 / 1e6, "dense_mb": n * n * 4 / 1e6},
    }
    print(f"{n:,} × {n:,} features of width {D_MODEL}, {args.threads} thread(s)")
    for name, values in runs.items():
        print(
            f"  {name:20s} {values['run_s']:7.3f} s   {values['ratio']:5.2f} × product (CPU {values['cpu_ratio']:5.2f})"
        )
    print("  memory: " + ", ".join(f"{k} {v:.0f}" for k, v in found["memory"].items() if v is not None))
    if args.json:
        text = json.dumps(found, indent=1)
        sys.stdout.write(text + "\n") if args.json == "-" else Path(args.json).write_text(text)


if __name__ == "__main__":
    main()
