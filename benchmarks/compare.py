"""This run beside the recorded one, and the picture of the ratios: ``python -m benchmarks.compare OLD NEW``.

Ratios are judged: one that is more than twice its record fails the run. Seconds and milliseconds are listed where they
moved by more than a half, and judge nothing: shared machines lie.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wbtui.report.svg import Drawing, Style

FAILS, LISTED = 2.0, 1.5
PICTURE = Path(__file__).with_name("ratios.svg")


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number with the names that lead to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, str(key)))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def is_ratio(path: tuple[str, ...]) -> bool:
    """Whether a number is a ratio to a floor (larger is worse)."""
    return path[-1] == "ratio" or (path[-1].endswith("_ratio") and path[-1] != "cpu_ratio")


def is_time(path: tuple[str, ...]) -> bool:
    """Whether a number is a time that this code took."""
    return path[-1].endswith(("_s", "_ms", "_us")) and not path[-1].startswith("floor")


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], int]:
    """Lines on what moved, and how many ratios fail."""
    before, lines, failed = dict(leaves(old)), [], 0
    for path, value in leaves(new):
        was = before.get(path)
        if was is None or was <= 0 or value <= 0 or not (is_ratio(path) or is_time(path)):
            continue
        moved = value / was
        name = " › ".join(part for part in path if part != "results")
        if is_ratio(path) and moved > FAILS:
            failed += 1
            lines.append(f"FAILED  {name}: {value:.2f}, recorded {was:.2f}")
        elif max(moved, 1 / moved) > LISTED:
            lines.append(f"moved   {name}: {value:.3g}, recorded {was:.3g}")
    return lines, failed


def picture(results: dict[str, Any]) -> str:
    """Every ratio to its floor as a bar on a logarithmic axis, the floor as a line."""
    found = [(path, value) for path, value in leaves(results) if is_ratio(path) and value > 0]
    row, left, width = 16, 330, 420
    drawing = Drawing(left + width + 70, 40 + row * len(found), "Ratios to the floor")

    def x(value: float) -> float:
        return left + width * (math.log10(value) + 1.5) / 3

    for i, (path, value) in enumerate(found):
        y = 30 + row * i
        name = " › ".join(part for part in path if part not in ("results", "runs", "ratio"))
        drawing.text(left - 8, y + 9, name, size=9, anchor="end")
        begin, end = sorted((x(1.0), x(min(max(value, 0.033), 31.0))))
        drawing.rect(begin, y, max(1.0, end - begin), row - 5, "#555" if value <= 1 else "#bbb", "#000")
        drawing.text(end + 5, y + 9, f"{value:.2f}", size=9)
    drawing.line(x(1.0), 18, x(1.0), 32 + row * len(found), Style(width=1.2))
    drawing.text(x(1.0), 13, "1 = the floor", size=9, anchor="middle")
    return drawing.svg()


def main(argv: list[str]) -> int:
    """Compare two files of results; 1 if a ratio failed."""
    old, new = (json.loads(Path(name).read_text()) for name in argv)
    lines, failed = compare(old, new)
    print("\n".join(lines) or "nothing moved by more than a half")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
