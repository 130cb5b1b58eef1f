"""One row of a derived column without the column: what a screen shows of a million features before all are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.features.names import Name

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

WHOLE = 65_536
"""Rows up to which a column is made whole at once: that takes a few milliseconds."""
KEPT = 512
"""Rows that are remembered."""
ROW_BASES = ("same", "nonfinite", "zero", "no_reads")
"""Columns of whole rows that follow from the row's own numbers."""


class OneRow:
    """A row of other rows (:class:`wbtui.features.source.ProductRows`), as the only one."""

    n = 1
    complete = True

    def __init__(self, rows: Any, row: int, available: bool) -> None:
        self._rows, self._row = rows, row
        self.schema, self.definition = rows.schema, rows.definition
        self.computed = np.array([available])

    def column(self, name: str) -> np.ndarray:
        """One column [1, …]."""
        return np.asarray(self._rows.row(name, self._row))[None]

    def row(self, name: str, row: int) -> Any:
        """The row."""
        return self._rows.row(name, self._row)

    def put(self, row: int, columns: Any) -> None:
        """Nothing can be laid over it."""
        raise TypeError("a row of a table takes no other row's numbers")

    def refresh(self) -> bool:
        """Nothing lands in a row."""
        return False


def stands_alone(table: FeatureTable, name: Name) -> bool:
    """Whether a row of a column should be made by itself: it can be, and the column is large and not there yet."""
    if table.n <= WHOLE or name.text in table._cache:
        return False
    if name.kind == "row":
        return name.base in ROW_BASES
    if name.kind == "class" or name.base == "n_words":
        return f"classes:{name.side}" not in table._cache
    return name.kind in ("number", "flag")


def alone(table: FeatureTable, row: int) -> FeatureTable:
    """A table of one row, judged by the same bars: each of its columns is that row of the whole table's."""
    found: dict[int, FeatureTable] = table._cached("alone", dict)
    one = found.get(row)
    if one is None:
        if len(found) >= KEPT:
            found.clear()
        one = type(table)(OneRow(table._rows, row, bool(table.available[row])), table.origin)
        one.thresholds = table.thresholds
        found[row] = one
    return one
