"""Labels and densities of one SAE on disk: one SQLite file in the user's data folder, named by the weights' bytes.

An import is one transaction: whatever happens, either all of a command's files are in or none. Reading opens the file
read-only for each question, so that threads and other processes need no locks of ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui import paths
from wbtui.errors import StoreError, UsageError

if TYPE_CHECKING:  # every start of the app looks whether there are labels, and most have none
    import re
    import sqlite3

    from wbtui.labels.belongs import Target
    from wbtui.labels.readers import CsvColumns

FORMAT = 1
MAX_TEXT = 2000
"""Characters kept of one label."""
MAX_PER_FEATURE = 64
"""Lines of one import for each feature, on average: beyond, a file is not a label file."""
WAIT = 10.0
"""Seconds to wait for another process's import."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS origins (
  id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL, source TEXT NOT NULL,
  imported TEXT NOT NULL, UNIQUE (kind, name, model, source));
CREATE TABLE IF NOT EXISTS labels (
  id INTEGER PRIMARY KEY, feature INTEGER NOT NULL, text TEXT NOT NULL, folded TEXT NOT NULL, method TEXT NOT NULL,
  author TEXT NOT NULL, origin INTEGER NOT NULL, UNIQUE (feature, text, method, author));
CREATE TABLE IF NOT EXISTS densities (feature INTEGER PRIMARY KEY, density REAL NOT NULL, origin INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Label:
    """One label of one feature. Its text is a stranger's: show it through ``display.safe_token_text`` only."""

    text: str
    method: str
    author: str
    origin: str


@dataclass
class Imported:
    """What an import did."""

    files: int = 0
    labels: int = 0
    known: int = 0
    """Labels that were there already."""
    densities: int = 0
    replaced: int = 0
    """Densities that another value stood for."""
    cut: int = 0
    """Labels longer than :data:`MAX_TEXT`."""


def folder() -> Path:
    """Where label files are kept."""
    return paths.data_dir() / "labels"


def path_of(fingerprint: str) -> Path:
    """The file of one SAE."""
    return folder() / f"{fingerprint[:32]}.sqlite"


def import_files(target: Target, wanted: Iterable[Path], columns: CsvColumns | None = None) -> Imported:
    """Import label files into an SAE's book, all or nothing.

    Args:
        target: the SAE.
        wanted: files, or folders of them.
        columns: CSV columns by name.

    Raises:
        UsageError: files of another SAE, without ids, of unknown kind.
        StoreError: damaged or truncated files; a data folder that cannot be written.
    """
    import sqlite3

    from wbtui.labels.readers import files_of

    files = [file for path in wanted for file in files_of(path)]
    where = path_of(target.fingerprint)
    done = Imported(files=len(files))
    fresh = not where.exists()
    with _reported(where):
        where.parent.mkdir(parents=True, exist_ok=True)
        base = sqlite3.connect(where, timeout=WAIT, isolation_level=None)
        try:
            _prepare(base, where, target)
            base.execute("BEGIN IMMEDIATE")
            try:
                for file in files:
                    _import_one(base, target, file, columns, done)
                base.execute("COMMIT")
            except BaseException:
                base.execute("ROLLBACK")
                raise
        finally:
            empty = fresh and not base.execute("SELECT EXISTS (SELECT 1 FROM origins)").fetchone()[0]
            base.close()
            if empty:
                where.unlink(missing_ok=True)
    return done


def _prepare(base: sqlite3.Connection, where: Path, target: Target) -> None:
    version = base.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise StoreError(f"{where}: format {version}", f"at most {FORMAT}", "it was made by a newer wbtui")
    base.executescript(_SCHEMA)
    base.execute(f"PRAGMA user_version = {FORMAT}")
    for key, value in (("address", target.address), ("d_sae", target.d_sae), ("fingerprint", target.fingerprint)):
        base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, str(value)))


