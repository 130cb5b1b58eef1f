"""``wbtui notes``: what is kept of features, in and out."""

from __future__ import annotations

from pathlib import Path

import click

from wbtui.cli import cli
from wbtui.cli.common import print_json, print_path, print_table, say
from wbtui.errors import UsageError


@cli.group()
def notes() -> None:
    """List, export and import marks, tags and notes."""


@notes.command()
@click.argument("address", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def ls(address: str | None, as_json: bool) -> None:
    """List what is kept: per SAE, or with ADDRESS (MODEL or MODEL@SAE) feature by feature."""
    from wbtui.notes.exchange import export_data
    from wbtui.notes.store import NoteStore

    store = NoteStore()
    if address:
        saes = export_data(store, address)["saes"]
        if as_json:
            print_json(saes)
            return
        rows = [
            [
                f"{sae['address']}#{one['feature']}",
                "marked" if one["marked"] else "",
                " ".join("#" + tag for tag in one.get("tags", ())),
                one.get("note", ""),
            ]
            for sae in saes
            for one in sae["features"]
        ]
        print_table(["FEATURE", "mark", "tags", "note"], rows)
        return
    found = store.saes()
    if as_json:
        print_json([{"address": s.address, "model": s.model, "sae": s.sae, **counts} for s, counts in found])
        return
    rows = [[s.address, f"{c['marks']:,}", f"{c['tags']:,}", f"{c['notes']:,}", s.sae[:8]] for s, c in found]
    print_table(["SAE", "marked", "tagged", "notes", "fingerprint"], rows, right={1, 2, 3})


@notes.command()
@click.argument("address", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write (default: standard output).")
def export(address: str | None, output: Path | None) -> None:
    """Write everything kept as JSON, or what is kept of ADDRESS (MODEL or MODEL@SAE)."""
    from wbtui.notes.exchange import export_data, write_file
    from wbtui.notes.store import NoteStore

    data = export_data(NoteStore(), address or "")
    if output is None:
        print_json(data)
        return
    write_file(data, output)
    count = sum(len(sae["features"]) for sae in data["saes"])
    say(f"{count} features of {len(data['saes'])} SAEs written to {output}", err=True)


@notes.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what changed as JSON.")
def import_(file: Path, as_json: bool) -> None:
    """Add the marks, tags and notes of FILE to those here; what is here stays. Twice is as good as once."""
    from wbtui.notes.exchange import import_file
    from wbtui.notes.store import NoteStore

    if not file.exists():
        raise UsageError(f"no file {file}", "a file that `wbtui notes export` wrote")
    counts = import_file(NoteStore(), file)
    if as_json:
        print_json(counts)
        return
    new = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("marks", "tags", "notes"))
    say(f"{counts['features']:,} features read; new here: {new}", err=True)


@notes.command()
def path() -> None:
    """Print where the notes are (the setting data_dir moves them)."""
    from wbtui.notes.store import NoteStore

    print_path(NoteStore().path)
