"""What the service is run with. Plain data, so that a client can hand it to the daemon that it starts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from wbtui import settings
from wbtui.definitions import TILE_STEP
from wbtui.errors import UsageError

WORK = "wbtui.compute.shard"
PLANNER = "wbtui.service.planning:products_of"


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of one daemon (or of one run without a daemon)."""

    work: str = WORK
    """Module with ``ShardTask``, ``compute_shard``, ``compute_row``; imported in the worker process only."""
    planner: str = PLANNER
    """``module:function`` that makes the list of products of a request; no torch."""
    devices: tuple[str, ...] = ("auto",)
    """One worker process each: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``."""
    tile: int = 128
    """Feature rows in one tile; halved where a shard ran out of memory."""
    idle_unload: float = 600.0
    """Seconds without work until the workers end and give their memory back."""
    idle_exit: float = 3600.0
    """Seconds without work and without clients until the service ends."""
    heartbeat: float = 900.0
    """Seconds without a sign of progress until a worker counts as stuck (reading weights is silent)."""
    pulse: float = 60.0
    """Seconds without any sign of life (workers pulse every second) until a worker counts as halted."""
    stop_grace: float = 5.0
    """Seconds that a running shard has to stop when the service ends, before its process is killed."""
    check_every: float = 60.0
    """Seconds between looks at whether the socket and lock are still ours."""
    prestart: bool = True
    """Start the workers (and their imports) with the service, before the first request."""

    def __post_init__(self) -> None:
        if not self.devices:
            raise UsageError("no device", "one or more of auto, cpu, cuda, cuda:N, mps")
        for device in self.devices:
            kind, _, index = device.partition(":")
            if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
                raise UsageError(f"device {device!r}", "auto, cpu, cuda, cuda:N or mps")
        if self.tile < TILE_STEP or self.tile % TILE_STEP:
            raise UsageError(f"tile {self.tile}", f"a multiple of {TILE_STEP}, at least {TILE_STEP}")

    @staticmethod
    def from_env(**changes: Any) -> ServiceConfig:
        """The settings ``device``, ``tile``, ``idle_unload``, ``idle_exit``, ``heartbeat``, then ``changes``.

        Raises:
            UsageError: a setting that is not what it should be.
        """
        values: dict[str, Any] = {"devices": tuple(settings.get("device"))}
        values.update({name: settings.get(name) for name in ("tile", "idle_unload", "idle_exit", "heartbeat")})
        values.update(changes)
        return ServiceConfig(**values)

    def to_text(self) -> str:
        """As one argument of a command line."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> ServiceConfig:
        """The inverse of :meth:`to_text`."""
        data = json.loads(text)
        data["devices"] = tuple(data["devices"])
        return ServiceConfig(**data)
