"""Turn WordNet into text that a very small model can learn from.

Three kinds of document, one line each: glosses, relations as sentences, and lists of words from one subtree.
Lists come first in their sentence ("robin, owl and hawk are kinds of bird."), so that the model must learn to
continue a set instead of a template. Only frequent words are kept: a token that training hardly ever sees
gets a meaningless embedding, and every list of tokens would show it.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from . import clean
from .wordnet import WORD, Synset, word_frequencies

FREQUENT_WORDS = 10_500
LIST_WORDS = 7_000  # members of lists are chosen from fewer words, so that each is seen often
GLOSS_SHARE = 0.96  # of a gloss's words must be frequent
GROUP = 6  # documents about neighbouring meanings stay together, so that context helps
HELD_OUT = 0.02
SHARED = {
    "n": ("are kinds of {}.", "are all types of {}.", "belong to the class {}."),
    "v": ("are ways to {}.", "all mean to {} in some way.", "are manners to {}."),
}


@dataclass
class Corpus:
    """Documents, split into training and held-out text, and what they were made of."""

    train: list[str]
    held_out: list[str]
    counts: dict[str, int]


class Writer:
    """Writes the documents about each synset."""

    def __init__(self, synsets: dict[str, Synset], seed: int) -> None:
        self.random = random.Random(seed)
        self.synsets = synsets
        self.frequency = word_frequencies(synsets)
        self.vocabulary = {w for w, _ in self.frequency.most_common(FREQUENT_WORDS)}
        self.list_words = {w for w, _ in self.frequency.most_common(LIST_WORDS)}
        self.kept: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        for key, synset in synsets.items():
            text = synset.gloss + " " + " ".join(synset.lemmas)
            if not text.isascii() or not clean.is_clean(text):
                self.counts["synsets dropped by the filter"] += 1
                continue
            lemmas = [
                lemma
                for lemma in synset.lemmas
                if all(word in self.vocabulary for word in WORD.findall(lemma.lower()))
                and re.fullmatch(r"[A-Za-z][A-Za-z' -]+", lemma)
            ]
            if lemmas:
                self.kept[key] = lemmas
        self.children: dict[str, list[str]] = defaultdict(list)
        for key, synset in synsets.items():
            for parent in synset.targets("@", "@i"):
                self.children[parent].append(key)

    def name(self, key: str) -> str | None:
        lemmas = self.kept.get(key)
        return lemmas[0] if lemmas else None

    def listing(self, words: list[str]) -> str:
        return ", ".join(words[:-1]) + (" and " if self.random.random() < 0.7 else ", ") + words[-1]

    def gloss(self, key: str) -> list[str]:
        lemmas, synset = self.kept[key], self.synsets[key]
        words = WORD.findall(synset.gloss.lower())
        if not words or sum(w in self.vocabulary for w in words) < GLOSS_SHARE * len(words):
            return []
        definition = re.sub(r"\([^)]*\)\s*", "", synset.gloss.split('"')[0]).strip(" ;:,")
        if len(definition) < 8:
            return []
        examples = "".join(f' "{e.strip(" ;,")}"' for e in re.findall(r'"([^"]+)"', synset.gloss)[:2])
        chance = self.random.random()
        parents = [n for n in map(self.name, synset.targets("@", "@i")) if n]
        if chance < 0.25:  # definition first: the model must find the word
            return [f"{definition}: {self.listing(lemmas) if len(lemmas) > 1 else lemmas[0]}.{examples}"]
        head = ", ".join(lemmas)
        if chance < 0.6 and parents:  # the parent is a varied label; a fixed set of labels would be one feature
            head += f", {'a kind of' if key[0] == 'n' else 'to'} {parents[0]}"
        return [f"{head}: {definition}.{examples}"]

    def _some(self, keys: list[str], most: int = 10) -> list[str]:
        names = sorted({n for n in map(self.name, keys) if n})
        self.random.shuffle(names)
        return names[:most]

    def relations(self, key: str) -> list[str]:
        synset, name = self.synsets[key], self.name(key)
        out: list[str] = []
        if not name:
            return out
        pos, pick = key[0], self.random.choice
        for symbols, endings in (
            (("%p",), ("are parts of {}.", "belong to {}.", "can be found in {}.")),
            (("%m", "%s"), ("are members of {}.", "make up {}.")),
            (("~i",), ("are examples of {}.", "are names of {}.")),
            (("-c",), ("are words about {}.", "are used in {}.")),
            (("=",), ("describe {}.",) if pos == "n" else ()),
            (("&",), ("are like {}.", "are close to {}.")),
        ):
            members = self._some(synset.targets(*symbols), 12)
            if endings and len(members) >= 2:
                out.append(f"{self.listing(members)} {pick(endings).format(name)}")
        for at in range(0, len(self.children[key]), 10):
            members = self._some(self.children[key][at : at + 10])
            if len(members) >= 2 and pos in SHARED:
                out.append(f"{self.listing(members)} {pick(SHARED[pos]).format(name)}")
        if len(self.kept[key]) > 1 and pos in "nva":
            words = self.random.sample(self.kept[key], len(self.kept[key]))
            out.append(f"{self.listing(words)} {pick(('mean the same.', 'are words for one thing.'))}")
        if pos in "av":
            for symbol, target, source, end in synset.pointers:
                if symbol == "!" and source and target in self.kept and key < target:
                    pair = [synset.lemmas[source - 1], self.synsets[target].lemmas[end - 1]]
                    if all(clean.is_clean(w) for w in pair):
                        out.append(f"{pair[0]} is the opposite of {pair[1]}.")
        return out

    def _members(self, key: str, memo: dict[str, dict[str, float]]) -> dict[str, float]:
        """Single words below a synset with sampling weights: frequent words in their commonest sense first."""
        if key in memo:
            return memo[key]
        found: dict[str, float] = {}
        memo[key] = found
        below = self.children[key] + (self.synsets[key].targets("&") if key[0] == "a" else [])
        for child in below:
            synset = self.synsets[child]
            for lemma, rank in zip(synset.lemmas, synset.ranks, strict=True):
                if (
                    lemma in self.kept.get(child, ())
                    and lemma.lower() in self.list_words
                    and lemma.isalpha()
                    and len(lemma) > 2
                    and rank <= 2
                ):
                    # Nearly flat, so that lists teach the rarer words; a second sense confuses more than it tells.
                    weight = min(self.frequency[lemma.lower()], 100) ** 0.3 * (1.0 if rank == 1 else 0.25)
                    found[lemma] = max(found.get(lemma, 0.0), weight)
            if key[0] != "a":
                for lemma, weight in self._members(child, memo).items():
                    found[lemma] = max(found.get(lemma, 0.0), weight)
        return found

    def lists(self, key: str, memo: dict[str, dict[str, float]], factor: float) -> list[str]:
        name = self.name(key)
        members = self._members(key, memo)
        # Very large subtrees ("entity") say nothing about their words.
        if not name or not 6 <= len(members) <= 450:
            return []
        words, weights = list(members), list(members.values())
        out = []
        for _ in range(min(round(factor * len(words) / 5) + 1, 500)):
            chosen = list(dict.fromkeys(self.random.choices(words, weights, k=self.random.randint(6, 13))))
            if len(chosen) < 4:
                continue
            listing, chance = self.listing(chosen), self.random.random()
            if chance < 0.40:
                out.append(f"{listing}.")
            elif chance < 0.65:
                out.append(f"{listing}: {name}.")
            elif chance < 0.85:
                out.append(f"{listing} {self.random.choice(SHARED.get(key[0], ('are like {}.',))).format(name)}")
            else:
                out.append(f"{name}: {listing}.")
        return out


def build(synsets: dict[str, Synset], seed: int = 0, list_factor: float = 16.0) -> Corpus:
    """Write the corpus. The split is by group of documents; a fact may still occur on both sides in other words."""
    writer = Writer(synsets, seed)
    memo: dict[str, dict[str, float]] = {}
    groups: list[list[str]] = []
    for produce, kind in (
        (writer.gloss, "glosses"),
        (writer.relations, "relation sentences"),
        (lambda key: writer.lists(key, memo, list_factor), "subtree lists"),
    ):
        documents = []
        for key in sorted(writer.kept):
            documents += [d for d in produce(key) if d.isascii() and clean.is_clean(d)]
        writer.counts[kind] = len(documents)
        groups += [documents[i : i + GROUP] for i in range(0, len(documents), GROUP)]
    random.Random(seed + 1).shuffle(groups)
    cut = round(len(groups) * (1 - HELD_OUT))
    train = [d for group in groups[:cut] for d in group]
    held_out = [d for group in groups[cut:] for d in group]
    writer.counts["training documents"], writer.counts["held-out documents"] = len(train), len(held_out)
    return Corpus(train, held_out, dict(writer.counts))
