"""The one filter language, for ``/`` in the app, ``--where`` and saved views.

    physicist            a shown word holds it (the top ten tokens that are written; case does not matter)
    "two words" "!x"     the same, quoted: spaces, operators and the token's own leading space count
    writes:x reads:x against:x    the same on one side;   token:x  one of the top tokens of either side IS that word
    label:doctor label:"two words" label:re:^prof    an imported label holds it (data from files)
    density<1e-4  dead  labelled    imported densities; dead: fired on no token of that data
    re:^phys re:"a b"    a regular expression on the written top tokens
    z_max>6  reads.cos_tok>=.4  n_words=3..9  percentile:z_max>99  class=coherent  kind!=none
    semantic  coherent  promotes  same  !none  semantic.either    yes-or-nos
    head:L4.H2    led by that head: it is the feature's strongest in its layer, on either side, beyond noise
    head:L4.H2.key    the same as key (others attend to it) or as query;   head:L4.H2>1.5  its ratio, strongest or not
    #120  id:120  id:1,5,9  id:100..199
    marked  tagged  noted  tag:todo  tag:*  note:word  note:"two words"    what the user keeps
    a b = both · a | b = either · !a = not · ( )

What is not there (NaN, a row not computed, a side that is absent) never matches, negated or not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from wbtui.errors import UsageError
from wbtui.features import classes, patterns
from wbtui.features.names import Name, resolve
from wbtui.features.search import any_of, compare

if TYPE_CHECKING:
    from wbtui.features.table import FeatureTable

SEARCHED = 10
"""Shown tokens of a side that text is looked for in."""


class QueryError(UsageError):
    """A filter that cannot be read; ``position`` is where (0-based), ``length`` how far."""

    def __init__(self, found: str, expected: str = "", do: str = "", *, position: int = 0, length: int = 1) -> None:
        self.position = position
        self.length = length
        super().__init__(f"filter, character {position + 1}: {found}", expected, do)


class Node:
    """A part of a filter. ``mask`` is where it is true; negated, where it is known to be false."""

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class All(Node):
    """The empty filter."""

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        return np.full(table.n, not negate)

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True)
class Group(Node):
    """Parts joined by and or or."""

    parts: tuple[Node, ...]
    joined: ClassVar[str]

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        every = (self.joined == " ") != negate  # not (a or b) = not a and not b, also with a third value
        out = self.parts[0].mask(table, negate).copy()
        for part in self.parts[1:]:
            np.logical_and(out, part.mask(table, negate), out=out) if every else np.logical_or(
                out, part.mask(table, negate), out=out
            )
        return out

    def __str__(self) -> str:
        return self.joined.join(f"({p})" if isinstance(p, Group) else str(p) for p in self.parts)


class And(Group):
    """All of them."""

    joined = " "


class Or(Group):
    """Any of them."""

    joined = " | "


@dataclass(frozen=True)
class Not(Node):
    """Known not to be."""

    part: Node

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        return self.part.mask(table, not negate)

    def __str__(self) -> str:
        return f"!({self.part})" if isinstance(self.part, Group) else f"!{self.part}"


@dataclass(frozen=True)
class Flag(Node):
    """A yes-or-no by canonical name."""

    name: str

    at: int = field(default=0, compare=False)

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        column = table.column(self.name)
        if self.name == "dead" and not table.known(self.name).any():
            raise QueryError(
                "'dead', but no densities are imported for this SAE",
                "data of how often features fire, which weights do not say",
                "`wbtui labels import ADDRESS sparsity.safetensors` takes SAELens's and Neuronpedia's files",
                position=self.at,
                length=4,
            )
        return ~column & table.known(self.name) if negate else column & table.known(self.name)

    def __str__(self) -> str:
        return self.name


def _column(table: FeatureTable, name: str, at: int) -> np.ndarray:
    """A metric's column; a head that the SAE's readers have not is an error of the filter."""
    try:
        return table.column(name)
    except UsageError as error:
        raise QueryError(error.found, error.expected, error.do, position=at, length=len(name)) from None


@dataclass(frozen=True)
class Compare(Node):
    """A number against a number, in the column's own precision (so that ``word_share=0.3`` finds 3 of 10)."""

    name: str
    op: str
    number: float
    at: int = field(default=0, compare=False)

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        column = _column(table, self.name, self.at)
        hit = compare(column, NEGATED[self.op] if negate else self.op, self.number)
        return hit & table.known(self.name)

    def __str__(self) -> str:
        return f"{self.name}{self.op}{self.number!r}"


