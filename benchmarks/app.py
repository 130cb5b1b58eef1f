"""The app in a real pseudo-terminal: ``python -m benchmarks.app [--features 131072] [--json FILE]``.

An SAE of the wished size with invented numbers is opened by the real app in a child process; keys go in and frames come
out as they do over SSH. A frame ends with the terminal's end-of-update mark (mode 2026, which this end says it knows).
Aims: page-down at 131k features at most 16 ms, a threshold moved over them at most 50 ms, from key to frame;
the cursor stands still within one frame of the last of held keys.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.picture import Picture
from wbtui import schema
from wbtui.catalog.models import find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.definitions import TokensDefinition, to_json
from wbtui.features.vocabulary import Vocabulary
from wbtui.store.products import Product

AIM_PAGE_MS = 16.0
AIM_LINE_MS = 50.0
"""A threshold moved over all features: from key to frame."""
FRAME_END = b"\x1b[?2026l"
PAGES = 20
"""Down, before the top again: a table of 1,024 rows has more."""
KEYS_PER_SECOND = 30
QUIET = 0.4
"""Seconds without output that count as standing still."""


def invented(
    n: int, vocabulary: int, columns: dict[str, schema.Column], definition: dict[str, Any], seed: int
) -> dict[str, np.ndarray]:
    """Columns of ``n`` rows that obey the schema's shapes: bars, lists and classes all have something to draw.

    Each shard needs a ``seed`` of its own: where rows repeat, a move of the cursor changes next to nothing on screen.
    """
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        shape = (n, *schema.width_of(column, definition))
        kind = np.dtype(column.dtype).kind
        if name.endswith(("_ids", "_id")):
            out[name] = rng.integers(0, vocabulary, shape).astype(column.dtype)
        elif kind == "f":
            out[name] = rng.standard_normal(shape, dtype=np.float32)
        else:
            out[name] = np.zeros(shape, dtype=column.dtype)
    for side in ("writes", "against", "reads"):
        if f"{side}.word_z" in out:
            z = np.sort(np.abs(out[f"{side}.word_z"]) + 3 + rng.exponential(0.7, (n, 1)), axis=1)[:, ::-1]
            out[f"{side}.word_z"] = np.ascontiguousarray(z, dtype=np.float32)
            out[f"{side}.z_max"] = out[f"{side}.word_z"][:, 0].copy()
            out[f"{side}.z_10"] = out[f"{side}.word_z"][:, 9].copy()
            out[f"{side}.std"] = np.ones(n, dtype=np.float32)
    return out


def zeros_file(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of float16 zeros; sparse on most file systems."""
    header: dict[str, Any] = {}
    at = 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + at)


