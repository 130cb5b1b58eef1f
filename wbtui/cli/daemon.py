"""``wbtui daemon``: the background service by hand. Clients start it by themselves when they need it."""

from __future__ import annotations

from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import print_json, print_path, say
from wbtui.errors import ServiceError


@cli.group()
def daemon() -> None:
    """Start, stop or look at the background service."""


def _config(device: str | None) -> Any:
    from wbtui.service.config import ServiceConfig

    return ServiceConfig.from_env(**({"devices": tuple(device.split(","))} if device else {}))


device_option = click.option("--device", help="cpu, cuda, cuda:N, mps, auto, or all; several with commas.")

UNIT = """\
# wbtui's compute service under systemd, for one user: it then starts at boot and is started again when it dies.
#   wbtui daemon unit > ~/.config/systemd/user/wbtui.service
#   systemctl --user daemon-reload && systemctl --user enable --now wbtui
# Without lingering, systemd ends a user's services with the last session, SSH included:
#   loginctl enable-linger   (as yourself; some sites ask an administrator)
# Not needed otherwise: clients start the service by themselves, and it outlives them.
[Unit]
Description=wbtui compute service

[Service]
Type=exec
ExecStart={python} -P -m wbtui daemon run
{environment}Restart=on-failure
RestartSec=2
# 3: another service has the place already
RestartPreventExitStatus=3
TimeoutStopSec=30
# the service ends its own workers; what remains after that is ended with it
KillMode=mixed
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""


@daemon.command()
@device_option
def start(device: str | None) -> None:
    """Start the service if none is running."""
    from wbtui.service.client import Client

    with Client.connect(True, config=_config(device)) as service:
        _say(service.status())


@daemon.command()
def stop() -> None:
    """End the service; finished shards stay, what runs is stopped."""
    from wbtui.service import client

    say("stopped" if client.stop() else "no service was running")


@daemon.command()
@device_option
def restart(device: str | None) -> None:
    """End the service, if any, and start one of this version."""
    from wbtui.service import client

    _say(client.restart(_config(device)))


@daemon.command()
@click.option("--json", "as_json", is_flag=True)
def status(as_json: bool) -> int:
    """Say what the service does; exit code 3 when there is none."""
    from wbtui.service.client import Client

    try:
        with Client.connect(False, any_version=True) as service:
            found = service.status()
    except ServiceError as error:
        if as_json:
            print_json({"running": False})
        say(f"wbtui: {error.line()}", err=True)
        return error.exit_code
    if as_json:
        print_json({"running": True, **found})
    else:
        _say(found)
    return 0


@daemon.command()
@click.option("-n", "--lines", default=40, show_default=True, help="How many lines from the end.")
@click.option("--path", "only_path", is_flag=True, help="Print only where the log is.")
def logs(lines: int, only_path: bool) -> None:
    """Print the end of the service's log."""
    from wbtui.service import logs

    path = logs.path()
    if only_path:
        print_path(path)
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            last = file.readlines()[-lines:]
    except FileNotFoundError:
        say(f"no log yet ({path})", err=True)
        return
    for line in last:
        say(line.rstrip("\n") if line.strip() else "")


@daemon.command()
@device_option
def run(device: str | None) -> int:
    """Run the service in the foreground (for systemd, or to watch it)."""
    from wbtui.service.daemon import run as serve

    return serve(_config(device), foreground=True)


@daemon.command()
def unit() -> None:
    """Print a systemd user unit that runs the service; its comments say how to install it."""
    import os
    import sys

    from wbtui.service.start import environment

    kept = ("WBTUI_", "HF_", "CUDA_VISIBLE_DEVICES")
    found = {
        k: v
        for k, v in environment().items()
        if k.startswith(kept) and "TOKEN" not in k and os.environ.get(k, "").isprintable()
    }
    lines = "".join(f"Environment={_quoted(f'{k}={v}')}\n" for k, v in sorted(found.items()))
    say(UNIT.format(python=_quoted(sys.executable), environment=lines).removesuffix("\n"))


def _quoted(text: str) -> str:
    """A word of a unit file: ``%`` and ``$`` mean something there, and so do quotes."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(c in text for c in " \t'\\\"") else text


def _say(found: dict[str, Any]) -> None:
    workers = found.get("workers") or []
    entries = workers.values() if isinstance(workers, dict) else workers
    names = ", ".join(_device(w) for w in entries if isinstance(w, dict))
    say(
        f"running: process {found.get('pid')}, version {found.get('version')}, "
        f"{found.get('jobs', 0)} jobs, devices {names or 'none'}"
    )


def _device(worker: dict[str, Any]) -> str:
    """A device with its memory: ``cuda:0 3.1 of 24.0 GiB``."""
    name = str(worker.get("device") or worker.get("name"))
    memory = worker.get("memory")
    if isinstance(memory, list) and len(memory) == 2:
        name += f" ({memory[0] / 2**30:.1f} of {memory[1] / 2**30:.1f} GiB used)"
    return name