@dataclass(frozen=True)
class Between(Node):
    """A number from ``low`` to ``high``, both included; an open end is infinite."""

    name: str
    low: float
    high: float
    at: int = field(default=0, compare=False)

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        column = _column(table, self.name, self.at)
        hit = compare(column, ">=", self.low) & compare(column, "<=", self.high)
        return (~hit if negate else hit) & table.known(self.name)

    def __str__(self) -> str:
        low = "" if self.low == -np.inf else repr(self.low)
        high = "" if self.high == np.inf else repr(self.high)
        return f"{self.name}={low}..{high}"


@dataclass(frozen=True)
class ClassIs(Node):
    """The class of one side."""

    name: str
    op: str
    value: str

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        column = table.column(self.name)
        code = classes.CLASS_NAMES.index(self.value)
        hit = column == code if (self.op == "=") != negate else column != code
        return hit & (column != classes.UNKNOWN)

    def __str__(self) -> str:
        return f"{self.name}{self.op}{self.value}"


@dataclass(frozen=True)
class Ids(Node):
    """Feature numbers: spans, both ends included; an open end is None."""

    spans: tuple[tuple[int, int | None], ...]

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        out = np.full(table.n, negate)
        for low, high in self.spans:
            out[low : None if high is None else high + 1] = not negate
        return out

    def __str__(self) -> str:
        return "id:" + ",".join(_span(low, high) for low, high in self.spans)


@dataclass(frozen=True)
class Text(Node):
    """Text in the shown top tokens: ``side`` is writes, reads, against or token; ``how`` is text or re."""

    side: str
    how: str
    text: str
    at: int = field(default=0, compare=False)

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        hits = self.hits(table)
        out: np.ndarray | None = None
        known: np.ndarray | None = None
        for side in ("writes", "reads") if self.side == "token" else (self.side,):
            found = any_of(hits, table.top_ids(side, SEARCHED))
            out = found if out is None else out | found
            if negate:
                there = table.top_ids(side, 1)
                first = there[:, 0] if there.shape[1] else np.full(table.n, -1)
                real = (first >= 0) & (first < len(hits))
                known = real if known is None else known & real
        assert out is not None
        return out if known is None else ~out & known

    def hits(self, table: FeatureTable) -> np.ndarray:
        """Which tokens match: bool [V].

        Raises:
            QueryError: there are no token strings yet.
        """
        if table.vocab is None:
            raise QueryError(
                f"text {self.text!r}", "token strings, which are not there yet", "filter by numbers", position=self.at
            )
        if self.side == "token":
            out = np.zeros(table.vocab.n, dtype=bool)
            out[table.vocab.find(self.text)] = True
            return out
        if self.how == "re":
            return table.vocab.matching_regex(patterns.compiled(self.text))
        return table.vocab.matching(self.text)

    def __str__(self) -> str:
        prefix = "" if self.side == "writes" else f"{self.side}:"
        return f"{prefix}re:{quote(self.text)}" if self.how == "re" else prefix + quote(self.text)


@dataclass(frozen=True)
class LabelText(Node):
    """Text in an imported label: ``how`` is text or re. Features without a label never match, negated or not."""

    how: str
    text: str

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        if table.labels is None:
            return np.zeros(table.n, dtype=bool)
        book = table.labels
        hit = book.matching_regex(patterns.compiled(self.text)) if self.how == "re" else book.matching(self.text)
        return ~hit & book.labelled() if negate else hit

    def __str__(self) -> str:
        return "label:" + ("re:" if self.how == "re" else "") + quote(self.text)


