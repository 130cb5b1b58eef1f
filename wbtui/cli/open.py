"""``wbtui [ADDRESS]``, ``wbtui demo``, ``wbtui screenshot``: the app."""

from __future__ import annotations

from pathlib import Path

import click

from wbtui.cli import cli
from wbtui.cli.common import check_out, print_path
from wbtui.cli.options import app_options, definition_option
from wbtui.errors import UsageError
from wbtui.start import open_app


@cli.command("open", hidden=True)
@click.argument("address", required=False)
@app_options
@definition_option
def open_(address: str | None, definition: str) -> int:
    """Open the app at ADDRESS (what `wbtui ADDRESS` does)."""
    return open_app(address, definition)


@cli.command()
@app_options
@definition_option
def demo(definition: str) -> int:
    """Open the built-in demo: a small trained model and its SAEs."""
    from wbtui.catalog.models import DEMO, find_model
    from wbtui.catalog.saes import list_saes

    model = find_model(DEMO)
    last = max((s for s in list_saes(model) if s.name == f"L{s.layer}"), key=lambda s: s.layer)
    return open_app(f"{DEMO}@{last.name}", definition)


@cli.command()
@click.argument("address", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The SVG file to write.")
@click.option("--size", default="120x40", show_default=True, help="Columns x rows.")
@click.option("--keys", default="", help="Keys to press first, separated by commas (Textual's names).")
@app_options
@definition_option
def screenshot(address: str | None, output: Path, size: str, keys: str, definition: str) -> int:
    """Write an SVG picture of the app at ADDRESS, without a terminal."""
    try:
        columns, rows = (int(n) for n in size.lower().split("x"))
        assert 20 <= columns <= 500 and 5 <= rows <= 300
    except (ValueError, AssertionError):
        raise UsageError(f"size {size!r}", "COLUMNSxROWS, for example 120x40") from None
    from wbtui.tui.run import make_screenshot

    check_out(output)
    make_screenshot(address, (columns, rows), output, keys=[k for k in keys.split(",") if k], definition=definition)
    print_path(output)
    return 0
