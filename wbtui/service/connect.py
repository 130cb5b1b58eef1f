"""Reaching the service, starting it if it is not there. Shared by the blocking and the asyncio client."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import wbtui
from wbtui import build, paths
from wbtui.address import is_path
from wbtui.errors import ServiceError, TimedOut
from wbtui.service import place, protocol, start
from wbtui.service.config import ServiceConfig

CONNECT_WITHIN = 30.0
"""Seconds until a service that does not come up is an error."""
_POLL = 0.005
_AGAIN = 0.25
"""Seconds between two attempts to start one while the former daemon is still ending."""
_HELLO_WITHIN = 10.0


def hello() -> dict[str, Any]:
    """The first request of every connection."""
    ours = {"protocol": protocol.PROTOCOL, "version": wbtui.__version__, "build": build.stamp()}
    return protocol.Request(0, "hello", ours).to_message()


def check_hello(answer: dict[str, Any], any_version: bool) -> dict[str, Any]:
    """The service's answer to hello.

    Raises:
        ServiceError: it is of another version, with what to do.
    """
    ours = protocol.result(answer)
    if not isinstance(ours, dict):
        raise protocol.ProtocolError("a hello that is no object")
    same = ours.get("protocol") == protocol.PROTOCOL and ours.get("version") == wbtui.__version__
    if not same and not any_version:
        raise protocol.version_error(str(ours.get("version"))[:40], wbtui.__version__)
    if ours.get("build", build.stamp()) != build.stamp() and not any_version:
        raise protocol.build_error(wbtui.__version__)
    return ours


def open_socket(
    *,
    autostart: bool,
    timeout: float = CONNECT_WITHIN,
    config: ServiceConfig | None = None,
    any_version: bool = False,
    given_up: threading.Event | None = None,
) -> tuple[socket.socket, dict[str, Any]]:
    """A connection to the service, hello said.

    Of many clients that find no service at the same time, the one that gets the start lock starts it.

    Args:
        autostart: start a service if there is none.
        timeout: seconds for all of it.
        config: for the service that is started; the environment's if None.
        any_version: be content with a service of another version (to stop it).
        given_up: set by another thread to end the attempt.

    Returns:
        tuple: the blocking socket, and the service's {protocol, version}.

    Raises:
        ServiceError: none is there, none starts, or it is of another version.
    """
    deadline = time.monotonic() + timeout
    place.folder()
    starting = place.Lock(".start")
    child: subprocess.Popen[bytes] | None = None
    next_start = 0.0
    try:
        while True:
            found = _try(any_version)
            if found is not None:
                return found
            if not autostart:
                raise ServiceError("no service is running", do="run `wbtui daemon start`")
            if child is not None and child.poll() not in (None, 0, 3):
                raise ServiceError(
                    f"the service ended at once with status {child.returncode}: {start.last_words()}",
                    do="run `wbtui daemon run` to see why",
                )
            now = time.monotonic()
            if (child is None or child.poll() is not None) and now >= next_start and starting.acquire():
                child = start.spawn_detached(config or ServiceConfig.from_env())
                next_start = now + _AGAIN
            if now > deadline or (given_up is not None and given_up.is_set()):
                raise ServiceError(
                    f"no service came up in {timeout:g} s {start.last_words()}".strip(),
                    do="look at `wbtui daemon logs`, or use --no-daemon",
                )
            time.sleep(_POLL)
    finally:
        starting.release()


def _try(any_version: bool) -> tuple[socket.socket, dict[str, Any]] | None:
    """One attempt; None where no one listens, or the one who did is just going."""
    path = place.socket_path()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    keep = False
    try:
        sock.settimeout(_HELLO_WITHIN)
        try:
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            return None
        except OSError as error:
            raise ServiceError(f"{path}: {error.strerror or error}", "the service's socket") from None
        if not place.is_ours(sock):
            raise ServiceError(f"{path} is served by another user", "a service of your own", "set WBTUI_RUNTIME_DIR")
        try:
            protocol.send(sock, hello())
            answer = protocol.receive(sock)
        except protocol.Disconnected:
            return None
        except TimedOut:
            raise ServiceError("the service does not answer", do="run `wbtui daemon restart`") from None
        if answer is None:
            return None
        ours = check_hello(answer, any_version)
        sock.settimeout(None)
        keep = True
        return sock, ours
    finally:
        if not keep:
            sock.close()


def absolute(name: str) -> str:
    """A model or SAE that is written as a path, made absolute: the service works in another folder."""
    return os.path.abspath(os.path.expanduser(name)) if is_path(name) else name


def cache(given: str | Path | None = None) -> str:
    """The cache that this client reads, absolute: the service must write to the same one."""
    return os.path.abspath(os.path.expanduser(given if given is not None else paths.cache_dir()))


def close_quietly(sock: socket.socket) -> None:
    """Close a socket whatever state it is in."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
