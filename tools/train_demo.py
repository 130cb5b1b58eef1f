#!/usr/bin/env python3
"""Make the embedded demo from scratch on a CPU: corpus, tokenizer, language model, SAEs, lift table, card.

    python tools/train_demo.py --wordnet /usr/share/wordnet --out wbtui/demo

WordNet 3.0's data files come from Debian's package `wordnet-base` or from Princeton's archive. Needs torch,
transformers, tokenizers and sae-lens; a C++ compiler makes it faster (torch.compile) but is not needed. The schedule
counts steps, seeds are fixed; results still differ in the last digits between machines and thread counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path

# Without these, glibc hands big buffers back to the system after every step and training loses about 30 %. They
# are read at process start only, hence the re-exec in main().
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "536870912",
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
}
CONTROL_LAYER = 3
WHOLE_WORDS, PIECES = 4600, 450


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--wordnet", type=Path, required=True, help="folder with data.noun, index.noun, ...")
    parser.add_argument("--out", type=Path, required=True, help="folder to fill (wbtui/demo)")
    parser.add_argument("--work", type=Path, help="keep intermediate results here and reuse what is finished")
    parser.add_argument("--steps", type=int, default=2400, help="steps of the language model")
    parser.add_argument("--sae-steps", type=int, default=1800, help="steps of each SAE")
    parser.add_argument(
        "--sae-tokens",
        type=int,
        default=1_200_000,
        help="tokens whose activations are stored once in fp16 for all layers (2.8 GB)",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--any-wordnet", action="store_true", help="accept files with other SHA-256 sums")
    return parser.parse_args(arguments)


def language_model(args: argparse.Namespace, work: Path) -> dict:
    """Corpus, tokenizer and language model into `work`; returns their record."""
    import numpy as np
    from demo import corpus, ngram, tokenizer, wordnet
    from demo import language_model as lm

    done = work / "language_model.json"
    if done.exists():
        say("the language model is already there")
        return json.loads(done.read_text())
    sums = wordnet.checksums(args.wordnet, strict=not args.any_wordnet)
    text = corpus.build(wordnet.read(args.wordnet), args.seed)
    say(f"corpus: {text.counts}")
    bpe = tokenizer.train(text.train, WHOLE_WORDS, PIECES)
    train, held_out = tokenizer.encode(bpe, text.train), tokenizer.encode(bpe, text.held_out)
    tokens = tokenizer.report(bpe, train)
    say(f"tokens: {tokens}")
    work.mkdir(parents=True, exist_ok=True)
    tokenizer.save(bpe, work / "model")
    np.save(work / "train.npy", train)
    np.save(work / "held_out.npy", held_out)
    baselines = ngram.baselines(train, held_out, bpe.get_vocab_size())
    say(f"baselines: {baselines}")
    model, record = lm.train(
        train, held_out, bpe.get_vocab_size(), lm.Settings(args.steps, args.seed, compiled=not args.no_compile), say
    )
    model.save_pretrained(work / "model_fp32")
    result = {
        "inputs_sha256": sums,
        "corpus": text.counts,
        "tokenizer": {**tokens, "held-out tokens": len(held_out)},
        "baselines_nats_per_token": baselines,
        "language_model": record,
    }
    done.write_text(json.dumps(result, indent=1))
    return result


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if any(os.environ.get(n) != v for n, v in ENVIRONMENT.items()):
        os.execve(
            sys.executable,
            [sys.executable, *sys.argv],
            {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(args.threads)},
        )
    import numpy as np
    import sae_lens
    import safetensors
    import torch
    import transformers
    from demo import card, lift, readout, saes, wordnet
    from demo import language_model as lm
    from demo.tokenizer import retire
    from transformers import AutoTokenizer, Gemma2ForCausalLM

    torch.set_num_threads(args.threads)
    work = args.work or args.out / "work"
    record = language_model(args, work)
    model_folder = args.out / "model"
    unused = retire(work / "model", model_folder)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    Gemma2ForCausalLM.from_pretrained(work / "model_fp32", dtype=torch.bfloat16).save_pretrained(model_folder)
    # Everything after this uses the rounded weights, exactly as they ship.
    model = Gemma2ForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager").eval()
    held_rows = lm.windows(np.load(work / "held_out.npy"))
    record["language_model"]["validation_nats_per_token_bf16_weights"] = round(lm.validation_loss(model, held_rows), 4)
    say(f"validation with rounded weights: {record['language_model']['validation_nats_per_token_bf16_weights']}")

    rows = lm.windows(np.load(work / "train.npy"))
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(args.seed))
    chosen = chosen[: args.sae_tokens // lm.WINDOW]
    stored: list[torch.Tensor] = []
    held, following = saes.collect(model, held_rows)
    read = readout.make(model, tokenizer)
    senses = wordnet.first_supersenses(wordnet.read(args.wordnet))
    layers = range(model.config.num_hidden_layers)
    plan = [(f"L{i}", i, args.seed, False) for i in layers]
    plan += [
        (f"L{CONTROL_LAYER}-seed2", CONTROL_LAYER, args.seed + 1, False),
        (f"L{CONTROL_LAYER}-control", CONTROL_LAYER, args.seed + 2, True),
    ]
    quality, tables, judged, decoders = {}, {}, {}, {}
    some = held_rows[:128]
    clean_loss = saes.spliced_loss(model, some, 0, None)
    for name, layer, seed, frozen in plan:
        finished = work / "saes" / name
        if not (finished / "info.json").exists():
            if not stored:
                stored, _ = saes.collect(model, rows[chosen])
                say(f"activations of {len(stored[0])} tokens stored")
            sae, info = saes.train(stored[layer], args.sae_steps, seed, frozen)
            note = "decoder frozen at random unit directions: a control" if frozen else "trained on the demo's own text"
            saes.export(sae, finished, layer, sae_lens.__version__, seed, note)
            (finished / "info.json").write_text(json.dumps(info))
        info = json.loads((finished / "info.json").read_text())
        folder = args.out / "saes" / name
        shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("info.json"), dirs_exist_ok=True)
        loaded = sae_lens.SAE.load_from_disk(folder, device="cpu").to(torch.float32)
        quality[name] = {**info, **saes.measure(loaded.encode, loaded.decode, held[layer])}
        decoders[name] = decoder = loaded.W_dec.detach().float()
        with torch.no_grad():
            loss = saes.spliced_loss(model, some, layer, lambda x, sae=loaded: sae.decode(sae.encode(x)))
        quality[name]["loss_increase_when_spliced_in"] = round(loss - clean_loss, 4)
        fires = saes.firing(loaded.encode, held[layer])
        tables[name] = {"layer": layer, **lift.lifts(fires, following, read.top(decoder)[0], len(read.names))}
        judged[name] = readout.judge(read, decoder, senses)
        say(
            f"{name}: EV {quality[name]['explained_variance']} L0 {quality[name]['L0']} dead {quality[name]['dead']} "
            f"lift {tables[name]['median_lift']} control {tables[name]['control_median_lift']} "
            f"pure {judged[name]['pure_share']} noise {judged[name]['pure_share_noise']} ({info['seconds']} s)"
        )
    same_layer = decoders[f"L{CONTROL_LAYER}"]
    record["agreement_at_layer_3"] = {
        n: saes.agreement(same_layer, decoders[f"L{CONTROL_LAYER}-{n}"]) for n in ("seed2", "control")
    }
    record["mask"] = {
        "masked_tokens": int((~read.keep).sum()),
        "cut": 0.7,
        "neighbours": 10,
        "retired_tokens": len(unused),
    }
    record["saes"] = {n: {**q, **{k: v for k, v in judged[n].items() if k != "rows"}} for n, q in quality.items()}
    record["settings"] = {
        "seed": args.seed,
        "threads": args.threads,
        "batch_tokens": lm.BATCH * (lm.WINDOW + 1),
        "sae_width": saes.WIDTH,
        "sae_k": saes.K,
        "sae_batch": saes.BATCH,
        "sae_learning_rate": saes.LEARNING_RATE,
        "sae_stored_tokens": len(chosen) * (lm.WINDOW - 1),
    }
    record["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sae_lens": sae_lens.__version__,
        "safetensors": safetensors.__version__,
        "numpy": np.__version__,
    }
    (args.out / "lift.json").write_text(
        json.dumps(
            {"uses_data": True, "note": lift.NOTE, "tokens": len(following), "top": readout.TOP, "saes": tables},
            separators=(",", ":"),
        )
        + "\n"
    )
    (args.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    work.mkdir(parents=True, exist_ok=True)
    (work / "judged.json").write_text(json.dumps(judged))
    (args.out / "MODEL_CARD.md").write_text(card.text(record, tables, judged))
    licence = next(
        (p for p in (args.wordnet / "LICENSE", Path("/usr/share/doc/wordnet-base/copyright")) if p.exists()), None
    )
    if licence:
        shutil.copyfile(licence, args.out / "LICENSE-wordnet.txt")
    if not args.work:
        shutil.rmtree(work)
    size = sum(p.stat().st_size for p in args.out.rglob("*") if p.is_file())
    say(f"done: {size / 1e6:.1f} MB in {args.out}")


if __name__ == "__main__":
    main()
