"""The match of two SAEs against its bare matrix product, at Gemma-2-2b's width (two SAEs of 16,384 × 2,304).

Random weights. The floor is the product of all rows of one SAE with all of the other, in the tiles that are fastest
here (2,048 × 2,048; the match's own can be stopped sooner) into one reused buffer, nothing kept. A run does all that a
match does: rows read and normalised, both directions, four sets of random directions. Each run follows a run of its
floor; the ratio is the median of those pairs. ``--shrink`` divides the features (the default, 4, is 4,096: fixed costs
then weigh more than at full size, so the ratio is an upper bound).
Run with ``python -m benchmarks.match``; ``--json FILE`` (or ``-``) writes all numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.e1 import PeakMemory, paired
from wbtui.analysis.match import Dictionary, mutual
from wbtui.analysis.streaming import TileBuffer
from wbtui.definitions import MatchDefinition

FEATURES, D_MODEL = 16_384, 2304
FLOOR_TILE = 2048


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

    def floor() -> None:
        for part in left.split(FLOOR_TILE):
            for other in right.split(FLOOR_TILE):
                torch.mm(part, other.T, out=buffer.get("cosines", len(part), len(other)))

    def run() -> None:
        mutual(*fresh(), n_null=definition.n_null, seed=0)

    def without_noise() -> None:
        mutual(*fresh(), n_null=0, seed=0)

    floor()
    run()
    runs = {
        "the whole match": paired(run, floor, args.repeat),
        "without noise": paired(without_noise, floor, args.repeat),
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
