"""Are the top-25 lists at real shapes those of the plain fp32 product, ids exactly and ties by id?

The reference is one ``torch.mm`` per block and a stable sort, written here, without wbtui's slices, tiles, blocks or
two-level selection. The weights are multiples of 2**-6, as in bf16 checkpoints rounded further: fp32 products of them
are exact, so the two sides must agree to the bit, ties included. ``--products`` takes the big product in fewer bits;
``--weights gaussian`` are inexact in fp32, and then the two fp32 products must also round alike. ``python -m
benchmarks.exact``.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import SHAPES, made_up_vocabulary
from wbtui.analysis.side import prepare_side
from wbtui.analysis.streaming import TileBuffer
from wbtui.analysis.tokens import token_rows
from wbtui.definitions import TokensDefinition

K = 25
BLOCK = 128


def dyadic(n: int, dim: int, seed: int) -> torch.Tensor:
    """Multiples of 2**-6 between -2 and 2, ``[n, dim]``, bf16 (exact)."""
    out = torch.empty((n, dim), dtype=torch.bfloat16)
    rng = torch.Generator().manual_seed(seed)
    for a in range(0, n, 8192):
        block = out[a : a + 8192]
        block.copy_((torch.randn(block.shape, generator=rng) * 20).round().clamp(-127, 127) / 64)
    return out


def gaussian(n: int, dim: int, seed: int) -> torch.Tensor:
    """bf16 rows without structure, ``[n, dim]``."""
    out = torch.empty((n, dim), dtype=torch.bfloat16)
    rng = torch.Generator().manual_seed(seed)
    for a in range(0, n, 8192):
        block = out[a : a + 8192]
        block.copy_(torch.randn(block.shape, generator=rng) * 0.05)
    return out


def lists(scores: np.ndarray, ids: np.ndarray, k: int, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` best by value, equal ones by smaller id, of each row, by a plain cut and a sort."""
    found_ids, found = [], []
    for row in sign * scores:
        cut = np.partition(row, -k)[-k]
        at = np.flatnonzero(row >= cut)
        order = np.lexsort((ids[at], -row[at]))[:k]
        found_ids.append(ids[at][order])
        found.append(sign * row[at][order])
    return np.stack(found_ids), np.stack(found)


def check(name: str, features: int, product: str, weights: str) -> dict[str, int]:
    """How many of a shape's lists differ in any id or value, and how many hold a tie."""
    shape = SHAPES[name]
    make = dyadic if weights == "dyadic" else gaussian
    tokens = make(shape.vocab, shape.d_model, 0)
    keep = np.random.default_rng(1).random(shape.vocab) >= 0.02
    side = prepare_side(
        tokens,
        centre_values=False,
        keep=keep,
        definition=TokensDefinition(),
        product=product,
        **made_up_vocabulary(shape.vocab),
    )
    plain = tokens.float()
    del tokens
    d = make(features, shape.d_model, 2).float() + (0 if weights == "dyadic" else 2.0**-12)
    ids = np.flatnonzero(keep).astype(np.int32)
    buffer = TileBuffer()
    wrong = ties = ids_wrong = 0
    for a in range(0, features, 512):
        rows = token_rows(d[a : a + 512], side, buffer=buffer)
        for b in range(a, min(features, a + 512), BLOCK):
            scores = torch.mm(d[b : b + BLOCK], plain.T).numpy()[:, keep]
            for which, sign in (("top", 1), ("bottom", -1)):
                want_ids, want = lists(scores, ids, K, sign)
                got = slice(b - a, b - a + len(want))
                same = (rows[f"{which}_ids"][got] == want_ids) & (rows[f"{which}_values"][got] == want)
                wrong += int((~same.all(1)).sum())
                ids_wrong += int((rows[f"{which}_ids"][got] != want_ids).any(1).sum())
                ties += int((want[:, 1:] == want[:, :-1]).any(1).sum())
    return {"lists": 2 * features, "wrong": wrong, "ids_wrong": ids_wrong, "with_ties": ties}


def main(argv: list[str] | None = None) -> int:
    """Check and print; 1 if any list is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", nargs="+", default=["gpt2-small", "gemma-2-2b"], choices=list(SHAPES))
    parser.add_argument("--features", type=int, default=2000)
    parser.add_argument("--products", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "fp16", "tf32"])
    parser.add_argument("--weights", nargs="+", default=["dyadic"], choices=["dyadic", "gaussian"])
    parser.add_argument("--json", help="file for all numbers")
    args = parser.parse_args(argv)
    out = {}
    for name, product, weights in itertools.product(args.shapes, args.products, args.weights):
        found = out[f"{name} {product} {weights}"] = check(name, args.features, product, weights)
        print(
            f"{name}, {product} product, {weights}: {found['wrong']} of {found['lists']:,} lists differ "
            f"({found['ids_wrong']} in an id); {found['with_ties']:,} hold ties",
            flush=True,
        )
    if args.json:
        Path(args.json).write_text(json.dumps(out, indent=2) + "\n")
    return 1 if any(found["wrong"] for found in out.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
