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
    vocab = Columns(cache / spec.model["vocab"] / "columns.safetensors")
    flags = np.asarray(vocab["flags"])
    keeps = {side: kept_tokens(cache, spec, definition, side, flags) for side in schema.SIDES}
    names = tuple(keeps[side][1] for side in schema.SIDES)

    def tables_of() -> tuple[LoneTable, LoneTable]:
        return _tables(model, definition, {side: keeps[side][0] for side in schema.SIDES}, names, vocab)

    writes, reads = _RESIDENT.get(("tables", *place, *names), tables_of, lambda _: _BYTES)
    decoder, encoder = sae.lone(feature)
    columns = lone_feature(decoder, encoder, writes, reads, gain=model.gain, centre=model.centre, stop=stop)
    return columns, "unmasked" in names


def _tables(
    model: _Model, definition: TokensDefinition, keeps: dict[str, np.ndarray], names: tuple[str, ...], vocab: Columns
) -> tuple[LoneTable, LoneTable]:
    """Both sides' tokens; one matrix, order and mean where they are tied and keep the same tokens."""
    word = np.asarray(vocab["word"])
    whole_word = (np.asarray(vocab["flags"]) & schema.VOCAB_WHOLE_WORD) != 0
    norms = Strings(vocab["norm_bytes"], vocab["norm_offsets"])

    def table(side: str, rows: Matrix, order: np.ndarray, mean: Centre, **values: Any) -> LoneTable:
        n_kept = int(keeps[side].sum())
        return LoneTable(
            rows, order, n_kept, word=word, whole_word=whole_word, norms=norms, definition=definition, mean=mean,
            **values,
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
