"""The parent's side of a worker: an executor whose running work can be stopped, and which outlives its process.

``submit(task)`` gives a ``concurrent.futures.Future``, so that the same code can be driven by any executor. A
``ProcessPoolExecutor`` will not do: it cannot stop running work, and one dead child breaks it for good.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import wbtui
from wbtui.errors import Cancelled, WbtuiError, WorkError
from wbtui.service import protocol
from wbtui.service.start import with_package

log = logging.getLogger("wbtui.service")

FRAME_LIMIT = 16 << 20


class Broken(WorkError):
    """Work that failed. ``reason`` is ``user``, ``bug``, ``memory``, ``device``, ``killed``, ``stuck``,
    ``start`` or ``missing``; with the last, ``ranges`` are the shards to compute again."""

    def __init__(self, reason: str, error: WbtuiError, ranges: Sequence[Sequence[int]] = ()) -> None:
        self.ranges = tuple((int(start), int(stop)) for start, stop in ranges)
        self.reason = reason
        self.error = error
        super().__init__(error.found, error.expected, error.do)


class WorkerProcess:
    """One worker process for one device. Not for several threads at once, except :meth:`stop` and :meth:`kill`.

    Call :meth:`submit` from a thread that lives as long as the worker may: on Linux the kernel ends the child with
    the thread that started it.

    Args:
        device: ``auto``, ``cpu``, ``cuda:N``, ``mps``.
        work: name of the work module, imported in the child only.
        log: file descriptor for the child's output, None to inherit stderr.
        beside: workers that share this machine's cores with it, itself counted.
    """

    def __init__(self, device: str, work: str, log: int | None = None, beside: int = 1) -> None:
        self.device = device
        self.beside = beside
        self.work = work
        self.log = log
        self.info: dict[str, Any] = {}
        """The child's pid, and from its ``ready`` device and threads."""
        self.ready = threading.Event()
        self.last_sign = 0.0
        """Monotonic time of the last thing heard from the child about its work."""
        self.last_pulse = 0.0
        """Monotonic time of the last thing heard at all: the child's pulse comes every second, whatever it does."""
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._future: Future[Any] | None = None
        self._number = 0
        self._on_progress: Callable[..., None] | None = None
        self._blame: tuple[str, str] | None = None
        self._ending = False
        self._lost = True
        """No reader will hear of a task given now: the process has ended, or none was started."""
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._reader: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether a task is under way."""
        return self._future is not None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self.alive else None

    def start(self) -> None:
        """Start the process unless it runs. Returns at once; its imports go on in the child."""
        if self.alive and not self._ending and self._reader is not None and self._reader.is_alive():
            return
        self._reap()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                self.command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self.log if self.log is not None else sys.__stderr__,
                stderr=self.log if self.log is not None else sys.__stderr__,
                env=self.environment(),
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise WorkError(f"no worker process could be started ({error})") from None
        finally:
            theirs.close()
        self.starts += 1
        self.info = {"pid": self._process.pid}  # nothing of a former process is said of this one
        self._blame = None
        self._lost = False
        self._sock = ours
        self.last_sign = self.last_pulse = time.monotonic()
        self._reader = threading.Thread(
            target=self._listen, args=(ours, self._process), name=f"worker-{self.device}", daemon=True
        )
        self._reader.start()

    def command(self, fd: int) -> list[str]:
        """The child's command line. ``-P``: a folder of downloaded weights is no place to import from."""
        return [
            *(sys.executable, "-P", "-m", "wbtui.service.worker"),
            *("--fd", str(fd), "--parent", str(os.getpid()), "--work", self.work, "--device", self.device),
        ]

    def environment(self) -> dict[str, str]:
        """Thread settings must stand before the child imports torch; a short spin leaves the cores to others. Several
        workers on CPUs share the cores."""
        env = dict(os.environ)
        env.setdefault("GOMP_SPINCOUNT", "2000")
        env.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's products run in threads of ours, one block each
        env.setdefault("TOKENIZERS_PARALLELISM", "false")
        if hasattr(os, "sched_getaffinity"):
            env.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // self.beside)))
        return with_package(env)

    def submit(self, task: dict[str, Any], on_progress: Callable[..., None] | None = None) -> Future[Any]:
        """Give the worker one task, starting or restarting the process if need be.

        Args:
            task: plain data (see :func:`wbtui.service.worker.perform`).
            on_progress: called on the reader's thread with the share done, and with parts of the answer that come.

        Returns:
            Future: the value; or ``Cancelled`` after :meth:`stop`; or ``Broken`` with its reason.
        """
        if self._future is not None:
            raise RuntimeError("a worker does one task at a time")
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        while True:
            self.start()
            with self._lock:
                if self._lost:  # it died just now, idle; its reader has looked for a task already and gone
                    continue
                self._number += 1
                self._future = future
                self._on_progress = on_progress
                number, sock = self._number, self._sock
            break
        self.last_sign = time.monotonic()
        assert sock is not None
        # a child that has just died is noticed by the reader, which fails the future
        with contextlib.suppress(protocol.Disconnected):
            self._send(sock, {"task": number, **task})
        return future

    def stop(self) -> None:
        """Ask the running task to stop; it may still finish. Safe from any thread and at any time."""
        with self._lock:
            sock, number, busy = self._sock, self._number, self._future is not None
        if busy and sock is not None:
            with contextlib.suppress(WbtuiError, OSError):
                self._send(sock, {"halt": number})

    def kill(self, reason: str, why: str) -> None:
        """End the process at once; the running task fails with this reason."""
        self._blame = (reason, why)
        if self._process is not None:
            self._process.kill()

    def close(self, grace: float = 5.0) -> None:
        """End the process: politely, then not. No task may be left waiting."""
        process, sock = self._process, self._sock
        if process is None:
            return
        self.stop()
        if not self.ready.is_set():  # still importing: nothing to lose
            self.kill("killed", "the service is ending")
        elif sock is not None:
            with contextlib.suppress(WbtuiError, OSError):
                self._send(sock, {"exit": True})
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            self.kill("killed", "the service is ending")
            process.wait()
        self._reap()

    def _send(self, sock: socket.socket, message: dict[str, Any]) -> None:
        with self._sending:
            protocol.send(sock, message, FRAME_LIMIT)

    def _reap(self) -> None:
        """Leave nothing of a former process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()
        self._process = self._sock = self._reader = None
        self._ending = False
        self.ready.clear()

    def _listen(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        broken: WbtuiError | None = None
        try:
            while (message := protocol.receive(sock, FRAME_LIMIT)) is not None:
                self.last_pulse = time.monotonic()
                if "pulse" in message:
                    if message.get("memory"):
                        self.info = {**self.info, "memory": [int(n) for n in message["memory"]]}
                    continue
                self.last_sign = self.last_pulse
                if "broken" in message:
                    self._ending = True
                    broken = WbtuiError.from_json(message["broken"])
                else:
                    self._hear(message)
        except WbtuiError:
            pass
        except Exception as error:  # a child of other code (the package was changed under us), or a bug: never silence
            log.exception("worker on %s: what it said is not understood", self.device)
            broken = WorkError(
                f"the worker on {self.device} said what this service does not understand ({type(error).__name__})",
                f"a worker of version {wbtui.__version__}",
                "run `wbtui daemon restart`",
            )
            process.kill()
        try:
            process.wait(2.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            sock.close()
        self._end(broken, process.returncode)

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.info = {**self.info, **message["ready"]}
            if self.info.get("version") != wbtui.__version__:
                raise ValueError(f"a worker of version {self.info.get('version')}")
            self.ready.set()
            return
        number = message.get("progress", message.get("done", message.get("stopped", message.get("failed"))))
        if number != self._number or self._future is None:
            return
        if "progress" in message:
            if self._on_progress is not None and "part" in message:
                self._on_progress(float(message["share"]), message["part"])
            elif self._on_progress is not None:
                self._on_progress(float(message["share"]))
        elif "done" in message:
            value = message["value"]
            self._take().set_result(value)
        elif "stopped" in message:
            self._take().set_exception(Cancelled("stopped on request"))
        else:
            failure = Broken(message["reason"], WbtuiError.from_json(message["error"]), message["ranges"])
            self._ending = failure.reason in ("memory", "device")  # the child gives all memory back by ending
            self._take().set_exception(failure)

    def _take(self) -> Future[Any]:
        with self._lock:
            future, self._future, self._on_progress = self._future, None, None
        assert future is not None
        return future

    def _end(self, broken: WbtuiError | None, status: int) -> None:
        """The reader's last act: whoever gives a task after this starts a new process."""
        with self._lock:
            self._lost = True
            waiting = self._future is not None
        if not waiting:
            return
        if broken is not None:
            failure = Broken("start", broken)
        else:
            reason, why = self._blame or ("killed", death(status))
            failure = Broken(reason, WorkError(f"the worker on {self.device} {why}", do="see `wbtui daemon logs`"))
        self._take().set_exception(failure)


def death(status: int) -> str:
    """A process's end in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = {"SIGKILL": " (out of memory, or killed by hand)", "SIGSEGV": " (crashed)", "SIGBUS": " (a file shrank?)"}
    return f"was ended by {name}{hint.get(name, '')}"
