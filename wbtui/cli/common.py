"""What the commands share: output, addresses, waiting for work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.cells import cell_len

from wbtui.address import Address, parse_address
from wbtui.display import json_text, safe_lines, safe_token_text
from wbtui.errors import StoreError, UsageError

Result = TypeVar("Result")


def say(text: str = "", *, err: bool = False) -> None:
    """Lines on stdout, or stderr; whatever they name (paths, models, words of others) is made safe to print."""
    click.echo(safe_lines(text), err=err)


def print_path(path: object) -> None:
    """A path as data on stdout: as it is for a program that reads it, safe to print for a person."""
    text = str(path)
    click.echo(safe_token_text(text) if sys.stdout.isatty() else os.fsencode(text))


def check_out(path: Path, *, folder: bool = False) -> None:
    """Refuse, before any work is done for it, a file that could not be written in the end.

    Args:
        path: the file; its folder must be there.
        folder: ``path`` is a folder, made with those above it where they are missing.

    Raises:
        StoreError: there is no such folder, or no right to write there.
    """
    place = path if folder else path.parent
    while folder and not place.exists() and place != place.parent:
        place = place.parent
    wanted = "a place that can be written"
    if not place.is_dir():
        found = "is a file" if place.exists() else "there is no such folder"
        raise StoreError(f"{path}: {found if place == path else f'{place}: {found}'}", wanted)
    if not folder and path.is_dir():
        raise StoreError(f"{path}: is a folder", "a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StoreError(f"{path}: no right to write in {place}", wanted)


def status_line(text: str) -> None:
    """What is under way, on stderr in place of the line before; for terminals only."""
    click.echo("\r\x1b[K" + safe_lines(text), nl=False, err=True)


def print_json(data: Any) -> None:
    """Data on stdout as indented JSON; non-finite numbers never get here (records make them null)."""
    click.echo(json_text(data, indent=2))


def print_table(header: list[str], rows: list[list[str]], right: set[int] | None = None) -> None:
    """An aligned table on stdout; every cell is made safe to print."""
    right = right or set()
    safe = [[safe_token_text(cell) if cell else "" for cell in row] for row in rows]
    widths = [max(cell_len(row[i]) for row in [header, *safe]) for i in range(len(header))]
    for row in [header, *safe]:
        cells = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            pad = " " * (width - cell_len(cell))
            cells.append(pad + cell if i in right else cell + pad)
        click.echo("  ".join(cells).rstrip())  # safe already, and aligned


def address_of(words: tuple[str, ...], *, sae: bool) -> Address:
    """An address from one word (``demo@L3``) or two (``demo L3``).

    Raises:
        UsageError: more words, or no SAE where one is needed.
    """
    if len(words) == 1:
        address = parse_address(words[0])
    elif len(words) == 2:
        address = Address(parse_address(words[0]).model, words[1])
        if "#" in words[1]:
            address = parse_address(f"{words[0]}@{words[1]}")
    else:
        raise UsageError(f"{len(words)} words", "an address (demo@L3) or MODEL SAE")
    if sae and address.sae is None:
        raise UsageError(
            f"{address}: no SAE", "MODEL@SAE, for example demo@L3", f"`wbtui saes {address.model}` lists them"
        )
    return address


def offering_restart(work: Callable[[], Result]) -> Result:
    """Do something with the service; where one of another version runs and a person is there, offer to replace it.

    Raises:
        ServiceError: another version, and nobody who said yes.
    """
    from wbtui.service import client, protocol

    try:
        return work()
    except protocol.OtherVersion as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        say(f"wbtui: {error.found}; this is {error.expected}", err=True)
        said = "restart it? finished shards stay, and what it is computing is asked for again"
        if not click.confirm(said, default=True, err=True):
            raise
        client.restart()
        return work()
