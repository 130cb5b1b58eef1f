"""From a model, an SAE and a definition to the products that answer for them, with their keys.

Everything needed for a key is read here with the standard library, so that the app and the command line find finished
products without torch and without the service.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui.catalog.architectures import architecture_of
from wbtui.catalog.identity import fingerprint, model_fingerprint, sae_identity
from wbtui.catalog.models import ModelInfo, model_config
from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.tensors import tensor_files, tokens_tensors
from wbtui.catalog.tokenizer import refuse_foreign
from wbtui.definitions import (
    CHECK_NULLS,
    DICTIONARY_NULLS,
    METHOD_VERSIONS,
    THRESHOLD_NULLS,
    NullDefinition,
    TokensDefinition,
    to_json,
)
from wbtui.errors import WeightsError
from wbtui.store.fingerprints import bytes_fingerprint, is_remembered, stand_in
from wbtui.store.keys import ProductSpec, slug
from wbtui.tensorfile import read_header

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
)
SETTINGS_FILES = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
"""They change an older tokenizer's strings and flags, and are none by themselves."""
MASK_SHARD_ROWS = 8192
NULL_SHARD_ROWS = 512


@dataclass(frozen=True)
class TokensPlan:
    """The products of E1 for one (model, SAE, definition)."""

    model: ModelInfo
    sae: SaeInfo
    definition: TokensDefinition
    vocab: ProductSpec
    masks: dict[str, ProductSpec]
    """Side -> mask product; both sides share one where the embeddings are tied; empty without a mask."""
    tokens: ProductSpec
    nulls: tuple[ProductSpec, ...]
    """The nulls that set thresholds."""
    checks: tuple[ProductSpec, ...]
    """Fresh nulls of other seeds, and the sign-flip control: judged by the thresholds, never setting them."""

    def all(self, checks: bool = True) -> list[ProductSpec]:
        """Every product in an order in which each comes after what it needs, without doubles."""
        out: dict[str, ProductSpec] = {}
        wanted = [self.vocab, *self.masks.values(), *self.nulls, self.tokens, *(self.checks if checks else ())]
        for spec in wanted:
            out.setdefault(spec.relative, spec)
        return list(out.values())


