"""Marks, tags and notes on disk: one SQLite file in the data folder, keyed by what a feature *is*.

The key is the model's and the SAE's fingerprint (of the bytes of their weights) and the feature's number: a note stays
with its feature under any name, path or revision. The address is kept beside it, for people.

A rollback journal with full syncs, not WAL: a data folder may be on NFS, where WAL's shared memory does not work.
Every change is one short transaction, so several apps may work on one file; a change that meets another's waits.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wbtui import paths
from wbtui.errors import StoreError
from wbtui.notes.kept import Kept, clean_note

if TYPE_CHECKING:
    import sqlite3

    from wbtui.features.companions import Origin

FILE = "notes.sqlite"
WAIT = 5.0
"""Seconds that a change waits for another program's."""
APPLICATION = 0x77627475  # "wbtu"
VERSION = 1
SCHEMA = """
CREATE TABLE saes (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, sae TEXT NOT NULL, address TEXT NOT NULL, UNIQUE (model, sae)
);
CREATE TABLE marks (sae INTEGER NOT NULL, feature INTEGER NOT NULL, PRIMARY KEY (sae, feature)) WITHOUT ROWID;
CREATE TABLE tags (
    sae INTEGER NOT NULL, feature INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (sae, feature, tag)
) WITHOUT ROWID;
CREATE TABLE notes (
    sae INTEGER NOT NULL, feature INTEGER NOT NULL, note TEXT NOT NULL, changed REAL NOT NULL,
    PRIMARY KEY (sae, feature)
);
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Site:
    """An SAE of a model by its bytes, and its address for reading (``demo@L3``)."""

    model: str
    sae: str
    address: str


def site_of(origin: Origin) -> Site:
    """What a table's rows are kept under."""
    return Site(str(origin.model["fingerprint"]), str(origin.sae["fingerprint"]), origin.address())


def kept_of(origin: Origin, store: NoteStore | None = None) -> Kept:
    """What is kept of a table's features; with an ``error`` in it where it cannot be read."""
    try:
        return (store or NoteStore()).load(site_of(origin))
    except StoreError as error:
        return Kept(error=error.line())


