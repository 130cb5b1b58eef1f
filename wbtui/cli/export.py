"""``wbtui export``: features as CSV, Parquet or JSON lines."""

from __future__ import annotations

from pathlib import Path

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of
from wbtui.cli.compute import table_of, work_options
from wbtui.cli.options import definition_option
from wbtui.errors import UsageError

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@cli.command()
@click.argument("what", nargs=-1, required=True, metavar="MODEL SAE | ADDRESS")
@click.option("--where", default="", help="Filter, as typed after / in the app: 'semantic z_max>6 !same'.")
@click.option("--columns", help="Comma-separated metric names and lists (default: the usual ones).")
@click.option(
    "--sort", "sort_by", help="Comma-separated metrics, each '-' for descending (default: the feature's number)."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "parquet", "jsonl"]),
    help="Default: by the file's ending, else csv.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write (default: standard output).")
@definition_option
@work_options
def export(
    what: tuple[str, ...],
    where: str,
    columns: str | None,
    sort_by: str | None,
    format_: str | None,
    output: Path | None,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Write the features of an SAE, one row each, computing what is missing first."""
    import numpy as np

    from wbtui.features import order
    from wbtui.features.export import write
    from wbtui.features.query import parse

    chosen = format_ or SUFFIXES.get(output.suffix.lower() if output else "", "csv")
    if chosen == "parquet" and output is None:
        raise UsageError("parquet on standard output", "a file: -o FILE.parquet")
    query = parse(where) if where.strip() else None
    address = address_of(what, sae=True)
    table = table_of(
        address, definition, compute=True, checks=False,
        device=device, no_daemon=no_daemon, timeout=timeout, quiet=quiet,
    )  # fmt: skip
    rows = np.flatnonzero(query.mask(table)) if query is not None else np.arange(table.n)
    if address.feature is not None:
        rows = rows[rows == address.feature]
    if sort_by:
        keys = [(k.strip().removeprefix("-"), k.strip().startswith("-")) for k in sort_by.split(",") if k.strip()]
        rows = order.order(table, keys, rows)
    names = [c.strip() for c in columns.split(",") if c.strip()] if columns else None
    write(
        table,
        rows,
        names,
        chosen,
        output if output is not None else "-",
        note={"where": where, "sort": sort_by or "id"},
    )
    if output is not None:
        click.echo(f"{len(rows)} of {table.n} features written to {output}", err=True)
