"""E1 against the bare matrix product of the same shapes and dtype, at Gemma-2-2b's width and vocabulary.

Random weights. Each measured run follows a run of the floor, and the ratio is the median of those pairs, because the
floor itself moves on a shared machine; on one thread the ratio of CPU times is the one judged. The floor is the bare
product in tiles as high as ours; the same in lower ones, which is slower, is named beside it. Run with
``python -m benchmarks.e1``; ``--json FILE`` (or ``-``) writes all numbers. Aim: ratio at most 1.15 for both signs of
writes, everything computed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import PeakMemory, made_up_vocabulary, paired, timed, weights
from wbtui.analysis.features import feature_rows, instant_row, null_rows
from wbtui.analysis.lone import LoneTable, Matrix, lone_feature, token_order
from wbtui.analysis.side import TokenTable, prepare_side
from wbtui.analysis.streaming import TILE, TileBuffer
from wbtui.analysis.tokens import token_rows
from wbtui.compute.kernels import probe
from wbtui.definitions import TokensDefinition

AIM = 1.15
LOW_TILE = 128
"""Rows of a tile whose bare product is shown beside the floor: how much the floor itself depends on it."""
GEMMA_FEATURES = 16_384


def floor_run(directions: torch.Tensor, table: TokenTable, buffer: TileBuffer, tile: int = TILE) -> None:
    """The bare product: whole vocabulary per tile, into one reused buffer."""
    for a in range(0, len(directions), tile):
        block = directions[a : a + tile]
        torch.mm(block, table.rows.T, out=buffer.get("scores", len(block), table.n_tokens))


def lone(run: Callable[[], object], one_pass: Callable[[], object], repeat: int) -> dict[str, float]:
    """Milliseconds of a lone feature, and as a ratio to reading the token matrix once."""
    run()
    pairs = [(timed(one_pass), timed(run)) for _ in range(repeat)]
    times = sorted(r for _, r in pairs)
    return {
        "median_ms": 1e3 * statistics.median(times),
        "p95_ms": 1e3 * times[min(len(times) - 1, round(0.95 * (len(times) - 1)))],
        "pass_ms": 1e3 * statistics.median(p for p, _ in pairs),
        "ratio": statistics.median(r / p for p, r in pairs),
    }


def without_torch(source: torch.Tensor, keep: np.ndarray, like: TokenTable, scale: float) -> list[LoneTable]:
    """Both sides of the tied matrix as a worker has them before it has imported torch."""
    raw = Matrix(source.view(torch.uint16).numpy())
    words = (like.word, like.whole_word, like.norms, like.definition)
    writes = LoneTable(raw, token_order(keep), int(keep.sum()), 1.0, False, *words)
    return [writes, dataclasses.replace(writes, scale=scale, centre_values=True)]


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--vocab", type=int, default=256_000)
    parser.add_argument("--features", type=int, default=256, help="at most 512 are asked for by the protocol")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--masked", type=float, default=0.02, help="share of tokens that the mask drops")
    parser.add_argument("--product", nargs="*", default=["bf16"], help="products in fewer bits to measure as well")
    parser.add_argument("--json", help="file for all numbers, - for standard output")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    vocab = made_up_vocabulary(args.vocab)
    keep = np.random.default_rng(1).random(args.vocab) >= args.masked
    source = weights(args.vocab, args.d_model)
    shared: dict[str, Any] = {"keep": keep, "definition": TokensDefinition(), **vocab}
    start = time.perf_counter()
    writes = prepare_side(source, centre_values=False, **shared)
    prepare_s = time.perf_counter() - start
    lazy = prepare_side(source, centre_values=False, lazy=True, **shared)
    scale = args.d_model**0.5
    reads, lazy_reads = (t.shared(scale=scale, centre_values=True) for t in (writes, lazy))
    rng = torch.Generator().manual_seed(2)
    d, e = (torch.randn((args.features, args.d_model), generator=rng) for _ in range(2))
    gain = torch.rand(args.d_model, generator=rng) + 0.5
    norm = {"gain": gain, "centre": False}

    buffer = TileBuffer()
    with PeakMemory() as memory:
        feature_rows(d, e, writes, reads, gain=gain, centre=False, buffer=buffer)
    both_signs = paired(lambda: token_rows(d, writes, buffer=buffer), lambda: floor_run(d, writes, buffer), args.repeat)

    low_tiles = paired(
        lambda: floor_run(d, writes, buffer, LOW_TILE), lambda: floor_run(d, writes, buffer), args.repeat
    )

    def two_floors() -> None:
        floor_run(d, writes, buffer)
        floor_run(e, reads, buffer)

    whole = paired(
        lambda: feature_rows(d, e, writes, reads, buffer=buffer, **norm),
        two_floors,
        args.repeat,
    )
    null = paired(
        lambda: null_rows(d, e, writes, reads, buffer=buffer, **norm),
        two_floors,
        1,
    )
    one_pass = lambda: source.view(torch.int16).amax()  # noqa: E731
    cold = timed(lambda: instant_row(d[0], e[0], lazy, lazy_reads, buffer=buffer, **norm))
    single = lone(
        lambda: instant_row(d[1], e[1], lazy, lazy_reads, buffer=buffer, **norm), one_pass, max(5, args.repeat)
    )
    without = without_torch(source, keep, lazy, scale)
    once = timed(lambda: lone_feature(d[0].numpy(), e[0].numpy(), *without, gain=gain.numpy(), centre=False))
    with_numpy = lone(
        lambda: lone_feature(d[1].numpy(), e[1].numpy(), *without, gain=gain.numpy(), centre=False),
        one_pass,
        max(5, args.repeat),
    )
    rounded, slow = {}, {}
    rates = probe(source.device, kinds=tuple(args.product)).gflops if args.product else {}
    for kind in args.product:
        if rates[kind] < rates["fp32"]:  # nobody would take it: the app measures the same and does not
            slow[kind] = {"gflops": rates[kind], "fp32_gflops": rates["fp32"]}
            continue
        start = time.perf_counter()
        low = prepare_side(source, centre_values=False, product=kind, **shared)
        prepared = time.perf_counter() - start
        few = d[: 2 * TILE]
        found = paired(
            lambda low=low, few=few: token_rows(few, low, buffer=buffer),
            lambda few=few: floor_run(few, writes, buffer),
            min(3, args.repeat),
        )
        rounded[kind] = found | {"prepare_s": prepared}
        del low
    flop = 2.0 * args.features * args.vocab * args.d_model
    result = {
        "shape": {k: v for k, v in vars(args).items() if k != "json"}
        | {"tile": TILE, "dtype": "float32", "torch": torch.__version__},
        "prepare_s": prepare_s,
        "writes_both_signs": both_signs | {"floor_gflops": flop / both_signs["floor_s"] / 1e9, "aim": AIM},
        "product_in_low_tiles": low_tiles | {"tile": LOW_TILE},
        "features_both_sides": whole | {"floor_gflops": 2 * flop / whole["floor_s"] / 1e9},
        "null_both_sides": null,
        "in_fewer_bits": rounded,
        "slower_in_fewer_bits": slow,
        "peak_mb_above_weights": memory.peak_mb,
        "tile_mb": 4 * TILE * args.vocab / 1e6,
        "lone_feature_tied_bf16": single | {"cold_ms": 1e3 * cold},
        "lone_feature_tied_bf16_without_torch": with_numpy | {"cold_ms": 1e3 * once},
    }
    whole_s = both_signs["run_s"] * GEMMA_FEATURES / args.features
    judged = both_signs["cpu_ratio"] if args.threads == 1 else both_signs["ratio"]
    over_low = {key: both_signs[key] / low_tiles[key] for key in ("ratio", "cpu_ratio")}
    met = "met" if judged <= AIM else "MISSED"
    lines = [
        f"E1, D {args.d_model}, V {args.vocab}, {args.features} features, {args.threads} threads, fp32, "
        f"medians of {args.repeat} pairs",
        f"writes, both signs, everything: {both_signs['ratio']:.2f} x the product (CPU time "
        f"{both_signs['cpu_ratio']:.2f}; aim {AIM}: {met}); product "
        f"{flop / both_signs['floor_s'] / 1e9:.0f} GFLOP/s; {GEMMA_FEATURES} features: {whole_s:.0f} s "
        f"(x {GEMMA_FEATURES / args.features:.0f})",
        f"the bare product in tiles of {LOW_TILE} instead of {TILE}: {low_tiles['ratio']:.2f} x (CPU time "
        f"{low_tiles['cpu_ratio']:.2f}); writes are {over_low['ratio']:.2f} x that one (CPU time "
        f"{over_low['cpu_ratio']:.2f})",
        f"both sides: {whole['ratio']:.2f} x their two products (CPU time {whole['cpu_ratio']:.2f}); "
        f"a null: {null['ratio']:.2f} x (CPU time {null['cpu_ratio']:.2f})",
        f"peak above weights: {memory.peak_mb or float('nan'):.0f} MB, of which the tile {result['tile_mb']:.0f} MB",
        f"a lone feature, both sides, tied bf16: {single['median_ms']:.0f} ms (p95 {single['p95_ms']:.0f}, first "
        f"{1e3 * cold:.0f}) = {single['ratio']:.1f} x reading the matrix once ({single['pass_ms']:.0f} ms)",
        f"the same with numpy alone: {with_numpy['median_ms']:.0f} ms (p95 {with_numpy['p95_ms']:.0f}, first "
        f"{1e3 * once:.0f}) = {with_numpy['ratio']:.1f} x reading the matrix once",
        f"preparing the token table: {prepare_s:.1f} s",
    ]
    for kind, found in rounded.items():
        lines.append(
            f"writes with a {kind} product, lists done again in fp32: {found['ratio']:.2f} x the fp32 product (aim "
            f"below 1: {'met' if found['ratio'] < 1 else 'MISSED'}); preparing {found['prepare_s']:.1f} s"
        )
    for kind, found in slow.items():
        lines.append(
            f"no fast {kind} on this CPU: product and lists done again {found['gflops']:.0f} GFLOP/s, fp32 "
            f"{found['fp32_gflops']:.0f}: not taken here, and its aim (faster than the fp32 product) not judged"
        )
    print("\n".join(lines), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json == "-":
        print(json.dumps(result, indent=2))
    elif args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
