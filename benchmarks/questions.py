"""Questions about every feature, as ratios to reading the weights once: a direction query over many SAEs, the edges of
one feature over the same.

Random SAEs of 16,384 x 2,304 in SAELens's files, in the page cache. The floor is reading the bytes that a question must
see once, with ``readinto`` into one reused buffer, by as many threads as the questions use. Each measured run follows a
run of its floor, and the ratio is the median of those pairs. Files are made in a temporary folder: ``--saes 26`` needs
8 GB of it (and of page cache); the default is 4 SAEs of full size, since SAEs are read one after another and the ratio
does not depend on how many there are; ``--shrink`` divides the features.

Row lengths and mappings are kept between questions, as the worker keeps them; ``first`` is a question that has to make
them, ``service`` the first one of a later service, which has the lengths from disk and maps the files.

Run with ``python -m benchmarks.questions``; ``--json FILE`` writes all numbers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.measure import paired
from wbtui.analysis.score_pass import score_columns, score_rows
from wbtui.analysis.scores import Lengths, Scores
from wbtui.analysis.streaming import Stop
from wbtui.compute.edges import _Kept
from wbtui.compute.find import strongest
from wbtui.compute.lengths import remembered
from wbtui.sources.sae import BLOCK_ROWS, DictionaryMatrix
from wbtui.store.columns import write_columns
from wbtui.tensorfile import read_header

D_MODEL, FEATURES, HEADS = 2304, 16_384, 8
CHUNK = 4 << 20
FOUND, EDGES = 200, 40
"""Rows that the app asks for."""


class Files:
    """SAEs on disk, read as the questions read them.

    Args:
        folder: where to make them. count: how many. features: of each.
    """

    def __init__(self, folder: Path, count: int, features: int) -> None:
        self.paths: list[Path] = []
        self.features = features
        self.lengths: dict[tuple[Path, str], Lengths] = {}
        self.matrices: dict[tuple[Path, str], DictionaryMatrix] = {}
        self.on_disk: dict[tuple[Path, str], Path] = {}
        draw = torch.Generator().manual_seed(0)
        for n in range(count):
            path = folder / f"{n}.safetensors"
            if not path.exists():
                decoder = torch.nn.functional.normalize(torch.randn((features, D_MODEL), generator=draw), dim=1)
                save_file({"W_dec": decoder, "W_enc": decoder.T.contiguous()}, path)
            self.paths.append(path)

    def matrix(self, path: Path, name: str) -> DictionaryMatrix:
        """A matrix as the sources map it, and keep it."""
        if (path, name) in self.matrices:
            return self.matrices[path, name]
        place = {"file": str(path), "tensor": name, "features": 0 if name == "W_dec" else 1}
        self.matrices[path, name] = DictionaryMatrix(place, self.features, D_MODEL)
        return self.matrices[path, name]

    def scored(self, path: Path, name: str, queries: torch.Tensor, stop: Stop | None = None) -> Scores:
        """As :meth:`wbtui.compute.ask.Question.scored` has it."""
        whole = self.matrix(path, name).view()
        assert whole is not None
        kept = self.lengths.get((path, name))  # as the worker keeps them
        if kept is None and (path, name) in self.on_disk:
            kept = remembered(self.on_disk[path, name], self.features)
        if name == "W_enc":
            found = score_columns(whole.T, queries, lengths=kept, stop=stop)
        else:
            found = score_rows(lambda: whole.split(BLOCK_ROWS), queries, n=self.features, lengths=kept, stop=stop)
        self.lengths[path, name] = found.lengths
        return found

    def keep(self, folder: Path) -> None:
        """Write lengths to disk, as the worker does."""
        for (path, name), lengths in self.lengths.items():
            self.on_disk[path, name] = folder / f"{path.stem}-{name}.lengths"
            arrays = {"norms": lengths.norms, "usable": lengths.usable}
            write_columns(
                self.on_disk[path, name], arrays, {"trace": repr(lengths.trace), "trace2": repr(lengths.trace2)}
            )

    def read(self, name: str, threads: int) -> None:
        """The floor: one tensor of every file, once, into reused buffers."""
        for path in self.paths:
            entry = read_header(path).tensors[name]
            cuts = [entry.begin + (entry.end - entry.begin) * i // threads for i in range(threads + 1)]

            def part(begin: int, end: int, path: Path = path) -> None:
                buffer = bytearray(CHUNK)
                with open(path, "rb", buffering=0) as file:
                    file.seek(begin)
                    left = end - begin
                    while left:
                        left -= file.readinto(memoryview(buffer)[: min(CHUNK, left)]) or left

            workers = [threading.Thread(target=part, args=cut) for cut in itertools.pairwise(cuts)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()


def measure(count: int, features: int, repeat: int, folder: Path) -> dict[str, dict[str, float]]:
    """Each question's seconds, its floor's, and their ratio; and how fast a query stops."""
    threads = torch.get_num_threads()
    draw = torch.Generator().manual_seed(1)
    query = torch.randn((1, D_MODEL), generator=draw)
    through = torch.randn((1 + HEADS, D_MODEL), generator=draw)
    out: dict[str, dict[str, float]] = {}
    files = Files(folder, count, features)
    sae: Any = SimpleNamespace(layer=0)

    def ask(
        name: str,
        queries: torch.Tensor,
        paths: Sequence[Path] = files.paths,
        stop: Stop | None = None,
        edges: bool = False,
    ) -> None:
        kept, best, above = _Kept(EDGES), list[float](), -float("inf")
        for path in paths:
            found = files.scored(path, name, queries, stop)
            if edges:  # as wbtui.compute.edges and find have it
                kept.add(sae, found, [""])
                if len(queries) > 1:
                    kept.add(sae, found, [f"H{h}" for h in range(len(queries) - 1)], first=1)
                continue
            hits = strongest(found, FOUND, above)
            best = sorted([*best, *hits.scores.tolist()], reverse=True)[:FOUND]
            above = best[-1] if len(best) == FOUND else -float("inf")
        kept.tails()

    half = len(files.paths) // 2

    def edges_of_one() -> None:
        # of a feature in the middle: decoders of the layers before it, encoders of those after it, and its reading
        # layer's heads beside the direct path
        ask("W_dec", query, files.paths[:half], edges=True)
        ask("W_enc", through, files.paths[half:], edges=True)

    cases = {
        "find w:": (lambda: ask("W_dec", query), lambda: files.read("W_dec", threads)),
        "find r:": (lambda: ask("W_enc", query), lambda: files.read("W_enc", threads)),
        "edges": (edges_of_one, lambda: files.read("W_dec", threads)),
    }

    def before() -> None:
        files.lengths.clear()
        files.matrices.clear()

    for name in ("find w:", "find r:"):
        out[name.replace("find", "first")] = paired(*cases[name], repeat, before=before)
        files.keep(folder)
        out[name.replace("find", "service")] = paired(*cases[name], repeat, before=before)
    for name, (run, floor) in cases.items():
        run()
        out[name] = paired(run, floor, repeat)
    out["find w:"] |= {"saes": count, "features": features, "d_model": D_MODEL, "threads": threads}
    out["stop"] = {
        "find_s": stop_after(lambda stop: ask("W_dec", query, stop=stop), out["find w:"]["run_s"]),
        "edges_s": stop_after(lambda stop: ask("W_enc", through, stop=stop, edges=True), 2 * out["edges"]["run_s"]),
    }
    return out


def stop_after(run: Callable[[Stop], object], seconds: float) -> float:
    """Seconds from raising the stop flag, at several moments of a question of some length, to its end: the worst."""
    from wbtui.errors import Cancelled

    worst = 0.0
    for share in (0.15, 0.3, 0.45, 0.6, 0.75):
        flag, raised = threading.Event(), 0.0

        def say(flag: threading.Event = flag) -> None:
            nonlocal raised
            raised = time.perf_counter()
            flag.set()

        timer = threading.Timer(share * seconds, say)
        timer.start()
        try:
            run(flag.is_set)
        except Cancelled:
            worst = max(worst, time.perf_counter() - raised)
        timer.cancel()
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saes", type=int, default=4)
    parser.add_argument("--shrink", type=int, default=1, help="divide the features")
    parser.add_argument("--folder", help="make the files there, keep them, and take those that are there already")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", help="write all numbers to FILE, or - for stdout")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        found = measure(args.saes, FEATURES // args.shrink, args.repeat, folder)
    for name, numbers in found.items():
        print(f"{name:<12}" + "  ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
    if args.json:
        text = json.dumps(found, indent=1)
        print(text) if args.json == "-" else Path(args.json).write_text(text)
    limits = {"find w:": 1.5, "find r:": 1.5, "service w:": 1.5, "service r:": 1.5, "edges": 2.0}
    over = [f"{n}: {found[n]['ratio']:.2f} > {limit}" for n, limit in limits.items() if found[n]["ratio"] > limit]
    over += [f"{n}: {1000 * s:.0f} ms > 100 ms" for n, s in found["stop"].items() if s > 0.1]
    if over:
        print("beyond the limit: " + ", ".join(over), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
