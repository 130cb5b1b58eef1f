"""A worker that is a thread of this very process: for debuggers, and where no process may be started.

It can be stopped, but not killed: a stuck shard stays stuck, and a crash takes everything with it.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from wbtui.errors import Cancelled
from wbtui.service import protocol
from wbtui.service.executor import Broken
from wbtui.service.worker import as_error, perform, ranges_of, reason_of, resolve_device, threads


class InProcessWorker:
    """The shape of :class:`wbtui.service.executor.WorkerProcess`, on a thread.

    Args:
        device: ``auto``, ``cpu``, ``cuda:N``, ``mps``.
        work: name of the work module, imported into this process at the first task.
    """

    def __init__(self, device: str, work: str) -> None:
        self.device = device
        self.work = work
        self.info: dict[str, Any] = {}
        self.last_sign = 0.0
        self._thread: threading.Thread | None = None
        self._future: Future[Any] | None = None
        self._stop = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether a task is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether a task is under way."""
        return self._future is not None and not self._future.done()

    @property
    def last_pulse(self) -> float:
        """It lives as long as we do."""
        return time.monotonic()

    def start(self) -> None:
        """Nothing to start before the first task."""

    def submit(self, task: dict[str, Any], on_progress: Callable[..., None] | None = None) -> Future[Any]:
        """As :meth:`wbtui.service.executor.WorkerProcess.submit`."""
        future = self._future = Future[Any]()
        future.set_running_or_notify_cancel()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(future, task, on_progress, self._stop), name=f"worker-{self.device}", daemon=True
        )
        self.last_sign = time.monotonic()
        self._thread.start()
        return future

    def _run(
        self,
        future: Future[Any],
        task: dict[str, Any],
        on_progress: Callable[..., None] | None,
        stop: threading.Event,
    ) -> None:
        def progress(share: float, part: Any = None) -> None:
            self.last_sign = time.monotonic()
            if on_progress is not None and part is None:
                on_progress(share)
            elif on_progress is not None:
                on_progress(share, protocol.plain(part))

        try:
            module = importlib.import_module(self.work)
            device = resolve_device(self.device)
            self.info = {"device": device, "threads": threads()}
            value = protocol.plain(perform(module, task, device, stop.is_set, progress))
        except Cancelled as error:
            future.set_exception(error)
        except Exception as error:
            future.set_exception(Broken(reason_of(error), as_error(error), ranges_of(error)))
        else:
            future.set_result(value)

    def stop(self) -> None:
        """Ask the running task to stop."""
        self._stop.set()

    def kill(self, reason: str, why: str) -> None:
        """A thread cannot be killed: only asked."""
        del reason, why
        self._stop.set()

    def close(self, grace: float = 5.0) -> None:
        """Ask, and wait as long as is allowed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(grace)
