"""How much memory a device has and how much of it is used, by everyone: a shared box has other people's jobs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from wbtui.definitions import TILE_STEP

SHARE = 0.5
"""Of what is free, that one tile may take."""
COPIES = 1.5
"""Times the tile's scores that a tile needs at its peak (scores, and what is gathered from them)."""


def used_and_total(device: str) -> tuple[int, int] | None:
    """Bytes of a device's memory in use by anyone, and all of it; None where it cannot be told.

    For a GPU only after this process has used it: asking must not be what takes a GPU's first half gigabyte.
    """
    torch = sys.modules.get("torch")
    with contextlib.suppress(Exception):
        if device.startswith("cuda"):
            if torch is None or not torch.cuda.is_initialized():
                return None
            free, total = torch.cuda.mem_get_info(device)
            return total - free, total
        if device == "mps":
            if torch is None:
                return None
            return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        return _host()
    return None


def _host() -> tuple[int, int] | None:
    """The host's memory, or this control group's where that is the tighter one."""
    fields = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    total = fields["MemTotal"]
    used = total - fields["MemAvailable"]
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, now = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        cached = sum(
            int(line.split()[1])
            for line in (group / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        if limit < total:
            return max(0, now - cached), limit
    return used, total


def tile_for(tile: int, width: int, device: str) -> int:
    """Feature rows in one tile: what was asked for, or fewer where memory is short.

    Args:
        tile: rows asked for.
        width: scores of one row (kept tokens), 4 bytes each.
        device: a device.

    Returns:
        int: a multiple of ``TILE_STEP``, at least that. Numbers do not depend on it (speed notes: rows in multiples of
        16 agree bit for bit).
    """
    found = used_and_total(device)
    if found is None:
        return tile
    free = found[1] - found[0]
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    rows = int(free * SHARE / (4 * COPIES * max(width, 1)))
    return max(TILE_STEP, min(tile, rows // TILE_STEP * TILE_STEP))
