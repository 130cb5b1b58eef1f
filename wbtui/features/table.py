"""``FeatureTable``: all rows of one SAE under one definition, as the app, the command line and exports read them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.definitions import TokensDefinition, to_json
from wbtui.errors import UsageError
from wbtui.features import classes, derived
from wbtui.features.companions import Companions, Origin, origin_of
from wbtui.features.head_shelf import HeadShelf
from wbtui.features.lone import OneRow, alone, stands_alone
from wbtui.features.names import KEPT_FLAGS, STORED, Name, resolve, scalar_names
from wbtui.features.neighbours import NeighbourShelf
from wbtui.features.noise import NullSample
from wbtui.features.source import ArrayRows, ProductRows
from wbtui.features.thresholds import Thresholds
from wbtui.features.vocabulary import Vocabulary
from wbtui.features.words import Word, kind, sentence, word_list
from wbtui.labels.book import LabelBook
from wbtui.notes.kept import Kept

if TYPE_CHECKING:
    from wbtui.catalog.plan import TokensPlan


WORD_LISTS = 512
"""Lists of words that are remembered."""
WORDS_TOLD = 20_000
"""Words among which a near one is looked for where text finds nothing."""


class FeatureTable:
    """Rows of one SAE: stored columns, derived columns, words, classes.

    Arrays that are returned belong to the table: read them, do not write. They follow the table's ``version``: take
    them again when it has risen.

    Attributes:
        n: features.
        origin: model, SAE, definition, product keys.
        plan: the plan it was opened from; None for arrays.
        vocab: token strings, None until their product is there (ids are then shown as ``#id``).
        version: rises at each change of rows, nulls, vocabulary or thresholds.
    """

    def __init__(self, rows: ArrayRows | ProductRows | OneRow, origin: Origin, vocab: Vocabulary | None = None) -> None:
        self.n = rows.n
        self.origin = origin
        self.plan: TokensPlan | None = None
        self.vocab = vocab
        self.version = 0
        self.provisional: set[int] = set()
        self.unmasked: set[int] = set()
        """Provisional rows that were computed before the token mask was there."""
        self.thresholds = Thresholds()
        self.cache: Path | None = None
        self.kept = Kept()
        """The user's marks, tags and notes (see :meth:`keep`)."""
        self.checks: list[NullSample] = []
        """Fresh nulls and the sign-flip control that are there."""
        self._rows = rows
        self._seen = rows.computed
        self._cache: dict[str, Any] = {}
        self._row_cache: dict[str, Any] = {}
        self.state: object = object()
        """Another object whenever :attr:`version` rises."""
        self.orders: dict[Any, Any] = {}
        """Orders of all rows that are remembered (:mod:`wbtui.features.order`)."""
        self._companions: Companions | None = None
        self._labels_stamp = (0, 0)

    @classmethod
    def open(cls, cache: Path, plan: TokensPlan) -> FeatureTable:
        """The table of a plan's products in a cache, whatever of them is there.

        Raises:
            StoreError: a product that is there but damaged, or of a newer version.
        """
        table = cls(ProductRows.open(cache, plan.tokens, STORED), origin_of(plan))
        table.plan = plan
        table._companions = Companions(cache, plan)
        table.cache = cache
        table._pick_up()
        return table

    @classmethod
    def from_arrays(
        cls,
        columns: Mapping[str, np.ndarray],
        *,
        vocab: Vocabulary | None = None,
        nulls: Sequence[NullSample] = (),
        checks: Sequence[NullSample] = (),
        definition: TokensDefinition | None = None,
        model: str = "model",
        sae: str = "sae",
        computed: np.ndarray | None = None,
        n: int | None = None,
    ) -> FeatureTable:
        """A table over arrays in memory, by full column name (``writes.z_max``); absent columns are absent rows."""
        definition = definition or TokensDefinition()
        if not columns and computed is None:
            computed = np.zeros(n or 0, dtype=bool)
        rows = ArrayRows(columns, STORED, to_json(definition), computed=computed, n=n)
        table = cls(rows, Origin({"name": model}, {"name": sae}, definition, {}), vocab)
        table.checks = list(checks)
        table.thresholds = Thresholds(nulls=tuple(nulls))
        return table

    @functools.cached_property
    def heads(self) -> HeadShelf | None:
        """How features take part in attention, a layer at a time; None without a model at hand."""
        if self.plan is None or self.cache is None:
            return None
        return HeadShelf(self.cache, self.plan.model, self.plan.sae)

    @functools.cached_property
    def labels(self) -> LabelBook | None:
        """Labels and densities that were imported for this SAE (data, not weights); None for arrays in memory."""
        fingerprint = str(self.origin.sae.get("fingerprint") or "")
        if self.plan is None or not fingerprint:
            return None
        book = LabelBook(fingerprint, self.n)
        self._labels_stamp = book.stamp
        return book

    @functools.cached_property
    def neighbours(self) -> NeighbourShelf | None:
        """The nearest features, here and in other SAEs; None without a model at hand."""
        if self.plan is None or self.cache is None:
            return None
        return NeighbourShelf(self.cache, self.plan.model, self.plan.sae)

    # -- state -----------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every row is stored and final."""
        return self._rows.complete

    @property
    def computed(self) -> np.ndarray:
        """bool [n]: rows that are stored."""
        return self._rows.computed

    @property
    def available(self) -> np.ndarray:
        """bool [n]: rows with numbers, stored or provisional."""
        if not self.provisional:
            return self.computed
        return self._cached("available", lambda: derived.with_rows(self.computed, self.provisional))

    def refresh(self) -> bool:
        """Pick up new shards, completion, nulls and token strings; True if something changed."""
        changed = self._rows.refresh() or self._rows.computed is not self._seen
        if changed:
            done = self._seen = self._rows.computed
            self.provisional = {row for row in self.provisional if not done[row]}
            self.unmasked &= self.provisional
        changed |= self._pick_up()
        if self.labels is not None and self.labels.stamp != self._labels_stamp:
            self._labels_stamp = self.labels.stamp
            changed = True
        if changed:
            self._touch(rows=True)
        return changed

    def put_provisional(self, row: int, columns: Mapping[str, Any]) -> None:
        """Show one lone feature's numbers until its shard lands. A stored row is never replaced.

        Args:
            row: feature.
            columns: column name -> number or list, None for what is not finite, as the service's ``row`` answers; the
                extra key ``unmasked`` says that the token mask was not there yet.

        Raises:
            UsageError: no such row.
            StoreError: a column that the product has not, or of another size.
        """
        row = self._checked(row)
        values = derived.provisional_values(columns, self._rows.definition)
        if self.computed[row]:
            return
        self._rows.put(row, values)
        self.provisional = self.provisional | {row}
        self.unmasked = self.unmasked | {row} if columns.get("unmasked") else self.unmasked - {row}
        self._touch(rows=True)

    def with_thresholds(self, thresholds: Thresholds) -> None:
        """Judge by other bars from now on; nothing stored is read again. The table's nulls are kept."""
        if thresholds.nulls != self.thresholds.nulls:
            thresholds = dataclasses.replace(thresholds, nulls=self.thresholds.nulls)
        if thresholds != self.thresholds:
            self.thresholds = thresholds
            self._touch(rows=False)

    def keep(self, kept: Kept) -> None:
        """Take other marks, tags and notes from now on; no number changes, and the version stays."""
        self.kept = kept

    def _touch(self, *, rows: bool) -> None:
        self.version += 1
        self.state = object()
        self.orders.clear()
        self._cache.clear()
        if rows:
            self._row_cache.clear()

    def _pick_up(self) -> bool:
        """Nulls, checks and strings that finished since the last look."""
        if self._companions is None:
            return False
        vocab, nulls, checks = self._companions.arrived()
        if vocab is not None:
            self.vocab = vocab
        if nulls:
            self.thresholds = dataclasses.replace(self.thresholds, nulls=(*self.thresholds.nulls, *nulls))
        self.checks += checks
        return vocab is not None or bool(nulls or checks)

    # -- columns ---------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Every canonical name with one value a row (ranks, ``percentile:NAME``, come on top of any of them)."""
        return list(scalar_names())

    def column(self, name: str) -> np.ndarray:
        """One column by any accepted name: [n], or [n, k] for stored lists.

        Absent rows are NaN in floats, -1 in stored integers and in classes, 0 in ``flags`` and ``n_words``, False in
        yes-or-nos; :meth:`known` tells them apart.

        Raises:
            UsageError: unknown name.
        """
        known = resolve(name)
        if known.kind in ("stored", "list"):
            return self._rows.column(known.text)
        if known.base == "id":  # made in less time than 8 bytes a row are worth remembering for
            return derived.row_column(self, "id")
        if known.base in KEPT_FLAGS or known.kind == "text":
            return derived.kept_column(self, known.base)
        if known.kind == "head":
            return self.heads.column(known.text) if self.heads else np.full(self.n, np.nan, dtype=np.float32)
        if known.kind == "near":
            return derived.near_column(self, known)
        if known.kind == "flag" and known.side in ("either", "both"):
            join = np.logical_or if known.side == "either" else np.logical_and
            parts = [self.column(f"{known.base}.{side}") for side in ("writes", "reads")]
            return self._cached(known.text, lambda: join(*parts))
        return self._cached(known.text, lambda: self._derive(known))

    def column_once(self, name: str) -> np.ndarray:
        """:meth:`column` for one use: a first view, which is sorted by and hardly ever shown, is not kept."""
        known = resolve(name)
        if known.base != "first_view" or known.text in self._cache:
            return self.column(name)
        return self._derive(known)

    def known(self, name: str) -> np.ndarray:
        """bool [n]: where :meth:`column` holds a real value."""
        name_ = resolve(name)
        if name_.kind in ("head", "near"):  # not remembered: these land apart from rows
            values = self.column(name_.text)
            return ~np.isnan(values) if values.dtype.kind == "f" else values >= 0
        if name_.base in KEPT_FLAGS or name_.kind == "text":
            return derived.kept_known(self, name_.base)
        if name_.kind == "flag" and name_.side in ("either", "both"):
            return self.known(f"{name_.base}.writes") & self.known(f"{name_.base}.reads")
        if name_.kind == "stored" and (values := self.column(name_.text)).dtype.kind == "f":
            return ~np.isnan(values)  # quicker than many of these are worth the memory
        return self._cached("known:" + name_.text, lambda: self._known(name_))

    def read(self, side: str) -> Callable[[str], np.ndarray]:
        """A reader of one side's stored columns by bare name."""
        return lambda name: self._rows.column(f"{side}.{name}")

    def value(self, name: str, row: int) -> float:
        """One row's number, NaN where there is none (a yes-or-no is 1 or 0)."""
        name_ = resolve(name)
        if name_.kind == "near":
            value = self.column(name)[self._checked(row)]
            return float("nan") if value < 0 and value.dtype.kind == "i" else float(value)
        if name_.kind == "stored":
            value = self._rows.row(name_.text, self._checked(row))
            return float(value) if self.available[row] else float("nan")
        if name_.base == "id":
            return float(self._checked(row))
        if stands_alone(self, name_):
            return alone(self, self._checked(row)).value(name_.text, 0)
        return float(self.column(name)[row]) if self.known(name)[row] else float("nan")

    def at(self, name: str, row: int) -> Any:
        """One row of :meth:`column`; of a large table a derived column is not made for it."""
        name_ = resolve(name)
        if name_.base == "id":
            return np.int64(self._checked(row))
        if stands_alone(self, name_):
            return alone(self, self._checked(row)).column(name_.text)[0]
        return self.column(name_.text)[row]

    def known_at(self, name: str, row: int) -> bool:
        """One row of :meth:`known`, as :meth:`at`."""
        name_ = resolve(name)
        if stands_alone(self, name_):
            return bool(alone(self, self._checked(row)).known(name_.text)[0])
        return bool(self.known(name_.text)[row])

    def prepare(self, name: str) -> None:
        """Make what :meth:`at` and :meth:`known_at` would have to make, where that is a whole column."""
        name_ = resolve(name)
        if name_.base != "id" and not stands_alone(self, name_):
            self.known(name)

    def cell(self, name: str, row: int) -> Any:
        """One row of one stored column as it is, lists included."""
        return self._rows.row(resolve(name).text, self._checked(row))

    def _derive(self, name: Name) -> np.ndarray:
        if name.kind == "row":
            return derived.row_column(self, name.base)
        if name.kind == "rank":
            return derived.rank_column(self, name.base, name.side)
        side = name.side
        bars = self.thresholds.side(side)
        if name.kind == "class":
            return self._classes(side)[0]
        if name.kind == "flag":
            return (
                classes.unclear(self.read(side), bars)
                if name.base == "unclear"
                else classes.flag(self._classes(side)[0], name.base)
            )
        if name.base == "n_words":
            return self._classes(side)[1]
        if name.base == "n_eff":
            with np.errstate(over="ignore"):
                return np.exp(self._rows.column(f"{side}.h_kappa"))
        if name.base == "evidence":
            return classes.evidence(self.read(side), bars.units)
        return classes.first_view(self.read(side), bars.units)

    def _classes(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        thresholds = self.thresholds
        return self._cached(
            f"classes:{side}",
            lambda: classes.classify(self.read(side), thresholds.side(side), thresholds.rule, thresholds.concentration),
        )

    def _known(self, name: Name) -> np.ndarray:
        if name.kind == "row":
            return derived.row_known(self, name.base)
        if name.kind == "class" or (name.kind == "flag" and name.base != "unclear"):
            return self._classes(name.side)[0] != classes.UNKNOWN
        if name.kind == "flag":
            ready = bool(self.thresholds.side(name.side).units)
            return np.isfinite(self._rows.column(f"{name.side}.z_max")) & ready
        if name.base == "n_words" and name.kind == "number":
            ready = bool(np.isfinite(self.thresholds.side(name.side).word_z).any())
            return np.isfinite(self._rows.column(f"{name.side}.z_max")) & ready
        if name.kind == "list":
            return self.available
        values = self.column(name.text)
        if values.dtype.kind == "f":
            return ~np.isnan(values)
        return derived.integer_known(self, name)

    def _cached(self, key: str, compute: Callable[[], Any], *, rows: bool = False) -> Any:
        """Remember until the rows (``rows``) or also the thresholds change."""
        cache = self._row_cache if rows else self._cache
        if key not in cache:
            cache[key] = compute()
        return cache[key]

    def top_ids(self, side: str, k: int = 10) -> np.ndarray:
        """The first ``k`` shown ids of a side, int32 [n, k], as stored: absent ones are negative."""
        base, name = ("writes", "bottom_ids") if side == "against" else (side, "top_ids")
        return self.column(f"{base}.{name}")[:, :k]

    def shown_words(self, side: str, k: int = 10) -> dict[str, str]:
        """Words among the first ``k`` of a side, case folded -> as shown; at most :data:`WORDS_TOLD`."""

        def words() -> dict[str, str]:
            vocab = self.vocab
            if vocab is None:
                return {}
            seen = np.zeros(vocab.n + 1, dtype=bool)
            ids = self.top_ids(side, k)
            for start in range(0, self.n, 65_536):
                block = ids[start : start + 65_536]
                seen[np.where((block >= 0) & (block < vocab.n), block, vocab.n)] = True
            told = (vocab.word(int(token)) for token in np.flatnonzero(seen[:-1])[:WORDS_TOLD])
            return {word.casefold(): word for word in told}

        found: dict[str, str] = self._cached(f"words:{side}:{k}", words, rows=True)
        return found

    def texts(self, base: str) -> dict[int, str]:
        """The texts of a column (``tags``, ``note``, ``label``: each feature's first one), by feature."""
        if base != "label":
            return self.kept.texts(base)
        found: dict[int, str] = self._cached("labels", lambda: {} if self.labels is None else self.labels.texts())
        return found

    def text(self, base: str, row: int) -> str:
        """One row of :meth:`texts`; empty where there is none."""
        return self.texts(base).get(row, "") if base == "label" else self.kept.text(base, row)

    # -- one row ---------------------------------------------------------------------------------------------------

    def _checked(self, row: int) -> int:
        if not 0 <= row < self.n:
            raise UsageError(f"feature {row}", f"0 to {self.n - 1}" if self.n else "no feature: the SAE has none")
        return int(row)

    def words(self, row: int, side: str = "writes", k: int = 10) -> list[Word]:
        """The best ``k`` (at most ``k_words``) distinct words of a row; empty where nothing is computed.

        Args:
            row: feature.
            side: ``writes``, ``against`` (what it pushes down) or ``reads``.
            k: how many.
        """
        lists: dict[tuple[int, str], tuple[int, list[Word]]] = self._cached("words", dict)
        made, found = lists.get((self._checked(row), side), (0, []))
        if made < k:  # a card asks for one list several times
            if len(lists) >= WORD_LISTS:
                lists.clear()
            found = word_list(self, row, side, k)
            lists[row, side] = k, found
        return found[:k]

    def sentence(self, row: int) -> str:
        """What the feature is, in capitals: ``SET OF 9 WORDS``, ``ONE WORD``, ``MIX OF 7``, …"""
        return sentence(self, self._checked(row))

    def kind(self, row: int, side: str = "writes") -> str:
        """The short display word of the class with its count: ``set 9``, ``one``, ``mix 20+``, ``none``, or nothing."""
        return kind(self, self._checked(row), side)

    def record(self, row: int) -> dict[str, Any]:
        """Everything about one feature as plain JSON data, schema ``wbtui.feature/1``."""
        from wbtui.features.record import record

        return record(self, self._checked(row))

    def null_percentile(self, name: str, row: int) -> tuple[float, str]:
        """How far a row stands in the noise: the tail (1 + b) / (N + 1) and words for it.

        ``b`` of ``N`` directions reach the row's value; of several null kinds, the larger tail. NaN and a reason
        where it cannot be told.
        """
        return derived.null_percentile(self, name, self._checked(row))

    def percentile(self, name: str, row: int) -> float:
        """Share (0…100) of the SAE's stored rows that lie strictly below this one; NaN where there is no value."""
        inner = resolve(f"percentile:{resolve(name).text}").side  # refuses what has no rank
        return derived.percentile_of(self, inner, self._checked(row))

    def masked_tokens(self, side: str = "writes") -> dict[str, int] | None:
        """How many tokens the mask drops, ``{neighbours, special, total, of, estimated}``; None without its product."""
        if self._companions is None or self.vocab is None:
            return None
        return self._companions.masked(side, self.vocab)


@contextmanager
def thresholds_of(table: FeatureTable, thresholds: Thresholds) -> Iterator[FeatureTable]:
    """The table judged by other bars for a while (summaries of several rules)."""
    before = table.thresholds
    table.with_thresholds(thresholds)
    try:
        yield table
    finally:
        table.with_thresholds(before)
