"""A byte-level BPE in which nearly every frequent word is one token.

Plain BPE spends much of a small vocabulary on merges that only lead to longer ones ("Ġcylind"); no text uses
them, so they stay untrained. Here frequent words enter the vocabulary whole, found directly because of
`ignore_merges` (Llama 3 does the same), and a small BPE trained on the remaining words spells those.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from .clean import is_retired

SPECIAL = ["<pad>", "<eos>", "<bos>"]
EOS, BOS = 1, 2


def train(documents: list[str], whole_words: int, pieces: int) -> Tokenizer:
    """`whole_words` frequent words as tokens of their own, and a BPE of `pieces` entries for the rest."""
    pre = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(word for word, _ in pre.pre_tokenize_str(document))
    words = [w for w, _ in counts.most_common() if re.fullmatch(r"Ġ?[A-Za-z]+", w)][:whole_words]
    # Frequent punctuation, never numbers: digits stay single, or years would be hundreds of rare tokens.
    words += [w for w, n in counts.items() if n >= 300 and not re.search(r"[A-Za-z0-9]", w) and len(w) > 1]
    known = set(words)
    # Square root of the count: each rare word is shown some times, not the commonest ones most of the time.
    sample = [
        w.replace("Ġ", " ")
        for w, n in sorted(counts.items())
        if w not in known and not re.search(r"\d", w)
        for _ in range(max(1, round(n**0.5)))
    ]
    alphabet = sorted({character for word in counts for character in word})
    small = Tokenizer(models.BPE())
    small.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # Only characters that occur: the full byte alphabet would be some hundred tokens without any training.
    small.train_from_iterator(
        sample,
        trainers.BpeTrainer(vocab_size=pieces, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    model = json.loads(small.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(m) for m in model["merges"]], ignore_merges=True))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    """One stream: documents joined by <eos>, each encoded on its own."""
    stream: list[int] = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        stream += encoding.ids
        stream.append(EOS)
    return np.asarray(stream, dtype=np.int32)


def report(tokenizer: Tokenizer, stream: np.ndarray) -> dict[str, float]:
    """How many tokens are whole words, and how many are hardly ever seen."""
    size = tokenizer.get_vocab_size()
    seen = np.bincount(stream, minlength=size)
    names = [tokenizer.id_to_token(i) or "" for i in range(size)]
    begins = np.array([bool(re.fullmatch(r"Ġ[A-Za-z]{3,}", n)) for n in names])
    return {
        "vocabulary": size,
        "training tokens": len(stream),
        "tokens seen fewer than 100 times": int((seen < 100).sum()),
        "tokens seen fewer than 20 times": int((seen < 20).sum()),
        "share of vocabulary that starts a word of 3+ letters": round(float(begins.mean()), 4),
    }


def retire(source: Path, target: Path) -> list[str]:
    """Copy the tokenizer, with entries that no list may show turned into special tokens `<unused…>`.

    The model was trained with them, so their ids and embedding rows stay; special tokens are masked everywhere.
    Text that contains such a word is spelled with other pieces.
    """
    data = json.loads((source / "tokenizer.json").read_text())
    model = data["model"]
    unused: list[str] = []
    for token in sorted(t for t in model["vocab"] if is_retired(t)):
        name = f"<unused{len(unused)}>"
        model["vocab"] = {name if t == token else t: i for t, i in model["vocab"].items()}
        model["merges"] = [m for m in model["merges"] if token not in (*m, "".join(m))]
        unused.append(name)
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(unused)
    save(tokenizer, target, unused)
    return unused


def save(tokenizer: Tokenizer, folder: Path, unused: Sequence[str] = ()) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        model_max_length=256,
        extra_special_tokens=list(unused),
    ).save_pretrained(folder)
