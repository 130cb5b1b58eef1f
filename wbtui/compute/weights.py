"""The tensors that shards share, prepared once per worker: token tables, norms, the SAE, null directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbtui import schema, settings
from wbtui.analysis import nulls
from wbtui.analysis.coherence import Strings
from wbtui.analysis.side import TokenTable, prepare_side
from wbtui.catalog.saes import SaeInfo
from wbtui.compute.kernels import Kernels, kernels_for
from wbtui.compute.lone import kept_tokens
from wbtui.compute.resident import Resident
from wbtui.definitions import NullDefinition, TokensDefinition, tokens_from_json
from wbtui.errors import WeightsError, WorkError
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import InputMap, OutputMap, input_map, output_map
from wbtui.sources.sae import SaeSource
from wbtui.store.columns import Columns
from wbtui.store.keys import ProductSpec

_RESIDENT = Resident(int(float(settings.get("resident_gb")) * 1e9))

BLOCK = 2048
"""Dictionary rows read at once."""


class Weights:
    """Everything a shard of one product needs, taken lazily from the resident cache.

    Args:
        cache: the cache folder, for the vocabulary and the masks.
        spec: the product; two specs of the same model and definition share their token tables.
        device: a torch device.

    Attributes:
        unmasked: True once a table had to be made without its mask, which is not computed yet.
    """

    def __init__(self, cache: Path, spec: ProductSpec, device: str) -> None:
        self.cache = cache
        self.spec = spec
        self.device = torch.device(device)
        body = dict(spec.identity.get("definition") or {})
        self.definition: TokensDefinition = tokens_from_json({"name": "", **body}) if body else TokensDefinition()
        self.definition_json: dict[str, Any] = body
        self.unmasked = False

    @staticmethod
    def clear() -> None:
        """Empty the resident cache."""
        _RESIDENT.clear()

    def _has(self, key: tuple[Any, ...]) -> bool:
        return _RESIDENT.has(self._full(key))

    def _full(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        identity = {k: self.spec.identity.get(k) for k in ("model", "matrix", "tokenizer")}
        return (str(sorted(identity.items(), key=str)), self.spec.model["path"], str(self.device), *key)

    def _get(self, key: tuple[Any, ...], make: Callable[[], Any], size: Callable[[Any], int]) -> Any:
        return _RESIDENT.get(self._full(key), make, size)

    @property
    def checkpoint(self) -> Checkpoint:
        """The model's folder, headers read."""
        return self._get(("checkpoint",), lambda: Checkpoint(self.spec.model["path"]), lambda _: 0)

    @property
    def output(self) -> OutputMap:
        """Unembedding and final norm."""
        return self._get(("output",), lambda: output_map(self.checkpoint), lambda _: 0)

    @property
    def input(self) -> InputMap:
        """Embedding and its multiplier."""
        return self._get(("input",), lambda: input_map(self.checkpoint), lambda _: 0)

    @property
    def sae(self) -> SaeSource:
        """The product's SAE."""
        if self.spec.sae is None:
            raise WorkError("a product without an SAE was asked for its features")
        info = SaeInfo(**self.spec.sae)
        key = ("sae", info.path, (self.spec.identity.get("sae") or {}).get("fingerprint"))
        return self._get(key, lambda: SaeSource(info, self.checkpoint), lambda _: 0)

    def kernels(self, *, measure: bool = True) -> Kernels:
        """How this machine multiplies with the model's token matrices."""
        dims = self.checkpoint.dims
        return kernels_for(self.cache, self.device, dims.d_vocab * dims.d_model, measure=measure)

    def prepared(self) -> bool:
        """Whether the token tables are resident, so that nothing is left to convert for a row."""
        key = self._full(("tables",))
        return any(found[: len(key)] == key and found[-1] != "lazy" for found in _RESIDENT.keys)

    def matrix(self, role: str) -> torch.Tensor:
        """The token matrix [d_vocab, d_model] of a role, unscaled, in the checkpoint's dtype."""
        return self.output.tokens if role == "unembedding" else self.input.tokens

    def tables(self, *, lazy: bool = False) -> tuple[TokenTable, TokenTable]:
        """The prepared token tables of writes and reads, mask applied; one matrix in memory where they are tied.

        Args:
            lazy: make no fp32 copy if none is resident (a lone feature is bounded by reading the matrix once).
        """
        vocab = Columns(self.cache / self.spec.model["vocab"] / "columns.safetensors")
        keeps = {side: self._keep(side, vocab) for side in schema.SIDES}
        names = tuple(keeps[side][1] for side in schema.SIDES)
        product = self.kernels(measure=not lazy).product
        key = ("tables", *names, str(sorted(self.definition_json.items())), product)

        def make(as_lazy: bool) -> tuple[TokenTable, TokenTable]:
            try:
                return tables(as_lazy)
            except WeightsError as error:
                raise self.located(error) from None

        def tables(as_lazy: bool) -> tuple[TokenTable, TokenTable]:
            def prepare(tokens: torch.Tensor, side: str, **values: Any) -> TokenTable:
                return prepare_side(
                    tokens,
                    keep=keeps[side][0],
                    word=np.asarray(vocab["word"]),
                    whole_word=(np.asarray(vocab["flags"]) & schema.VOCAB_WHOLE_WORD) != 0,
                    norms=Strings(vocab["norm_bytes"], vocab["norm_offsets"]),
                    definition=self.definition,
                    device=self.device,
                    lazy=as_lazy,
                    product=product,
                    **values,
                )

            reads_values: dict[str, Any] = {
                "scale": self.input.scale,
                "centre_values": self.definition.center_tokens,
                "flatten": self.output.centre,
            }
            writes = prepare(self.output.tokens, "writes", centre_values=False)
            if self.checkpoint.dims.tied and names[0] == names[1]:
                return writes, writes.shared(**reads_values)
            return writes, prepare(self.input.tokens, "reads", **reads_values)

        def size(pair: tuple[TokenTable, TokenTable]) -> int:
            return sum(r.numel() * r.element_size() for r in {id(t.rows): t.rows for t in pair}.values())

        if lazy and not self._has(key):
            return self._get((*key, "lazy"), lambda: make(True), lambda _: 0)
        return self._get(key, lambda: make(False), size)

    def located(self, error: WeightsError) -> WeightsError:
        """An error about the token matrices with the place of what is not finite; other errors as they are."""
        for role, name in (("embedding", self.checkpoint.architecture.embedding), ("unembedding", "unembedding")):
            matrix = self.matrix(role)
            bad = [
                start + int(row)
                for start in range(0, len(matrix), BLOCK)
                for row in (~torch.isfinite(matrix[start : start + BLOCK]).all(1)).nonzero().flatten()
            ]
            if bad:
                shown = ", ".join(f"#{token}" for token in bad[:8]) + (" …" if len(bad) > 8 else "")
                return WeightsError(
                    f"{self.spec.model['path']}: {name} is not finite in {len(bad)} token rows: {shown}",
                    "finite weights",
                    "the checkpoint is damaged: copy or download it again",
                )
        return error

    def _keep(self, side: str, vocab: Columns) -> tuple[np.ndarray, str]:
        """Tokens kept on a side, and a name for the choice."""
        flags = np.asarray(vocab["flags"])
        keep, name = kept_tokens(self.cache, self.spec, self.definition, side, flags)
        self.unmasked |= name == "unmasked"
        return keep, name

    @property
    def norm(self) -> dict[str, Any]:
        """The final norm as the analysis takes it: gain (folded definitions only) and centring."""
        folded = self.definition.unembed == "folded"
        return {"gain": self.output.gain if folded else None, "centre": self.output.centre}

    def null_directions(self, definition: NullDefinition, side: str) -> torch.Tensor | None:
        """The null's directions [n, d_model] for a side; None where the encoder does not read the stream."""
        if definition.kind == "isotropic":
            sae = None
        elif side == "reads" and self.sae.reads_absent:
            return None
        else:
            sae = self.spec.identity["sae"]["fingerprint"]
        key = ("null", definition, side, sae)

        def make() -> torch.Tensor:
            if sae is None:
                d_model = self.checkpoint.dims.d_model
                # writes and reads draw apart, so that their two nulls are not the same directions twice
                seed = definition.seed * len(schema.SIDES) + schema.SIDES.index(side)
                return nulls.directions(definition.kind, definition.n, seed, d_model=d_model)
            return nulls.directions(definition.kind, definition.n, definition.seed, rows=lambda: self._rows(side))

        directions = self._get(key, make, lambda t: t.numel() * t.element_size())
        if side == "reads" and self.output.centre:
            directions = directions - directions.mean(1, keepdim=True)  # what no LayerNorm reader sees, no feature has
        return directions

    def _rows(self, side: str) -> Iterator[torch.Tensor]:
        """The dictionary's rows of a side in blocks, as they stand in the residual stream."""
        block = self.sae.decoder_rows if side == "writes" else self.sae.encoder_rows
        for start in range(0, self.sae.n, BLOCK):
            rows = block(start, min(self.sae.n, start + BLOCK))
            assert rows is not None
            yield rows
