"""The worker process: the only place that owns a device. Resident for life, one task at a time.

Started by :mod:`wbtui.service.executor` as ``python -m wbtui.service.worker`` with one end of a socket pair. Frames as
on the service's socket, larger: ``{task: n, kind, …}``, ``{halt: n}`` and ``{exit: true}`` come in; ``{ready}``,
``{pulse: s}`` (every second), ``{progress: n, share[, part]}``, ``{done: n, value}``, ``{stopped: n}`` and
``{failed: n, reason, error, ranges}`` go out. JSON and not
pickle: nothing that a worker says can make the service import torch.

The work function is ``compute_shard(task, *, stop, progress)`` of the module named on the command line; the numbers,
the store and the weights are its business alone.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import wbtui
from wbtui.errors import Cancelled, UsageError, WbtuiError, WorkError
from wbtui.service import protocol

FRAME_LIMIT = 16 << 20
PULSE_EVERY = 1.0
"""Seconds between two pulses of a worker, busy or idle: a halted process, or one that never lets the interpreter go,
has none."""
PROGRESS_EVERY = 0.1
"""Seconds between progress frames; the stop flag is looked at on every slice whatever this is."""
WARM_AFTER = (5.0, 1.0)
"""Seconds without a task after which a worker imports what tasks will take: before its first one, and after one that
took little. Not sooner: the first row is asked for when its weights have been hashed, who looks at one feature looks
at the next, and an import would hold either up."""
T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
EXIT_AFTER_MEMORY = 75
"""Exit status of a worker that ran out of memory and gives all of it back by ending."""


class Worker:
    """The child's side: a reader thread that hears stops and the parent's end, and the main thread that works."""

    def __init__(self, sock: socket.socket, work: str, device: str) -> None:
        self.sock = sock
        self.work = work
        self.device = device
        self.tasks: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.stopped: set[int] = set()
        self.memory: Any = None
        """The work module's ``memory(device)`` -> (used, total) bytes, if it has one."""
        self.warmed = False
        """What the work module leaves for later is there, or on its way."""
        self._sending = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        """Send one frame; the parent's absence ends the process."""
        try:
            with self._sending:
                protocol.send(self.sock, message, FRAME_LIMIT)
        except WbtuiError:
            os._exit(1)

    def listen(self) -> None:
        """Reader thread: an end of the pipe means that the service is gone, and so are we. A worker that has gone deaf
        would look idle for ever, so whatever goes wrong here ends the process."""
        try:
            while (message := protocol.receive(self.sock, FRAME_LIMIT)) is not None:
                if "halt" in message:
                    self.stopped.add(int(message["halt"]))
                else:
                    self.tasks.put(None if message.get("exit") else message)
        except WbtuiError:
            pass
        except Exception:
            traceback.print_exc()
        os._exit(1)

    def beat(self) -> None:
        """Pulse thread: the process runs and its interpreter takes turns. Says the device's memory too."""
        while True:
            found = None
            with contextlib.suppress(Exception):  # the numbers are for people; the pulse must not end for them
                found = self.memory(self.device) if self.memory is not None else None
            self.say({"pulse": round(time.monotonic(), 3), "memory": found and [int(found[0]), int(found[1])]})
            time.sleep(PULSE_EVERY)

    def run(self) -> int:
        """Import the work, say ready, then do tasks until told to go. Returns the exit status."""
        for work in (self.listen, self.beat):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        try:
            module = brought(self.work)
            self.device = resolve_device(self.device)
            self.memory = getattr(module, "memory", None)
        except Exception as error:  # a broken installation must be told to whoever asked for work
            traceback.print_exc()
            self.say({"broken": as_error(error).to_json()})
            return 1
        about = {"pid": os.getpid(), "device": self.device, "threads": threads(), "version": wbtui.__version__}
        self.say({"ready": about})
        patience = WARM_AFTER[0]
        while (message := self.next(module, patience)) is not None:
            patience = WARM_AFTER[1]
            number = int(message["task"])
            if not light(message):
                self.warm(module)
            fatal = self.do(module, number, message)
            self.stopped.discard(number)
            if fatal:
                return EXIT_AFTER_MEMORY
        return 0

    def next(self, module: ModuleType, patience: float) -> dict[str, Any] | None:
        """The next task. A worker that has none for a moment imports what tasks will take."""
        if not self.warmed:
            with contextlib.suppress(queue.Empty):
                return self.tasks.get(timeout=patience)
            self.warm(module)
        return self.tasks.get()

    def warm(self, module: ModuleType) -> None:
        """Begin to import what a work module leaves for later, if it does, in a thread of its own: a lone row is there
        sooner. An import that fails is told by the first task that needs it."""
        if self.warmed:
            return
        self.warmed = True
        work = getattr(module, "warm", None)
        if work is None:
            return

        def run() -> None:
            with contextlib.suppress(Exception):
                unhurried(work)

        threading.Thread(target=run, name="warm", daemon=True).start()

    def do(self, module: ModuleType, number: int, message: dict[str, Any]) -> bool:
        """One task, and its answer. True where the process should end: its memory or its device cannot be trusted."""
        last = 0.0

        def progress(share: float, part: Any = None) -> None:
            nonlocal last
            now = time.monotonic()
            if part is not None:
                last = now
                self.say({"progress": number, "share": float(share), "part": protocol.plain(part)})
            elif now - last >= PROGRESS_EVERY or share >= 1.0:
                last = now
                self.say({"progress": number, "share": float(share)})

        def stop() -> bool:
            return number in self.stopped

        try:
            if stop():
                raise Cancelled("stopped before it began")
            value = perform(module, message, self.device, stop, progress)
            self.say({"done": number, "value": protocol.plain(value)})
        except Cancelled:
            self.say({"stopped": number})
        except Exception as error:
            reason = reason_of(error)
            if not isinstance(error, WbtuiError):
                traceback.print_exc()
            failed = {"failed": number, "reason": reason, "error": as_error(error).to_json()}
            self.say({**failed, "ranges": ranges_of(error)})
            return reason in ("memory", "device")
        return False


