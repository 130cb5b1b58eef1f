"""What the scheduler schedules: jobs, products, shards, lone rows. Plain data, no I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from wbtui.errors import WbtuiError

Range = tuple[int, int]


class Priority(enum.IntEnum):
    """Smaller runs first."""

    ROW = 0
    SCREEN = 1
    NEAR = 2
    BATCH = 3

    @staticmethod
    def named(name: str) -> Priority:
        """``screen``, ``near`` or ``batch``."""
        return Priority[name.upper()]


@dataclass(frozen=True)
class PlannedProduct:
    """One product as the planner found it in the store."""

    cache: str
    spec: dict[str, Any]
    """``ProductSpec`` as JSON."""
    relative: str
    key: str
    missing: tuple[Range, ...]
    """Row ranges of the shards that are not there; ``((0, 0),)`` for an absent product that is not made of rows."""
    complete: bool = False

    @property
    def id(self) -> str:
        """One product in one cache is one piece of work, whoever asks."""
        return f"{self.cache}\n{self.relative}"

    @property
    def analysis(self) -> str:
        """``vocab``, ``mask``, ``null``, ``tokens``."""
        return str(self.spec["analysis"])

    @property
    def rows(self) -> int:
        """Rows of the product, 0 where it is not made of rows."""
        return int(self.spec["rows"])


@dataclass
class ProductWork:
    """One product under way."""

    planned: PlannedProduct
    requires: tuple[str, ...]
    """Products that must be complete before this one's shards may start."""
    pending: list[Range]
    state: str = "waiting"
    """``waiting``, ``computing``, ``assembling``, ``complete``, ``failed``."""
    running: set[Range] = field(default_factory=set)
    attempts: dict[Range, int] = field(default_factory=dict)
    done_rows: int = 0
    backwards: bool = False
    """Take the last missing shard first: another host on the same cache takes the first ones."""
    seconds: float = 0.0
    tile: int = 0
    error: WbtuiError | None = None

    @property
    def id(self) -> str:
        """See :attr:`PlannedProduct.id`."""
        return self.planned.id

    @property
    def live(self) -> bool:
        """Whether there is or may be something left to do."""
        return self.state not in ("complete", "failed")


ASSEMBLE: Range = (-1, -1)
"""Stands for "all shards are there, make the product of them" where a shard's range would stand."""


@dataclass
class Job:
    """One request of one client: some products, in order."""

    id: int
    owner: str
    priority: Priority
    products: list[str]
    label: str
    created: float
    around: int | None = None
    state: str = "queued"
    """``queued``, ``running``, ``done``, ``failed``, ``cancelled``."""
    error: WbtuiError | None = None
    served: float = 0.0
    """Seconds of worker time spent for it: the one with least goes first among equals."""
    finished: float | None = None
    summary: list[dict[str, Any]] = field(default_factory=list)
    """Its products as they stood when it ended."""
    wish: dict[str, Any] = field(default_factory=dict)
    """The fields of the request that made it; ``retry`` asks for them again. Empty: it cannot be asked again."""

    @property
    def live(self) -> bool:
        """Whether it is neither done nor failed nor cancelled."""
        return self.state in ("queued", "running")


@dataclass
class RowWork:
    """One lone feature's row, wanted by one or more requests."""

    id: str
    task: dict[str, Any]
    waiters: list[tuple[str, int]]
    """(client, request number) of everyone who asked."""
    requires: tuple[str, ...] = ()
    """Products that must be complete first (the vocabulary)."""
    attempts: int = 0
    running: bool = False


@dataclass(frozen=True)
class Unit:
    """What one worker is given at one time."""

    kind: str
    """``shard``, ``assemble`` or ``row``."""
    of: str
    """Product id, or row id."""
    range: Range
    task: dict[str, Any]
    job: int = 0
    """The job that was served; 0 for a row."""


@dataclass
class Running:
    """A unit on a worker."""

    unit: Unit
    since: float
    stopping: str = ""
    """Why it was asked to stop: ``preempted``, ``unwanted``; empty while it is left alone."""
    share: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a unit ended."""

    state: str
    """``done``, ``stopped``, ``failed``."""
    value: Any = None
    """For ``done``: the result. For ``failed`` as ``missing``: the ranges to compute again."""
    reason: str = ""
    """For ``failed``: ``user`` and ``bug`` are final, the others are tried once more (see ``executor.Broken``)."""
    error: WbtuiError | None = None
