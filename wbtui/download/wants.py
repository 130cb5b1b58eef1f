"""Which files of a repository are needed: of a model, of an SAE in each publisher's layout. Names only, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wbtui.catalog.architectures import Architecture
from wbtui.catalog.plan import TOKENIZER_FILES
from wbtui.catalog.registry import Entry
from wbtui.errors import UsageError, WeightsError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
KNOWN = (".json", ".yaml", ".safetensors", ".npz", ".pt", ".pth")
"""Endings of the files that some format reads."""


@dataclass(frozen=True)
class Wanted:
    """Files of one repository: those without which nothing works, and those that are taken where they are."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def of(self, held: Iterable[str], where: str) -> list[str]:
        """The names to fetch out of those that the repository holds.

        Raises:
            WeightsError: it lacks one that is needed.
        """
        names = set(held)
        missing = [name for name in self.needed if name not in names]
        if missing:
            raise WeightsError(f"{where} has no {missing[0]}", f"a repository with {', '.join(self.needed)}")
        return [*self.needed, *(name for name in self.optional if name in names)]


_SAE_FILES: dict[str, Callable[[str], Wanted]] = {
    # SAELens's loader -> files of the SAE at a path
    "sae_lens": lambda p: Wanted((f"{p}/cfg.json", f"{p}/sae_weights.safetensors")),
    "gemma_2": lambda p: Wanted((f"{p}/params.npz",)),
    "gemma_2_transcoder": lambda p: Wanted((f"{p}/params.npz",)),
    "gemma_3": lambda p: (
        Wanted((f"{p}.safetensors",), (f"{p.rpartition('/')[0]}/config.json",))
        if "clt" in p
        else Wanted((f"{p}/params.safetensors",), (f"{p}/config.json",))
    ),
    "llama_scope": lambda p: Wanted((f"{p}/hyperparams.json", f"{p}/checkpoints/final.safetensors")),
    "llama_scope_r1_distill": lambda p: Wanted((f"{p}/config.json", f"{p}/sae_weights.safetensors")),
    "dictionary_learning_1": lambda p: Wanted((f"{p}/config.json", f"{p}/ae.pt")),
    "deepseek_r1": lambda p: Wanted((p,)),
    "goodfire": lambda p: Wanted((p,)),
    "qwen_scope": lambda p: Wanted((p,)),
    "connor_rob_hook_z": lambda p: Wanted((p, p.split(".pt")[0] + "_cfg.json")),
    "sparsify": lambda p: Wanted((f"{p}/cfg.json", f"{p}/sae.safetensors"), ("config.json",)),
    "mwhanna_transcoder": lambda p: Wanted((p,), ("config.yaml", "wandb-config.yaml", "wanb-config.yaml")),
    "mntss_clt_layer_transcoder": lambda p: Wanted(("config.yaml", f"W_enc_{p}.safetensors", f"W_dec_{p}.safetensors")),
    "temporal": lambda p: Wanted((f"{p}/conf.yaml", f"{p}/latest_ckpt.safetensors")),
}


def sae_files(entry: Entry) -> Wanted:
    """The files of a registry SAE.

    Raises:
        UsageError: a layout that is not known here.
    """
    make = _SAE_FILES.get(entry.loader)
    if make is None:
        raise UsageError(f"{entry.name} has the layout {entry.loader!r}", "one of " + ", ".join(_SAE_FILES))
    return make(entry.path)


def path_files(held: Iterable[str], path: str) -> list[str]:
    """Everything that some format reads at or below a path of a repository that the registry does not know."""
    path = path.strip("/")
    return [n for n in held if n.endswith(KNOWN) and (not path or n == path or n.startswith(path + "/"))]


def model_files(held: Iterable[str]) -> Wanted:
    """Config, tokenizer and either the one file of weights or the index of many (whose shards come second).

    Raises:
        WeightsError: no safetensors weights.
    """
    names = set(held)
    weights = INDEX if INDEX in names else SINGLE
    if weights not in names:
        pickled = any(name.endswith((".bin", ".pth")) for name in names)
        raise WeightsError(
            "the repository has no model.safetensors" + (", only pickled weights" if pickled else ""),
            "safetensors weights",
            "convert it: load it with transformers and save_pretrained(safe_serialization=True)" if pickled else "",
        )
    return Wanted(("config.json", weights), TOKENIZER_FILES)


def shards(weight_map: dict[str, str], arch: Architecture) -> list[str]:
    """The shards that hold what the analyses read: token tables, norms, attention, the MLP's output; not, for instance,
    a vision tower's or experts' own.

    Args:
        weight_map: tensor name -> shard, of the index.
        arch: the model type's row.
    """
    layout = arch.attention
    patterns = [
        arch.embedding, arch.final_norm, arch.unembedding, arch.attention_out, arch.mlp_norm,
        None if arch.experts else arch.mlp_out,
        arch.post_attention_norm, arch.post_mlp_norm, layout.norm, layout.query, layout.key, layout.value, layout.fused,
        layout.query_norm, layout.key_norm, layout.sinks,
    ]  # fmt: skip
    wanted: set[str] = set()
    ends = [p.removesuffix("weight").split("{l}") for p in patterns if p is not None]
    for name, shard in weight_map.items():
        stem = name.removesuffix("weight").removesuffix("bias")
        if any(_matches(stem, parts, arch.prefixes) for parts in ends):
            wanted.add(shard)
    return sorted(wanted)


def _matches(stem: str, parts: list[str], prefixes: tuple[str, ...]) -> bool:
    """Whether a tensor's name is one of the table's, behind any prefix, for any layer."""
    for prefix in (*prefixes, ""):
        if not stem.startswith(prefix + parts[0]):
            continue
        rest = stem[len(prefix + parts[0]) :]
        if len(parts) == 1 and not rest:
            return True
        if len(parts) == 2 and rest.endswith(parts[1]) and rest[: len(rest) - len(parts[1])].isdigit():
            return True
    return False