def plan_tokens(
    model: ModelInfo, sae: SaeInfo, definition: TokensDefinition, cache: Path, *, unread: bool = False
) -> TokensPlan:
    """Fingerprint what E1 uses and name its products.

    Args:
        model: from :func:`wbtui.catalog.models.find_model`.
        sae: from :func:`wbtui.catalog.saes.find_sae`.
        definition: the numbers asked for.
        cache: the cache folder; only its fingerprint memo is written, and only if it can be.
        unread: read no weights: in place of their fingerprints stand size, time and inode of the files. Such a plan's
            specs say so (``model["unread"]``), and no product may be written or looked for by them.

    Raises:
        WeightsError: files missing, damaged or not fitting.
    """
    memo = cache / "fingerprints"
    folder = Path(model.path)
    where = str(folder)
    arch = architecture_of(model_config(folder), where)
    names = tensor_files(folder)
    roles = tokens_tensors(names, arch, model.tied, where)
    _check_shapes(model, names, roles)
    if unread:
        tokenizer, model_print = tokenizer_fingerprint(folder), stand_in(names[name] for name in roles.values())
        sae_parts: dict[str, Any] = {"fingerprint": stand_in(sae.files)}
    else:
        with ThreadPoolExecutor(1) as beside:  # hashing lets other threads run: the SAE's bytes beside the model's
            of_sae = beside.submit(sae_identity, names, arch, sae, where, memo)
            if not is_remembered(names[roles["embedding"]], memo):  # gigabytes are hashed for the first time
                refuse_foreign(folder, model.d_vocab)
            model_print = model_fingerprint(names, arch, model.tied, where, memo)
            tokenizer = tokenizer_fingerprint(folder)
            sae_parts = of_sae.result()
    model_slug, sae_slug = slug(model.name, model_print), slug(sae.name, sae_parts["fingerprint"])
    tensors = {"model": model_print, "tokenizer": tokenizer, "model_type": model.model_type}
    body = to_json(definition)
    del body["name"]

    vocab = ProductSpec(
        "vocab",
        {
            "analysis": "vocab",
            "method_version": METHOD_VERSIONS["vocab"],
            "tokenizer": tokenizer,
            "d_vocab": model.d_vocab,
        },
        rows=0,
        shard_rows=0,
        model={"name": model.name, "path": model.path},
        model_slug=model_slug,
    )
    masks: dict[str, ProductSpec] = {}
    if definition.mask is not None:
        for side, role in (("writes", "unembedding"), ("reads", "embedding")):
            masks[side] = ProductSpec(
                "mask",
                {
                    "analysis": "mask",
                    "method_version": METHOD_VERSIONS["mask"],
                    "matrix": model_print if unread else fingerprint(names, [roles[role]], memo),
                    "mask": to_json(definition.mask),
                },
                rows=model.d_vocab,
                shard_rows=MASK_SHARD_ROWS,
                model={"name": model.name, "path": model.path, "role": role},
                model_slug=model_slug,
            )
    needs: dict[str, Any] = {
        "name": model.name,
        "path": model.path,
        "vocab": vocab.relative,
        "masks": {side: spec.relative for side, spec in masks.items()},
    }
    if unread:
        needs["unread"] = True
    sae_place = dataclasses.asdict(sae)

    def null(definition_of_null: NullDefinition) -> ProductSpec:
        with_sae = definition_of_null.kind in DICTIONARY_NULLS
        return ProductSpec(
            "null",
            {
                "analysis": "null",
                "method_version": METHOD_VERSIONS["null"],
                **tensors,
                "sae": sae_parts if with_sae else None,
                "definition": body,
                "null": to_json(definition_of_null),
            },
            rows=definition_of_null.n,
            shard_rows=NULL_SHARD_ROWS,
            model=needs,
            sae=sae_place if with_sae else None,
            model_slug=model_slug,
            sae_slug=sae_slug if with_sae else "",
        )

    tokens = ProductSpec(
        "tokens",
        {
            "analysis": "tokens",
            "method_version": METHOD_VERSIONS["tokens"],
            **tensors,
            "sae": sae_parts,
            "definition": body,
        },
        rows=sae.d_sae,
        shard_rows=256 if sae.d_sae <= 4096 else 512,
        model=needs,
        sae=sae_place,
        model_slug=model_slug,
        sae_slug=sae_slug,
    )
    return TokensPlan(
        model=model,
        sae=sae,
        definition=definition,
        vocab=vocab,
        masks=masks,
        tokens=tokens,
        nulls=tuple(null(kind) for kind in THRESHOLD_NULLS),
        checks=tuple(null(kind) for kind in CHECK_NULLS),
    )


def tokenizer_fingerprint(folder: Path) -> str:
    """SHA-256 over the tokenizer's files that are there.

    Raises:
        WeightsError: none is there.
    """
    parts = {name: bytes_fingerprint(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}
    if not parts.keys() - SETTINGS_FILES:
        raise WeightsError(f"{folder}: no tokenizer", "tokenizer.json or the older files of a tokenizer")
    if "tokenizer.json" in parts:  # the other files are then not read
        return parts["tokenizer.json"]
    return "+".join(parts[name][:16] for name in sorted(parts))


def _check_shapes(model: ModelInfo, names: dict[str, Path], roles: dict[str, str]) -> None:
    """The tensors must have the sizes that the config says."""
    want = {
        "embedding": (model.d_vocab, model.d_model),
        "unembedding": (model.d_vocab, model.d_model),
        "final_norm": (model.d_model,),
    }
    for role, name in roles.items():
        header = read_header(names[name])
        entry = header.tensors.get(name)
        if entry is None:
            raise WeightsError(f"{names[name]}: no tensor {name}", "the tensor that the index names there")
        if entry.shape != want[role]:
            raise WeightsError(
                f"{names[name]}: {name} has shape {list(entry.shape)}",
                f"{list(want[role])} by config.json (vocab_size, hidden size)",
            )
