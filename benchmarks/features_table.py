"""Times of everything the app does with a table, at 131k and a million features: `python -m benchmarks.features_table`.

Columns are invented (no weights needed); every figure is the median of a few runs on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wbtui.features.noise import METRICS, NullSample
from wbtui.features.order import order
from wbtui.features.populations import Population, from_flag
from wbtui.features.query import parse
from wbtui.features.summary import summary
from wbtui.features.table import FeatureTable
from wbtui.features.vocabulary import Vocabulary
from wbtui.store.columns import Columns
from wbtui.store.writer import write_columns

VOCABULARY = 256_000


def synthetic(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The columns that classes, evidence, text search and sorting read."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for side in ("writes", "reads"):
        z = np.sort(rng.standard_normal((n, 20), dtype=np.float32) + 4, axis=1)[:, ::-1]
        out[f"{side}.word_z"] = np.ascontiguousarray(z)
        out[f"{side}.top_ids"] = rng.integers(0, VOCABULARY, (n, 25), dtype=np.int32)
        for name in (*METRICS, "word_share", "h_kappa"):
            out[f"{side}.{name}"] = rng.standard_normal(n, dtype=np.float32)
        out[f"{side}.z_max"] = out[f"{side}.word_z"][:, 0].copy()
    return out


def timed(call: Callable[[], object], before: Callable[[], object] | None = None, runs: int = 5) -> float:
    """Median milliseconds of a call; ``before`` each is not counted."""
    times = []
    for _ in range(runs):
        if before is not None:
            before()
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure(n: int) -> dict[str, float]:
    """Milliseconds by action for ``n`` features."""
    texts = [f" {a}{b}{c}" for a in "abcdefghijklmnopqrst" for b in range(80) for c in range(160)]
    table = FeatureTable.from_arrays(
        synthetic(n),
        vocab=Vocabulary.from_texts(texts[:VOCABULARY]),
        nulls=[NullSample("isotropic", 0, synthetic(2000, 1)), NullSample("decoder_cov", 0, synthetic(2000, 2))],
    )
    table.thresholds.side("writes")
    out: dict[str, float] = {}

    def forget() -> None:
        table._cache.clear()

    def forget_strings() -> None:
        assert table.vocab is not None
        table.vocab._searches.clear()

    start = time.perf_counter()
    parse("a1").mask(table)
    out["first text search (builds its columns)"] = (time.perf_counter() - start) * 1e3
    out["classes of one side"] = timed(lambda: table.column("class"), forget)
    out["evidence of one side"] = timed(lambda: table.column("evidence"), forget)
    out["first_view"] = timed(lambda: table.column("first_view"), forget)
    out["moving a threshold, classes again"] = timed(
        lambda: table.column("class"),
        lambda: table.with_thresholds(table.thresholds.fix("writes.cos_tok", time.perf_counter())),
    )
    for label, text in (
        ("one token", "a12159"), ("160 tokens", "a12"), ("12,800 tokens", "k"), ("each token", "1"),
        ("regex", "re:^.k1.5$"),
    ):  # fmt: skip
        query = parse(text)
        out[f"keystroke, text of {label}"] = timed(lambda query=query: query.mask(table), forget_strings)  # type: ignore[misc]
    table.column("class"), table.column("semantic")
    for text in ("z_max>6", "semantic z_max>6 !same", "semantic k1 evidence>1"):
        query = parse(text)
        out[f"filter {text}"] = timed(lambda query=query: query.mask(table))  # type: ignore[misc]
    for keys in ([("z_max", True)], [("evidence", True), ("z_max", True)], [("class", True), ("z_max", True)],
                 [("word_share", True), ("z_10", True)], [("n_words", True)]):  # fmt: skip
        label = " ".join(name for name, _ in keys)
        table.column(keys[0][0])
        out[f"sort {label}"] = timed(lambda keys=keys: order(table, keys), runs=3)  # type: ignore[misc]
    out["percentile column"] = timed(lambda: table.column("percentile:z_max"), forget, runs=3)
    out["words of 40 rows"] = timed(lambda: [table.words(row) for row in range(40)])
    out["record of one row"] = timed(lambda: table.record(7))
    out["summary"] = timed(lambda: summary(table), forget, runs=1)
    population = Population(table.column("z_max"))
    metric = np.random.default_rng(1).standard_normal(n)

    def labelled() -> None:
        split = population.split(from_flag("x", metric > 0.1, None, ""))
        split.effect(), split.stats(0), split.stats(1), split.beyond(1.0)

    out["population under new labels"] = timed(labelled)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        write_columns(path, {f"c{i}": np.zeros((1000, 5), np.float32) for i in range(80)}, {})
        out["opening a file of 80 columns"] = timed(lambda: Columns(path))
        columns = Columns(path)
        out["one row of one of its columns"] = timed(lambda: columns["c7"][500])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[131_072, 1_000_000])
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    sizes = arguments.sizes
    results = [measure(n) for n in sizes]
    print("milliseconds".ljust(44) + "".join(f"{n:>12,}" for n in sizes))
    for name in results[0]:
        print(name.ljust(44) + "".join(f"{result[name]:12.2f}" for result in results))
    if arguments.json:
        table = {str(n): result for n, result in zip(sizes, results, strict=True)}
        arguments.json.write_text(json.dumps({"unit": "ms", "rows": table}))


if __name__ == "__main__":
    main()
