"""The suite runs on two processors: one thread each, or they would wait for each other's; and no test is judged by its
seconds, hypothesis's examples included. A run started in the background of a script has Ctrl-C ignored, and so would
all that it starts: the tests that send it want what a terminal gives.

What the modules of a run define never goes, so the garbage collector does not look at it again and again."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.order import ByModule, rank

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False
    return ByModule(config, log)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_sessionfinish() -> None:
    """pytest collects garbage five times over as it leaves; a worker that takes five seconds for it is sent Ctrl-C by
    execnet, which lands anywhere."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_disk_sync() -> Iterator[None]:
    """The tests see every order of operations, but no power cut: syncing for real would only make them slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield
