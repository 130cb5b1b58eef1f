"""The app over a slow line, 1 Mbit/s with 150 ms of delay: ``python -m benchmarks link``.

The real app runs behind a pseudo-terminal. A key reaches it half the delay after it was pressed; what it writes is
taken at once, as sshd and the sockets' buffers do, and comes off the line at its speed, then half the delay later. So
nothing slows the app down but itself: where it writes faster than the line carries, the queue is seen. For each action:
bytes, time from the key to the end of the first frame and to the last byte on this end; for keys held for 2 s at 30
a second: the longest the queue became, and when the picture stood still after the last key. Also the time that the
picker takes to narrow 17,000 names by a key, without a terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.app import FRAME_END, KEYS_PER_SECOND, Terminal, build

BYTES_PER_SECOND = 125_000
DELAY = 0.075
"""Seconds in each direction."""
REST = 0.6
"""Seconds without output after which an action is over."""
MOST_BYTES = 20_000
"""Aim: a simple action writes less."""
MOST_QUEUE_MS = 100.0
"""Aim: the longest queue of held keys."""
PAGE, END, ESC, DOWN = b"\x1b[6~", b"G", b"\x1b", b"j"
UNPACED = "page down held 2 s, not told of the line"
"""For comparison: what would happen if frames did not keep to the line."""
Found = dict[str, float]


class Line(Terminal):
    """The app at the far end of a slow line."""

    free_at = 0.0
    """When the line has carried what was written so far."""

    def act(self, keys: list[bytes], every: float = 0.0) -> Found:
        """Press keys and wait until nothing comes any more.

        Returns:
            dict: ``bytes``; ``first_ms`` (from the first key to the end of the first frame), ``last_ms`` (from the last
            key to the last byte), ``queue_ms`` (the longest that a byte waited for the line), ``frames``.
        """
        pressed = time.perf_counter()
        due = [pressed + DELAY + n * every for n in range(len(keys))]
        last_pressed = due[-1] - DELAY
        sent = count = frames = 0
        first = last = queue = 0.0
        tail = b""
        heard = due[0]
        while sent < len(keys) or time.perf_counter() - heard < REST:
            now = time.perf_counter()
            if sent < len(keys) and now >= due[sent]:
                os.write(self.fd, keys[sent])
                sent, heard = sent + 1, now
                continue
            data = self.read(max(0.0, min(due[sent] - now, REST)) if sent < len(keys) else REST - (now - heard))
            if not data:
                continue
            heard = time.perf_counter()
            queue = max(queue, self.free_at - heard)
            self.free_at = max(self.free_at, heard) + len(data) / BYTES_PER_SECOND
            last, count = self.free_at + DELAY, count + len(data)
            ends = (tail + data).count(FRAME_END)
            frames += ends
            first = first or (last if ends else 0.0)
            tail = data[1 - len(FRAME_END) :]
        return {
            "bytes": count, "first_ms": round((first - pressed) * 1e3, 1) if first else 0.0,
            "last_ms": round((last - last_pressed) * 1e3, 1) if last else 0.0, "queue_ms": round(queue * 1e3, 1),
            "frames": frames,
        }  # fmt: skip


def median(found: list[Found]) -> Found:
    """Of some tries."""
    return {name: round(statistics.median(one[name] for one in found), 1) for name in found[0]}


def actions(line: Line, demo: bool) -> dict[str, Found]:
    """Every action in turn; each ends where it began."""
    out: dict[str, Found] = {}

    def each(name: str, keys: list[bytes]) -> None:
        out[name] = median([line.act([key]) for key in keys])

    def there_and_back(name: str, key: bytes, back: bytes = ESC) -> None:
        out[name] = line.act([key])
        line.act([back])

    held = 2 * KEYS_PER_SECOND
    line.act([DOWN])  # the welcome goes
    each("cursor move", [DOWN] * 7)
    each("page down", [PAGE] * 5)
    out["cursor held 2 s"] = line.act([DOWN] * held, 1 / KEYS_PER_SECOND)
    out["page down held 2 s"] = line.act([PAGE] * held, 1 / KEYS_PER_SECOND)
    each("next order (s)", [b"s"] * 3)
    line.act([b"/"])
    each("filter, a key", [char.encode() for char in "z_max>4"])
    line.act([ESC])
    there_and_back("one feature on the whole screen (Enter)", b"\r")
    there_and_back("population (F)", b"F")
    if demo:
        there_and_back("heads (h)", b"h")
        there_and_back("next layer (>)", b">", b"[")
    there_and_back("columns (c)", b"c")
    there_and_back("help (?)", b"?")
    there_and_back("define (D)", b"D")
    out["pick an SAE (O)"] = line.act([b"O"])
    each("pick an SAE, a key", [b"g", b"1", b"6"])
    line.act([ESC])
    line.act([ESC])
    there_and_back("mark (m)", b"m", b"m")
    return out


def opened(address: str, cache: Path, n: int, size: tuple[int, int], ssh: bool = True) -> tuple[Line, Found]:
    """The app at an address, and what its first picture took: ``last_ms`` from the command.

    ``ssh``: whether the app knows that it is at the end of a line, by SSH's own variable.
    """
    os.environ.pop("SSH_TTY", None)
    os.environ["SSH_CONNECTION"] = "192.0.2.1 50000 192.0.2.2 22" if ssh else ""
    line = Line(address, cache, size)
    count = frames = 0
    free = start = line.started
    while (data := line.read(REST)) or f"{n:,} features" not in line.shown():
        now = time.perf_counter()
        if now - start > 60:
            raise SystemExit(f"the app did not show its rows: \n{line.shown()}")
        count += len(data)
        frames += data.count(FRAME_END)
        free = (max(free, now) + len(data) / BYTES_PER_SECOND) if data else free
    line.free_at = free
    return line, {"bytes": count, "first_ms": 0.0, "last_ms": round((free + DELAY - start) * 1e3, 1), "queue_ms": 0.0,
                  "frames": frames}  # fmt: skip


def one(address: str, cache: Path, n: int, size: tuple[int, int], demo: bool) -> dict[str, Found]:
    """Everything on one table."""
    line, first = opened(address, cache, n, size)
    try:
        out = {"open the app": first, **actions(line, demo)}
    finally:
        line.close()
    line, _ = opened(address, cache, n, size, ssh=False)
    try:
        line.act([DOWN])
        out[UNPACED] = line.act([PAGE] * 2 * KEYS_PER_SECOND, 1 / KEYS_PER_SECOND)
    finally:
        line.close()
    return out


def demo_cache(cache: Path) -> None:
    """What the demo's actions show, computed."""
    env = {**os.environ, "WBTUI_CACHE_DIR": str(cache)}
    for sae, analysis in (("L3", "all"), ("L4", "tokens"), ("L4", "neighbours")):
        command = [sys.executable, "-m", "wbtui", "compute", "demo", sae, "--analysis", analysis, "--no-daemon", "-q"]
        subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def picker() -> dict[str, float]:
    """Milliseconds of a key in the picker, over 17,000 names: narrowing, ranking, matched letters of 45 rows."""
    from wbtui.tui.fuzzy import Fuzzy
    from wbtui.tui.screens.pick import published_picks

    names = [pick.shown for pick in published_picks(frozenset())]
    names += names[: 17_000 - len(names)]
    took = []
    for query in ("gemma12res16k", "l12 16k canon 2b", "pythia trainer_5", "gpt2 jb 8", "eeeeaaaa"):
        fuzzy = Fuzzy(names)
        for k in range(1, len(query) + 1):
            start = time.perf_counter()
            found = fuzzy.find(query[:k])
            for row in found.rows[:45].tolist():
                fuzzy.places(row, query[:k])
            took.append((time.perf_counter() - start) * 1e3)
    took.sort()
    return {
        "names": len(names), "key_ms": round(statistics.median(took), 1),
        "key_ms_p95": round(took[int(len(took) * 0.95)], 1), "key_ms_worst": round(took[-1], 1),
    }  # fmt: skip