def build(root: Path, n: int) -> tuple[str, Path]:
    """An SAE of the demo model with ``n`` features and finished products; (address, cache)."""
    model = find_model("demo")
    folder = root / "saes" / f"L3-bench{n}"
    folder.mkdir(parents=True)
    config = {
        "architecture": "standard", "d_in": model.d_model, "d_sae": n, "dtype": "float16", "device": "cpu",
        "apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": "blocks.3.hook_resid_post", "model_name": "demo"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    weights = {"W_enc": (model.d_model, n), "W_dec": (n, model.d_model), "b_enc": (n,), "b_dec": (model.d_model,)}
    zeros_file(folder / "sae_weights.safetensors", weights)
    cache = root / "cache"
    plan = plan_tokens(model, find_sae(model, str(folder)), TokensDefinition(), cache)
    words = [f" word{i}" for i in range(model.d_vocab)]
    vocab = Vocabulary.from_texts(words)
    columns: dict[str, np.ndarray] = {"word": vocab.word_ids, "flags": vocab.flags}
    parts = [word.encode() for word in words]
    for name in ("text", "raw", "norm"):
        columns[f"{name}_bytes"] = np.frombuffer(b"".join(parts), dtype=np.uint8)
        columns[f"{name}_offsets"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    Product(cache, plan.vocab).write_whole(columns)
    definition = to_json(plan.definition)
    for spec in plan.all():
        if spec.rows == 0:
            continue
        product = Product(cache, spec)
        product.begin()
        kinds = {"tokens": schema.tokens_columns, "null": schema.null_columns}
        for start, stop in product.missing():
            if spec.analysis == "mask":
                rows = {"neighbours": np.zeros(stop - start, dtype=np.int32)}
            else:
                rows = invented(stop - start, model.d_vocab, kinds[spec.analysis](), definition, start)
            product.write_shard(start, stop, rows)
        if product.state != "complete":
            product.assemble()
    return f"demo@{folder}", cache


def take(fd: int, within: float) -> bytes:
    """What a program writes to its pseudo-terminal within so many seconds, at most one read; queries for synchronised
    output are answered."""
    if not select.select([fd], [], [], within)[0]:
        return b""
    try:
        data = os.read(fd, 1 << 20)
    except OSError:
        return b""
    if b"\x1b[?2026$p" in data:
        os.write(fd, b"\x1b[?2026;2$y")
    return data


class Terminal:
    """The app in a child process behind a pseudo-terminal."""

    def __init__(self, address: str, cache: Path, size: tuple[int, int]) -> None:
        self.started = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", WBTUI_CACHE_DIR=str(cache))
            os.environ.update({f"WBTUI_{k}_DIR": str(cache.parent / k.lower()) for k in ("DATA", "RUNTIME", "LOG")})
            for name in ("COLUMNS", "LINES"):  # the terminal's own size counts
                os.environ.pop(name, None)
            code = "from wbtui.start import main; main()"  # as the command does
            # os.environ, not the C library's: readline leaves a size there that is none of this terminal's
            os.execve(sys.executable, [sys.executable, "-c", code, address], dict(os.environ))
        self.resize(size)
        self.output = b""
        self.picture = Picture(*size)

    def resize(self, size: tuple[int, int]) -> None:
        """Columns and rows of the terminal."""
        columns, rows = size
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, within: float) -> bytes:
        """As :func:`take`; what comes is kept."""
        data = take(self.fd, within)
        self.output += data
        return data

    def shown(self) -> str:
        """What is on screen; taken in only when asked for, so that no clock waits for it."""
        new, self.output = self.output, b""
        self.picture.feed(new)
        return self.picture.text

    def until(self, needle: bytes, within: float = 60.0) -> float:
        """Seconds from the start until ``needle`` is on screen."""
        deadline = time.perf_counter() + within
        while needle.decode() not in self.shown():
            if time.perf_counter() > deadline:
                raise SystemExit(f"the app did not show {needle!r} in {within:g} s: \n{self.shown()}")
            self.read(0.5)
        return time.perf_counter() - self.started

    def quiet(self) -> None:
        """Until nothing comes for a while."""
        while self.read(QUIET):
            pass

    def frames(self, quiet: float = QUIET) -> list[tuple[float, int]]:
        """(seconds from now, bytes) of each frame until nothing comes for a while."""
        start, out, pending = time.perf_counter(), [], b""
        while data := self.read(quiet):
            pending += data
            now = time.perf_counter() - start
            while FRAME_END in pending:
                frame, _, pending = pending.partition(FRAME_END)
                out.append((now, len(frame)))
        return out

    def key(self, data: bytes) -> list[tuple[float, int]]:
        """Press, and take the frames that follow."""
        os.write(self.fd, data)
        return self.frames(0.15)

    def close(self) -> None:
        """Quit."""
        os.write(self.fd, b"q")
        while self.read(2.0):
            pass
        os.waitpid(self.pid, 0)


def measure(n: int, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """All figures for one number of features."""
    with tempfile.TemporaryDirectory() as folder:
        address, cache = build(Path(folder), n)
        starts = []
        for _ in range(3):
            terminal = Terminal(address, cache, size)
            starts.append(terminal.until(f"{n:,} features".encode()))
            if len(starts) < 3:
                terminal.quiet()
                terminal.close()
        terminal.quiet()
        pages = []
        for i in range(repeats):
            if i % PAGES == 0:
                terminal.key(b"g")  # at the end of a table a page changes nothing, so no frame would come
            pages.append(terminal.key(b"\x1b[6~")[0])
        moves = [terminal.key(b"j")[0] for _ in range(repeats)]
        for _ in range(2 * KEYS_PER_SECOND):
            due = time.perf_counter() + 1 / KEYS_PER_SECOND
            os.write(terminal.fd, b"j")
            while (left := due - time.perf_counter()) > 0:
                terminal.read(left)
        os.write(terminal.fd, b"j")
        after = terminal.frames()
        os.write(terminal.fd, b"F")
        terminal.until(b"false discovery")
        terminal.quiet()
        lines = [terminal.key(b"\x1b[C" if i % 12 < 6 else b"\x1b[D")[0] for i in range(repeats)]
        os.write(terminal.fd, b"m")
        metric = terminal.frames()
        terminal.key(b"\x1b")
        terminal.quiet()
        terminal.key(b"s")
        terminal.close()

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(values), 2), "p95": round(sorted(values)[int(len(values) * 0.95)], 2)}

    return {
        "features": n,
        "size": f"{size[0]}x{size[1]}",
        "first_rows_s": round(statistics.median(starts), 3),
        "page_down_ms": spread([seconds * 1e3 for seconds, _ in pages]),
        "page_down_bytes": int(statistics.median(size for _, size in pages)),
        "cursor_ms": spread([seconds * 1e3 for seconds, _ in moves]),
        "cursor_bytes": int(statistics.median(size for _, size in moves)),
        "threshold_ms": spread([seconds * 1e3 for seconds, _ in lines]),
        "threshold_bytes": int(statistics.median(size for _, size in lines)),
        "next_metric_ms": round(metric[-1][0] * 1e3, 1) if metric else None,
        "held_keys": {
            "cursor_stands_after_ms": round(after[0][0] * 1e3, 1) if after else None,
            "card_follows_after_ms": round(after[-1][0] * 1e3, 1) if after else None,
            "frames_after_release": len(after),
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 where page-down or the threshold misses its aim by more than twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="*", default=[1024, 131_072])
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", help="file for all numbers, - for standard output")
    given = parser.parse_args(argv)
    columns, rows = (int(x) for x in given.size.split("x"))
    results = [measure(n, (columns, rows), given.repeats) for n in given.features]
    for r in results:
        print(
            f"{r['features']:>9,} features {r['size']}: first rows {r['first_rows_s']:.2f} s · "
            f"page-down {r['page_down_ms']['median']:.1f} ms (p95 {r['page_down_ms']['p95']:.1f}, "
            f"{r['page_down_bytes']:,} B) · "
            f"cursor {r['cursor_ms']['median']:.1f} ms ({r['cursor_bytes']:,} B) · "
            f"threshold {r['threshold_ms']['median']:.1f} ms (p95 {r['threshold_ms']['p95']:.1f}, "
            f"{r['threshold_bytes']:,} B) · next metric {r['next_metric_ms']} ms · "
            f"held keys: cursor stands after {r['held_keys']['cursor_stands_after_ms']} ms, "
            f"card after {r['held_keys']['card_follows_after_ms']} ms"
        )
    if given.json:
        text = json.dumps(results, indent=1)
        print(text) if given.json == "-" else Path(given.json).write_text(text + "\n")
    aims = (("page_down_ms", AIM_PAGE_MS), ("threshold_ms", AIM_LINE_MS))
    return int(any(r[name]["median"] > 2 * aim for r in results for name, aim in aims))


if __name__ == "__main__":
    sys.exit(main())
