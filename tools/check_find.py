"""Do the features that ``find`` names for a word predict it? The only check of queries that looks at text.

    python tools/check_find.py --wordnet /usr/share/wordnet [word …]

The demo's held-out text is written again from WordNet 3.0 (see ``train_demo.py``). For each word: its ten best features
over all layers by ``w:word``; of each that fires at least 30 times, the share of its strongest quarter of firings whose
next token is a spelling of the word, over the frequency of these tokens (0.001 added to both). Beside it the same for
features chosen at random from the same layers. Nothing of it is shipped as evidence: figures are printed as a table.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from demo import corpus, lift, saes, wordnet
from demo import language_model as lm

from wbtui.catalog.models import DEMO_DIR, find_model
from wbtui.catalog.plan import plan_tokens
from wbtui.catalog.saes import find_sae
from wbtui.compute.ask import compute_ask
from wbtui.compute.work import ShardTask, compute_shard
from wbtui.definitions import DEFINITIONS

WORDS = ("island", "red", "fish", "music", "river", "war", "north", "plant", "the", "of", "blood", "language")
LAYERS = range(6)
TOP, RANDOM = 10, 60


def lift_of(fires: np.ndarray, following: np.ndarray, ids: list[int]) -> float | None:
    """One feature's lift of some tokens; None where it fires too seldom."""
    where = np.flatnonzero(fires > 0)
    if len(where) < lift.MIN_FIRINGS:
        return None
    take = max(lift.MIN_TAKEN, len(where) // 4)
    strongest = where[np.argsort(-fires[where], kind="stable")[:take]]
    hit = float(np.isin(following[strongest], ids).mean())
    return (hit + lift.FLOOR) / (float(np.isin(following, ids).mean()) + lift.FLOOR)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    import sae_lens
    from transformers import AutoTokenizer, Gemma2ForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("words", nargs="*", default=WORDS)
    args = parser.parse_args(argv)
    text = corpus.build(wordnet.read(args.wordnet), seed=0)
    folder = DEMO_DIR / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Gemma2ForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    eos = tokenizer.eos_token_id
    tokens = [t for document in text.held_out for t in [*tokenizer(document, add_special_tokens=False).input_ids, eos]]
    held, following = saes.collect(model, lm.windows(np.array(tokens, dtype=np.uint16)))
    after = following.numpy()
    fires = {}
    for layer in LAYERS:
        sae = sae_lens.SAE.load_from_disk(DEMO_DIR / "saes" / f"L{layer}", device="cpu").to(torch.float32)
        fires[layer] = saes.firing(sae.encode, held[layer])
    demo = find_model("demo")
    rng, rows = random.Random(0), []
    with tempfile.TemporaryDirectory() as cache:
        plan = plan_tokens(demo, find_sae(demo, "L3"), DEFINITIONS["folded"], Path(cache))
        compute_shard(ShardTask(cache, plan.vocab.to_json()))
        for word in args.words:
            request = {"cache": cache, "spec": plan.tokens.to_json(), "what": "find",
                       "args": {"query": f"w:{word}", "all_layers": True, "top": TOP}}  # fmt: skip
            answer = compute_ask(request)
            ids = [t["id"] for t in answer["words"][0]["tokens"]]
            hits = [lift_of(fires[h["layer"]][:, h["feature"]], after, ids) for h in answer["hits"]]
            others = [
                lift_of(fires[layer][:, rng.randrange(fires[layer].shape[1])], after, ids)
                for layer in [h["layer"] for h in answer["hits"]] * (RANDOM // TOP)
            ]
            known, control = [v for v in hits if v is not None], [v for v in others if v is not None]
            rows.append(
                {
                    "word": word, "share_of_text": float(np.isin(after, ids).mean()), "hits": len(known),
                    "best": max(known, default=None), "median": float(np.median(known)) if known else None,
                    "random_median": float(np.median(control)), "random_mean": float(np.mean(control)),
                    "mean": float(np.mean(known)) if known else None,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    print(f"{len(after)} held-out tokens")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
