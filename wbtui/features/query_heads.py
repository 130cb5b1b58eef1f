"""Heads in a filter: features that a head leads, and heads that are not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wbtui.errors import UsageError
from wbtui.features.query import Node, QueryError

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable


@dataclass(frozen=True)
class Led(Node):
    """``head:L4.H2`` alone: the features that the head leads (:meth:`wbtui.features.heads.HeadTable.leader`)."""

    name: str
    at: int = field(default=0, compare=False)

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        if table.heads is None:
            return np.zeros(table.n, dtype=bool)
        try:
            leader, head = table.heads.leader(self.name)
        except UsageError as error:
            raise QueryError(error.found, error.expected, error.do, position=self.at, length=len(self.name)) from None
        return (leader >= -1) & (leader != head) if negate else leader == head

    def __str__(self) -> str:
        return self.name

    def why_empty(self, table: FeatureTable) -> str:
        """Why it matches nothing, to be put behind the term."""
        if table.heads is None or not (table.heads.leader(self.name)[0] >= -1).any():
            return "; the heads of that layer are not computed yet (h, or `--analysis attention`)"
        return "; no feature has it as its strongest head beyond noise"
