"""SAELens's registry of published SAEs as data: 170 releases, browsable offline, without importing sae_lens.

``registry.json.gz`` beside this file is a compact copy of sae_lens's ``pretrained_saes.yaml``, made by
``tools/make_registry.py``; it says of which version and when. Nothing here asks a network.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

REGISTRY = Path(__file__).with_name("registry.json.gz")

HUB_IDS = {
    # names that the registry uses -> Hub ids
    "gpt2-small": "openai-community/gpt2",
    "gemma-2b": "google/gemma-2b",
    "gemma-2b-it": "google/gemma-2b-it",
    "gemma-2-2b": "google/gemma-2-2b",
    "gemma-2-9b": "google/gemma-2-9b",
    "gemma-2-9b-it": "google/gemma-2-9b-it",
    "gemma-2-27b": "google/gemma-2-27b",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
}
_SAME = {
    # other spellings of one model, last parts in lower case
    "gpt2-small": "gpt2",
    "mistral-7b": "mistral-7b-v0.1",
    "meta-llama-3.1-8b": "llama-3.1-8b",
    "meta-llama-3.1-8b-instruct": "llama-3.1-8b-instruct",
    "gemma-3-270m-pt": "gemma-3-270m",
}


@dataclass(frozen=True)
class Entry:
    """One published SAE."""

    release: str
    sae: str
    """SAELens's id of it within the release."""
    model: str
    """A Hub id."""
    repo: str
    path: str
    """Folder or file in the repository, as SAELens's loader takes it."""
    loader: str
    """SAELens's name of the layout."""
    l0: float | None
    neuronpedia: str = ""
    """``MODEL/SOURCE`` where Neuronpedia has it."""

    @property
    def name(self) -> str:
        """How an address names it: ``release/id``."""
        return f"{self.release}/{self.sae}"


@dataclass(frozen=True)
class Release:
    """SAEs that were published together."""

    name: str
    model: str
    """A Hub id."""
    repo: str
    loader: str
    saes: tuple[Entry, ...]


@cache
def _data() -> dict[str, Any]:
    return dict(json.loads(gzip.decompress(REGISTRY.read_bytes())))


def about() -> str:
    """What the copy is of: ``sae_lens 6.54.12, 2026-01-31``."""
    return f"sae_lens {_data()['sae_lens']}, {_data()['made']}"


@cache
def releases() -> tuple[Release, ...]:
    """Every release, in the registry's order."""
    out = []
    for name, (model, repo, loader, saes) in _data()["releases"].items():
        hub = HUB_IDS.get(model, model)
        entries = tuple(Entry(name, sae, hub, repo, path, loader, l0, *np) for sae, path, l0, *np in saes)
        out.append(Release(name, hub, repo, loader, entries))
    return tuple(out)


def spellings(name: str) -> list[str]:
    """Other names of a model on the Hub: the registry's (``gpt2-small``), and the short ones of before 2022
    (``gpt2``)."""
    bare, colon, revision = name.partition(":")
    hub = HUB_IDS.get(bare, bare)
    others = {hub, *(["openai-community/gpt2", "gpt2"] if canonical_model(bare) == "gpt2" else [])} - {bare}
    return sorted(other + colon + revision for other in others)


def canonical_model(name: str) -> str:
    """One spelling for the names that a model goes by: last part, lower case, without a revision."""
    last = name.split(":")[0].rstrip("/").rsplit("/", 1)[-1].casefold()
    return _SAME.get(last, last)


def releases_of(model: str) -> list[Release]:
    """The releases for a model, by any of its names."""
    wanted = canonical_model(model)
    return [release for release in releases() if canonical_model(release.model) == wanted]


def search(text: str) -> list[Release]:
    """Releases whose name, model or repository holds every word of ``text``."""
    words = text.casefold().split()
    return [r for r in releases() if all(w in f"{r.name} {r.model} {r.repo}".casefold() for w in words)]


def find_entry(name: str) -> Entry | None:
    """The entry of ``release/id``; release names hold no slash, ids may."""
    release, _, sae = name.partition("/")
    for known in releases():
        if known.name == release:
            return next((entry for entry in known.saes if entry.sae == sae), None)
    return None


def models() -> dict[str, int]:
    """Hub id -> number of published SAEs."""
    out: dict[str, int] = {}
    for release in releases():
        out[release.model] = out.get(release.model, 0) + len(release.saes)
    return out
