"""What is dear to make is made once in a run, by the first of its processes that asks, and is everybody's to copy."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make(folder)`` filled, in this process or another of the run; read it, do not write to it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.made"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed half way
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def copied_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A copy, this process's own, of what :func:`made_once` gives."""
    source = made_once(factory, name, make)
    return Path(shutil.copytree(source, factory.mktemp(name) / "copy"))