def table(found: dict[str, dict[str, Found]]) -> list[str]:
    """The figures as Markdown, ready for the README."""
    names = list(found)
    out = ["| action | " + " | ".join(f"{name}: bytes | first frame, last byte ms" for name in names) + " |"]
    out.append("|---" * (1 + 2 * len(names)) + "|")
    for action in found[names[0]]:
        cells = []
        for name in names:
            got = found[name].get(action)
            if got is None:
                cells.append("– | –")
            elif "held" in action:
                cells.append(
                    f"{got['bytes']:,.0f} | {got['last_ms']:,.0f} after the last, queue {got['queue_ms']:,.0f}"
                )
            elif got["first_ms"]:
                cells.append(f"{got['bytes']:,.0f} | {got['first_ms']:,.0f}, {got['last_ms']:,.0f}")
            else:
                cells.append(f"{got['bytes']:,.0f} | {got['last_ms']:,.0f}")
        out.append(f"| {action} | " + " | ".join(cells) + " |")
    return out


def missed(found: dict[str, dict[str, Found]]) -> list[str]:
    """Aims that were missed, in words."""
    out = []
    for name, all_actions in found.items():
        for action, got in all_actions.items():
            if "held" in action and action != UNPACED and got["queue_ms"] > MOST_QUEUE_MS:
                out.append(f"{name}, {action}: queue {got['queue_ms']:g} ms, aim {MOST_QUEUE_MS:g}")
            if "held" not in action and action != "open the app" and got["bytes"] > MOST_BYTES:
                out.append(f"{name}, {action}: {got['bytes']:,.0f} bytes, aim {MOST_BYTES:,}")
    return out


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, say which aims are missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="*", default=[131_072])
    parser.add_argument("--size", default="120x40")
    parser.add_argument(
        "--cache", type=Path, help="a product cache in which the demo's L3 and L4 may be computed already"
    )
    parser.add_argument("--json", help="file for all numbers, - for standard output")
    given = parser.parse_args(argv)
    columns, rows = (int(x) for x in given.size.split("x"))
    found: dict[str, dict[str, Found]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = (given.cache or Path(folder) / "demo" / "cache").absolute()
        demo_cache(cache)
        found["demo, 1,024 rows"] = one("demo@L3", cache, 1024, (columns, rows), True)
    for n in given.features:
        with tempfile.TemporaryDirectory() as folder:
            address, cache = build(Path(folder), n)
            found[f"{n:,} rows"] = one(address, cache, n, (columns, rows), False)
    keys = picker()
    print("\n".join(table(found)))
    print(f"picker, {keys['names']:,} names: a key {keys['key_ms']} ms (p95 {keys['key_ms_p95']}, "
          f"worst {keys['key_ms_worst']})")  # fmt: skip
    short = missed(found)
    print("aims missed: " + ("; ".join(short) or "none"))
    if given.json:
        text = json.dumps({"size": given.size, "tables": found, "picker": keys, "missed": short}, indent=1)
        print(text) if given.json == "-" else Path(given.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
