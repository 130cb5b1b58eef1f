"""Read WordNet 3.0's data files.

They come from Debian's package `wordnet-base` (folder `/usr/share/wordnet` after installing it) or from
Princeton's own archive `WNdb-3.0`. The text of the demo depends on every byte of them, so their SHA-256
sums are checked before anything is trained.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

# Sums of the files in Debian's wordnet-base 1:3.0-37.
SHA256 = {
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "data.verb": "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2",
    "data.adj": "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7",
    "data.adv": "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139",
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
    "index.verb": "e2ac24816c3a8289dcb72aaa9cf8db81fdf25ec34d792bfc96ac5b7a20c8b4ae",
    "index.adj": "c9865d7b4d1f805bdef82ccdcea5282436e23083e6f6f1b33e716327c4eda810",
    "index.adv": "6f5465ed5758fe9c8a2f7ec17b1300f3aa875756c70ff7cba162f7e71bcf88ea",
}
POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
# The 45 lexicographer files, in WordNet's own numbering: the "supersenses" used to judge lists.
SUPERSENSES = (
    "adj.all",
    "adj.pert",
    "adv.all",
    "noun.Tops",
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
    "verb.body",
    "verb.change",
    "verb.cognition",
    "verb.communication",
    "verb.competition",
    "verb.consumption",
    "verb.contact",
    "verb.creation",
    "verb.emotion",
    "verb.motion",
    "verb.perception",
    "verb.possession",
    "verb.social",
    "verb.stative",
    "verb.weather",
    "adj.ppl",
)
WORD = re.compile(r"[A-Za-z]+")


@dataclass(eq=False)
class Synset:
    """One meaning: its words, its gloss and its pointers to other meanings."""

    key: str  # part of speech and offset, e.g. "n02084071"
    supersense: str
    lemmas: list[str]
    gloss: str
    pointers: list[tuple[str, str, int, int]] = field(default_factory=list)  # symbol, target, from, to
    ranks: list[int] = field(default_factory=list)  # sense number of each lemma, 1 = commonest

    def targets(self, *symbols: str) -> list[str]:
        return [target for symbol, target, _, _ in self.pointers if symbol in symbols]


def checksums(folder: Path, strict: bool = True) -> dict[str, str]:
    """SHA-256 of every input file; with `strict`, an unknown sum is an error."""
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHA256}
    wrong = [name for name, value in sums.items() if value != SHA256[name]]
    if wrong and strict:
        raise SystemExit(
            f"not the WordNet 3.0 files this script knows: {', '.join(wrong)} "
            "(pass --any-wordnet to use them all the same)"
        )
    return sums


def _sense_ranks(folder: Path) -> dict[tuple[str, str], int]:
    ranks: dict[tuple[str, str], int] = {}
    for name, pos in POS.items():
        for line in (folder / f"index.{name}").read_text("latin-1").splitlines():
            if line.startswith(" "):  # the licence, at the head of every file
                continue
            fields = line.split()
            offsets = fields[-int(fields[2]) :]
            for rank, offset in enumerate(offsets, 1):
                ranks[fields[0], pos + offset] = rank
    return ranks


def read(folder: Path) -> dict[str, Synset]:
    """All synsets by key. Adjective satellites ("s") are filed under "a", as the pointers do."""
    ranks = _sense_ranks(folder)
    synsets: dict[str, Synset] = {}
    for name, pos in POS.items():
        for line in (folder / f"data.{name}").read_text("latin-1").splitlines():
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            count = int(fields[3], 16)
            raw = [re.sub(r"\((a|p|ip)\)$", "", word) for word in fields[4 : 4 + 2 * count : 2]]
            at = 4 + 2 * count
            pointers = []
            for i in range(int(fields[at])):
                symbol, offset, target_pos, ends = fields[at + 1 + 4 * i : at + 5 + 4 * i]
                target = ("a" if target_pos == "s" else target_pos) + offset
                pointers.append((symbol, target, int(ends[:2], 16), int(ends[2:], 16)))
            key = pos + fields[0]
            synsets[key] = Synset(
                key,
                SUPERSENSES[int(fields[1])],
                [w.replace("_", " ") for w in raw],
                gloss.strip(),
                pointers,
                [ranks.get((w.lower(), key), 9) for w in raw],
            )
    return synsets


def word_frequencies(synsets: dict[str, Synset]) -> Counter[str]:
    """How often each lower-case word occurs in WordNet's own glosses and lemmas."""
    counts: Counter[str] = Counter()
    for synset in synsets.values():
        counts.update(WORD.findall(synset.gloss.lower()))
        counts.update(word for lemma in synset.lemmas for word in WORD.findall(lemma.lower()))
    return counts


def first_supersenses(synsets: dict[str, Synset]) -> dict[str, set[str]]:
    """Word -> supersenses of its first sense in each part of speech: an outside judge of token lists."""
    table: dict[str, set[str]] = defaultdict(set)
    for synset in synsets.values():
        for lemma, rank in zip(synset.lemmas, synset.ranks, strict=True):
            if rank == 1 and lemma.isalpha():
                table[lemma.lower()].add(synset.supersense)
    return dict(table)
