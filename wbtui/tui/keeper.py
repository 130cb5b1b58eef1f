"""The app's side of the notes: every change goes to disk at once, in a thread, one after the other.

Marks are shown before they are on disk; those that could not be written are tried again with the next change and at
the end. Tags and notes are shown once they are on disk, so that nothing looks kept that is not.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from wbtui import paths
from wbtui.display import json_text
from wbtui.errors import StoreError, WbtuiError
from wbtui.notes.store import NoteStore, Site

if TYPE_CHECKING:
    from wbtui.notes.kept import Kept
    from wbtui.tui.rowsets import Marks

T = TypeVar("T")


class Keeper:
    """Writes what the user keeps.

    Args:
        store: where; the user's own file by default.
    """

    def __init__(self, store: NoteStore | None = None) -> None:
        self.store = store or NoteStore()
        self.error = ""
        """Why the last change is not on disk, if so."""
        self._lock = asyncio.Lock()
        self._owed: dict[Site, list[tuple[np.ndarray, np.ndarray]]] = {}
        """Marks that are not on disk yet, in order: which features, and whether marked or not."""

    @property
    def owed(self) -> int:
        """Marks that are not on disk."""
        return sum(len(_net(changes)[0]) + len(_net(changes)[1]) for changes in self._owed.values())

    def owe(self, site: Site, old: Marks, new: Marks) -> None:
        """Note down which marks changed; :meth:`flush` writes them."""
        size = max(len(old.bits), len(new.bits))
        before, after = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        before[: len(old.bits)], after[: len(new.bits)] = old.bits, new.bits
        changed = np.flatnonzero(before != after)
        self._owed.setdefault(site, []).append((changed, after[changed]))

    async def flush(self) -> None:
        """Write the marks that are owed; what fails stays owed, and ``error`` says why."""
        async with self._lock:
            await asyncio.to_thread(self._pay)

    async def change(self, site: Site, change: Callable[[NoteStore], T]) -> tuple[T, Kept]:
        """Make a change and read back all that is kept of the SAE, other programs' changes included.

        Raises:
            StoreError: it is not on disk.
        """

        def both() -> tuple[T, Kept]:
            self._pay()
            return change(self.store), self.store.load(site)

        async with self._lock:
            return await asyncio.to_thread(both)

    def _pay(self) -> None:
        owed, self._owed = self._owed, {}
        self.error = ""
        for site, changes in owed.items():
            try:
                added, removed = _net(changes)
                self.store.set_marks(site, added.tolist(), removed.tolist())
            except WbtuiError as error:
                self.error = error.line()
                self._owed[site] = [*changes, *self._owed.get(site, [])]

    async def close(self) -> str:
        """Write what is owed, for the last time; what could not be kept, in words, or nothing."""
        if self._owed:
            await self.flush()
        return f"{self.owed} marks are not kept: {self.error}" if self._owed else ""


def _net(changes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(marked, unmarked) after changes in order: the last word on a feature counts."""
    last = np.zeros(max((int(rows.max()) + 1 for rows, _ in changes if len(rows)), default=0), dtype=np.int8)
    for rows, on in changes:
        last[rows] = np.where(on, 1, 2)
    return np.flatnonzero(last == 1), np.flatnonzero(last == 2)


def rescue(address: str, text: str) -> Path:
    """Put a note that cannot be kept where it will be found: beside the notes, else in the folder for temporary files.

    Raises:
        StoreError: nowhere.
    """
    line = json_text({"address": address, "note": text, "time": time.time()})
    for folder in (paths.data_dir(), Path(tempfile.gettempdir())):
        place = folder / "wbtui-unsaved-notes.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(place, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            return place
        except OSError:
            continue
    raise StoreError("the note can be written nowhere", "a folder that can be written", "copy it before you leave")
