"""E2 against the bare matrix products of the same shapes, at Gemma-2-2b's head shapes (d_model 2304, d_head 256).

Random weights. One head is measured: heads are independent. The floor of the pass over pairs is the bare product of
all queries with all keys, tile by tile into one reused buffer; the floor of projecting is the bare pair of products
with ``Q_eff`` and ``K_eff``. Each measured run follows a run of its floor and the ratio is the median of those pairs,
because the floor itself moves on a shared machine. ``--shrink`` divides the 16,384 features (the pass grows with their
square).
Run with ``python -m benchmarks.attention``; ``--json FILE`` (or ``-``) writes all numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.measure import PeakMemory, paired
from wbtui.analysis.attention import Head, closed_forms, partners, project
from wbtui.analysis.attention_pairs import TILE, ColumnSums, query_pass, sample, upper_quartile
from wbtui.analysis.attention_record import Usual, feature_record, members
from wbtui.analysis.attention_tile import Softmax
from wbtui.analysis.streaming import TileBuffer
from wbtui.definitions import AttentionDefinition

D_MODEL, D_HEAD, FEATURES = 2304, 256, 16_384
LARGE, PART = 65_536, 32
"""Features of the comparison of closed forms with the pass, and the part of the pass's queries that is run."""
NOISE = 2_000
CPU = torch.device("cpu")
CORE = "pass, both sides: mean|S|, max, received"
BARE, TALL = "the bare product in tiles of 512", 512
AIM = 1.5
"""Of the core of the pass, as a ratio to its product; partners, cap and quartiles are increments beyond it."""


def measure(n: int, repeat: int, tile: int) -> dict[str, dict[str, float]]:
    """Every part of one head's record as a ratio to its floor."""
    definition = AttentionDefinition()
    draw = torch.Generator().manual_seed(0)
    d = torch.randn((n, D_MODEL), generator=draw)
    query, key = (torch.randn((D_MODEL, D_HEAD), generator=draw) * 0.02 for _ in range(2))
    head = Head(query=query, key=key, scale=D_HEAD**-0.5, softcap=50.0)
    vectors = project(head, lambda: [d], definition, CPU)
    of = members(head, vectors, definition)
    q, k, zero = vectors.q, vectors.k, vectors.k_terms
    buffer = TileBuffer()

    def pairs() -> None:
        for a in range(0, n, tile):
            torch.mm(q[a : a + tile], k.T, out=buffer.get("scores", len(q[a : a + tile]), n))

    def tall() -> None:
        for a in range(0, n, TALL):
            torch.mm(q[a : a + TALL], k.T, out=buffer.get("tall", len(q[a : a + TALL]), n))

    def projections() -> None:
        torch.mm(d, query)
        torch.mm(d, key)

    def closed() -> None:
        closed_forms(q, partners(k), vectors.q_gain, 1.0)
        closed_forms(k, partners(q), vectors.k_gain, 1.0)

    plain = Softmax(None, False)

    def core() -> None:
        query_pass(q, zero, k, zero, plain, buffer, tile=tile, columns=ColumnSums(n, CPU), partners=False)

    def with_partners() -> None:
        query_pass(q, zero, k, zero, plain, buffer, tile=tile, columns=ColumnSums(n, CPU))

    def with_cap() -> None:
        query_pass(q, zero, k, zero, of.softmax, buffer, tile=tile, columns=ColumnSums(n, CPU), partners=False)

    def one_side() -> None:
        query_pass(q, zero, k, zero, of.softmax, buffer, tile=tile)

    def both_sides() -> None:
        query_pass(q, zero, k, zero, of.softmax, buffer, tile=tile, columns=ColumnSums(n, CPU))

    def quartiles() -> None:
        for x, others in ((q, k), (k, q)):
            chosen = sample(n, definition.p75_below, 0, "p75")
            upper_quartile(x, others if chosen is None else others[chosen], buffer, tile=tile)

    def record() -> None:
        feature_record(head, of, definition, Usual(1.0, 1.0), buffer, tile=tile)

    pairs()
    both_sides()
    runs = {
        "closed forms, both sides": (closed, pairs),
        CORE: (core, pairs),
        "  + partners, top five, entropy": (with_partners, pairs),
        "  + cap (tanh)": (with_cap, pairs),
        "all of these, query side alone": (one_side, pairs),
        "all of these, both sides": (both_sides, pairs),
        "quartiles, both sides (P75)": (quartiles, pairs),
        "the whole record": (record, pairs),
        "projection of the dictionary": (lambda: project(head, lambda: [d], definition, CPU), projections),
        BARE: (tall, pairs),
    }
    return {name: paired(run, floor, repeat) for name, (run, floor) in runs.items()}


def without_pairs(n: int, part: int, repeat: int, tile: int) -> dict[str, float]:
    """What closed forms spare at ``n`` features: their time, that of one ``part``-th of the pass's queries against all
    keys, and how many times longer the whole pass takes (its queries are independent, so it is ``part`` times that)."""
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn((n, D_HEAD), generator=draw) for _ in range(2))
    zero, buffer, gain = torch.zeros(n), TileBuffer(), torch.ones(n)
    few = n // part

    def closed() -> None:
        closed_forms(q, partners(k), gain, 1.0)
        closed_forms(k, partners(q), gain, 1.0)

    def run(whole: bool) -> None:
        sums = ColumnSums(n, CPU)
        query_pass(q[:few], zero[:few], k, zero, Softmax(None, False), buffer, tile=tile, columns=sums, partners=whole)

    closed()
    core = paired(lambda: run(False), closed, repeat)["ratio"]
    whole = paired(lambda: run(True), closed, repeat)["ratio"]
    return {"features": n, "part": part, "core": core * part, "whole": whole * part}


def noise_share(n: int, noise: int, repeat: int, tile: int) -> dict[str, float]:
    """A record of ``noise`` random directions among ``n`` features over that of the features: as ``noise / n`` if it
    costs its share and no more."""
    definition = AttentionDefinition()
    draw = torch.Generator().manual_seed(0)
    d = torch.randn((n, 512), generator=draw)
    query, key = (torch.randn((512, D_HEAD), generator=draw) * 0.02 for _ in range(2))
    head = Head(query=query, key=key, scale=D_HEAD**-0.5, softcap=50.0)
    vectors = project(head, lambda: [d], definition, CPU)
    q, k, zero = vectors.q, vectors.k, vectors.k_terms
    softmax, buffer = members(head, vectors, definition).softmax, TileBuffer()

    def features() -> None:
        query_pass(q, zero, k, zero, softmax, buffer, tile=tile)

    def directions() -> None:
        query_pass(q[:noise], zero[:noise], k, zero, softmax, buffer, tile=tile)

    features()
    found = paired(directions, features, repeat)
    return {"directions": noise, "features": n, "ratio": found["ratio"], "share": noise / n}


def memory(n: int, tile: int) -> dict[str, float | None]:
    """Peak of a record above the vectors in use, beside the size of one tile and of the dense matrix, in MB."""
    definition = AttentionDefinition()
    draw = torch.Generator().manual_seed(0)
    head = Head(
        query=torch.randn((64, D_HEAD), generator=draw), key=torch.randn((64, D_HEAD), generator=draw), scale=1 / 16
    )
    d = torch.randn((n, 64), generator=draw)
    of = members(head, project(head, lambda: [d], definition, CPU), definition)
    with PeakMemory() as peak:
        feature_record(head, of, definition, Usual(1.0, 1.0), TileBuffer(), tile=tile)
    return {"peak_mb": peak.peak_mb, "tile_mb": tile * n * 4 / 1e6, "dense_mb": n * n * 4 / 1e6}


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shrink", type=int, default=4, help="divides the 16,384 features (default 4)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tile", type=int, default=TILE)
    parser.add_argument("--json", metavar="FILE", help="write all numbers here (- for stdout)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    n = FEATURES // args.shrink
    found = {
        "features": n,
        "shrink": args.shrink,
        "d_model": D_MODEL,
        "d_head": D_HEAD,
        "threads": args.threads,
        "tile": args.tile,
        "memory": memory(n, args.tile),
        "memory_4x": memory(4 * n, args.tile),
        "without_pairs": without_pairs(LARGE // args.shrink, PART // args.shrink, args.repeat, args.tile),
        "noise": noise_share(n, NOISE // args.shrink, args.repeat, args.tile),
        "runs": measure(n, args.repeat, args.tile),
    }
    print(
        f"{n:,} features (16,384 / {args.shrink}), one head of {D_HEAD} dims, {args.threads} thread(s), "
        f"tile {args.tile}"
    )
    for name, run in found["runs"].items():
        print(f"  {name:42s} {run['run_s']:7.3f} s   {run['ratio']:5.2f} × floor (CPU {run['cpu_ratio']:5.2f})")
    core, bare = found["runs"][CORE]["cpu_ratio"], found["runs"][BARE]
    flop = 2.0 * n * n * D_HEAD
    print(
        f"  the product: {flop / bare['floor_s'] / 1e9:.0f} GFLOP/s in tiles of {args.tile}, "
        f"{flop / bare['run_s'] / 1e9:.0f} in tiles of {TALL} (the core is {core / bare['cpu_ratio']:.2f} × that one)"
    )
    print(f"  aim of the core: {AIM} × its product in CPU time: {core:.2f}, {'met' if core <= AIM else 'not met'} here")
    spared = found["without_pairs"]
    print(
        f"  closed forms at {spared['features']:,} features: the pass takes {spared['whole']:.0f} times as long, "
        f"its core {spared['core']:.0f} times (1/{spared['part']} of it run)"
    )
    noise = found["noise"]
    print(
        f"  {noise['directions']:,} random directions: {noise['ratio']:.3f} of the pass over {noise['features']:,} "
        f"features (their share: {noise['share']:.3f})"
    )
    for name, count in (("memory", n), ("memory_4x", 4 * n)):
        values = ", ".join(f"{key} {value:.0f}" for key, value in found[name].items() if value is not None)
        print(f"  memory at {count:,}: {values}")
    if args.json:
        text = json.dumps(found, indent=1)
        sys.stdout.write(text + "\n") if args.json == "-" else Path(args.json).write_text(text)


if __name__ == "__main__":
    main()
