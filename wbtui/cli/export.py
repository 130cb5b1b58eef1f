"""``wbtui export``: features as CSV, Parquet or JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, check_out, say
from wbtui.cli.compute import plan_of, table_of, work_options
from wbtui.cli.options import definition_option
from wbtui.cli.show import check_feature
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
    type=click.Choice(["csv", "parquet", "jsonl", "lm-eval"]),
    help="Default: by the file's ending, else csv. lm-eval: a steering file of lm-evaluation-harness (.pt, .csv).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write (default: standard output).")
@click.option(
    "--vectors", type=click.Path(path_type=Path, dir_okay=False),
    help="Write directions to FILE.safetensors: unit W_dec rows, norms, W_enc columns, biases, thresholds.",
)  # fmt: skip
@click.option("--coefficient", type=float, default=1.0, show_default=True, help="lm-eval: steering_coefficient.")
@click.option(
    "--action", type=click.Choice(["add", "clamp"]), default="add", show_default=True, help="lm-eval: action."
)
@click.option("--release", help="lm-eval: SAELens release or Hub repository of the SAE (default: where it came from).")
@click.option("--sae-id", help="lm-eval: SAELens's id of the SAE within the release.")
@definition_option
@work_options
def export(
    what: tuple[str, ...],
    where: str,
    columns: str | None,
    sort_by: str | None,
    format_: str | None,
    output: Path | None,
    vectors: Path | None,
    coefficient: float,
    action: str,
    release: str | None,
    sae_id: str | None,
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
    if chosen == "lm-eval" and output is None:
        raise UsageError("lm-eval on standard output", "a file or folder: -o FILE.pt, -o FILE.csv, -o DIR/")
    for path in (output, vectors):
        if path is not None:  # a folder of steering files is made
            check_out(path, folder=chosen == "lm-eval" and path.suffix.lower() not in (".pt", ".pth", ".csv"))
    query = parse(where) if where.strip() else None
    address = address_of(what, sae=True)
    if vectors is not None and query is None and output is None and format_ is None:
        plan, _ = plan_of(address, definition)
        if address.feature is not None:
            check_feature(address.model, str(address.sae), address.feature)
        _vectors(plan, None if address.feature is None else np.array([address.feature]), vectors, where)
        return
    table = table_of(
        address, definition, compute=True, checks=False,
        device=device, no_daemon=no_daemon, timeout=timeout, quiet=quiet,
    )  # fmt: skip
    rows = np.flatnonzero(query.mask(table)) if query is not None else np.arange(table.n)
    if address.feature is not None:
        rows = rows[rows == address.feature]
    if sort_by:
        keys = [(k.strip().removeprefix("-"), k.strip().startswith("-")) for k in sort_by.split(",") if k.strip()]
        rows = order.order(table, keys, rows).astype(np.int64)
    if vectors is not None:
        assert table.plan is not None
        _vectors(table.plan, rows, vectors, where)
        if output is None and format_ is None:
            return
    if chosen == "lm-eval":
        assert output is not None
        from wbtui.features.steering import write_steering

        files = write_steering(
            table, rows.tolist(), output, coefficient=coefficient, action=action, release=release, sae_id=sae_id
        )
        if action == "add" and files[0].suffix == ".csv":
            say(
                "wbtui: lm-evaluation-harness 0.4.13 refuses `add` of an SAE that has a b_dec, as SAELens's have: "
                "-o FILE.pt writes the vector itself, which it adds; or --action clamp",
                err=True,
            )
        say(f"{len(files)} steering {'file' if len(files) == 1 else 'files'} written to {output}", err=True)
        return
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
        say(f"{len(rows)} of {table.n} features written to {output}", err=True)


def _vectors(plan: Any, rows: Any, out: Path, where: str) -> None:
    from wbtui.features.vectors import export_vectors

    done = export_vectors(plan, rows, out, where=where)
    say(f"directions of {done['rows']:,} features written to {out} ({', '.join(done['tensors'])})", err=True)
