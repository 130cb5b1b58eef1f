"""A private place for each test, and proof that it was left clean."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import fake_work
from wbtui.service import place
from wbtui.service.client import Client, stop
from wbtui.service.config import ServiceConfig
from wbtui.service.wishes import ComputeRequest
from wbtui.store.products import Product
from wbtui.store.verify import verify

FAKE = "tests.service.fake_work"
DEADLINE = 40.0


def wait_until(condition: Callable[[], Any], timeout: float = DEADLINE, what: str = "") -> Any:
    """The condition's value once it holds; fails at the deadline."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(0.003)
    return value


def processes(runtime: Path) -> list[int]:
    """Living processes that were started for this place: daemons and workers."""
    wanted = f"WBTUI_RUNTIME_DIR={runtime}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if b"wbtui.service" in command and state != "Z":
                    found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Place:
    """Folders and settings of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime = root / "r"
        self.cache = root / "cache"
        self.cache.mkdir()
        self.trace = root / "trace"

    def config(self, **changes: Any) -> ServiceConfig:
        """A daemon with the fake work on one CPU worker."""
        values: dict[str, Any] = {"work": FAKE, "planner": f"{FAKE}:products", "devices": ("cpu",), "tile": 64}
        return ServiceConfig(**{**values, "stop_grace": 2.0, **changes})

    def client(self, **changes: Any) -> Client:
        """A client that starts the daemon if need be."""
        return Client.connect(config=self.config(**changes), timeout=DEADLINE)

    def request(
        self, name: str = "a", *, priority: str = "batch", model: str = "fake", **steering: Any
    ) -> ComputeRequest:
        """A computation with a trace."""
        definition = {"name": name, "trace": str(self.trace), **steering}
        return ComputeRequest(model, "L0", definition, str(self.cache), priority=priority)

    def traced(self) -> list[str]:
        """What the workers did so far."""
        return self.trace.read_text().splitlines() if self.trace.exists() else []


def check_complete(here: Place, request: ComputeRequest) -> None:
    """Every product is whole, right, and nothing else lies about."""
    assert verify(here.cache) == []
    for spec in fake_work.products(request.plan_request()):
        product = Product(here.cache, spec)
        assert product.state == "complete"
        if spec.rows:
            expected = fake_work.numbers(spec.key, 0, spec.rows)["values"]
            assert (product.columns()["values"] == expected).all()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A private place; afterwards no process, no socket and no temporary file may be left."""
    root = Path(tempfile.mkdtemp(prefix="wb", dir="/tmp"))
    found = Place(root)
    monkeypatch.setenv("WBTUI_RUNTIME_DIR", str(found.runtime))
    for name in ("CACHE", "LOG", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WBTUI_{name}_DIR", str(root / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        yield found
        if found.runtime.exists():
            stop()
        wait_until(lambda: not processes(found.runtime), what="every process has gone")
        left = [p.name for p in found.runtime.glob("*")] if found.runtime.exists() else []
        assert all(name.endswith((".lock", ".start")) for name in left), left
    finally:
        for pid in processes(found.runtime):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def running(here: Place) -> AsyncIterator[Any]:
    """A daemon on the test's own loop (:class:`tests.service.daemons.Running`)."""
    from tests.service.daemons import Running

    made = await Running(here).up()
    yield made
    if not made.task.done():
        assert await made.down() == 0
    assert not place.socket_path().exists()


def socket_there() -> bool:
    """Whether the service's socket file is there."""
    return place.socket_path().exists()