def brought(work: str) -> ModuleType:
    """The work module."""
    return unhurried(lambda: importlib.import_module(work))


def unhurried(bring: Callable[[], T]) -> T:
    """Imports bring a million objects that live as long as the process: the collector would go through them again and
    again while they come, and at every large collection after."""
    gc.disable()
    try:
        return bring()
    finally:
        gc.freeze()
        gc.enable()


def light(message: dict[str, Any]) -> bool:
    """Whether a task needs little to be imported: a lone row, which may then need more, and the vocabulary."""
    return message["kind"] == "row" or (message.get("spec") or {}).get("analysis") == "vocab"


def perform(module: ModuleType, message: dict[str, Any], device: str, stop: Any, progress: Any) -> Any:
    """Do one task with the work module, in whichever process: kind ``shard``, ``assemble``, ``row``, ``page`` or
    ``ask``.

    Args:
        module: has ``ShardTask``, ``compute_shard``, ``compute_row``, ``compute_page`` and ``compute_ask``.
        message: the task's plain data.
        device: resolved, never ``auto``.
        stop: says True when the task is no longer wanted.
        progress: told the share done; and by ``ask``, as a second argument, what is known by then.
    """
    kind = message["kind"]
    if kind == "ask":
        return module.compute_ask(message["request"], device, stop=stop, progress=progress)
    if kind in ("row", "page"):
        lone = module.compute_row if kind == "row" else module.compute_page
        return lone(message["request"], message["feature"], device, stop=stop, progress=progress)
    facts = {"device": device, "threads": threads(), **message.get("facts", {})}
    task = module.ShardTask(
        cache=message["cache"],
        spec=message["spec"],
        start=message["start"],
        stop=message["stop"],
        device=device,
        tile=message["tile"],
        kind=kind,
        facts=facts,
    )
    return module.compute_shard(task, stop=stop, progress=progress)


def threads() -> int:
    """Threads that the arithmetic may use."""
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(value) if value.isdecimal() and int(value) else available_cores()


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reason_of(error: Exception) -> str:
    """Why work failed: ``user`` (never tried again), ``memory`` and ``device`` (tried once more), ``bug``, or
    ``missing`` (a product that cannot be put together: some of its shards must be computed again)."""
    if ranges_of(error):
        return "missing"
    if isinstance(error, WbtuiError):
        return "user"
    text = str(error).lower()
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return "memory"
    if isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text):
        return "memory"
    if name == "AcceleratorError" or (isinstance(error, RuntimeError) and ("cuda error" in text or "cublas" in text)):
        return "device"
    return "bug"


def ranges_of(error: Exception) -> list[list[int]]:
    """Row ranges of shards that were found damaged or gone (``wbtui.store.refusals.ShardsMissing``)."""
    return [[int(start), int(stop)] for start, stop in getattr(error, "ranges", ())]


def as_error(error: Exception) -> WbtuiError:
    """Any exception as one that a user can read."""
    if isinstance(error, WbtuiError):
        return error
    text = " ".join(str(error).split())[:400]
    found = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if reason_of(error) == "memory":
        return WorkError(f"out of memory ({found})", do="free memory, use a smaller tile, or another device")
    return WorkError(found, do="see `wbtui daemon logs`")


def resolve_device(device: str) -> str:
    """``auto`` as what is there: CUDA, else MPS, else the CPU; a device by name must be there.

    Raises:
        UsageError: no such device here.
    """
    if device == "cpu":
        return device
    accelerators = sys.platform == "darwin" or any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))
    if device == "auto" and not accelerators:
        return "cpu"
    import torch

    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise UsageError(f"device {device}", f"one of {torch.cuda.device_count()} CUDA devices", "use --device cpu")
        return f"cuda:{index}"
    if device == "mps" or device == "auto":
        if device == "auto" and torch.cuda.is_available():
            return "cuda:0"
        if torch.backends.mps.is_available():
            return "mps"
        if device == "auto":
            return "cpu"
    raise UsageError(f"device {device}", "a device of this machine", "use --device cpu")


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end this process with its parent; the reader thread does the same by the pipe's end, but needs
    the interpreter to be free. Also the first to go when the machine runs out of memory, so that the service stays."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    if os.getppid() != parent:
        os._exit(1)


def main(argv: list[str] | None = None) -> int:
    """Entry of the child process."""
    parser = argparse.ArgumentParser(prog="wbtui.service.worker")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--device", required=True)
    args = parser.parse_args(argv)
    die_with_parent(args.parent)
    faulthandler.enable()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the service decides when work ends, not the terminal
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with socket.socket(fileno=args.fd) as sock:
        return Worker(sock, args.work, args.device).run()


if __name__ == "__main__":
    sys.stdout.flush()
    status = main()
    sys.stdout.flush()
    os._exit(status)  # no teardown of CUDA or thread pools that could hang
