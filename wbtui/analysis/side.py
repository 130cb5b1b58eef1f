"""One side's token matrix and all that its reductions need, prepared once for many tiles.

Kept tokens stand first in ascending id, masked ones behind them. A tile's scores then fall into a contiguous kept part,
which the statistics read, and a masked part, which only ``n_masked_above`` and the best masked token read; equal scores
resolve by column exactly as they do by id.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis import coherence
from wbtui.analysis.coherence import Strings
from wbtui.analysis.pool import spread
from wbtui.analysis.rounded import DTYPES, Rounded, prepare_rounded
from wbtui.analysis.streaming import Stop, poll
from wbtui.definitions import TokensDefinition
from wbtui.errors import WeightsError, WorkError

_ROWS = 512
"""Token rows converted or summed at once."""


@dataclass
class _Centre:
    """The mean row of the kept tokens, and the distances of token rows from it where they were asked for: shared by
    tables over the same matrix; computed on first need."""

    value: Tensor | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    norms: dict[bool, Tensor] = field(default_factory=dict)
    """fp64 ``[V]`` by row, NaN where not known yet; of rows without their all-ones component where True."""


def _require_finite(total: Tensor) -> None:
    if not bool(torch.isfinite(total).all()):
        raise WeightsError("the token matrix holds NaN or infinite values", "finite weights")


@dataclass(frozen=True)
class TokenTable:
    """One side's token matrix.

    Attributes:
        rows: ``[V, D]`` in the order of ``ids``, fp32 or (where the product is taken in it) bf16 or fp16; or (lazy) the
            given tensor in its own order and dtype.
        ids: ``[V]`` int64: token id of each column of a tile, kept ones first; ``token_ids``: the same in numpy.
        n_kept: how many columns are kept, V'.
        lazy: rows are in token order and promoted slice by slice; columns are put in order after the product.
        scale: factor on every score (the embedding multiplier).
        centre_values: subtract the kept tokens' mean score from every value.
        flatten: cosines are of token rows without their all-ones component (``W_E P``): the reads of a LayerNorm model,
            whose encoder rows have none either (methods 3.1, 3.6). Dot products are the same either way.
        word, whole_word, norms: ``[V]`` by token id.
        n_words: distinct words among the kept tokens.
        rounded: the matrix in fewer bits, where the product is taken in them.
    """

    rows: Tensor
    ids: Tensor
    token_ids: np.ndarray
    n_kept: int
    lazy: bool
    scale: float
    centre_values: bool
    word: np.ndarray
    whole_word: np.ndarray
    norms: Strings
    n_words: int
    definition: TokensDefinition
    _position: Tensor
    _centre: _Centre
    flatten: bool = False
    rounded: Rounded | None = None

    @property
    def n_tokens(self) -> int:
        """V."""
        return int(self.rows.shape[0])

    @property
    def width(self) -> int:
        """D."""
        return int(self.rows.shape[1])

    @property
    def in_order(self) -> bool:
        """Whether a product with ``rows`` already has the columns in the order of ``ids``."""
        return not self.lazy or self.n_kept == self.n_tokens

    def positions(self, ids: Tensor) -> Tensor:
        """Rows of ``rows`` that hold the tokens ``ids``."""
        return ids if self.lazy else self._position[ids]

    def kept_weights(self) -> Tensor:
        """1.0 for the rows of ``rows`` that are kept: ``[V]`` fp32."""
        weights = torch.zeros(self.n_tokens, dtype=torch.float32, device=self.rows.device)
        weights[self.positions(self.ids[: self.n_kept])] = 1.0
        return weights

    @property
    def has_centre(self) -> bool:
        """Whether :meth:`centre` costs nothing."""
        return self._centre.value is not None

    def set_centre(self, total: Tensor) -> None:
        """Take the mean row from the sum ``[D]`` of the kept rows, as a lazy product gathers it on its way.

        Raises:
            WeightsError: the sum is not finite, so a kept row is not.
        """
        _require_finite(total)
        self._centre.value = total / self.n_kept

    def centre(self, stop: Stop | None = None) -> Tensor:
        """``c``: the mean row of the kept tokens, ``[D]`` fp64, without ``scale``.

        Raises:
            WeightsError: the token matrix holds a value that is not finite.
            Cancelled: the stop flag went up.
        """
        with self._centre.lock:
            if self._centre.value is None:
                weights = self.kept_weights().double()

                def sums(a: int) -> tuple[Tensor, Tensor]:
                    poll(stop)
                    part = self.rows[a : a + _ROWS].double()
                    return weights[a : a + _ROWS] @ part, part.sum(0)

                firsts = range(0, self.n_tokens, _ROWS)
                on_cpu = self.rows.device.type == "cpu"
                parts = spread(sums, firsts, self.rows.numel()) if on_cpu else [sums(a) for a in firsts]
                total, plain = (torch.zeros(self.width, dtype=torch.float64, device=self.rows.device) for _ in range(2))
                for kept, each in parts:
                    total += kept
                    plain += each
                _require_finite(plain)
                self._centre.value = total / self.n_kept
            return self._centre.value

    def centred_norms(self, positions: Tensor) -> Tensor:
        """``|rows[p] - c|`` (of its part in ``P`` where :attr:`flatten`) for each position: fp64, of their shape.

        Lists of different features hold the same tokens, so what was computed is kept: 8 bytes a token. Threads that
        meet a token at once compute the same number.
        """
        centre = self.centre()
        if self.lazy:  # a lone feature's
            return coherence.centred_norms(self.rows, positions, centre, self.flatten)
        known = self._centre.norms.get(self.flatten)
        if known is None:
            known = torch.full((self.n_tokens,), torch.nan, dtype=torch.float64, device=self.rows.device)
            known = self._centre.norms.setdefault(self.flatten, known)
        found = known[positions]
        unknown = found.isnan()
        if bool(unknown.any()):
            new = positions[unknown].unique()
            known[new] = coherence.centred_norms(self.rows, new, centre, self.flatten)
            found = known[positions]
        return found

    def mean_cosine(self, positions: Tensor) -> Tensor:
        """:func:`wbtui.analysis.coherence.mean_cosine` of rows at ``positions [n, k]``."""
        if self.lazy or self.rows.device.type != "cpu":
            return coherence.mean_cosine(self.rows, positions, self.centre(), self.flatten)
        norms = self.centred_norms(positions)
        return coherence.mean_cosine_by_norms(self.rows, positions, self.centre(), norms, self.flatten)

    def shared(self, *, scale: float, centre_values: bool, flatten: bool = False) -> TokenTable:
        """The other side of a tied model: the same rows in memory, other values."""
        return dataclasses.replace(self, scale=scale, centre_values=centre_values, flatten=flatten)


def prepare_side(
    tokens: Tensor,
    *,
    scale: float = 1.0,
    centre_values: bool,
    keep: np.ndarray | None,
    word: np.ndarray,
    whole_word: np.ndarray,
    norms: Sequence[str] | Strings,
    definition: TokensDefinition,
    flatten: bool = False,
    device: torch.device | str | None = None,
    lazy: bool = False,
    product: str = "fp32",
    stop: Stop | None = None,
) -> TokenTable:
    """Prepare one side's token matrix.

    Args:
        tokens: ``[V, D]``, one row a token: rows of ``W_E`` (reads), columns of ``W_U`` (writes).
        scale: factor on every score, the embedding multiplier on the reads side.
        centre_values: whether values are of centred tokens (ranks, z and entropy are the same either way).
        keep: bool ``[V]``, False for masked tokens; None keeps all.
        word: int ``[V]``; tokens with equal ids are spellings of one word.
        whole_word: bool ``[V]``.
        norms: ``[V]`` normalised strings.
        flatten: see :class:`TokenTable`.
        device: where to compute; the tensor's own by default.
        lazy: make no fp32 copy: rows stay as they are and are promoted slice by slice (a lone feature).
        product: ``fp32``, or the bits of the product: ``bf16``, ``fp16``, ``tf32`` (see :mod:`wbtui.analysis.rounded`;
            not for lazy tables).

    Returns:
        The table. An fp32 matrix in which nothing is masked is used as it is, without a copy.

    Raises:
        WeightsError: shapes do not fit, or a value is not finite (checked at once unless lazy).
        WorkError: no token is kept.
        Cancelled: the stop flag went up.
    """
    if tokens.ndim != 2:
        raise WeightsError(f"a token matrix of shape {tuple(tokens.shape)}", "[d_vocab, d_model]")
    n = tokens.shape[0]
    for name, column in (("word", word), ("whole_word", whole_word), ("norms", norms), ("keep", keep)):
        if column is not None and len(column) != n:
            raise WeightsError(f"vocabulary column {name} has {len(column)} entries", f"{n}, one per token row")
    target = torch.device(device) if device is not None else tokens.device
    kept = np.ones(n, dtype=bool) if keep is None else np.asarray(keep, dtype=bool)
    n_kept = int(kept.sum())
    if n_kept == 0:
        raise WorkError("the token mask drops every token", "at least one kept token", "raise the mask's cut or count")
    ids = torch.from_numpy(np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)]))
    position = torch.empty_like(ids)
    position[ids] = torch.arange(n)
    if lazy:
        rows = tokens.to(target)
    elif n_kept == n and tokens.dtype == torch.float32:
        rows = tokens.to(target).contiguous()
    else:
        # A checkpoint in the product's own dtype is kept in it: one copy serves the product and the rows done again.
        dtype = tokens.dtype if product != "fp32" and tokens.dtype == DTYPES[product] else torch.float32
        rows = torch.empty(tokens.shape, dtype=dtype, device=target)
        source = ids.to(tokens.device)
        for a in range(0, n, _ROWS):
            poll(stop)
            rows[a : a + _ROWS] = tokens[source[a : a + _ROWS]]
    word = np.asarray(word)
    table = TokenTable(
        rows=rows,
        ids=ids.to(target),
        token_ids=ids.numpy(),
        n_kept=n_kept,
        lazy=lazy,
        scale=float(scale),
        centre_values=centre_values,
        word=word,
        whole_word=np.asarray(whole_word, dtype=bool),
        norms=norms if isinstance(norms, Strings) else Strings.of(norms),
        n_words=_distinct(word[kept]),
        definition=definition,
        _position=position.to(target),
        _centre=_Centre(),
        flatten=flatten,
    )
    if lazy:
        return table
    centre = table.centre(stop)
    if product == "fp32":
        return table
    return dataclasses.replace(table, rounded=prepare_rounded(rows, product, n_kept, centre, stop=stop))


def _distinct(numbers: np.ndarray) -> int:
    """How many different whole numbers from 0 there are."""
    return int(np.count_nonzero(np.bincount(numbers)))
