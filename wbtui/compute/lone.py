"""A lone feature's row from the files with numpy alone, before (or without) torch: see :mod:`wbtui.analysis.lone`.

Not every row can be made so: on a GPU, of an SAE whose rows go through W_O or W_out into the stream (``hook_z``,
``mlp.hook_post``) or are packed (compressed ``.npz``), and of float64 checkpoints, torch does it. What is found wrong
with the weights here is left to torch's path too, which says where.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wbtui import schema
from wbtui.analysis.coherence import Strings
from wbtui.analysis.lone import Centre, LoneTable, Matrix, lone_feature, token_order
from wbtui.catalog.architectures import embedding_multiplier
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.resident import Resident
from wbtui.definitions import TokensDefinition, tokens_from_json
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import gain_of, unembedding_name
from wbtui.sources.sae import SaeSource
from wbtui.sources.vocabulary import FirstWords
from wbtui.store.columns import Columns
from wbtui.store.keys import ProductSpec

_RESIDENT = Resident(64 << 20)
"""What the rows of one model share; the matrices are the files' own pages."""
_BYTES = 8 << 20


class _Model:
    """A checkpoint's two ends for one definition and choice of tokens."""

    def __init__(self, checkpoint: Checkpoint, definition: TokensDefinition) -> None:
        arch, dims = checkpoint.architecture, checkpoint.dims
        table = (dims.d_vocab, dims.d_model)
        name = unembedding_name(checkpoint)
        self.checkpoint = checkpoint
        self.tokens = checkpoint.raw(name, table)
        self.embedding = self.tokens if name == arch.embedding else checkpoint.raw(arch.embedding, table)
        self.scale = embedding_multiplier(arch, dims.d_model)
        self.centre = arch.norm == "layer"
        self.gain = gain_of(checkpoint, arch.final_norm) if definition.unembed == "folded" else None
        matrices = (self.tokens, self.embedding)
        self.plain = all(m.dtype != np.float64 and m.flags.c_contiguous and m.flags.aligned for m in matrices)


class _Words:
    """A ``vocab`` product as rows read it."""

    def __init__(self, path: Path) -> None:
        vocab = Columns(path)
        self.flags = np.asarray(vocab["flags"])
        self.word = np.asarray(vocab["word"])
        self.whole_word = (self.flags & schema.VOCAB_WHOLE_WORD) != 0
        self.norms = Strings(vocab["norm_bytes"], vocab["norm_offsets"])


def _words(cache: Path, spec: ProductSpec) -> Any:
    """The vocabulary: the product, or what a first look takes of the tokenizer."""
    if not spec.model.get("unread"):
        return _Words(cache / spec.model["vocab"] / "columns.safetensors")
    d_vocab = Checkpoint(spec.model["path"]).dims.d_vocab
    key = ("words", spec.model["path"], spec.identity.get("tokenizer"), d_vocab)
    return _RESIDENT.get(key, lambda: FirstWords(spec.model["path"], d_vocab), lambda _: _BYTES)


def texts(cache: Path, spec: ProductSpec, columns: dict[str, np.ndarray]) -> dict[str, str]:
    """The tokens that a first look's columns name, by their ids written as text (JSON has no other keys)."""
    words = _words(cache, spec)
    named = {int(i) for name, array in columns.items() if name.rpartition("_")[2] in ("ids", "id") for i in array.flat}
    return {str(i): words.text(i) for i in sorted(named) if i >= 0}


def kept_tokens(
    cache: Path, spec: ProductSpec, definition: TokensDefinition, side: str, flags: np.ndarray
) -> tuple[np.ndarray, str]:
    """Tokens kept on a side (bool ``[V]``), and a name for the choice: ``unmasked`` where the mask is not there yet."""
    if definition.mask is None:
        return np.ones(len(flags), bool), "all"
    keep = (flags & (schema.VOCAB_SPECIAL | schema.VOCAB_PADDED)) == 0
    path = cache / spec.model["masks"][side] / "columns.safetensors"
    if not path.is_file():
        return keep, "unmasked"
    neighbours = np.asarray(Columns(path)["neighbours"])
    return keep & (neighbours < definition.mask.count), str(path)


def row_columns(
    cache: Path, spec: ProductSpec, feature: int, stop: Callable[[], bool] | None = None
) -> tuple[dict[str, np.ndarray], bool] | None:
    """The columns of one feature's row, and whether the mask was still missing; None where torch must do it.

    Raises:
        UsageError: no such feature.
        WeightsError: as the torch path does.
        Cancelled: the stop flag went up.
    """
    if spec.sae is None:
        return None
    body = dict(spec.identity.get("definition") or {})
    definition = tokens_from_json({"name": "", **body}) if body else TokensDefinition()
    identity = {key: spec.identity.get(key) for key in ("model", "tokenizer", "definition")}
    place = (str(sorted(identity.items(), key=str)), spec.model["path"])

    def model_of() -> _Model:
        return _Model(Checkpoint(spec.model["path"]), definition)

    model: _Model = _RESIDENT.get(("model", *place), model_of, lambda _: _BYTES)
    if not model.plain:
        return None
    info = SaeInfo(**spec.sae)
    print_of_sae = (spec.identity.get("sae") or {}).get("fingerprint")
    sae: SaeSource = _RESIDENT.get(
        ("sae", *place, info.path, print_of_sae), lambda: SaeSource(info, model.checkpoint), lambda _: 1 << 20
    )
    if not sae.plain:
        return None
    words = _words(cache, spec)
    flags = words.flags
    keeps = {side: kept_tokens(cache, spec, definition, side, flags) for side in schema.SIDES}
    names = tuple(keeps[side][1] for side in schema.SIDES)

    def tables_of() -> tuple[LoneTable, LoneTable]:
        return _tables(model, definition, {side: keeps[side][0] for side in schema.SIDES}, names, words)

    writes, reads = _RESIDENT.get(("tables", *place, *names), tables_of, lambda _: _BYTES)
    decoder, encoder = sae.lone(feature)
    columns = lone_feature(decoder, encoder, writes, reads, gain=model.gain, centre=model.centre, stop=stop)
    return columns, "unmasked" in names


def _tables(
    model: _Model, definition: TokensDefinition, keeps: dict[str, np.ndarray], names: tuple[str, ...], words: Any
) -> tuple[LoneTable, LoneTable]:
    """Both sides' tokens; one matrix, order and mean where they are tied and keep the same tokens."""

    def table(side: str, rows: Matrix, order: np.ndarray, mean: Centre, **values: Any) -> LoneTable:
        n_kept = int(keeps[side].sum())
        return LoneTable(
            rows, order, n_kept, word=words.word, whole_word=words.whole_word, norms=words.norms,
            definition=definition, mean=mean, **values,
        )  # fmt: skip

    rows, order, mean = Matrix(model.tokens), token_order(keeps["writes"]), Centre()
    writes = table("writes", rows, order, mean, scale=1.0, centre_values=False)
    if model.embedding is not model.tokens or names[0] != names[1]:
        rows = rows if model.embedding is model.tokens else Matrix(model.embedding)
        order, mean = token_order(keeps["reads"]), Centre()
    reads = table(
        "reads", rows, order, mean, scale=model.scale, centre_values=definition.center_tokens, flatten=model.centre
    )
    return writes, reads
