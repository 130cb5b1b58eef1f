"""Which code is this? A package that was updated in place keeps its version, and a service that was started before
keeps its old code: client and service compare this too, so that neither speaks of what only one of them knows.
"""

from __future__ import annotations

import os
import zlib
from functools import lru_cache


@lru_cache(maxsize=1)
def stamp() -> str:
    """Eight hex digits of the package's Python files, by name and content, as they were at the first call.

    Call it early in a process that lives long: later the files may be others than those that it runs. It is on the way
    of every first answer, of client and service: plain file calls, a few milliseconds.
    """
    root = os.path.dirname(__file__)
    total = 0
    for name in sorted(_python_files(root)):
        total = zlib.crc32(name.encode(), total)
        with open(os.path.join(root, name), "rb", buffering=0) as file:
            total = zlib.crc32(file.readall(), total)
    return f"{total:08x}"


def _python_files(root: str, inside: str = "") -> list[str]:
    """Paths below ``root``."""
    found = []
    with os.scandir(os.path.join(root, inside)) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                found.append(inside + entry.name)
            elif entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
                found += _python_files(root, f"{inside}{entry.name}/")
    return found
