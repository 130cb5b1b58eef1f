"""SAEs read out of their files and mapped into the residual stream (methods 3.6), row slice by row slice.

Files are read by ourselves (SAELens takes 8 s to import), whatever the publisher's format: the catalog says which
tensor of which file is W_enc and W_dec and which of its dimensions counts features (:mod:`wbtui.catalog.formats`).
Gates, thresholds, biases and skips change when a feature fires, not its direction.

Decoder rows are what a feature adds to the stream:

* at ``resid_*``, ``attn_out``, ``mlp_out`` and for transcoders, ``d`` as it is (the last three sit behind the
  post-norms of Gemma-2);
* at ``hook_z``, ``sum_h d_h W_O^h diag(gain)``; at ``mlp_post``, ``d W_out diag(gain)``, with the gain of the norm
  behind the sublayer where the model has one. The same gain applies to a dictionary of a module's own output
  (sparsify's ``layers.3.mlp``), which sits in front of that norm. The norm's 1/rms per token is left out: a direction
  is meant up to a positive factor.

Encoder rows are what the feature reads, as a covector on the raw stream:

* on the stream, ``e = w_enc``; a ``layer_norm`` input convention centres its input, so ``e = P w_enc``;
* of a transcoder behind the MLP norm, ``e = diag(gain) w_enc``, or ``w_enc`` if it was trained on the gain-free norm;
* **in a LayerNorm model every encoder row is then centred, ``e P``**: each reader of such a stream subtracts the mean
  over the width, so the all-ones component of a stream carries nothing, and SAEs trained on centred weights (gpt2
  ``res-jb``) have an arbitrary component there, which would rank tokens by their means;
* elsewhere (attention output, MLP output, heads, neurons) the encoder does not read the stream: reads are absent.

Scaling conventions (decoder-norm folds, average norms) change no direction and are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.catalog.saes import SaeInfo
from wbtui.catalog.tensors import module_norm
from wbtui.definitions import TILE_STEP
from wbtui.errors import UsageError, WeightsError
from wbtui.floats import widened
from wbtui.sources import raw
from wbtui.sources.checkpoint import Checkpoint
from wbtui.sources.model import gain_of
from wbtui.tensorfile import TensorEntry, read_header

if TYPE_CHECKING:
    import torch

_TILE = 128
BLOCK_ROWS = 1024
"""Decoder rows of a block of :meth:`SaeSource.blocks`: few enough to be shared out, many enough for few calls."""
BLOCK_COLUMNS = 512
"""Encoder columns of a block: narrower ones read half pages."""

_OFF_STREAM = {
    "attn_out": "the output of attention",
    "mlp_out": "the output of the MLP",
    "hook_z": "the attention heads' values",
    "mlp_post": "the MLP's neurons",
}


class SaeSource:
    """The directions of one SAE in the residual stream of its model.

    Args:
        info: from :mod:`wbtui.catalog.saes`.
        ckpt: the model's checkpoint; only tensors that map directions are read (W_O, W_out, norm gains).

    Attributes:
        n: number of features.
        reads_absent: None, or why there is no reads side, in words.

    Raises:
        WeightsError: weights missing or damaged, shapes that do not fit config or model, a hook that the model has not.
    """

    def __init__(self, info: SaeInfo, ckpt: Checkpoint) -> None:
        self.info = info
        self.n = info.d_sae
        self._ckpt = ckpt
        self._check_fit()
        places = info.places
        self._decoder = DictionaryMatrix(places["decoder"], info.d_sae, info.d_out)
        self._encoder = (
            None if places["encoder"] is None else DictionaryMatrix(places["encoder"], info.d_sae, info.d_in)
        )
        reads = info.conventions.get("reads")
        if reads not in ("stream", "gained_norm", "plain_norm", "off_stream"):
            raise WeightsError(f"{info.path}: the encoder reads {reads!r}", "conventions of parse_saelens_config")
        self.reads_absent: str | None = None
        if reads == "off_stream":
            self.reads_absent = (
                f"the encoder reads {_OFF_STREAM.get(info.site, info.site)} of layer {info.layer} "
                f"({info.hook_name}), not the residual stream"
            )
        self._read_gain = None
        if reads == "gained_norm" and ckpt.architecture.mlp_norm is not None:
            self._read_gain = gain_of(ckpt, ckpt.architecture.mlp_norm.format(l=info.layer))
        self._write_map = self._write_matrix()
        post = module_norm(ckpt.architecture, info.site, info.conventions)
        self._write_gain = None if post is None else gain_of(ckpt, post.format(l=info.layer))

    @property
    def plain(self) -> bool:
        """Whether :meth:`lone` has its rows: they need no product with a map into the stream, and no unpacking."""
        matrices = (self._decoder, *(() if self._encoder is None else (self._encoder,)))
        return self._write_map is None and not any(matrix.entry.packed for matrix in matrices)

    def lone(self, feature: int) -> tuple[np.ndarray, np.ndarray | None]:
        """One feature's :meth:`decoder_rows` and :meth:`encoder_rows` in numpy, ``[d_model]`` each.

        Raises:
            UsageError: no such feature.
            WeightsError: this SAE's rows are not :attr:`plain`.
        """
        self._check_range(feature, feature + 1)
        if not self.plain:
            raise WeightsError(f"{self.info.path}: rows that must be mapped or unpacked", "plain rows")
        decoder = self._written(self._decoder.raw_rows(feature, feature + 1), self._write_gain)
        if self.reads_absent is not None:
            return decoder[0], None
        matrix = self._decoder if self._encoder is None else self._encoder
        return decoder[0], self._read(matrix.raw_rows(feature, feature + 1), self._read_gain)[0]

    def decoder_rows(self, start: int, stop: int) -> torch.Tensor:
        """What features write into the residual stream.

        Args:
            start, stop: feature range.

        Returns:
            Tensor: ``[stop - start, d_model]`` float32, a copy; rows are not normalised.
        """
        self._check_range(start, stop)
        rows = self._written(self._decoder.rows(start, stop), _tensor(self._write_gain))
        return rows if self._write_map is None else _product(rows, self._write_map)

    def encoder_rows(self, start: int, stop: int) -> torch.Tensor | None:
        """What features read from the raw residual stream.

        Args:
            start, stop: feature range.

        Returns:
            Tensor | None: ``[stop - start, d_model]`` float32, a copy; None where the encoder is off the stream.
        """
        self._check_range(start, stop)
        if self.reads_absent is not None:
            return None
        matrix = self._decoder if self._encoder is None else self._encoder
        return self._read(matrix.rows(start, stop), _tensor(self._read_gain))

    @staticmethod
    def _written(rows: Any, gain: Any) -> Any:
        """Decoder rows of numpy or torch, changed in place, behind the norm of their sublayer."""
        if gain is not None:
            rows *= gain
        return rows

    def _read(self, rows: Any, gain: Any) -> Any:
        """Encoder rows of numpy or torch, changed in place, as covectors on the raw stream."""
        if self.info.conventions.get("normalize_activations") == "layer_norm":
            rows -= rows.mean(1)[:, None]
        if gain is not None:
            rows *= gain
        if self._ckpt.architecture.norm == "layer":
            rows -= rows.mean(1)[:, None]
        return rows

    def blocks(self, side: str, rows: int | None = None) -> Iterator[torch.Tensor]:
        """All rows of a side in blocks, as cheaply as the file allows: for passes that read each row once.

        Blocks may be views of the mapping, in the file's dtype: do not write into them. Encoder blocks are not centred
        for a LayerNorm model (:meth:`encoder_rows` is): a reader that centres its query, or the block, sees the same.

        Args:
            side: ``writes`` (decoder) or ``reads`` (encoder).
            rows: rows of a block; None takes what suits the layout.

        Yields:
            Tensor: ``[n, d_model]``, of any strides.

        Raises:
            UsageError: reads of an encoder that is off the stream.
        """
        if side == "reads" and self.reads_absent is not None:
            raise UsageError(f"{self.info.name}: {self.reads_absent}", "an SAE whose encoder reads the stream")
        if side == "writes":
            matrix, direct = self._decoder, self._write_map is None and self._write_gain is None
        else:
            matrix = self._decoder if self._encoder is None else self._encoder
            direct = self._read_gain is None and self.info.conventions.get("normalize_activations") != "layer_norm"
        whole = matrix.view() if direct else None
        rows = rows or (BLOCK_COLUMNS if matrix.features else BLOCK_ROWS)
        for start in range(0, self.n, rows):
            stop = min(self.n, start + rows)
            if whole is not None:
                yield whole[start:stop]
                continue
            part = self.decoder_rows(start, stop) if side == "writes" else self.encoder_rows(start, stop)
            assert part is not None
            yield part

    def columns(self, side: str) -> torch.Tensor | None:
        """The matrix ``[d_model, d_sae]`` whose columns are the rows of a side, as a view of the mapped file in its
        dtype; None where rows are stored as rows, or must be changed first. Not centred, as :meth:`blocks`."""
        if side == "writes":
            matrix, direct = self._decoder, self._write_map is None and self._write_gain is None
        elif self._encoder is None or self.reads_absent is not None:
            return None
        else:
            matrix = self._encoder
            direct = self._read_gain is None and self.info.conventions.get("normalize_activations") != "layer_norm"
        if not matrix.features or not direct:
            return None
        whole = matrix.view()
        return None if whole is None else whole.T

    def _write_matrix(self) -> torch.Tensor | None:
        """``[d_in, d_model]`` float32 from the hook's basis into the stream; None where the decoder is in it."""
        info, ckpt = self.info, self._ckpt
        arch, dims = ckpt.architecture, ckpt.dims
        if info.site == "hook_z":
            name, width, post = arch.attention_out, dims.n_heads * dims.d_head, arch.post_attention_norm
        elif info.site == "mlp_post":
            name, width, post = arch.mlp_out, dims.d_mlp, arch.post_mlp_norm
        else:
            return None
        name = name.format(l=info.layer)
        shape = (width, dims.d_model) if arch.input_major else (dims.d_model, width)
        weight = ckpt.floats(name, shape)
        matrix = weight if arch.input_major else weight.T
        if post is not None:
            matrix = matrix * gain_of(ckpt, post.format(l=info.layer))
        return _tensor(np.ascontiguousarray(matrix))

    def _check_fit(self) -> None:
        """Refuse an SAE whose widths or hook the model has not."""
        info, dims = self.info, self._ckpt.dims
        if not 0 <= info.layer < dims.n_layers:
            raise WeightsError(f"{info.path}: layer {info.layer}", f"0 to {dims.n_layers - 1}, the model's layers")
        want = {"hook_z": ("n_heads * d_head", dims.n_heads * dims.d_head), "mlp_post": ("d_mlp", dims.d_mlp)}
        what, width = want.get(info.site, ("d_model", dims.d_model))
        if info.d_in != width:
            raise WeightsError(
                f"{info.path}: d_in {info.d_in} at {info.hook_name}",
                f"{width}, the {what} of {self._ckpt.folder}",
                "this SAE belongs to another model",
            )
        if info.site not in want and info.d_out != dims.d_model:
            raise WeightsError(
                f"{info.path}: d_out {info.d_out}", f"{dims.d_model}, the d_model of {self._ckpt.folder}"
            )
        parallel = self._ckpt.architecture.parallel and self._ckpt.config.get("use_parallel_residual", True)
        if info.site == "resid_mid" and parallel:
            raise WeightsError(
                f"{info.path}: hook {info.hook_name}", "a hook of this model: its attention and MLP run side by side"
            )

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.n:
            raise UsageError(f"features {start} to {stop}", f"a range in 0 to {self.n}")


