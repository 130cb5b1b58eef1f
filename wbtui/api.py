"""``wbtui.open``: an SAE's features from Python, read-only.

Reading needs numpy only: no torch, no Textual, no pandas (:meth:`Features.to_pandas` imports it when it is called).
Columns of a finished product are views of the mapped file, so that opening a million features costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wbtui.address import parse_address
from wbtui.errors import UsageError

if TYPE_CHECKING:
    import pandas

    from wbtui.catalog.plan import TokensPlan
    from wbtui.features.table import FeatureTable


def open_features(address: str, definition: str = "folded") -> Features:
    """The features of an SAE, whatever of them is computed.

    Args:
        address: ``MODEL@SAE``, as on the command line.
        definition: a named definition: ``folded``, ``neuronpedia``, ``neuronpedia-folded``.

    Returns:
        Features: :attr:`Features.complete` says whether everything is there; :meth:`Features.compute` makes it so.

    Raises:
        UsageError: no such model, SAE or definition.
        WeightsError: files that cannot be read.
    """
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan import plan_tokens
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import named_definition
    from wbtui.features.table import FeatureTable

    parsed = parse_address(address)
    if parsed.sae is None or parsed.feature is not None:
        raise UsageError(f"address {address!r}", "MODEL@SAE", "a feature is a row: open(…).record(120)")
    model = find_model(parsed.model)
    cache = paths.cache_dir()
    plan = plan_tokens(model, find_sae(model, parsed.sae), named_definition(definition), cache)
    return Features(FeatureTable.open(cache, plan), plan)


class Features:
    """One SAE's features: columns, records, filters. Made by :func:`wbtui.open`; never changes anything but by
    :meth:`compute`."""

    def __init__(self, table: FeatureTable, plan: TokensPlan) -> None:
        self._table = table
        self._plan = plan

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{int(self._table.computed.sum()):,} computed"
        return f"<wbtui.Features {self.address}: {len(self):,} features, {state}>"

    def __len__(self) -> int:
        """How many features the SAE has."""
        return self._table.n

    @property
    def address(self) -> str:
        """``MODEL@SAE``."""
        return self._table.origin.address()

    @property
    def complete(self) -> bool:
        """Whether every feature, the token strings and the nulls that set thresholds are there."""
        ready = self._table.complete and self._table.vocab is not None
        return bool(ready and not self._table.thresholds.missing_kinds)

    @property
    def about(self) -> dict[str, Any]:
        """What the numbers mean: model, SAE, definition, product keys, thresholds; plain data."""
        from wbtui.definitions import RECONSTRUCTION, to_json

        origin = self._table.origin
        return {
            "address": origin.address(),
            "model": dict(origin.model),
            "sae": dict(origin.sae),
            "definition": to_json(origin.definition),
            "products": dict(origin.products),
            "thresholds": self._table.thresholds.to_json(),
            "note": RECONSTRUCTION,
        }

    def names(self) -> list[str]:
        """Every column with one value a feature; lists such as ``writes.top_ids`` can be read as well."""
        return self._table.names()

    def __getitem__(self, name: str) -> np.ndarray:
        """A column, read-only: ``[n]``, or ``[n, k]`` for a list. Any name of the filter language.

        Stored columns of a finished product are the mapped file itself, not a copy; derived ones (classes, evidence)
        are computed once. Where a feature has no value: NaN, -1 in integers; see :meth:`known`.

        Raises:
            UsageError: unknown name, with the nearest.
        """
        column = self._table.column(name).view()
        column.flags.writeable = False
        return column

    def known(self, name: str) -> np.ndarray:
        """bool ``[n]``: where a column holds a real value."""
        known = self._table.known(name).view()
        known.flags.writeable = False
        return known

    def where(self, filter: str, sort: Sequence[str] = ()) -> np.ndarray:
        """Numbers of the features that a filter lets through, as typed after ``/`` in the app.

        Args:
            filter: such as ``semantic z_max>6 !same``; empty: all.
            sort: names to order by, ``-`` in front for descending; by number otherwise.

        Raises:
            QueryError: a filter that cannot be read, with the place.
        """
        from wbtui.features.order import order
        from wbtui.features.query import parse

        rows = np.flatnonzero(parse(filter).mask(self._table))
        if not sort:
            return rows
        keys = [(key.removeprefix("-"), key.startswith("-")) for key in sort]
        return order(self._table, keys, rows).astype(np.int64)

    def record(self, feature: int) -> dict[str, Any]:
        """Everything about one feature as plain data: the record of ``wbtui show --json``."""
        return self._table.record(feature)

    def words(self, feature: int, side: str = "writes", k: int = 10) -> list[tuple[str, float, bool]]:
        """A feature's best words: (text, z, whether it stands above the noise).

        Args:
            feature: its number.
            side: ``writes``, ``against`` or ``reads``.
            k: how many.
        """
        return [(w.text, float(w.z), not w.inside_null) for w in self._table.words(feature, side, k)]

    def kind(self, feature: int, side: str = "writes") -> str:
        """``set 9``, ``one``, ``mix 7``, ``none``, or nothing where it cannot be told."""
        return self._table.kind(feature, side)

    def to_pandas(self, columns: Sequence[str] | None = None, where: str = "") -> pandas.DataFrame:
        """Features as a table, indexed by number: the columns of ``wbtui export``.

        Args:
            columns: names; the usual ones of an export when None.
            where: a filter.

        Raises:
            UsageError: unknown names; pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError(
                "to_pandas without pandas", "pandas", "pip install pandas, or take columns by name"
            ) from None
        from wbtui.features.export import values

        rows = self.where(where)
        return pandas.DataFrame(values(self._table, rows, columns), index=pandas.Index(rows, name="feature"))

    def find(self, query: str, top: int = 20, all_layers: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """Score a direction exactly against every feature, through the service: the answer of ``wbtui find --json``.

        Args:
            query: ``w:London``, ``w:{London,Paris}-{Berlin}``, ``r:London``, ``dir:probe.npy@L3.resid_post``,
                ``like:demo@L3#120``; a file's path is taken from the working folder.
            top: hits.
            all_layers: every hook of the model that has an SAE.
            timeout: seconds to wait at most.

        Returns:
            dict: ``hits`` (address, score, z, tail, rank, words, …), and what the query means.

        Raises:
            UsageError: a query that cannot be read, a word without a token. ServiceError, TimedOut.
        """
        import os

        from wbtui.catalog.plan_match import absolute_address
        from wbtui.definitions import to_json
        from wbtui.features.asking import parse
        from wbtui.service import client, wishes

        asked = parse(query)
        if asked.kind == "vector":
            name = f":{asked.tensor}" if asked.tensor else ""
            place = f"@{asked.position}" if asked.position else ""
            side = "r:" if asked.side == "reads" else ""
            query = f"{side}dir:{os.path.abspath(os.path.expanduser(asked.path))}{name}{place}"
        here = absolute_address(self._plan.model, self._plan.sae)
        assert here.sae is not None and self._table.cache is not None
        request = wishes.AskRequest(
            model=here.model,
            sae=here.sae,
            definition=to_json(self._plan.definition),
            cache=str(self._table.cache.absolute()),
            what="find",
            args={"query": query, "all_layers": all_layers, "top": top, "at": None},
        )
        with client.Client.connect(True) as service:
            return service.ask(request, None, timeout)

    def compute(
        self,
        timeout: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Features:
        """Compute what is missing, through the background service, and read it.

        Args:
            timeout: seconds to wait at most.
            progress: told the share done.

        Returns:
            Features: this one, refreshed.

        Raises:
            ServiceError: no service and none starts. TimedOut. Or the work's own error.
        """
        from wbtui.catalog.plan_match import absolute_address
        from wbtui.definitions import to_json
        from wbtui.service import running, wishes

        if not self.complete:
            place = absolute_address(self._plan.model, self._plan.sae)
            assert place.sae is not None and self._table.cache is not None
            request = wishes.ComputeRequest(
                model=place.model,
                sae=place.sae,
                definition=to_json(self._plan.definition),
                cache=str(self._table.cache.absolute()),
                checks=False,
            )

            def told(event: dict[str, Any]) -> None:
                if progress is not None and "fraction" in event:
                    progress(float(event["fraction"]))

            running.run_job(request, told, timeout=timeout)
        self._table.refresh()
        return self
