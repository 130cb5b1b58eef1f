"""``wbtui doctor``: a look at terminal and machine."""

from __future__ import annotations

import dataclasses
import os

import click

from wbtui import __version__, settings
from wbtui.cli import cli
from wbtui.cli.common import print_json, print_table


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; the terminal is then not asked for widths.")
@click.option("--no-devices", is_flag=True, help="Do not ask torch for devices (that takes seconds).")
def doctor(as_json: bool, no_devices: bool) -> int:
    """Look at the terminal, devices, folders, cache, notes and service; exit code 1 if one is bad."""
    from rich.console import Console

    from wbtui.doctor import machine, terminal
    from wbtui.doctor.check import Check

    checks = machine.configuration()
    if checks[0].state == "bad":  # nothing else can be asked with settings that mean nothing
        theme, copy, limit = "auto", "auto", 0
    else:
        theme, copy, limit = (settings.get(name) for name in ("theme", "copy", "copy_bytes"))
    system = Console(force_terminal=True).color_system
    size = os.get_terminal_size(1) if os.isatty(1) else None
    if size is not None:
        small = size.columns < 60 or size.lines < 20
        do = "the app needs 60×20" if small else ""
        checks.append(Check("size", "warn" if small else "ok", f"{size.columns}×{size.lines}", do))
    checks += [
        terminal.colours(system, os.environ, str(theme)),
        terminal.encoding(os.environ),
        terminal.widths(None if as_json else terminal.measure()),
        terminal.clipboard(os.environ, str(copy), int(limit)),
        *terminal.tmux(os.environ, terminal.asked),
    ]
    if checks[0].state != "bad":
        checks += [*machine.folders(), machine.cache(), machine.notes(), machine.service()]
    if not no_devices:
        checks += machine.devices()
        checks += machine.kernels()
    if as_json:
        print_json({"wbtui": __version__, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        signs = {"ok": "ok", "note": "-", "warn": "warn", "bad": "BAD"}
        rows = [[signs[c.state], c.name, c.found + (f" · {c.do}" if c.do else "")] for c in checks]
        print_table(["", "WHAT", "found"], rows)
    return int(any(check.state == "bad" for check in checks))
