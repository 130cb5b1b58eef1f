"""Where wbtui keeps things. Every place can be moved by an environment variable (tests and shared boxes need it)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """The product cache (``WBTUI_CACHE_DIR``). Not created here."""
    return _place("WBTUI_CACHE_DIR", platformdirs.user_cache_path("wbtui"))


def data_dir() -> Path:
    """Bookmarks, session, settings of the user's own (``WBTUI_DATA_DIR``). Not a cache."""
    return _place("WBTUI_DATA_DIR", platformdirs.user_data_path("wbtui"))


def config_dir() -> Path:
    """``config.toml`` (``WBTUI_CONFIG_DIR``)."""
    return _place("WBTUI_CONFIG_DIR", platformdirs.user_config_path("wbtui"))


def log_dir() -> Path:
    """Logs of the service (``WBTUI_LOG_DIR``)."""
    return _place("WBTUI_LOG_DIR", platformdirs.user_log_path("wbtui"))


def runtime_dir() -> Path:
    """Folder of the service's socket and lock (``WBTUI_RUNTIME_DIR``).

    Never in a home, which may be on NFS, nor in ``XDG_RUNTIME_DIR``, which goes at the last logout; and short, for a
    socket's path is limited to about 104 bytes.
    """
    return _place("WBTUI_RUNTIME_DIR", Path(f"/var/tmp/wbtui-{os.getuid()}"))


def socket_path() -> Path:
    """The service's socket: one per user and host."""
    host = socket.gethostname().split(".")[0][:32] or "localhost"
    return runtime_dir() / f"{host}.sock"


def _place(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else default
