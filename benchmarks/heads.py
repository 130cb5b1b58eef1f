"""Redrawing the head grids of 1,024 heads for another feature, from numbers to strips: CPU milliseconds of a redraw.

The floor is making as many strips of the same width out of plain words. Heads are of one layer, 32 and 128.
Run with ``python -m benchmarks.heads``; ``--json FILE`` (or ``-``) writes all numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.tui.heads_place import arrays, ov_arrays
from wbtui.features.heads import HeadNull, HeadTable
from wbtui.tui.draw.heads import Spot, grid_lines
from wbtui.tui.draw.line import Line, to_strip
from wbtui.tui.theme import PALETTES

HEADS, WIDTH, HEIGHT = 1024, 200, 45
AIM_MS = 10.0


def _tables(layers: int) -> list[HeadTable]:
    """Random numbers of 50 features and of two kinds of random directions."""
    heads, n = HEADS // layers, 50
    nulls = [HeadNull("isotropic", 0, arrays(heads, 200, 2, n)), HeadNull("decoder_cov", 0, arrays(heads, 200, 3, n))]
    return [
        HeadTable.from_arrays(arrays(heads, n, 1), nulls=nulls, ov=ov_arrays(heads, n, 4), layer=layer)
        for layer in range(layers)
    ]


def _cpu_ms(run: Callable[[int], None], times: int) -> float:
    spent = []
    for i in range(times + 1):  # the first one fills what is kept
        begin = time.process_time()
        run(i)
        spent.append(1e3 * (time.process_time() - begin))
    return statistics.median(spent[1:])


def measure(layers: int, times: int) -> dict[str, float]:
    """CPU milliseconds of a redraw and of its floor; their ratio."""
    tables, ink = _tables(layers), PALETTES["rich"]
    drawn = 0

    def redraw(feature: int) -> None:
        nonlocal drawn
        rows = {table.layer: table.row(feature) for table in tables}
        lines, _ = grid_lines(tables, rows, Spot(0, feature % (HEADS // layers)), WIDTH, HEIGHT)
        for line in lines:
            to_strip(line, WIDTH, ink)
        drawn = len(lines)

    spent = _cpu_ms(redraw, times)

    def floor(feature: int) -> None:
        words: Line = [(f"{feature} ".ljust(WIDTH, "x"), "text")]
        for _ in range(drawn):
            to_strip(words, WIDTH, ink)

    least = _cpu_ms(floor, times)
    return {
        "layers": layers,
        "heads": HEADS,
        "lines": drawn,
        "cpu_ms": spent,
        "floor_ms": least,
        "ratio": spent / least,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 where a redraw misses its aim by more than twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--json", metavar="FILE", help="write all numbers here (- for stdout)")
    args = parser.parse_args(argv)
    found = {f"{HEADS:,} heads, {layers} layers": measure(layers, args.times) for layers in (1, 32, 128)}
    for name, each in found.items():
        met = "met" if each["cpu_ms"] <= AIM_MS else "MISSED"
        print(
            f"{name}, {WIDTH} columns: {each['cpu_ms']:.2f} ms CPU "
            f"(aim {AIM_MS:.0f}: {met}), {each['ratio']:.1f} x as many plain lines"
        )
    if args.json:
        text = json.dumps(found, indent=1)
        sys.stdout.write(text + "\n") if args.json == "-" else Path(args.json).write_text(text)
    return int(any(each["cpu_ms"] > 2 * AIM_MS for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
