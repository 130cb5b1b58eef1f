"""Do time and memory grow linearly? CPU seconds of E1 over features and vocabulary, of the pass over pairs over heads,
and the tile's memory, each fitted as ``t ~ size ** exponent`` by least squares on logarithms, at Gemma-2-2b's width.

Vocabularies are as large as models': 32,768 (Mistral; Llama-2 has 32,000), 65,536, 131,072 (Llama-3: 128,256) and
262,144 (Gemma-3; Gemma-2 has 256,000). Below them no model of that width has one. What a feature costs whatever the
vocabulary (spelling, cosines and words of its lists) is named beside the exponent; it weighs more in narrower models.
Sizes take turns, round by round, so that a machine whose speed changes does so for all of them; each round has features
that were not seen before, as in a real pass. The least of the rounds is fitted.

Run with ``python -m benchmarks.growth``. Aim: exponents of time from 0.9 to 1.1; memory flat in features, at most
linear in vocabulary.
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


def cpu(runs: list[Callable[[], object]], repeat: int) -> list[float]:
    """Least CPU seconds of each of some runs (a neighbour can only add), which take turns."""
    best = [math.inf] * len(runs)
    for _ in range(repeat):
        for i, run in enumerate(runs):
            start = time.process_time()
            run()
            best[i] = min(best[i], time.process_time() - start)
    return best


def table_of(tokens: torch.Tensor) -> TokenTable:
    """A token table with every token kept."""
    return prepare_side(
        tokens,
        centre_values=False,
        keep=np.ones(len(tokens), bool),
        definition=TokensDefinition(),
        **made_up_vocabulary(len(tokens)),
    )


def e1(tokens: torch.Tensor, sizes: list[tuple[int, int]], repeat: int) -> tuple[list[float], list[float]]:
    """CPU seconds, and MB of tile and scratch, for (features, vocabulary: the first rows of ``tokens``)."""
    draw = torch.Generator().manual_seed(1)
    buffers = [TileBuffer() for _ in sizes]
    tables = {vocab: table_of(tokens[:vocab]) for _, vocab in sizes}

    def run(n: int, vocab: int, buffer: TileBuffer) -> Callable[[], object]:
        rounds = iter(torch.randn((repeat + 1, n, D_MODEL), generator=draw))
        return lambda: token_rows(next(rounds), tables[vocab], buffer=buffer)

    runs = [run(n, vocab, buffer) for (n, vocab), buffer in zip(sizes, buffers, strict=True)]
    for first in runs:
        first()
    return cpu(runs, repeat), [buffer.nbytes / 1e6 for buffer in buffers]


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
    return cpu([lambda c=c: run(c) for c in counts], repeat)


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
    tokens = weights(max(vocab for _, vocab in grid["vocabulary"]), D_MODEL).float()
    for what, sizes in grid.items():
        seconds, memory = e1(tokens, sizes, args.repeat)
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
