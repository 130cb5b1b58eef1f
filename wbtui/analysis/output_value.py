"""What each head writes when it attends to a feature (OV, methods 1.3): ``o_i = d_i V_eff O_eff`` of the unit feature.

Length and copy score come in closed form, without any ``[n, d_model]`` product of a head (speed d.2)::

    |o_i|^2 = v_i (O_eff O_eff^T) v_i^T          <o_i, d_i> = v_i . (d_i O_eff^T),      v_i = d_i V_eff

In LayerNorm models both are of ``o_i P``: the all-ones component reaches no reader and would swamp the cosine. Lengths
compare within a layer only where a norm follows attention (its 1/rms is the token's).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wbtui import schema_attention as schema
from wbtui.analysis import nulls
from wbtui.analysis.attention import BLOCK, RowBlocks, Rows, scaled
from wbtui.analysis.streaming import Stop, padded, poll
from wbtui.definitions import AttentionDefinition

_UNIT = AttentionDefinition(scale="unit")
MEDIAN_OF = 2000
"""Random directions whose median length gains are measured in."""


@dataclass(frozen=True)
class OutputValue:
    """One head's value and output matrices, folded: ``value [d_model, d_head]``, ``out [d_head, d_model]``."""

    value: Tensor
    out: Tensor
    centre: bool

    def writes(self, d: Tensor) -> Tensor:
        """``o`` ``[n, d_model]`` of decoder rows ``[n, d_model]``, each taken at length one; bad rows are zero."""
        x, _, _ = scaled(d, _UNIT, self.centre)
        return (x @ self.value) @ self.out


def ov_lengths(head: OutputValue, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Length of ``o`` and its cosine with the feature ``[n]`` fp32, and which rows are usable."""
    out = head.out - head.out.mean(1, keepdim=True) if head.centre else head.out
    values, axes = torch.linalg.eigh(out.double() @ out.double().T)
    root = (axes * values.clamp_min(0).sqrt()).float()
    norms, copies, goods = [], [], []
    for block in d.split(BLOCK):
        x, length, good = scaled(block, _UNIT, head.centre)
        x = torch.nn.functional.pad(x, (0, 0, 0, padded(len(x)) - len(x)))
        v = x @ head.value
        norm = torch.linalg.vector_norm(v @ root, dim=1)
        dot = (v * (x @ out.T)).sum(1)
        count = len(block)
        norms.append(norm[:count])
        copies.append(torch.where(norm[:count] > 0, dot[:count] / norm[:count] / length.float(), float("nan")))
        goods.append(good)
    return torch.cat(norms), torch.cat(copies), torch.cat(goods)


def ov_record(head: OutputValue, rows: RowBlocks, seed: int, device: torch.device, stop: Stop | None = None) -> Rows:
    """Every ``ov`` column of one head for the rows given (features, or random directions).

    Args:
        rows: decoder rows in blocks.
        seed: of the random directions whose median length ``gain`` is measured in.

    Returns:
        ``schema_attention.ov_columns()`` by name, ``[n]`` each; unusable rows are absent.

    Raises:
        Cancelled: the stop flag went up.
    """
    width = head.value.shape[0]
    random = nulls.directions("isotropic", MEDIAN_OF, seed, d_model=width).to(device)
    usual = float(ov_lengths(head, random)[0].median())
    parts: dict[str, list[np.ndarray]] = {name: [] for name in schema.ov_columns()}
    for block in rows():
        poll(stop)
        norm, copy, good = ov_lengths(head, block.to(device))
        gain = norm / usual if usual > 0 else torch.full_like(norm, float("nan"))
        for name, value in (("norm", norm), ("gain", gain), ("copy", copy)):
            column = schema.ov_columns()[f"ov.{name}"]
            parts[column_name(name)].append(torch.where(good, value, float("nan")).cpu().numpy().astype(column.dtype))
    return {name: np.concatenate(values) for name, values in parts.items()}


def column_name(statistic: str) -> str:
    """The full name of an OV statistic."""
    return f"ov.{statistic}"
