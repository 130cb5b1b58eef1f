"""Starting a daemon that outlives whoever started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wbtui
from wbtui import paths
from wbtui.errors import ServiceError
from wbtui.service.config import ServiceConfig

_ROOT = str(Path(wbtui.__file__).resolve().parents[1])
_MOVABLE = ("WBTUI_CACHE_DIR", "WBTUI_DATA_DIR", "WBTUI_CONFIG_DIR", "WBTUI_LOG_DIR", "WBTUI_RUNTIME_DIR", "HF_HOME")
MAX_OUTPUT = 1 << 20


def output_path() -> Path:
    """What the daemon and its workers print (tracebacks, crash reports)."""
    return paths.log_dir() / "daemon.out"


def spawn_detached(config: ServiceConfig) -> subprocess.Popen[bytes]:
    """Start a daemon in a session of its own: no terminal, no hang-up, output to a file.

    Returns:
        Popen: the daemon, or a process that ends with status 3 where another one is already there.

    Raises:
        ServiceError: no process, or no log folder.
    """
    path = output_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_OUTPUT:
            path.replace(path.with_suffix(".out.1"))
        with open(path, "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "wbtui.service.daemon", "--config", config.to_text()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
                start_new_session=True,
                close_fds=True,
            )
    except OSError as error:
        raise ServiceError(f"the service cannot be started ({error})", do="run `wbtui daemon run` to see why") from None


def environment() -> dict[str, str]:
    """The daemon's environment: its folders absolute (it works in ``/``), and this very package importable."""
    env = dict(os.environ)
    for variable in _MOVABLE:
        if env.get(variable):
            env[variable] = os.path.abspath(os.path.expanduser(env[variable]))
    return with_package(env)


def with_package(env: dict[str, str]) -> dict[str, str]:
    """An environment in which child processes import this very package, installed or not."""
    former = env.get("PYTHONPATH", "").split(os.pathsep)
    return {**env, "PYTHONPATH": os.pathsep.join(dict.fromkeys([_ROOT, *filter(None, former)]))}


def last_words(lines: int = 5) -> str:
    """The end of what the daemon printed, for an error message."""
    try:
        text = output_path().read_bytes()[-4096:].decode("utf-8", "replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())
