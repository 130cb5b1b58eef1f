"""``wbtui daemon``: the background service by hand. Clients start it by themselves when they need it."""

from __future__ import annotations

from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import print_json
from wbtui.errors import ServiceError


@cli.group()
def daemon() -> None:
    """Start, stop or look at the background service."""


def _config(device: str | None) -> Any:
    from wbtui.service.config import ServiceConfig

    return ServiceConfig.from_env(**({"devices": tuple(device.split(","))} if device else {}))


device_option = click.option("--device", help="cpu, cuda, cuda:N, mps or auto; several with commas.")


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

    click.echo("stopped" if client.stop() else "no service was running")


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
        click.echo(f"wbtui: {error.line()}", err=True)
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
    from wbtui.display import safe_token_text
    from wbtui.service.daemon import log_path

    path = log_path()
    if only_path:
        click.echo(str(path))
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            last = file.readlines()[-lines:]
    except FileNotFoundError:
        click.echo(f"no log yet ({path})", err=True)
        return
    for line in last:
        click.echo(safe_token_text(line.rstrip("\n")) if line.strip() else "")


@daemon.command()
@device_option
def run(device: str | None) -> int:
    """Run the service in the foreground (for systemd, or to watch it)."""
    from wbtui.service.daemon import run as serve

    return serve(_config(device), foreground=True)


def _say(found: dict[str, Any]) -> None:
    workers = found.get("workers") or []
    entries = workers.values() if isinstance(workers, dict) else workers
    names = ", ".join(str(w.get("device") or w.get("name") or w) for w in entries if isinstance(w, dict))
    click.echo(
        f"running: process {found.get('pid')}, version {found.get('version')}, "
        f"{found.get('jobs', 0)} jobs, devices {names or 'none'}"
    )
