"""The explorer in a real terminal, beside two table widgets: ``python -m benchmarks explorer``.

Every program runs in a child process behind a pseudo-terminal; keys go in, bytes come out, and the clock stops at the
last byte that a key caused: two lines of the table and the card beside it. Peers are measured in the same run:
Textual's ``DataTable`` (up to ``--most-rows-filled`` rows: a million take minutes) and ``textual-fastdatatable``. They
show a table and nothing beside it; their mount includes making the columns. An app of Textual's with no table, that
imports numpy as ours must, is the floor of a mount. Over a slow line: :mod:`benchmarks.link`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pty
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.app import FRAME_END, KEYS_PER_SECOND, QUIET, Terminal, build
from benchmarks.picture import Picture

AIMS = {
    "cursor_bytes": 1500.0, "cursor_ms": 5.0, "page_ms": 20.0, "sort_ms": 250.0, "mount_ms": 500.0,
    "answered_ms": 500.0, "memory_mb": 30.0, "held_ms": 1000 / 60,
}  # fmt: skip
"""Milliseconds and bytes are to the last byte that a key causes, the card's included; mount is from the command to rows
on screen, answered from the command to the frame of a key pressed then."""
FILTER_AIMS = {131_072: 16.0, 1_048_576: 60.0}
FLOOR_ROWS = 1024
"""Rows whose memory is taken off: what a million adds is the question, not what Python and Textual take."""
DOWN, PAGE = b"\x1b[B", b"\x1b[6~"
CURSOR = re.compile(rb"\x1b\[1;(?!2H)[0-9]+H")
"""Line 1 names the feature under the cursor, so it changes in every frame in which the cursor moves."""
FILTER = "word1 #>5000"
"""Typed key by key. Rows match at each, but where it is no filter yet: where none does, a word about it follows a rest,
and would be taken for the answer to the key."""
TERM, TYPED_PER_SECOND = " z_max>4", 8
"""Then this at the speed of a hand."""
MOUNTS, HELD = 5, 5
"""Tries."""


class Peer(Terminal):
    """A peer's table behind a pseudo-terminal."""

    def __init__(self, kind: str, n: int, size: tuple[int, int]) -> None:
        self.started = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.peer_tables", kind, str(n)])
        self.resize(size)
        self.output = b""
        self.picture = Picture(*size)


def anonymous_mb(pid: int) -> float:
    """Memory of a process's own (not of mapped files), MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell a process's own memory")


def pressed(terminal: Terminal, key: bytes, quiet: float) -> tuple[float, float, int, int]:
    """(ms to the first frame, ms to the last byte, bytes of the first frame, bytes of all) that a key causes."""
    os.write(terminal.fd, key)
    frames = terminal.frames(quiet)
    if not frames:
        return (float("nan"),) * 2 + (0, 0)
    return frames[0][0] * 1e3, frames[-1][0] * 1e3, frames[0][1], sum(size for _, size in frames)


def series(terminal: Terminal, keys: list[bytes], quiet: float = 0.15) -> dict[str, float]:
    """Medians over some keys, and the slow end and the worst of the last byte."""
    found = [pressed(terminal, key, quiet) for key in keys]
    names = ("first_ms", "last_ms", "first_bytes", "bytes")
    out = {
        name: round(statistics.median(values), 2) for name, values in zip(names, zip(*found, strict=True), strict=True)
    }
    last = sorted((last for _, last, *_ in found), key=lambda ms: math.inf if math.isnan(ms) else ms)  # none is worst
    return out | {"last_ms_p95": round(last[int(len(found) * 0.95)], 2), "last_ms_worst": round(last[-1], 2)}


def moved_after(terminal: Terminal, key: bytes, within: float = 5.0) -> float:
    """Press a key; seconds from the program's start to the output after which the cursor's arrow is in another row."""
    while not cursor_row(terminal):  # the picture comes in pieces
        terminal.read(within)
    before, start = cursor_row(terminal), time.perf_counter()
    os.write(terminal.fd, key)
    while (now := time.perf_counter() - start) < within:
        terminal.read(within - now)
        then = time.perf_counter() - terminal.started
        if cursor_row(terminal) not in (0, before):
            return then
    return math.nan


def cursor_row(terminal: Terminal) -> int:
    """The line in which the cursor's arrow stands; 0 while there is none."""
    return next((y for y, line in enumerate(terminal.shown().split("\n")) if line.startswith("▸")), 0)


def typed(terminal: Terminal, text: str) -> float | None:
    """A text typed at the speed of a hand: milliseconds from its last key to the last byte."""
    for char in text[:-1]:
        due = time.perf_counter() + 1 / TYPED_PER_SECOND
        os.write(terminal.fd, char.encode())
        while (left := due - time.perf_counter()) > 0:
            terminal.read(left)
    return round(pressed(terminal, text[-1].encode(), QUIET)[1], 2)


def held(terminal: Terminal, times: int = HELD) -> dict[str, Any]:
    """Keys at 30 a second for 2 s: how long after the last one the cursor still moves, and the card; the worst of some.

    Line 1 is in every frame in which the cursor moves (its arrow is not, where the table scrolls under it).
    """
    cursors, cards = [], []
    for _ in range(times):
        for _ in range(2 * KEYS_PER_SECOND):
            due = time.perf_counter() + 1 / KEYS_PER_SECOND
            os.write(terminal.fd, b"j")
            while (left := due - time.perf_counter()) > 0:
                terminal.read(left)
        os.write(terminal.fd, b"j")
        start, pending = time.perf_counter(), b""
        cursor = card = None
        while data := terminal.read(QUIET):
            pending += data
            card = (time.perf_counter() - start) * 1e3
            while FRAME_END in pending:
                frame, _, pending = pending.partition(FRAME_END)
                cursor = card if CURSOR.search(frame) else cursor
        cursors.append(cursor)
        cards.append(card)
    return {
        "cursor_stands_after_ms": worst(cursors),
        "card_stands_after_ms": worst(cards),
        "tries": cursors,
    }


def worst(values: list[float | None]) -> float | None:
    """The largest; None where one is missing."""
    there = [value for value in values if value is not None]
    return round(max(there), 1) if len(there) == len(values) else None


def ours(
    address: str,
    cache: Path,
    n: int,
    size: tuple[int, int],
    repeats: int,
    *,
    mounted: int = MOUNTS,
    times_held: int = HELD,
) -> dict[str, Any]:
    """All figures of the explorer for one SAE."""
    mounts: list[float] = []
    answered: list[float] = []
    empty: list[int] = []
    while len(mounts) < mounted:
        empty.append(peer("empty", 1, size, 1)["mount_ms"])  # by turns: a shared machine changes its speed
        terminal = Terminal(address, cache, size)
        mounts.append(terminal.until(f"{n:,} features".encode()))
        answered.append(moved_after(terminal, b"j"))  # as soon as there is something to move in
        terminal.quiet()
        if len(mounts) < mounted:
            terminal.close()
    series(terminal, [b"j"] * 3)
    cursor = series(terminal, [b"j"] * repeats)
    page = series(terminal, [PAGE] * repeats)
    sort = series(terminal, [b"s"] * 4, quiet=0.6)
    terminal.key(b"/")
    filtered = series(terminal, [char.encode() for char in FILTER], quiet=0.4)
    filtered["typed_on_ms"] = typed(terminal, TERM)
    for key in (b"\x1b", b"\x1b", b"g"):  # out of the bar, the filter away, to the first row
        terminal.key(key)
        terminal.quiet()
    terminal.until(f"{n:,} features".encode())
    hold = held(terminal, times_held)
    memory = anonymous_mb(terminal.pid)
    terminal.close()
    return {
        "mount_ms": round(statistics.median(mounts) * 1e3), "mounts": [round(s * 1e3) for s in mounts],
        "answered_ms": round(statistics.median(answered) * 1e3) if all(map(math.isfinite, answered)) else None,
        "empty_mounts": empty, "cursor": cursor, "page": page, "sort": sort,
        "filter_key": filtered, "held": hold, "anonymous_mb": round(memory, 1),
    }  # fmt: skip