class DictionaryMatrix:
    """W_dec or W_enc as rows, one a feature, read slice by slice out of whichever order and file it is kept in.

    Args:
        place: from :func:`wbtui.catalog.formats.base.place`.
        d_sae, width: what the config says of its size.

    Raises:
        WeightsError: no such tensor, or of another shape.
    """

    def __init__(self, place: dict[str, Any], d_sae: int, width: int) -> None:
        self.path = Path(place["file"])
        self.features, self.index = int(place["features"]), place.get("index")
        self._times, self._over = float(place.get("times", 1.0)), float(place.get("over", 1.0))
        entry = read_header(self.path).tensors.get(place["tensor"])
        if entry is None:
            raise WeightsError(f"{self.path}: no tensor {place['tensor']}", f"{place['tensor']}, a dictionary's matrix")
        shape: tuple[int, ...] = (d_sae, width) if self.features == 0 else (width, d_sae)
        if self.index is not None:
            shape = (shape[0], entry.shape[1] if len(entry.shape) == 3 else -1, shape[1])
        if entry.shape != shape:
            raise WeightsError(
                f"{self.path}: {entry.name} has shape {list(entry.shape)}", f"{list(shape)} by its config or format"
            )
        self.entry: TensorEntry = entry
        self._unpacked: torch.Tensor | None = None
        self._view: torch.Tensor | None = None

    def view(self) -> torch.Tensor | None:
        """All rows ``[d_sae, width]`` as a view of the mapped file, in its dtype; None where they must be unpacked,
        gathered or scaled first. The mapping is kept: a page that is looked at for the first time costs as much as
        reading it."""
        if self.entry.packed or self.index is not None or (self._times, self._over) != (1.0, 1.0):
            return None
        if self._view is None:
            from wbtui.sources.mapped import mapped

            whole = mapped(self.path, self.entry)
            self._view = whole if self.features == 0 else whole.T
        return self._view

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """``[stop - start, width]`` float32, a copy, in the scale of the model's stream."""
        if not self.entry.packed:
            import torch

            return torch.from_numpy(self.raw_rows(start, stop))
        if self._unpacked is None:  # a compressed array is unpacked once
            from wbtui.sources.mapped import mapped

            self._unpacked = mapped(self.path, self.entry)
        piece = self._unpacked[self._index(start, stop)]
        rows = piece if self.features == 0 else piece.T
        return self._in_scale(rows.float().clone().contiguous())

    def raw_rows(self, start: int, stop: int) -> np.ndarray:
        """:meth:`rows` in numpy; not of a compressed array."""
        piece = raw.part(self.path, self.entry, self._index(start, stop))
        return np.ascontiguousarray(self._in_scale(widened(piece if self.features == 0 else piece.T)))

    def _index(self, start: int, stop: int) -> tuple[slice | int, ...]:
        """Where these rows are in the tensor."""
        span = slice(start, stop)
        if self.index is not None:
            return (span, int(self.index))
        return (span,) if self.features == 0 else (slice(None), span)

    def _in_scale(self, rows: Any) -> Any:
        if self._times != 1.0:
            rows = rows * self._times
        return rows / self._over if self._over != 1.0 else rows


def _tensor(array: np.ndarray | None) -> Any:
    """The same memory as a tensor; None as it is."""
    if array is None:
        return None
    import torch

    return torch.from_numpy(array)


def _product(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``rows @ matrix`` in tiles of a multiple of ``TILE_STEP`` rows: a row's bits do not depend on its company."""
    import torch

    out = torch.empty(len(rows), matrix.shape[1])
    for start in range(0, len(rows), _TILE):
        tile = rows[start : start + _TILE]
        missing = -len(tile) % TILE_STEP
        padded = torch.nn.functional.pad(tile, (0, 0, 0, missing)) if missing else tile
        out[start : start + len(tile)] = (padded @ matrix)[: len(tile)]
    return out
