"""Write the demo's model card from its record: plain words, and every figure beside its control."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Sequence

EXAMPLES = 12


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return _row(head) + _row(["---"] * len(head)) + "".join(_row(r) for r in rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _list(row: dict) -> str:
    return "`" + " ".join(t.replace("Ġ", "_").replace("`", "'") for t in row["top"]) + "`"


def _reflow(markdown: str) -> str:
    """Fill paragraphs again: figures put into a sentence change the length of its lines."""
    blocks = []
    for block in markdown.split("\n\n"):
        start = block.lstrip("\n")[:2]
        if start == "* ":
            items = [" ".join(item.split()) for item in block.lstrip("\n* ").split("\n* ")]
            block = "\n".join(textwrap.fill(item, 110, initial_indent="* ", subsequent_indent="  ") for item in items)
        elif start[:1] not in "#|":  # headings and tables keep their lines
            block = textwrap.fill(" ".join(block.split()), 110)
        blocks.append(block)
    return "\n\n".join(blocks).rstrip() + "\n"


def _examples(judged: dict, layer: str) -> str:
    rows = judged[layer]["rows"]
    rest = random.Random(0).sample(rows[EXAMPLES:], 6)
    return (
        f"\n### {layer}: the first {EXAMPLES} rows of the app's own order\n\n"
        + _table(["feature", "ten highest tokens"], [[r["feature"], _list(r)] for r in rows[:EXAMPLES]])
        + f"\n{layer}: six features drawn at random from the rest, for honesty\n\n"
        + _table(["feature", "ten highest tokens"], [[r["feature"], _list(r)] for r in rest])
    )


def text(record: dict, tables: dict, judged: dict) -> str:
    lm, tokens, base = record["language_model"], record["tokenizer"], record["baselines_nats_per_token"]
    quality, agree = record["saes"], record["agreement_at_layer_3"]
    noise = next(iter(judged.values()))
    noise_share, noise_6 = noise["pure_share_noise"], noise["pure_share_6_noise"]
    last = f"L{max(t['layer'] for t in tables.values())}"
    corpus_table = _table(["", "count"], [[k, f"{v:,}"] for k, v in record["corpus"].items()])
    loss_table = _table(
        ["held-out text", "nats per token"],
        [
            ["unigram", base["unigram"]],
            ["bigram, Kneser-Ney", base["bigram_kneser_ney"]],
            ["trigram, Kneser-Ney", base["trigram_kneser_ney"]],
            ["**this model**", f"**{lm['validation_nats_per_token_bf16_weights']}**"],
        ],
    )
    sae_table = _table(
        [
            "SAE",
            "explained variance",
            "L0",
            "silent features",
            "fire on > 10 % of tokens",
            "loss added when spliced in (nats)",
        ],
        [
            [
                n,
                q["explained_variance"],
                q["L0"],
                f"{q['dead']} ({_percent(q['dead_share'])})",
                q["firing_over_10_percent"],
                q["loss_increase_when_spliced_in"],
            ]
            for n, q in quality.items()
        ],
    )
    lift_table = _table(
        ["SAE", "features", "median lift", "lift > 3", "median hit rate", "control: median lift", "control: lift > 3"],
        [
            [
                n,
                t["features"],
                t["median_lift"],
                _percent(t["share_above_3"]),
                _percent(t["median_hit_rate"]),
                t["control_median_lift"],
                _percent(t["control_share_above_3"]),
            ]
            for n, t in tables.items()
        ],
    )
    pure_table = _table(
        ["SAE", "4 of 10", "6 of 10", "tokens that are whole words", "z of the tenth token above 99 % of noise"],
        [
            [
                n,
                _percent(q["pure_share"]),
                _percent(q["pure_share_6"]),
                _percent(q["word_share"]),
                _percent(q["above_null_p99_z10"]),
            ]
            for n, q in quality.items()
        ],
    )
    return _reflow(f"""# The embedded demo of wbtui

A very small language model and {len(quality)} sparse autoencoders (SAEs), trained from scratch on a CPU so that
every screen of
the app has something real to show without a download. Nothing here is a useful language model.

## Data and licence

The text was written by a script from the data files of **WordNet 3.0** (Princeton University): glosses of frequent
words,
relations as sentences ("shad, bass and tuna are kinds of fish."), and lists of words from one subtree. The files
came from
Debian's package `wordnet-base`; their SHA-256 sums are in `training.json`, the licence in `LICENSE-wordnet.txt`.

WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. The name of Princeton University may not be
used
in advertising or publicity; this demo is not endorsed by it.

Synsets whose gloss marks them as offensive, vulgar, sexual or the like, and every text with a word from a list of
about four
hundred, were left out, and so was all text beyond ASCII
({record["corpus"].get("synsets dropped by the filter", 0):,} synsets together).
The filter is a list: it may have missed something, and it also dropped harmless words.

{corpus_table}
## Tokenizer

Byte-level BPE with {tokens["vocabulary"]:,} entries; frequent words are whole entries, found directly
(`ignore_merges`).
{_percent(tokens["share of vocabulary that starts a word of 3+ letters"])} of the entries are whole words of at
least three letters;
{tokens["tokens seen fewer than 100 times"]:,} entries occur fewer than 100 times in the
{tokens["training tokens"]:,} training tokens. It knows
only ASCII.

## Language model

Gemma-2 architecture: hidden size 192, 6 layers, 4 heads, 2 key/value heads, head size 48, feed-forward 512, tied
embeddings,
{lm["parameters"]:,} parameters, weights rounded to bf16. Muon for the matrices, AdamW for the rest; {lm["steps"]:,}
steps =
{lm["tokens"] / 1e6:.2f} million tokens ({lm["epochs"]:.2f} passes) in {lm["seconds"] / 60:.0f} minutes on
{record["settings"]["threads"]} cores,
{"bf16 autocast" if lm["bf16_autocast"] else "fp32"}.

{loss_table}
Two percent of the groups of documents were held out. The split is not free of leaks: a fact can stand in a gloss on
one side
and in a list on the other. The n-gram tables profit from the same leak.

## SAEs

Width {record["settings"]["sae_width"]}, about {record["settings"]["sae_k"]} active features per token, JumpReLU
with one threshold, trained on
`resid_post` of every layer without the `<bos>` position. `L3-seed2` is a second seed at layer 3; `L3-control` has a
decoder
frozen at random unit directions. Measured on held-out text, through SAELens, from the files as shipped:

{sae_table}
Two seeds at layer 3: {_percent(agree["seed2"]["mutual_cosine_above_0.7"])} of the features have a mutual nearest
neighbour above cosine 0.7
({_percent(agree["seed2"]["mutual_cosine_above_0.9"])} above 0.9); against the control
{_percent(agree["control"]["mutual_cosine_above_0.7"])}.

## Does the next token fall in the list that the weights name?

This is the one part that uses text (`lift.json`). Lift 1 = no prediction; the control takes another feature's list.

{lift_table}
At layer 0 a feature often names the token that has just been read (the embeddings are tied): identity rather
than prediction.
The control SAE, which could not choose its directions, stays far below the trained ones.

## Are the lists about something?

Share of features with at least 4 (6) of the ten tokens in one WordNet supersense, counting the first sense of each
part of
speech. Random directions reach {_percent(noise_share)} ({_percent(noise_6)}): with a vocabulary of whole words the
mild count is met by chance, so
look at the strict one. The judge is not independent: the corpus was made from the same WordNet.

{pure_table}
The lists leave out {record["mask"]["masked_tokens"]} tokens: special ones,
{record["mask"]["retired_tokens"]} entries that spell a vulgar word and
were retired after training (`<unused0>` …), and under-trained ones found from
weights (at least
{record["mask"]["neighbours"]} neighbours at centred cosine above {record["mask"]["cut"]}).
{_examples(judged, "L3")}{_examples(judged, last)}
## What it can not do

* It does not write sensible text, knows no facts beyond word lists, and reads only plain ASCII English.
* Phrases that the corpus repeats ("are kinds of", "mean the same") have strong features of their own; they come out
  on top of
  some orders and mean nothing more than the template.
* WordNet lists rare meanings too: a "fruit" list may hold a grape called `emperor`, a "clothing" list `tails` and
  `threads`.
* One training run: differences of a few percent between layers are not established. Figures about a
  four-million-parameter
  model on dictionary text say nothing about large models.
* It repeats the view of the world of a dictionary of 2006, written in the United States.

Made by `tools/train_demo.py`; the full record is `training.json`.
""")