def peer(kind: str, n: int, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """The same of a peer; it has no filter."""
    terminal = Peer(kind, n, size)
    rows_at = terminal.until(b"firstrow", within=900.0)
    terminal.quiet()
    out: dict[str, Any] = {"mount_ms": round(rows_at * 1e3)}
    if kind != "empty":
        out |= {
            "cursor": series(terminal, [DOWN] * repeats),
            "page": series(terminal, [PAGE] * repeats),
            "sort": series(terminal, [b"s"], quiet=5.0 if n <= 200_000 else 20.0),
        }
    out["anonymous_mb"] = round(anonymous_mb(terminal.pid), 1)
    terminal.close()
    return out


def built(folder: Path, n: int) -> tuple[str, Path]:
    """An invented SAE of ``n`` features in a folder: made, or found there."""
    place = folder / str(n)
    done = place / "address"
    if not done.is_file():
        place.mkdir(parents=True, exist_ok=True)
        done.write_text(build(place, n)[0])
    return done.read_text(), place / "cache"


def table(result: dict[str, Any]) -> list[str]:
    """The figures as Markdown, ready for the README."""
    heads = ("rows × 8 columns", "mount ms", "cursor ms · bytes", "page ms · bytes", "sort ms", "filter key ms (worst)")
    out = ["| " + " | ".join((*heads, "own memory MB")) + " |", "|---" * 7 + "|"]
    floor = [ms for found in result["explorer"].values() for ms in found["empty_mounts"]]
    out.append(f"| an empty Textual app, with numpy | {statistics.median(floor):,.0f} |" + " – |" * 4 + " 0 |")
    for name in ("explorer", "fastdatatable", "DataTable"):
        for n, found in sorted(result[name].items(), key=lambda item: int(item[0])):
            filtered = found.get("filter_key")
            out.append(
                f"| {name}, {int(n):,} | {found['mount_ms']:,} | {moved(found['cursor'])} | {moved(found['page'])} | "
                f"{found['sort']['last_ms']:,.0f} | "
                f"{keyed(filtered)} | {added(result, name, found):+.0f} |"
            )
    return out


def keyed(figures: dict[str, float] | None) -> str:
    """Milliseconds to the last byte, and the worst."""
    return f"{figures['last_ms']:.0f} ({figures['last_ms_worst']:.0f})" if figures else "–"


def moved(figures: dict[str, float]) -> str:
    """Milliseconds to the last byte, and all bytes."""
    return f"{figures['last_ms']:.1f} · {figures['bytes']:,.0f}"


def added(result: dict[str, Any], name: str, found: dict[str, Any]) -> float:
    """Memory of one's own beyond that for a handful of rows; of peers, beyond that of an app with no table."""
    return float(found["anonymous_mb"] - result["floor_mb" if name == "explorer" else "empty_mb"])


def missed(result: dict[str, Any]) -> list[str]:
    """Aims of the explorer that were missed, in words; every time is to the last byte."""
    out = []
    for n, found in result["explorer"].items():
        got = {
            "cursor_bytes": found["cursor"]["bytes"], "cursor_ms": found["cursor"]["last_ms"],
            "page_ms": found["page"]["last_ms"], "sort_ms": found["sort"]["last_ms"],
            "mount_ms": found["mount_ms"], "answered_ms": found["answered_ms"],
            "memory_mb": round(added(result, "explorer", found), 1),
            "held_ms": found["held"]["cursor_stands_after_ms"],
        }  # fmt: skip
        aims = AIMS | ({"filter_ms": FILTER_AIMS[int(n)]} if int(n) in FILTER_AIMS else {})
        got["filter_ms"] = found["filter_key"]["last_ms"]
        for name, aim in aims.items():
            value = got[name]
            if value is None or not value <= aim:  # NaN and nothing at all are no success
                said = "no answer" if value is None else format(value, "g")
                out.append(f"{int(n):,} rows: {name} {said}, aim {aim:.3g}")
    return out


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, say which aims are missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="+", default=[131_072, 1_048_576])
    parser.add_argument("--alone", action="store_true", help="leave the two other widgets out")
    parser.add_argument("--most-rows-filled", type=int, default=131_072, help="rows of Textual's DataTable at most")
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="folder in which invented SAEs are kept, and found by the next run")
    parser.add_argument("--json", help="file for all numbers, - for standard output")
    given = parser.parse_args(argv)
    columns, rows = (int(x) for x in given.size.split("x"))
    size = (columns, rows)
    result: dict[str, Any] = {"size": given.size, "explorer": {}, "fastdatatable": {}, "DataTable": {}}
    kinds = ("fastdatatable", "DataTable") if not given.alone else ()
    result["empty_mb"] = peer("empty", 1, size, 1)["anonymous_mb"]
    for n in dict.fromkeys((FLOOR_ROWS, *given.features)):
        with tempfile.TemporaryDirectory() as folder:
            address, cache = built(given.folder or Path(folder), n)
            few = {} if n in given.features else {"mounted": 1, "times_held": 1}
            found = ours(address, cache, n, size, given.repeats, **few)
            if n == FLOOR_ROWS:
                result["floor_mb"] = found["anonymous_mb"]
            if n in given.features:
                result["explorer"][str(n)] = found
    for kind in kinds:
        for n in [n for n in given.features if n > FLOOR_ROWS] or given.features:
            if kind != "DataTable" or n <= given.most_rows_filled:
                result[kind][str(n)] = peer(kind, n, size, given.repeats)
    print("\n".join(table(result)))
    for n, found in result["explorer"].items():
        slow = found["filter_key"]["typed_on_ms"]
        print(
            f"{int(n):,} rows: mount (first picture) {found['mount_ms']} ms after the command, first key answered "
            f"(pressed as soon as they are on screen) {found['answered_ms']} ms after it"
        )
        print(
            f"keys held for 2 s, {int(n):,} rows: the cursor stands {found['held']['cursor_stands_after_ms']} ms after "
            f"the last, the card {found['held']['card_stands_after_ms']} ms (worst of {len(found['held']['tries'])}); "
            f"a filter typed at {TYPED_PER_SECOND} keys a second: {slow} ms after the last"
        )
    result["missed"] = missed(result)
    print("aims missed: " + ("; ".join(result["missed"]) or "none"))
    if given.json:
        text = json.dumps(result, indent=1)
        print(text) if given.json == "-" else Path(given.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
