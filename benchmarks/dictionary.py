"""What is computed of a dictionary alone: OV lengths against their two projections, nearest features against the bare
product of unit rows, at Gemma-2-2b's width with random weights; and the cache: writing, opening and reading a product.

``--shrink`` divides the 16,384 features (nearest features grow with their square). Run with ``python -m
benchmarks.dictionary``; ``--json FILE`` writes all numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import SHAPES, paired, timed
from wbtui.analysis.neighbours import nearest, unit_rows
from wbtui.analysis.output_value import OutputValue, ov_lengths
from wbtui.analysis.streaming import TILE, TileBuffer
from wbtui.store.columns import Columns, write_columns

SHAPE = SHAPES["gemma-2-2b"]
D_HEAD = 256
BLOCK = 2048
K = 8


def products(n: int, repeat: int) -> dict[str, dict[str, float]]:
    """OV of one head and nearest features, each beside its floor."""
    draw = torch.Generator().manual_seed(0)
    d = torch.randn((n, SHAPE.d_model), generator=draw)
    head = OutputValue(
        value=torch.randn((SHAPE.d_model, D_HEAD), generator=draw) * 0.02,
        out=torch.randn((D_HEAD, SHAPE.d_model), generator=draw) * 0.02,
        centre=False,
    )
    stacked = torch.cat([head.value, head.out.T], dim=1)
    rows, absent = unit_rows(d, centre=False)
    buffer = TileBuffer()

    def floor_of_nearest() -> None:
        for a in range(0, n, TILE):
            part = rows[a : a + TILE]
            torch.mm(part, rows.T, out=buffer.get("floor", len(part), n))

    def find() -> None:
        blocks = [(rows[a : a + BLOCK], absent[a : a + BLOCK]) for a in range(0, n, BLOCK)]
        nearest(rows, absent, blocks, K, itself=0, buffer=buffer)

    find()
    return {
        "ov lengths and copy scores": paired(lambda: ov_lengths(head, d), lambda: d @ stacked, repeat),
        "nearest features": paired(find, floor_of_nearest, repeat),
    }


def cache(n: int, repeat: int) -> dict[str, float]:
    """Writing a product's file (synced to disk), opening it with its first row, a row, a scalar column."""
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for side in ("writes", "reads"):
        arrays[f"{side}.top_ids"] = draw.integers(0, SHAPE.vocab, (n, 25), dtype=np.int32)
        arrays[f"{side}.top_values"] = draw.standard_normal((n, 25), dtype=np.float32)
        arrays |= {f"{side}.{i}": draw.standard_normal(n, dtype=np.float32) for i in range(12)}
    total = sum(array.nbytes for array in arrays.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "columns.safetensors"
        writes = [timed(lambda: write_columns(path, arrays, {"key": "0"})) for _ in range(repeat)]
        plain = Path(folder) / "plain"

        def floor() -> None:
            with plain.open("wb") as file:
                for name in sorted(arrays):
                    file.write(arrays[name].data)
                file.flush()

        bare = [timed(floor) for _ in range(repeat)]

        def first_row() -> None:
            with Columns(path) as columns:
                _ = {name: columns[name][n // 2].tolist() for name in columns.names}

        opened = [timed(first_row) for _ in range(5)]
        columns = Columns(path)
        names = columns.names
        row = [timed(lambda i=i: [columns[name][i].tolist() for name in names]) for i in range(0, n, max(1, n // 50))]
        scalar = [timed(lambda: columns["writes.3"].max()) for _ in range(5)]
        columns.close()
    middle = statistics.median
    return {
        "rows": n,
        "mb": total / 1e6,
        "write_s": middle(writes),
        "write_over_plain_ratio": middle(writes) / middle(bare),
        "open_first_row_ms": 1e3 * middle(opened),
        "row_us": 1e6 * middle(row),
        "scalar_column_ms": 1e3 * middle(scalar),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shrink", type=int, default=4, help="divides the 16,384 features")
    parser.add_argument("--rows", type=int, default=131_072, help="of the cached product")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", help="file for all numbers")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    n = SHAPE.d_sae // args.shrink
    found: dict[str, Any] = {"features": n, "shrink": args.shrink, "threads": args.threads}
    found["runs"] = products(n, args.repeat)
    found["cache"] = cache(args.rows, args.repeat)
    print(f"{n:,} features (16,384 / {args.shrink}), d_model {SHAPE.d_model}, {args.threads} thread(s)")
    for name, run in found["runs"].items():
        print(f"  {name:28s} {run['run_s']:7.3f} s   {run['ratio']:5.2f} x floor (CPU {run['cpu_ratio']:5.2f})")
    print("  cache: " + ", ".join(f"{name} {value:,.2f}" for name, value in found["cache"].items()))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
