"""Workers that are somebody else's executor: the same shards, carried by any ``concurrent.futures.Executor``.

What is carried is :func:`work` with a task of plain data; numbers go through the shared cache folder, never over the
wire. With ``dask.distributed`` (``pip install 'wbtui[dask]'``) the executor is ``Client.get_executor()``, and its
scheduler decides which machine does what. Stopping means "do not start": what a machine has begun it finishes, and the
shard is there for whoever asks next. Standard library only; dask is imported when it is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import wbtui
from wbtui.errors import Cancelled, ServiceError, UsageError, WbtuiError, WorkError
from wbtui.service import protocol
from wbtui.service.engine import WorkerLike
from wbtui.service.executor import Broken
from wbtui.service.worker import as_error, perform, ranges_of, reason_of, resolve_device

VISIBLE_WITHIN = 60.0
"""Seconds for a file that another machine has finished to become visible here (network file systems lag)."""
CONNECT_WITHIN = 30.0
AHEAD = 2
"""Tasks given out for each machine's worker: one that it does, one that it finds when it is done."""
_ONE = threading.Lock()
"""One shard at a time in a process, however many threads its worker has: each uses all of the device."""


def work(module: str, device: str, version: str, task: dict[str, Any]) -> dict[str, Any]:
    """One task on whichever machine; runs in the executor's process.

    Args:
        module: the work module (``wbtui.compute.work``).
        device: ``auto`` takes what this process may see (dask-cuda and Slurm set ``CUDA_VISIBLE_DEVICES``).
        version: of the wbtui that asks.
        task: as :func:`wbtui.service.worker.perform` takes it.

    Returns:
        dict: ``{done: value}``, or ``{reason, error, ranges}``: plain data, so that nothing needs to be unpickled.
    """
    try:
        if version != wbtui.__version__:
            raise UsageError(
                f"wbtui {wbtui.__version__} on the worker {os.uname().nodename}",
                f"version {version}",
                "install it there",
            )
        with _ONE:
            loaded = importlib.import_module(module)
            _await_needs(task)
            value = perform(loaded, task, resolve_device(device), lambda: False, lambda share: None)
        return {"done": protocol.plain(value)}
    except Exception as error:
        told = as_error(error)
        return {"reason": reason_of(error), "error": told.to_json(), "ranges": ranges_of(error)}


def _await_needs(task: dict[str, Any]) -> None:
    """Wait for the products that this one reads; listing a folder makes a network file system look again."""
    needs = task.get("spec", {}).get("model", {})
    wanted = [needs["vocab"]] if "vocab" in needs else []
    wanted += dict(needs.get("masks") or {}).values()
    deadline = time.monotonic() + VISIBLE_WITHIN
    for relative in wanted:
        path = Path(task["cache"], relative, "columns.safetensors")
        while not path.is_file() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                os.listdir(path.parent)
            time.sleep(0.2)


class RemoteWorker:
    """One place in an executor's queue, in the shape of :class:`wbtui.service.executor.WorkerProcess`.

    Args:
        executor: carries the tasks.
        module: the work module.
        device: as :func:`work`.
    """

    def __init__(self, executor: Executor, module: str, device: str = "auto") -> None:
        self.executor = executor
        self.module = module
        self.device = device
        self.info: dict[str, Any] = {"device": "remote"}
        self._inner: Future[Any] | None = None
        self._outer: Future[Any] | None = None
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """The executor knows better."""
        return True

    @property
    def busy(self) -> bool:
        """Whether a task is out."""
        return self._outer is not None and not self._outer.done()

    @property
    def last_sign(self) -> float:
        """The executor watches its machines."""
        return time.monotonic()

    last_pulse = last_sign

    def start(self) -> None:
        """Nothing to start."""

    def submit(self, task: dict[str, Any], on_progress: Callable[[float], None] | None = None) -> Future[Any]:
        """As :meth:`wbtui.service.executor.WorkerProcess.submit`; no progress within a shard."""
        del on_progress
        outer: Future[Any] = Future()
        outer.set_running_or_notify_cancel()
        try:
            inner = self.executor.submit(work, self.module, self.device, wbtui.__version__, task)
        except Exception as error:
            raise WorkError(f"the executor takes no work ({type(error).__name__}: {error})") from None
        self._inner, self._outer = inner, outer
        inner.add_done_callback(lambda done: self._end(outer, done))
        return outer

    def _end(self, outer: Future[Any], done: Future[Any]) -> None:
        result: Any = None
        failure: WbtuiError | None = None
        try:
            result = done.result()
        except (CancelledError, Cancelled):
            failure = Cancelled("stopped on request")
        except Exception as error:  # the machine died, or what it said cannot be read
            if type(error).__name__ == "FutureCancelledError":
                failure = Cancelled("stopped on request")
            else:
                text = " ".join(str(error).split())[:300]
                failure = Broken("killed", WorkError(f"a remote worker failed ({type(error).__name__}: {text})"))
        if failure is None and "done" not in result:
            failure = Broken(result["reason"], WbtuiError.from_json(result["error"]), result["ranges"])
        with self._lock:
            if outer.done():
                return
            if failure is not None:
                outer.set_exception(failure)
            else:
                outer.set_result(result["done"])

    def stop(self) -> None:
        """Take back what has not begun."""
        if self._inner is not None and not self._inner.done():
            self._inner.cancel()

    def kill(self, reason: str, why: str) -> None:
        """As :meth:`stop`: the machine is not ours."""
        del reason, why
        self.stop()

    def close(self, grace: float = 5.0) -> None:
        """As :meth:`stop`."""
        del grace
        self.stop()


class DaskWorkers:
    """The workers of a running dask scheduler, as workers of the engine. Use as a context manager.

    Args:
        url: ``dask://host:port``.
        module: the work module.
        device: as :func:`work`.

    Raises:
        UsageError: not such an address, or dask is not installed.
        ServiceError: no scheduler answers, or it has no worker.
    """

    def __init__(self, url: str, module: str, device: str = "auto") -> None:
        scheme, _, address = url.partition("://")
        if scheme != "dask" or not address:
            raise UsageError(f"executor {url!r}", "dask://HOST:PORT")
        try:
            import distributed
        except ImportError:
            raise UsageError("dask.distributed is not installed", "it", "pip install 'wbtui[dask]'") from None
        try:
            self._client: Any = distributed.Client(f"tcp://{address}", timeout=CONNECT_WITHIN, set_as_default=False)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise ServiceError(f"{url}: no dask scheduler answers ({text})", "a running `dask scheduler`") from None
        self.url = url
        try:
            self._client.wait_for_workers(1, timeout=CONNECT_WITHIN)
        except Exception:
            self._client.close()
            raise ServiceError(
                f"{url}: the scheduler has no worker", "at least one", f"dask worker {address}"
            ) from None
        self.machines = len(self._client.scheduler_info(n_workers=-1)["workers"])
        self._executor: Executor = self._client.get_executor(pure=False)
        self.workers: dict[str, WorkerLike] = {
            f"{n}:dask": RemoteWorker(self._executor, module, device) for n in range(AHEAD * max(self.machines, 1))
        }

    def __enter__(self) -> DaskWorkers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()
