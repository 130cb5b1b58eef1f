"""Do time and memory grow linearly? CPU seconds of E1 over features and vocabulary, of the pass over pairs over heads,
and the tile's memory, each fitted as ``t ~ size ** exponent`` by least squares on logarithms, at Gemma-2-2b's width:
what a feature costs whatever the vocabulary (spelling, cosines and words of its lists) is named beside it, and
weighs more in narrower models. Run with ``python -m benchmarks.growth``. Aim: exponents of time from 0.9 to 1.1;
memory flat in features, at most linear in vocabulary.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import made_up_vocabulary, weights
from wbtui.analysis.attention import Head, project
from wbtui.analysis.attention_pairs import query_pass
from wbtui.analysis.attention_record import members
from wbtui.analysis.side import TokenTable, prepare_side
from wbtui.analysis.streaming import TileBuffer
from wbtui.analysis.tokens import token_rows
from wbtui.definitions import AttentionDefinition, TokensDefinition

WITHIN = (0.9, 1.1)
D_MODEL = 2304


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log value over log size."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def cpu(run: Callable[[], object], repeat: int) -> float:
    """Least CPU seconds of a few runs (a neighbour can only add)."""
    best = math.inf
    for _ in range(repeat):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best


def table_of(vocab: int, dim: int) -> TokenTable:
    """A token table with every token kept."""
    return prepare_side(
        weights(vocab, dim),
        centre_values=False,
        keep=np.ones(vocab, bool),
        definition=TokensDefinition(),
        **made_up_vocabulary(vocab),
    )


def e1(sizes: list[tuple[int, int]], repeat: int) -> tuple[list[float], list[float]]:
    """CPU seconds, and MB of tile and scratch, for (features, vocabulary)."""
    seconds, memory = [], []
    for n, vocab in sizes:
        side = table_of(vocab, D_MODEL)
        d = torch.randn((n, D_MODEL), generator=torch.Generator().manual_seed(1))
        buffer = TileBuffer()
        token_rows(d, side, buffer=buffer)
        seconds.append(cpu(lambda d=d, side=side, buffer=buffer: token_rows(d, side, buffer=buffer), repeat))
        memory.append(buffer.nbytes / 1e6)
    return seconds, memory


def heads(counts: list[int], repeat: int) -> list[float]:
    """CPU seconds of the pass over pairs of so many heads, 2,048 features, d_head 64."""
    definition, cpu_device = AttentionDefinition(), torch.device("cpu")
    draw = torch.Generator().manual_seed(0)
    d = torch.randn((2048, 256), generator=draw)
    buffer = TileBuffer()

    def run(count: int) -> None:
        for _ in range(count):
            query, key = (torch.randn((256, 64), generator=draw) * 0.06 for _ in range(2))
            head = Head(query=query, key=key, scale=0.125)
            vectors = project(head, lambda: [d], definition, cpu_device)
            softmax = members(head, vectors, definition).softmax
            query_pass(vectors.q, vectors.k_terms, vectors.k, vectors.k_terms, softmax, buffer)

    run(1)
    return [cpu(lambda c=c: run(c), repeat) for c in counts]


def main(argv: list[str] | None = None) -> int:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="sizes per line, each twice the one before")
    parser.add_argument("--json", help="file for all numbers")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    doubled = [2**i for i in range(args.steps)]
    lines: dict[str, dict[str, Any]] = {}
    grid = {
        "features": [(256 * f, 32_768) for f in doubled],
        "vocabulary": [(256, 32_768 * f) for f in doubled],
    }
    for what, sizes in grid.items():
        seconds, memory = e1(sizes, args.repeat)
        along = [size[what == "vocabulary"] for size in sizes]
        lines[what] = {
            "sizes": along,
            "cpu_s": seconds,
            "exponent": exponent(along, seconds),
            "tile_mb": memory,
            "memory_exponent": exponent(along, memory),
        }
    slope, fixed = np.polyfit(lines["vocabulary"]["sizes"], lines["vocabulary"]["cpu_s"], 1)
    lines["vocabulary"]["fixed_ms_a_feature"] = 1e3 * float(fixed) / 256
    lines["vocabulary"]["ns_a_token"] = 1e9 * float(slope) / 256
    counts = [2 * f for f in doubled]
    seconds = heads(counts, args.repeat)
    lines["heads"] = {"sizes": counts, "cpu_s": seconds, "exponent": exponent(counts, seconds)}
    for what, line in lines.items():
        low, high = WITHIN
        judged = "met" if low <= line["exponent"] <= high else "MISSED"
        peaks = f"; memory ~ size ^ {line['memory_exponent']:.2f}" if "memory_exponent" in line else ""
        print(f"{what:10} {line['sizes']}: time ~ size ^ {line['exponent']:.2f} {judged}{peaks}")
    grown = lines["vocabulary"]
    print(f"a feature: {grown['fixed_ms_a_feature']:.2f} ms and {grown['ns_a_token']:.0f} ns for each token")
    if args.json:
        Path(args.json).write_text(json.dumps(lines, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