@dataclass(frozen=True)
class KeptText(Node):
    """A tag, or text in a note: ``column`` is tag or note; ``*`` is any."""

    column: str
    text: str
    at: int = field(default=0, compare=False)

    def mask(self, table: FeatureTable, negate: bool = False) -> np.ndarray:
        kept = table.kept
        if kept.error:
            raise QueryError(f"{self} while notes cannot be read ({kept.error})", "notes", position=self.at)
        find = kept.with_tag if self.column == "tag" else kept.with_note
        return find(table.n, self.text) != negate

    def __str__(self) -> str:
        return f"{self.column}:" + ("*" if self.text == "*" else quote(self.text))


NEGATED = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True)
class Query:
    """A parsed filter."""

    root: Node
    source: str = field(default="", compare=False)

    def mask(self, table: FeatureTable) -> np.ndarray:
        """bool [n]: the rows that match.

        Raises:
            QueryError: text is asked for before there are token strings.
        """
        return self.root.mask(table)

    def __str__(self) -> str:
        return str(self.root)

    def terms(self) -> tuple[Node, ...]:
        """The parts that must all hold."""
        return self.root.parts if isinstance(self.root, And) else (self.root,)

    def why_empty(self, table: FeatureTable) -> str:
        """For a filter that matches nothing: the term that does it, and what is near it."""
        for term in self.terms():
            if not term.mask(table).any():
                return f"no row has {term}" + _near(term, table)
        return "each term matches rows, but none matches all of them" if len(self.terms()) > 1 else ""


def parse(text: str, extra: frozenset[str] = frozenset()) -> Query:
    """Read a filter; the empty one matches every row. ``extra``: further names of numbers, which the table has.

    Raises:
        QueryError: where it cannot be read, what was expected, the nearest name.
    """
    from wbtui.features.query_parser import Parser

    return Query(Parser(text, extra).parse(), text)


def quote(text: str) -> str:
    """Text as a quoted term that parses back to it."""
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(char, escaped)
    return f'"{text}"'


def _span(low: int, high: int | None) -> str:
    return str(low) if high == low else f"{low}.." + ("" if high is None else str(high))


def _near(term: Node, table: FeatureTable) -> str:
    """What is near a term that matches nothing."""
    from wbtui.features.query_heads import Led

    if isinstance(term, Compare | Between):
        known = table.known(term.name)
        if not known.any():
            what = "no density is imported" if term.name == "density" else f"{term.name} is not there yet"
            return f"; {what}"
        values = table.column(term.name)[known]
        return f"; {term.name} runs from {values.min():.4g} to {values.max():.4g}"
    if isinstance(term, Led):
        return term.why_empty(table)
    if isinstance(term, LabelText) and (table.labels is None or not table.labels.labelled().any()):
        return "; no labels are imported (`wbtui labels import`)"
    if isinstance(term, KeptText):
        counts = table.kept.counts()
        return f"; tags here: {', '.join(list(counts)[:6])}" if term.column == "tag" and counts else ""
    if isinstance(term, Text) and table.vocab is not None and term.how == "text":
        import difflib

        shown = table.shown_words("writes" if term.side == "token" else term.side, SEARCHED)
        near = difflib.get_close_matches(term.text.strip().casefold(), shown, n=1, cutoff=0.6)
        return f"; nearest: {shown[near[0]]}" if near else ""
    return ""


def metric(name: str, position: int) -> Name:
    """A metric's name in a filter.

    Raises:
        QueryError: unknown, with the nearest.
    """
    try:
        return resolve(name)
    except UsageError as error:
        raise QueryError(error.found, error.expected, error.do, position=position, length=len(name)) from None
