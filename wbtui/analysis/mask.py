"""The under-trained-token mask: how many near neighbours each token has (methods 1.2, "Token mask").

Unused vocabulary entries sit in one tight cluster, and random directions land on it. A token goes when at least
``count`` others have a cosine above ``cut`` with it, rows centred by the mean of the whole vocabulary (the mask is what
decides who is kept, so it cannot centre by the kept ones). Which of exact and estimated applies follows from the
definition and V alone, never from the device, so that one key has one meaning.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wbtui.analysis.streaming import Stop, padded, poll, slices
from wbtui.definitions import MaskDefinition
from wbtui.errors import WeightsError

_TILE = 512
_SUM = 512


def is_exact(n_tokens: int, definition: MaskDefinition) -> bool:
    """Whether neighbours are counted against every token, rather than a sample."""
    return n_tokens <= definition.exact_below


def sample_ids(n_tokens: int, definition: MaskDefinition) -> np.ndarray:
    """The seeded sample of token ids, ascending: ``[min(sample, V)]`` int64."""
    generator = torch.Generator().manual_seed(definition.seed)
    chosen = torch.randperm(n_tokens, generator=generator)[: min(definition.sample, n_tokens)]
    return np.asarray(chosen.sort().values.numpy())


def estimate(hits: np.ndarray, sampled: np.ndarray, n_tokens: int, definition: MaskDefinition) -> np.ndarray:
    """Neighbour counts of the whole vocabulary from hits in a sample.

    Hits scale by the tokens that could have been met (V - 1 over the sample without the token itself). One hit is never
    enough to drop a token, however small the sample: it counts as at most ``count - 1``.

    Args:
        hits: ``[n]`` neighbours met in the sample, the token itself excluded.
        sampled: bool ``[n]``, whether the token is in the sample.

    Returns:
        int32 ``[n]``.
    """
    others = np.maximum(min(definition.sample, n_tokens) - sampled.astype(np.int64), 1)
    scaled = np.rint(hits * ((n_tokens - 1) / others))
    scaled = np.where(hits == 1, np.minimum(scaled, definition.count - 1), scaled)
    return scaled.astype(np.int32)


def _unit(part: Tensor, centre: Tensor) -> Tensor:
    """Centred rows of length one, fp32; zero rows stay zero and so are nobody's neighbours."""
    x = part.float() - centre
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1.0)


def neighbour_counts(
    rows: Tensor, start: int, end: int, definition: MaskDefinition, *, stop: Stop | None = None
) -> np.ndarray:
    """Neighbours of the tokens ``[start, end)``: cosine of centred rows above ``definition.cut``, the token excluded.

    Args:
        rows: ``[V, D]`` token matrix, any float dtype; never copied as a whole.
        stop: polled between slices of at most 4,096 tokens.

    Returns:
        int32 ``[end - start]``, the ``neighbours`` column; a token is masked where it is at least ``definition.count``.
        Exact up to ``definition.exact_below`` tokens, else estimated (:func:`estimate`).

    Raises:
        WeightsError: a value is not finite.
        Cancelled: the stop flag went up.
    """
    n = rows.shape[0]
    device = rows.device
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=device)
    for a in range(0, n, _SUM):
        poll(stop)
        total += rows[a : a + _SUM].double().sum(0)
    if not bool(torch.isfinite(total).all()):
        raise WeightsError("the token matrix holds NaN or infinite values", "finite weights")
    centre = (total / n).float()
    exact = is_exact(n, definition)
    others = torch.arange(n, device=device) if exact else torch.from_numpy(sample_ids(n, definition)).to(device)
    hits = torch.zeros(end - start, dtype=torch.int64, device=device)
    scores = torch.empty((_TILE, min(4096, len(others))), dtype=torch.float32, device=device)
    for a in range(start, end, _TILE):
        b = min(end, a + _TILE)
        tile = torch.zeros((padded(b - a), rows.shape[1]), dtype=torch.float32, device=device)
        tile[: b - a] = _unit(rows[a:b], centre)
        own = torch.arange(a, b, device=device)[:, None]
        for low, high in slices(len(others)):
            poll(stop)
            ids = others[low:high]
            part = _unit(rows[low:high] if exact else rows[ids], centre)
            cosine = torch.mm(tile, part.T, out=scores[: len(tile), : high - low])[: b - a]
            near = (cosine > definition.cut) & (own != ids[None, :])
            hits[a - start : b - start] += near.sum(1)
    counted: np.ndarray = hits.cpu().numpy()
    if exact:
        return np.asarray(counted, dtype=np.int32)
    own_ids = np.arange(start, end)
    return estimate(counted, np.isin(own_ids, others.cpu().numpy()), n, definition)
