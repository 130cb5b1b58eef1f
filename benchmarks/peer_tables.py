"""One table of a peer in a Textual app of its own: ``python -m benchmarks.peer_tables KIND ROWS``, for a terminal.

KIND: ``empty`` (no table: what any Textual app costs), ``DataTable`` (Textual's), ``fastdatatable``.
``s`` sorts by the second column, falling; ``q`` quits. The cell "firstrow" tells that the rows are on screen.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import numpy as np
from textual.app import App, ComposeResult
from textual.widgets import DataTable, Static

COLUMNS = 8


def columns_of(n: int) -> dict[str, Any]:
    """Eight columns: number, words, six metrics."""
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {"id": np.arange(n)}
    out["z"] = rng.standard_normal(n).astype(np.float32)
    out["words"] = ["firstrow", *("physicist chemist poet composer" for _ in range(n - 1))]
    return out | {f"m{i}": rng.standard_normal(n).astype(np.float32) for i in range(COLUMNS - 3)}


class PeerApp(App[None]):
    """The table alone."""

    BINDINGS: ClassVar[list[Any]] = [("s", "sort", "sort"), ("q", "quit", "quit")]

    def __init__(self, kind: str, n: int) -> None:
        super().__init__()
        self.kind, self.n = kind, n

    def compose(self) -> ComposeResult:
        """The table."""
        if self.kind == "empty":
            yield Static("firstrow")
        elif self.kind == "DataTable":
            yield DataTable(cursor_type="row")
        else:
            import pyarrow as pa
            from textual_fastdatatable import ArrowBackend
            from textual_fastdatatable import DataTable as FastTable

            yield FastTable(backend=ArrowBackend(pa.table(columns_of(self.n))), cursor_type="row")

    def on_mount(self) -> None:
        """Textual's own table is filled row by row, as it offers no other way."""
        if self.kind == "DataTable":
            table = self.query_one(DataTable)
            data = columns_of(self.n)
            for name in data:
                table.add_column(name, key=name)
            table.add_rows(zip(*(list(column) for column in data.values()), strict=True))
            table.focus()
        elif self.kind != "empty":
            from textual_fastdatatable import DataTable as FastTable

            self.query_one(FastTable).focus()

    def action_sort(self) -> None:
        """By the second column."""
        if self.kind == "DataTable":
            self.query_one(DataTable).sort("z", reverse=True)
        else:
            from textual_fastdatatable import DataTable as FastTable

            self.query_one(FastTable).sort([("z", "descending")])


if __name__ == "__main__":
    PeerApp(sys.argv[1], int(sys.argv[2])).run()
