"""Rotary offsets as linear maps on keys (methods 3.4).

Pair ``m`` of a head is its dims ``m`` and ``m + r/2`` (r turning dims; the rest do not turn). With ``q_m``, ``k_m`` as
complex numbers, a key ``delta`` positions before the query scores ``Re(conj(q_m) k_m exp(-i delta theta_m))``, so an
offset is a rotation of the key by ``-delta theta``, and the mean over offsets is the same map with the mean cosine and
sine. The bound over all offsets, ``sum |q_m| |k_m|``, is a product of magnitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wbtui.definitions import AttentionDefinition


@dataclass(frozen=True)
class Turn:
    """What an offset does to keys: cosines and sines ``[r/2]`` fp32 (means of them over several offsets), or, with
    ``bound``, queries and keys become their pairs' magnitudes."""

    cos: Tensor
    sin: Tensor
    bound: bool = False

    def keys(self, k: Tensor) -> Tensor:
        """Keys ``[n, d_head]`` as an offset query sees them (or their magnitudes)."""
        if self.bound:
            return self.magnitudes(k)
        half = len(self.cos)
        cos, sin = self.cos.to(k.device), self.sin.to(k.device)
        a, b = k[:, :half], k[:, half : 2 * half]
        return torch.cat([a * cos + b * sin, b * cos - a * sin, k[:, 2 * half :]], dim=1)

    def back(self, q: Tensor) -> Tensor:
        """The transposed map on queries: ``<q, keys(k)> = <back(q), k>``. Not for bounds, which are not linear."""
        return Turn(self.cos, -self.sin).keys(q)

    def queries(self, q: Tensor) -> Tensor:
        """Queries ``[n, d_head]`` as they are (or their magnitudes)."""
        return self.magnitudes(q) if self.bound else q

    def magnitudes(self, x: Tensor) -> Tensor:
        """``[n, d_head - r/2]``: the length of each turning pair, then the dims that do not turn."""
        half = len(self.cos)
        return torch.cat([torch.hypot(x[:, :half], x[:, half : 2 * half]), x[:, 2 * half :]], dim=1)


def turn(frequencies: list[float], definition: AttentionDefinition) -> Turn | None:
    """The definition's offset for a head with these angles per position; None where keys stay as they are.

    Sines and cosines, and their means over offsets (explicit: the closed quotient loses digits), are taken in fp64.
    """
    if not frequencies or (definition.rope == "offset" and definition.offset == 0):
        return None
    theta = torch.tensor(frequencies, dtype=torch.float64)
    offsets = [definition.offset] if definition.rope == "offset" else range(definition.offsets)
    angles = torch.tensor(list(offsets), dtype=torch.float64)[:, None] * theta
    cos, sin = angles.cos().mean(0).float(), angles.sin().mean(0).float()
    return Turn(cos, sin, bound=definition.rope == "bound")