class NoteStore:
    """The file. It is made at the first change; reading where there is none finds nothing.

    Every method raises ``StoreError``, one line, where the file is locked, damaged, newer, or cannot be written. A file
    that is not understood is never written to.
    """

    def __init__(self, path: Path | None = None, *, wait: float = WAIT) -> None:
        self.path = path or paths.data_dir() / FILE
        self.wait = wait

    # Reading --------------------------------------------------------------------------------------------------------

    def load(self, site: Site) -> Kept:
        """Everything kept of an SAE's features."""

        def read(db: sqlite3.Connection) -> Kept:
            number = _number(db, site)
            if number is None:
                return Kept()
            marked = np.fromiter(
                (row[0] for row in db.execute("SELECT feature FROM marks WHERE sae = ?", (number,))), dtype=np.int64
            )
            bits = np.zeros(int(marked.max()) + 1 if len(marked) else 0, dtype=bool)
            bits[marked] = True
            tags: dict[int, list[str]] = {}
            for feature, tag in db.execute("SELECT feature, tag FROM tags WHERE sae = ? ORDER BY tag", (number,)):
                tags.setdefault(feature, []).append(tag)
            notes = dict(db.execute("SELECT feature, note FROM notes WHERE sae = ?", (number,)))
            return Kept(bits, {f: tuple(own) for f, own in tags.items()}, notes)

        return self._read(read, Kept())

    def note(self, site: Site, feature: int) -> str:
        """One feature's note as it is on disk now; empty without one."""
        return self._read(lambda db: _note(db, _number(db, site), feature), "")

    def saes(self) -> list[tuple[Site, dict[str, int]]]:
        """Every SAE of which something is kept, with how many marks, tagged features and notes."""

        def read(db: sqlite3.Connection) -> list[tuple[Site, dict[str, int]]]:
            out = []
            for number, model, sae, address in db.execute("SELECT id, model, sae, address FROM saes ORDER BY address"):
                counts = {
                    name: db.execute(f"SELECT count(DISTINCT feature) FROM {name} WHERE sae = ?", (number,)).fetchone()[
                        0
                    ]
                    for name in ("marks", "tags", "notes")
                }
                if any(counts.values()):
                    out.append((Site(model, sae, address), counts))
            return out

        return self._read(read, [])

    def changed(self, site: Site) -> dict[int, float]:
        """Feature -> when its note was written (Unix time)."""
        return self._read(
            lambda db: dict(db.execute("SELECT feature, changed FROM notes WHERE sae = ?", (_number(db, site),))), {}
        )

    def check(self) -> str:
        """``ok``, ``none`` where there is no file, or what SQLite finds wrong."""
        return self._read(lambda db: str(db.execute("PRAGMA quick_check(1)").fetchone()[0]), "none")

    # Changing -------------------------------------------------------------------------------------------------------

    def set_marks(self, site: Site, added: Iterable[int], removed: Iterable[int]) -> None:
        """Mark some features, unmark others; marks that others set meanwhile stay."""

        def change(db: sqlite3.Connection) -> None:
            number = _number_made(db, site)
            # one statement over a JSON array: SQLite works alone, other threads of the app go on
            for statement, features in (
                ("INSERT OR IGNORE INTO marks SELECT ?, value FROM json_each(?)", added),
                ("DELETE FROM marks WHERE sae = ? AND feature IN (SELECT value FROM json_each(?))", removed),
            ):
                listed = [int(f) for f in features]
                if listed:
                    db.execute(statement, (number, json.dumps(listed)))

        self._change(change)

    def set_tags(self, site: Site, feature: int, tags: Sequence[str]) -> None:
        """The feature's tags from now on are these."""

        def change(db: sqlite3.Connection) -> None:
            number = _number_made(db, site)
            db.execute("DELETE FROM tags WHERE sae = ? AND feature = ?", (number, feature))
            db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", ((number, feature, tag) for tag in tags))

        self._change(change)

    def add_tags(self, site: Site, features: Iterable[int], tags: Sequence[str]) -> None:
        """Give several features some tags beside those they have."""

        def change(db: sqlite3.Connection) -> None:
            number = _number_made(db, site)
            rows = ((number, int(f), tag) for f in features for tag in tags)
            db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", rows)

        self._change(change)

    def set_note(self, site: Site, feature: int, text: str, was: str) -> str:
        """Write a note over ``was``, the text that it was edited from.

        Where someone else changed it meanwhile, both texts are kept, theirs first.

        Returns:
            str: what is on disk now; empty where the note is gone.
        """
        text = clean_note(text)

        def change(db: sqlite3.Connection) -> str:
            number = _number_made(db, site)
            there = _note(db, number, feature)
            new = text if there in (was, text) else joined(there, text)
            if not new:
                db.execute("DELETE FROM notes WHERE sae = ? AND feature = ?", (number, feature))
            elif new != there:
                db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (number, feature, new, time.time()))
            return new

        return self._change(change)

    def merge(self, site: Site, feature: int, **entry: Any) -> None:
        """Import one feature; see :func:`wbtui.notes.exchange.import_data`, which does many in one transaction."""
        with self.batch() as take:
            take(site, feature, **entry)

    @contextmanager
    def batch(self) -> Iterator[Callable[..., set[str]]]:
        """One transaction for many merges: all of them or none.

        Yields a function ``take(site, feature, marked=False, tags=(), note="", changed=None)`` that adds what is not
        there yet and returns which of marks, tags, notes it changed.
        """
        with self._transaction() as db:

            def take(
                site: Site, feature: int, marked: bool = False, tags: Sequence[str] = (), note: str = "",
                changed: float | None = None,
            ) -> set[str]:  # fmt: skip
                number = _number_made(db, site)
                before = db.total_changes
                out: set[str] = set()

                def seen(kind: str) -> None:
                    nonlocal before
                    if db.total_changes != before:
                        out.add(kind)
                        before = db.total_changes

                if marked:
                    db.execute("INSERT OR IGNORE INTO marks VALUES (?, ?)", (number, feature))
                    seen("marks")
                db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", ((number, feature, tag) for tag in tags))
                seen("tags")
                there = _note(db, number, feature)
                if note and note not in there:
                    when = changed if changed is not None and not there else time.time()
                    new = joined(there, note)
                    db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (number, feature, new, when))
                    seen("notes")
                return out

            yield take

    # The file -------------------------------------------------------------------------------------------------------

    def _read(self, read: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        if not self.path.exists():
            return nothing
        with self._errors(), self._connection(write=False) as db:
            return read(db) if self._checked(db) else nothing

    def _change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        with self._transaction() as db:
            return change(db)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._connection(write=True) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    if not self._checked(db):
                        for statement in SCHEMA.split(";"):
                            db.execute(statement)
                        db.execute(f"PRAGMA application_id = {APPLICATION}")
                        db.execute(f"PRAGMA user_version = {VERSION}")
                    yield db
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise

    def _checked(self, db: sqlite3.Connection) -> bool:
        """Whether the tables are there; a file that is someone else's, or of a later version, is refused."""
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        application = int(db.execute("PRAGMA application_id").fetchone()[0])
        if version > VERSION and application == APPLICATION:
            raise StoreError(f"{self.path}: notes of version {version}", f"version {VERSION}", "update wbtui")
        if application == APPLICATION:
            return True
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{self.path}: an SQLite file of another program", "notes of wbtui", "move it aside")
        return False

    @contextmanager
    def _connection(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        import sqlite3
        from urllib.parse import quote

        mode = "rwc" if write else "rw"  # reading may have to roll back what a killed writer left
        uri = f"file:{quote(os.fsencode(self.path.absolute()))}?mode={mode}"
        db = sqlite3.connect(uri, uri=True, timeout=self.wait, isolation_level=None, check_same_thread=False)
        try:
            if write:
                db.execute("PRAGMA journal_mode = DELETE")
                db.execute("PRAGMA synchronous = FULL")
            yield db
        finally:
            db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._story(error) from None

    def _story(self, error: Exception) -> StoreError:
        text = str(error)
        if isinstance(error, OSError):
            text = error.strerror or text
        if "locked" in text or "busy" in text:
            return StoreError(f"notes are in use by another program for {self.wait:g} s ({self.path})", do="try again")
        if "not a database" in text or "malformed" in text or "disk image" in text or "encrypted" in text:
            return StoreError(
                f"notes are damaged: {text} ({self.path})",
                "notes of wbtui",
                "nothing is written to it: move it aside, then `wbtui notes import` brings an export back",
            )
        if "readonly" in text or "unable to open" in text or isinstance(error, PermissionError):
            return StoreError(
                f"notes cannot be written: {text} ({self.path})", "a data folder of your own", "WBTUI_DATA_DIR moves it"
            )
        return StoreError(f"notes: {text} ({self.path})", "notes that can be read and written")


def joined(first: str, second: str) -> str:
    """Two notes as one that loses nothing: the second is left out where the first holds it already."""
    if not first or first in second:
        return second
    return first if not second or second in first else f"{first}\n\n{second}"


def _number(db: sqlite3.Connection, site: Site) -> int | None:
    row = db.execute("SELECT id FROM saes WHERE model = ? AND sae = ?", (site.model, site.sae)).fetchone()
    return None if row is None else int(row[0])


def _number_made(db: sqlite3.Connection, site: Site) -> int:
    number = _number(db, site)
    if number is not None:
        return number
    made = db.execute("INSERT INTO saes (model, sae, address) VALUES (?, ?, ?)", (site.model, site.sae, site.address))
    assert made.lastrowid is not None
    return made.lastrowid


def _note(db: sqlite3.Connection, number: int | None, feature: int) -> str:
    row = db.execute("SELECT note FROM notes WHERE sae = ? AND feature = ?", (number, feature)).fetchone()
    return "" if row is None else str(row[0])
