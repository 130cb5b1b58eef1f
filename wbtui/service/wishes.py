"""What clients may ask the service to compute: the fields of ``compute``, ``row``, ``page`` and ``ask``, each checked.

What comes over the socket is held against these types before anything is done with it; names and paths in it are only
ever looked up, and only the cache that a client names is written to.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from wbtui.errors import UsageError

MAX_TEXT = 4096
"""Characters of any name or path in a request."""
ANALYSES = ("tokens", "attention", "neighbours", "match")
QUESTIONS = ("find", "edges", "flow", "direction", "set")
PRIORITIES = ("screen", "near", "batch")


@dataclass(frozen=True)
class ComputeRequest:
    """``compute``: make every product of one analysis of one SAE. ``cache`` and paths are absolute: the service has
    a working folder of its own. Shards nearest to row ``around`` come first."""

    model: str
    sae: str
    definition: dict[str, Any]
    cache: str
    analysis: str = "tokens"
    priority: str = "batch"
    checks: bool = True
    around: int | None = None
    layer: int | None = None
    """For ``attention``: the reading layer; None is the first that reads the hook's stream."""
    other: str | None = None
    """For ``neighbours``: an SAE to compare with, or ``all``; None is the SAE itself and those beside it. For
    ``match``: the address of the other SAE."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> ComputeRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: ComputeRequest = _typed(ComputeRequest, fields)
        _one_of("analysis", request.analysis, ANALYSES)
        _one_of("priority", request.priority, PRIORITIES)
        if request.around is not None and request.around < 0:
            raise UsageError(f"around {request.around}", "a row from 0")
        if request.layer is not None and request.analysis != "attention":
            raise UsageError(f"layer {request.layer} for {request.analysis}", "a layer for attention only")
        if request.other is not None and request.analysis not in ("neighbours", "match"):
            raise UsageError(
                f"other {request.other[:64]!r} for {request.analysis}", "another SAE for neighbours and match only"
            )
        if request.other is None and request.analysis == "match":
            raise UsageError("a match without another SAE", "other: the address of one")
        return request

    @property
    def label(self) -> str:
        """What people read of the job."""
        layer = "" if self.layer is None else f" of L{self.layer}"
        return f"{self.model}@{self.sae}" + ("" if self.analysis == "tokens" else f" {self.analysis}{layer}")

    def plan_request(self) -> dict[str, Any]:
        """Whose numbers, and where they are kept: what ``row`` takes too."""
        return {"model": self.model, "sae": self.sae, "definition": self.definition, "cache": self.cache}

    def wish(self) -> dict[str, Any]:
        """All that a plan is made from."""
        return {**self.plan_request(), "analysis": self.analysis, "layer": self.layer, "other": self.other,
                "checks": self.checks}  # fmt: skip


@dataclass(frozen=True)
class RowRequest:
    """``row``: the columns of one feature now, provisional, kept nowhere."""

    model: str
    sae: str
    definition: dict[str, Any]
    cache: str
    feature: int
    first: bool = False
    """A first look: answer before the weights have been fingerprinted, with the texts of the tokens named and without
    the token mask. Nothing that is kept can be found for it, and nothing is kept."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> RowRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: RowRequest = _typed(RowRequest, fields)
        if request.feature < 0:
            raise UsageError(f"feature {request.feature}", "a number from 0")
        return request

    def plan_request(self) -> dict[str, Any]:
        """What a plan is made from."""
        return {"model": self.model, "sae": self.sae, "definition": self.definition, "cache": self.cache}


@dataclass(frozen=True)
class PageRequest:
    """``page``: one feature in all heads of a layer now: partners each way, what each head writes, kept nowhere."""

    model: str
    sae: str
    definition: dict[str, Any]
    """Of ``attention``."""
    cache: str
    feature: int
    layer: int | None = None
    """The reading layer; None is the first that reads the hook's stream."""
    tokens: dict[str, Any] | None = None
    """A definition of ``tokens``: top tokens of what heads write. None leaves them out."""
    target: str | None = None
    """An SAE of the same model: readers and becomes are its features. None leaves them out."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> PageRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: PageRequest = _typed(PageRequest, fields)
        if request.feature < 0:
            raise UsageError(f"feature {request.feature}", "a number from 0")
        return request

    def wishes(self) -> list[dict[str, Any]]:
        """What plans are made from: of the heads; then, where wanted, of tokens at the SAE and at the target."""
        place = {"model": self.model, "cache": self.cache, "checks": False}
        heads = {**place, "sae": self.sae, "definition": self.definition, "analysis": "attention", "layer": self.layer}
        words = {**place, "definition": self.tokens or {}, "analysis": "tokens"}
        return [
            heads,
            *([{**words, "sae": self.sae}] if self.tokens is not None else []),
            *([{**words, "sae": self.target}] if self.target is not None else []),
        ]


@dataclass(frozen=True)
class AskRequest:
    """``ask``: a question about every feature of a model, answered now and kept nowhere: see
    :mod:`wbtui.compute.ask`. Parts of the answer that are there before the rest come as events
    ``{event: "part", ticket, part}`` to the client that asked."""

    model: str
    sae: str
    """The SAE that the question starts from; where it is of no one SAE, any of the model."""
    definition: dict[str, Any]
    """Of ``tokens``."""
    cache: str
    what: str
    args: dict[str, Any]
    """Plain data, by question; paths in it are absolute."""
    ticket: str | None = None
    """The client's own name for the question, told with its parts."""

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> AskRequest:
        """Raises UsageError for a missing, unknown or wrongly typed field."""
        request: AskRequest = _typed(AskRequest, fields)
        _one_of("what", request.what, QUESTIONS)
        return request

    def plan_request(self) -> dict[str, Any]:
        """What a plan is made from."""
        place = {"model": self.model, "sae": self.sae, "definition": self.definition, "cache": self.cache}
        return {**place, "checks": False}


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "dict[str, Any] | None": (dict, type(None)),
}


def _typed(cls: type, fields: dict[str, Any]) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise UsageError(f"field {unknown[0]!r} of a {cls.__name__}", "only " + ", ".join(known))
    for name, field in known.items():
        if name not in fields:
            if field.default is dataclasses.MISSING:
                raise UsageError(f"a {cls.__name__} without {name!r}", f"{name} as {field.type}")
            continue
        value = fields[name]
        right = isinstance(value, _TYPES[str(field.type)]) and (isinstance(value, bool) == (field.type == "bool"))
        if not right:
            raise UsageError(f"{name} as {type(value).__name__}", f"{name} as {field.type}")
        if isinstance(value, str) and (not value or len(value) > MAX_TEXT or "\0" in value):
            raise UsageError(f"{name} of {len(value)} characters", f"1 to {MAX_TEXT} characters, none of them NUL")
    if not os.path.isabs(fields["cache"]):
        raise UsageError(f"cache {fields['cache'][:64]!r}", "an absolute path: the service works in another folder")
    return cls(**fields)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} {value[:64]!r}", "one of " + ", ".join(allowed))
