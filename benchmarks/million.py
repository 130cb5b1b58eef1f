"""A million features: a random SAE of 1,048,576 features, mapped from disk, through the whole path with bounded memory.

``wbtui compute --no-daemon`` runs on a model folder of d_model 256 and 8,192 tokens; the peak of its *own* memory
(anonymous pages: what the system cannot drop) is watched from outside and compared with a run on a sixteenth of the
features. Beside the tile, whose size is the vocabulary's, two things are known to take room: shards are gathered to
64 MB before their columns are written, at either size, and drawing random directions like a dictionary's takes 17 bytes
a feature (which rows count, their numbers, an order of them). More growth than ``PER_FEATURE`` bytes is a failure.
Then the finished product is opened and one row read. Needs 2.6 GB of temporary disk. ``python -m benchmarks.million``;
``OMP_NUM_THREADS`` says how many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

FULL = 1_048_576
D_MODEL, VOCAB = 256, 8_192
BLOCK = 16_384
PER_FEATURE, SLACK_MB = 32, 32
"""Bytes by which memory may grow with each feature, and what an allocator may take one time and not another."""


def make_model(folder: Path) -> Path:
    """A random one-layer llama with a tokenizer of ``VOCAB`` tokens, saved by transformers."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [
        f"Ġ{a}{b}{c}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst" for c in "abcdefghijklmnopqrst"
    ]
    vocabulary = {text: i for i, text in enumerate([*alphabet, *words][:VOCAB])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=D_MODEL, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def make_sae(folder: Path, features: int) -> Path:
    """A random SAELens folder written block by block, never whole in memory."""
    folder.mkdir(parents=True)
    cfg = {
        "architecture": "standard", "d_in": D_MODEL, "d_sae": features, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"model_name": "model", "hook_name": "blocks.0.hook_resid_post", "sae_lens_version": "6.54.12"},
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(cfg))
    sizes = {"W_dec": [features, D_MODEL], "W_enc": [D_MODEL, features], "b_dec": [D_MODEL], "b_enc": [features]}
    header, at = {}, 0
    for name, shape in sizes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path = folder / "sae_weights.safetensors"
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + at)
    rng = np.random.default_rng(0)

    def tensor(name: str) -> np.memmap:
        begin = 8 + len(raw) + header[name]["data_offsets"][0]
        return np.memmap(path, np.float32, "r+", begin, tuple(sizes[name]))

    decoder, encoder = tensor("W_dec"), tensor("W_enc")
    for a in range(0, features, BLOCK):
        block = rng.standard_normal((min(BLOCK, features - a), D_MODEL), dtype=np.float32)
        decoder[a : a + BLOCK] = block
        encoder[:, a : a + BLOCK] = block.T
    for name in ("b_dec", "b_enc"):
        tensor(name)[...] = 0
    return folder


class OwnMemory(threading.Thread):
    """Watches a process's anonymous memory (and that of its children); ``peak_mb`` is the highest seen."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak_mb, self.over = pid, 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.peak_mb = max(self.peak_mb, sum(_anonymous(p) for p in [self.pid, *_children(self.pid)]) * 1024 / 1e6)


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def run(root: Path, model: Path, features: int) -> dict[str, Any]:
    """Compute one SAE's tokens product; seconds and peak memory, then the time to open it and read a row."""
    sae = make_sae(root / f"sae-{features}", features)
    env = {**os.environ, "WBTUI_CACHE_DIR": str(root / "cache")}
    command = [sys.executable, "-m", "wbtui", "compute", str(model), str(sae), "--no-daemon"]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    watch = OwnMemory(process.pid)
    watch.start()
    _, err = process.communicate()
    seconds = time.perf_counter() - start
    watch.over.set()
    if process.returncode:
        raise SystemExit(f"compute ended with {process.returncode}: {err[-2000:]}")
    from wbtui.service.worker import threads
    from wbtui.store.columns import Columns

    [path] = (root / "cache").glob("products/*/*/tokens-*/columns.safetensors")
    start = time.perf_counter()
    columns = Columns(path)
    row = {name: columns[name][features // 2] for name in columns.names}
    opened_ms = 1e3 * (time.perf_counter() - start)
    size = path.stat().st_size
    assert row
    columns.close()
    for old in (root / "cache" / "products").rglob("tokens-*/columns.safetensors"):
        old.unlink()
    (sae / "sae_weights.safetensors").unlink()
    return {
        "features": features,
        "threads": threads(),
        "seconds": seconds,
        "peak_mb": watch.peak_mb,
        "open_ms": opened_ms,
        "product_mb": size / 1e6,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if memory grew with the features."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--features", type=int, default=FULL)
    parser.add_argument("--json", help="file for all numbers")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = make_model(root / "model")
        small = run(root, model, args.features // 16)
        large = run(root, model, args.features)
    for found in (small, large):
        print(
            f"{found['features']:>9,} features: {found['seconds']:.0f} s, own memory up to {found['peak_mb']:.0f} MB; "
            f"product {found['product_mb']:.0f} MB, opened and one row read in {found['open_ms']:.1f} ms"
        )
    more, grown = large["features"] - small["features"], large["peak_mb"] - small["peak_mb"]
    allowed = PER_FEATURE * more / 1e6 + SLACK_MB
    met = grown <= allowed
    print(
        f"{more:,} features more: {grown:+.0f} MB, {1e6 * grown / more:.0f} bytes each (at most {PER_FEATURE} and "
        f"{SLACK_MB} MB: {'met' if met else 'MISSED'}); {large['threads']} thread(s)"
    )
    if args.json:
        Path(args.json).write_text(json.dumps({"small": small, "large": large, "grown_mb": grown}, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