def _import_one(
    base: sqlite3.Connection, target: Target, file: Path, columns: CsvColumns | None, done: Imported
) -> None:
    from wbtui.labels.belongs import check
    from wbtui.labels.readers import items, kind_of

    origins: dict[tuple[str, str], int] = {}
    most = MAX_PER_FEATURE * max(target.d_sae, 64)
    for number, item in enumerate(items(file, target.d_sae, columns)):
        check(target, item)
        if number >= most:
            raise UsageError(
                f"{item.where}: more than {most:,} lines",
                f"at most {MAX_PER_FEATURE} a feature of {target.address}",
                "is it one SAE's file? nothing was imported",
            )
        key = (item.model, item.source)
        if key not in origins:
            # batches of one export are one origin, however many files they come in
            name = file.parent.name if kind_of(file) == "neuronpedia" and file.name.startswith("batch-") else file.name
            origins[key] = _origin(base, kind_of(file), name, *key)
        if item.label:
            text = item.label[:MAX_TEXT]
            done.cut += len(item.label) > MAX_TEXT
            text = text.encode("utf-8", "replace").decode()  # a lone surrogate has no place in a database
            values = (item.feature, text, text.casefold(), item.method, item.author, origins[key])
            added = base.execute(
                "INSERT OR IGNORE INTO labels (feature, text, folded, method, author, origin) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            ).rowcount
            done.labels += added
            done.known += 1 - added
        if item.density is not None:
            before = base.execute("SELECT density FROM densities WHERE feature = ?", (item.feature,)).fetchone()
            done.densities += 1
            done.replaced += before is not None and before[0] != item.density
            base.execute(
                "INSERT OR REPLACE INTO densities VALUES (?, ?, ?)", (item.feature, item.density, origins[key])
            )


def _origin(base: sqlite3.Connection, kind: str, name: str, model: str, source: str) -> int:
    row = (kind, name, model, source)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    base.execute(
        "INSERT INTO origins (kind, name, model, source, imported) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET imported = excluded.imported",
        (*row, now),
    )
    found = base.execute("SELECT id FROM origins WHERE kind = ? AND name = ? AND model = ? AND source = ?", row)
    return int(found.fetchone()[0])


class LabelBook:
    """What is imported for one SAE; empty where nothing is.

    Args:
        fingerprint: SHA-256 of the SAE's weights.
        n: its features.
    """

    def __init__(self, fingerprint: str, n: int) -> None:
        self.path = path_of(fingerprint)
        self.n = n

    @property
    def stamp(self) -> tuple[int, int]:
        """Changes with the file; (0, 0) where there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_size)

    def density(self) -> np.ndarray:
        """float32 [n]: share of tokens on which each feature fired; NaN where it is not known."""
        out = np.full(self.n, np.nan, dtype=np.float32)
        for feature, density in self._rows("SELECT feature, density FROM densities"):
            if feature < self.n:
                out[feature] = density
        return out

    def labelled(self) -> np.ndarray:
        """bool [n]: features with a label."""
        return self._mask("SELECT DISTINCT feature FROM labels")

    def matching(self, text: str) -> np.ndarray:
        """bool [n]: features one of whose labels holds the text, whatever its case."""
        return self._mask("SELECT feature FROM labels WHERE instr(folded, ?) > 0", (text.casefold(),))

    def matching_regex(self, pattern: re.Pattern[str]) -> np.ndarray:
        """bool [n]: features one of whose labels the pattern finds something in."""
        out = np.zeros(self.n, dtype=bool)
        for feature, text in self._rows("SELECT feature, text FROM labels"):
            if feature < self.n and not out[feature]:
                out[feature] = pattern.search(text) is not None
        return out

    def of(self, feature: int) -> list[Label]:
        """A feature's labels, in the order of their import."""
        query = (
            "SELECT l.text, l.method, l.author, o.source, o.name FROM labels l JOIN origins o ON o.id = l.origin "
            "WHERE l.feature = ? ORDER BY l.id"
        )
        return [Label(t, m, a, source or name) for t, m, a, source, name in self._rows(query, (feature,))]

    def firsts(self, rows: np.ndarray) -> list[str | None]:
        """The first label of each of some features (for a column of a file or table)."""
        found: dict[int, str] = {}
        numbers = [int(row) for row in rows]
        for start in range(0, len(numbers), 500):
            part = numbers[start : start + 500]
            marks = ", ".join("?" * len(part))
            for feature, text in self._rows(
                f"SELECT feature, text FROM labels WHERE feature IN ({marks}) ORDER BY id DESC", tuple(part)
            ):
                found[feature] = text
        return [found.get(row) for row in numbers]

    def texts(self) -> dict[int, str]:
        """The first label of every feature that has one."""
        query = "SELECT feature, text FROM labels ORDER BY id DESC"
        return {feature: text for feature, text in self._rows(query) if feature < self.n}

    def origins(self) -> list[dict[str, Any]]:
        """What was imported: id, kind, name, model, source, imported, labels, densities."""
        query = (
            "SELECT o.id, o.kind, o.name, o.model, o.source, o.imported, "
            "(SELECT count(*) FROM labels l WHERE l.origin = o.id), "
            "(SELECT count(*) FROM densities d WHERE d.origin = o.id) FROM origins o ORDER BY o.id"
        )
        names = ("id", "kind", "name", "model", "source", "imported", "labels", "densities")
        return [dict(zip(names, row, strict=True)) for row in self._rows(query)]

    def about(self) -> dict[str, str]:
        """Address, d_sae and fingerprint of the SAE at its last import."""
        return dict(self._rows("SELECT key, value FROM about"))

    def remove(self, origin: int | None = None) -> int:
        """Remove everything, or what came from one origin; how many labels and densities went.

        Raises:
            UsageError: no such origin.
        """
        known = {row["id"]: row["labels"] + row["densities"] for row in self.origins()}
        if origin is None or (origin in known and len(known) == 1):
            with _reported(self.path):
                self.path.unlink(missing_ok=True)
            return sum(known.values())
        if origin not in known:
            raise UsageError(
                f"origin {origin}",
                "one of " + (", ".join(map(str, known)) or "none: nothing is imported"),
                "`wbtui labels ls ADDRESS` lists them",
            )
        import sqlite3

        with _reported(self.path):
            base = sqlite3.connect(self.path, timeout=WAIT)
            with contextlib.closing(base), base:
                for table, column in (("labels", "origin"), ("densities", "origin"), ("origins", "id")):
                    base.execute(f"DELETE FROM {table} WHERE {column} = ?", (origin,))
        return int(known[origin])

    def _mask(self, query: str, values: tuple[Any, ...] = ()) -> np.ndarray:
        out = np.zeros(self.n, dtype=bool)
        for (feature,) in self._rows(query, values):
            if feature < self.n:
                out[feature] = True
        return out

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        if not self.path.exists():
            return
        import sqlite3

        with _reported(self.path):
            base = sqlite3.connect(f"file:{_quoted(self.path)}?mode=ro", uri=True, timeout=WAIT)
            with contextlib.closing(base):
                yield from base.execute(query, values)


def books() -> list[Path]:
    """The files of all SAEs with labels."""
    return sorted(folder().glob("*.sqlite")) if folder().is_dir() else []


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """What SQLite and the system say, as an error that names the file."""
    import sqlite3

    try:
        yield
    except (sqlite3.Error, OSError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreError(
            f"{path}: {words}", "a label file of wbtui that can be used", "if it is damaged, remove it and import again"
        ) from None
