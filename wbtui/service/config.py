"""What the service is run with. Plain data, so that a client can hand it to the daemon that it starts."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbtui import settings
from wbtui.definitions import TILE_STEP
from wbtui.errors import UsageError

WORK = "wbtui.compute.work"
FROM_SETTINGS = ("tile", "idle_unload", "idle_exit", "heartbeat", "cache_gb")
DEVICE_FILES = Path("/dev")
PLANNER = "wbtui.service.planning:products_of"


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of one daemon (or of one run without a daemon)."""

    work: str = WORK
    """Module with ``ShardTask``, ``compute_shard``, ``compute_row``; imported in the worker process only."""
    planner: str = PLANNER
    """``module:function`` that makes the list of products of a request; no torch."""
    devices: tuple[str, ...] = ("auto",)
    """One worker process each: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``all`` stands for every CUDA device
    that ``CUDA_VISIBLE_DEVICES`` leaves. The same device twice is two workers on it."""
    tile: int = 256
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
    check_every: float = 2.0
    """Seconds between looks at whether the socket and lock are still ours (two calls of ``lstat``): until then a client
    that finds no socket can neither be answered nor start another service, for the lock is held."""
    cache_gb: float = 0.0
    """Gigabytes that a cache may hold (0: no limit); what was used longest ago goes when there is no work."""
    prestart: bool = True
    """Start the workers (and their imports) with the service, before the first request."""

    def __post_init__(self) -> None:
        if not self.devices:
            raise UsageError("no device", "one or more of auto, cpu, cuda, cuda:N, mps")
        object.__setattr__(
            self, "devices", tuple(n for d in self.devices for n in (every_device() if d == "all" else (d,)))
        )
        for device in self.devices:
            kind, _, index = device.partition(":")
            if kind not in ("auto", "cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
                raise UsageError(f"device {device!r}", "auto, cpu, cuda, cuda:N, mps or all")
        if self.tile < TILE_STEP or self.tile % TILE_STEP:
            raise UsageError(f"tile {self.tile}", f"a multiple of {TILE_STEP}, at least {TILE_STEP}")

    @staticmethod
    def from_env(**changes: Any) -> ServiceConfig:
        """The setting ``device``, those of ``FROM_SETTINGS``, then ``changes``.

        Raises:
            UsageError: a setting that is not what it should be.
        """
        values: dict[str, Any] = {"devices": tuple(settings.get("device"))}
        values.update({name: settings.get(name) for name in FROM_SETTINGS})
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


def every_device() -> tuple[str, ...]:
    """What ``all`` means here: each CUDA device that this process may see, else ``auto``.

    Nothing is loaded for it: counted are the driver's device files, and of them what ``CUDA_VISIBLE_DEVICES`` names (as
    CUDA reads it: what follows the first name that is none does not count).
    """
    there = len([p for p in DEVICE_FILES.glob("nvidia[0-9]*") if p.name.removeprefix("nvidia").isdecimal()])
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        parts = [part.strip() for part in named.split(",")]
        there = min(there, next((n for n, part in enumerate(parts) if part in ("", "-1")), len(parts)))
    return tuple(f"cuda:{n}" for n in range(there)) or ("auto",)
