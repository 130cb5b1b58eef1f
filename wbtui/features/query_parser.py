"""From the text of a filter to its tree: recursive descent, no backtracking, one kind of error."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches

from wbtui.errors import UsageError
from wbtui.features import patterns
from wbtui.features.classes import CLASS_NAMES, SHOWN_NAMES
from wbtui.features.names import ROW_TEXTS, Name, is_name, nearest, resolve
from wbtui.features.query import (
    All,
    And,
    Between,
    ClassIs,
    Compare,
    Flag,
    Ids,
    KeptText,
    LabelText,
    Node,
    Not,
    Or,
    QueryError,
    Text,
    metric,
)
from wbtui.features.query_heads import Led

MAX_LENGTH = 4000
MAX_DEPTH = 60
_OPERATORS = ("!=", "<=", ">=", "=", "<", ">")
_ENDS = frozenset('|()"=<>')
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf", re.ASCII | re.IGNORECASE)
_SIDES = ("writes", "reads", "against", "token")
_ID = re.compile(r"#?([0-9]{1,12})", re.ASCII)
_YES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_CLASSES = {**{n: n for n in CLASS_NAMES}, **dict(zip(SHOWN_NAMES, CLASS_NAMES, strict=True))}
_TERM = "a term: text, a comparison such as z_max>6, or a name such as semantic"


class Parser:
    """One filter's text, read from left to right."""

    def __init__(self, text: str, extra: frozenset[str] = frozenset()) -> None:
        self.text = text
        self.extra = extra
        self.at = 0
        self.depth = 0

    def parse(self) -> Node:
        """The tree.

        Raises:
            QueryError: anything that is not a filter.
        """
        if len(self.text) > MAX_LENGTH:
            raise QueryError(f"{len(self.text)} characters", f"at most {MAX_LENGTH}", position=MAX_LENGTH)
        self._space()
        if self._end():
            return All()
        node = self._or()
        if not self._end():
            raise self._error(f"{self._peek()!r}", "the end, or a '(' before this ')'")
        return node

    # -- grammar ---------------------------------------------------------------------------------------------------

    def _or(self) -> Node:
        parts = [self._and()]
        while self._peek() == "|":
            self.at += 1
            self._space()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Node:
        parts = [self._not()]
        self._space()
        while not self._end() and self._peek() not in "|)":
            parts.append(self._not())
            self._space()
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Node:
        negated = 0
        while self._peek() == "!":
            self.at += 1
            negated += 1
            self._space()
        node = self._group() if self._peek() == "(" else self._term()
        if isinstance(node, Not) and negated:
            node, negated = node.part, negated + 1
        return Not(node) if negated % 2 else node

    def _group(self) -> Node:
        opened = self.at
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error("'('", f"at most {MAX_DEPTH} parentheses inside each other")
        self.at += 1
        self._space()
        node = self._or()
        if self._peek() != ")":
            raise QueryError("'(' without ')'", "')'", position=opened)
        self.at += 1
        self.depth -= 1
        return node

    def _term(self) -> Node:
        start = self.at
        if self._end():
            raise self._error("the end", _TERM)
        char = self._peek()
        if char == '"':
            return Text("writes", "text", self._quoted(), start)
        if char in _ENDS:
            raise self._error(f"{char!r}", _TERM, 'quote it to search for it: "' + char.replace('"', '\\"') + '"')
        word = self._word()
        operator = self._operator()
        if operator:
            return self._comparison(word, operator, start)
        return self._bare(word, start)

    def _bare(self, word: str, start: int) -> Node:
        prefix, colon, rest = word.partition(":")
        if colon:
            if prefix in _SIDES:
                return self._sided(prefix, rest, start)
            if prefix == "re":
                return self._regex("writes", rest, start)
            if prefix == "label":
                found = self._sided(prefix, rest, start)
                assert isinstance(found, Text)
                return LabelText(found.how, found.text)
            if prefix in ("id", "feature"):
                return self._ids(rest, start + len(prefix) + 1)
            if prefix in ("tag", "note"):
                return self._kept(prefix, rest, start)
            if prefix not in ("percentile", "null", "head"):
                known = [*_SIDES, "label", "tag", "note", "re", "id", "percentile", "null", "head"]
                near = get_close_matches(prefix, known, 1) or nearest(prefix, 1)
                raise QueryError(
                    f"{prefix + colon!r}",
                    "writes: reads: against: token: label: re: id: percentile: null: or head:",
                    f"did you mean {near[0]}? " if near else f'quote it to search for it: "{word}"',
                    position=start,
                    length=len(prefix) + 1,
                )
        if word.startswith("#") and len(word) > 1 and word[1].isdigit():
            return self._ids(word, start)
        if colon or (is_name(word) and word not in ROW_TEXTS):
            name = metric(word, start)
            if name.boolean:
                return Flag(name.text, start)
            if name.kind == "head":
                return Led(name.text, start)
            raise QueryError(
                f"{word!r} alone",
                f"a comparison such as {word}=coherent" if name.kind == "class" else f"a comparison such as {word}>0",
                f'or "{word}" in quotes to search for the word',
                position=start,
                length=len(word),
            )
        return Text("writes", "text", word, start)

    def _sided(self, side: str, rest: str, start: int) -> Node:
        if side != "token" and rest.startswith("re:"):
            return self._regex(side, rest[3:], start)
        if not rest and self._peek() == '"':
            rest = self._quoted()
        if not rest:
            raise QueryError(
                f"{side}: with nothing behind it", f'text, as in {side}:chemist or {side}:"two words"', position=self.at
            )
        return Text(side, "text", rest, start)

    def _kept(self, column: str, rest: str, start: int) -> Node:
        if not rest and self._peek() == '"':
            rest = self._quoted()
        rest = rest.removeprefix("#") if column == "tag" else rest
        if not rest:
            example = "tag:todo, or tag:* for any" if column == "tag" else 'note:word, note:"two words", or note:*'
            raise QueryError(f"{column}: with nothing behind it", example, position=self.at)
        return KeptText(column, rest, start)

    def _regex(self, side: str, rest: str, start: int) -> Node:
        quoted = self._quoted() if not rest and self._peek() == '"' else None
        if quoted is None:
            # a bare pattern runs to the next space; what ends other words is part of it
            begin = self.at - len(rest)
            while not self._end() and not self._peek().isspace():
                self.at += 1
            quoted = self.text[begin : self.at]
        if not quoted:
            raise QueryError("re: with nothing behind it", 'a pattern, as in re:^phys or re:"a b"', position=self.at)
        try:
            patterns.compiled(quoted)
        except UsageError as error:
            raise QueryError(error.found, error.expected, position=start, length=self.at - start) from None
        return Text(side, "re", quoted, start)

    def _ids(self, text: str, start: int) -> Node:
        spans: list[tuple[int, int | None]] = []
        at = start
        for part in text.split(","):
            low, dots, high = part.partition("..")
            a, b = _ID.fullmatch(low), _ID.fullmatch(high)
            if not (a or (dots and not low and b)) or (high and not b):
                raise QueryError(
                    f"feature number {part!r}",
                    "digits, as in #120, id:1,5,9 or id:100..199",
                    position=at,
                    length=max(1, len(part)),
                )
            first = int(a.group(1)) if a else 0
            last = int(b.group(1)) if b else (None if dots else first)
            if last is not None and last < first:
                raise QueryError(f"{part!r} runs backwards", f"{last}..{first}", position=at, length=len(part))
            spans.append((first, last))
            at += len(part) + 1
        return Ids(tuple(spans))

    def _comparison(self, word: str, operator: str, start: int) -> Node:
        name = Name(word, "number", word) if word in self.extra else metric(word, start)
        self._space()
        at = self.at
        value = self._value()
        if not value:
            raise QueryError("nothing to compare with", f"a value behind {word}{operator}", position=at)
        if name.kind == "class":
            return self._class(name.text, operator, value, at)
        if name.boolean:
            if operator not in ("=", "!=") or value.casefold() not in _YES:
                raise QueryError(f"{operator}{value}", f"{word}=yes or {word}=no", position=at, length=len(value))
            yes = _YES[value.casefold()] == (operator == "=")
            flag = Flag(name.text, start)
            return flag if yes else Not(flag)
        if name.kind == "text":
            raise QueryError(f"{word!r} is a text", "tag:todo, note:text, label:text", position=start, length=len(word))
        if name.kind == "list":
            raise QueryError(
                f"{word!r} is a list", "a number", 'search it with writes:"text"', position=start, length=len(word)
            )
        if ".." in value:
            return self._range(name.text, operator, value, at, start)
        return Compare(name.text, operator, self._number(value, at), start)

    def _range(self, name: str, operator: str, value: str, at: int, start: int) -> Node:
        low, _, high = value.partition("..")
        if operator not in ("=", "!=") or not (low or high):
            raise QueryError(f"{operator}{value}", "a range behind =, as in z_max=4..6", position=at, length=len(value))
        a = self._number(low, at) if low else -math.inf
        b = self._number(high, at + len(low) + 2) if high else math.inf
        if a > b:
            raise QueryError(f"{value!r} runs backwards", f"{high}..{low}", position=at, length=len(value))
        node = Between(name, a, b, start)
        return node if operator == "=" else Not(node)

    def _class(self, name: str, operator: str, value: str, at: int) -> Node:
        chosen = _CLASSES.get(value.casefold())
        if operator not in ("=", "!=") or chosen is None:
            expected = "= or != and one of " + ", ".join(_CLASSES)
            raise QueryError(f"{operator}{value}", expected, position=at, length=len(value))
        return ClassIs(name, operator, chosen)

    # -- characters ------------------------------------------------------------------------------------------------

    def _number(self, text: str, at: int) -> float:
        if not _NUMBER.fullmatch(text):
            raise QueryError(f"{text!r}", "a number", position=at, length=max(1, len(text)))
        value = float(text)
        return 0.0 if value == 0 else value  # -0 is 0

    def _word(self) -> str:
        start = self.at
        while not self._end() and not self._peek().isspace() and self._peek() not in _ENDS:
            if self.text.startswith("!=", self.at):
                break
            self.at += 1
        return self.text[start : self.at]

    def _value(self) -> str:
        start = self.at
        while not self._end() and not self._peek().isspace() and self._peek() not in _ENDS:
            self.at += 1
        return self.text[start : self.at]

    def _operator(self) -> str:
        """An operator here, or behind spaces (``z_max > 6``); a space before ``!`` alone begins a new term."""
        back = self.at
        self._space()
        for operator in _OPERATORS:
            if self.text.startswith(operator, self.at):
                self.at += len(operator)
                return operator
        self.at = back
        return ""

    def _quoted(self) -> str:
        opened = self.at
        self.at += 1
        out: list[str] = []
        while not self._end():
            char = self._peek()
            self.at += 1
            if char == '"':
                return "".join(out)
            if char == "\\" and not self._end():
                escaped = self._peek()
                if escaped in '\\"ntr':
                    self.at += 1
                    char = {"n": "\n", "t": "\t", "r": "\r"}.get(escaped, escaped)
            out.append(char)
        raise QueryError("a quote that is not closed", "'\"'", position=opened, length=len(self.text) - opened)

    def _space(self) -> None:
        while not self._end() and self._peek().isspace():
            self.at += 1

    def _end(self) -> bool:
        return self.at >= len(self.text)

    def _peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def _error(self, found: str, expected: str, do: str = "") -> QueryError:
        return QueryError(found, expected, do, position=self.at)


def suggestions(prefix: str) -> list[str]:
    """Names to complete a word with, for the filter line."""
    from wbtui.features.names import scalar_names

    short = (text.removeprefix("writes.").removesuffix(".writes") for text in scalar_names())
    return [text for text in dict.fromkeys(short) if text.startswith(prefix) and resolve(text)]
