"""The largest of each row and of each column of a tile of cosines, and their numbers.

A tile is read once from where the product left it: by sub-blocks that fit a core's own cache, first for the columns,
then, from there, for the rows. Neighbours share a maximum; the number of the largest is looked for only where something
improved, and there in the one group that holds it: to carry numbers along costs several times the maximum alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wbtui.analysis.piece import compiled
from wbtui.analysis.streaming import TileBuffer

GROUP, WIDE_GROUP = 32, 128
"""Rows of a tile that share a maximum, and columns of it (numbers that lie side by side are compared faster where there
are more of them)."""
HEIGHT, WIDE = 64, 256
"""What a tile's height and width are multiples of; and rows gone through together: half a megabyte at 2,048 columns."""


@compiled
def _peaks(tile: Tensor, of_rows: Tensor, of_columns: Tensor, near: int, group: int) -> None:
    wide = tile.size(1) // of_rows.size(1)
    for r in range(0, tile.size(0), near):
        part = tile[r : r + near]
        n = part.size(0)
        torch.amax(part.view(n // group, group, -1), [1], False, out=of_columns[r // group : (r + n) // group])
        torch.amax(part.view(n, -1, wide), [2], False, out=of_rows[r : r + n])


@dataclass(frozen=True)
class Peaks:
    """The largest of each group of a tile.

    Attributes:
        tile: ``[h, w]`` fp32, multiples of ``HEIGHT`` and ``WIDE``, -inf where there is no cosine.
        of_rows: ``[h, w / WIDE_GROUP]``.
        of_columns: ``[h / GROUP, w]``.
    """

    tile: Tensor
    of_rows: Tensor
    of_columns: Tensor

    @staticmethod
    def of(tile: Tensor, buffer: TileBuffer) -> Peaks:
        """Those of a tile, in a thread's scratch."""
        h, w = tile.shape
        rows = buffer.get("peaks of rows", h, w // WIDE_GROUP)
        columns = buffer.get("peaks of columns", h // GROUP, w)
        near = HEIGHT if tile.device.type == "cpu" else h
        _peaks(tile, rows, columns, near, GROUP)
        return Peaks(tile, rows, columns)

    def rows_into(self, best: Tensor, ids: Tensor, first: int) -> None:
        """Take what the tile's first rows have better than ``best [n]``, with numbers from ``first`` on into ``ids
        [n]``. Of equal ones the smallest number, and what is there already stays."""
        values = self.of_rows[: len(best)].amax(1)
        where = (values > best).nonzero().flatten()
        if len(where):
            # max says the first of equal ones too
            group = self.of_rows.index_select(0, where).max(1).indices
            places = where * self.of_rows.shape[1] + group
            inside = self.tile.view(-1, WIDE_GROUP).index_select(0, places).max(1).indices
            best[where] = values[where]
            ids[where] = group * WIDE_GROUP + inside + first

    def columns_into(self, best: Tensor, ids: Tensor, first: int) -> None:
        """The same for the tile's first columns."""
        values = self.of_columns[:, : len(best)].amax(0)
        where = (values > best).nonzero().flatten()
        if len(where):
            group = self.of_columns.index_select(1, where).max(0).indices
            inside = self.tile.view(-1, GROUP, self.tile.shape[1])[group, :, where].max(1).indices
            best[where] = values[where]
            ids[where] = group * GROUP + inside + first
