"""``wbtui labels``: what others found about an SAE's features, from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, print_json, print_table, say

if TYPE_CHECKING:
    from wbtui.labels.belongs import Target


@cli.group()
def labels() -> None:
    """Labels and densities of features from files (Neuronpedia exports, SAELens sparsity, CSV). Never fetched."""


def _target(words: tuple[str, ...], model_id: str = "") -> Target:
    from wbtui.cli.compute import plan_of
    from wbtui.labels.belongs import target_of

    return target_of(plan_of(address_of(words, sae=True), "folded")[0], model_id)


@labels.command("import")
@click.argument("address")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model-id", default="", help="A model's name in the file that means this model.")
@click.option("--id-column", default="", help="CSV: the column of feature numbers.")
@click.option("--label-column", default="", help="CSV: the column of labels.")
@click.option("--density-column", default="", help="CSV: the column of densities (shares of tokens, 0 to 1).")
@click.option("--json", "as_json", is_flag=True, help="Print what was imported as JSON.")
def import_(
    address: str,
    files: tuple[Path, ...],
    model_id: str,
    id_column: str,
    label_column: str,
    density_column: str,
    as_json: bool,
) -> None:
    """Import FILES for the SAE at ADDRESS, all of them or none.

    \b
    Neuronpedia   a source's folder, or batch-*.jsonl.gz of features/ and explanations/
    SAELens       sparsity.safetensors
    any table     .csv or .tsv with a column of feature numbers
    """
    import dataclasses

    from wbtui.labels.book import LabelBook, import_files
    from wbtui.labels.readers import CsvColumns

    target = _target((address,), model_id)
    done = import_files(target, files, CsvColumns(id_column, label_column, density_column))
    if as_json:
        print_json({"address": target.address, **dataclasses.asdict(done)})
        return
    say(
        f"{target.address}: {done.labels:,} labels new, {done.known:,} there already; {done.densities:,} densities"
        + (f", {done.replaced:,} of them in place of others" if done.replaced else "")
    )
    if done.cut:
        say(f"wbtui: {done.cut} labels were longer than 2,000 characters and are cut", err=True)
    book = LabelBook(target.fingerprint, target.d_sae)
    covered = int(book.labelled().sum())
    if done.labels + done.known and covered < target.d_sae:
        say(f"wbtui: {covered:,} of {target.d_sae:,} features have a label", err=True)


@labels.command("ls")
@click.argument("address", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def ls(address: str | None, as_json: bool) -> None:
    """List what is imported, of one SAE or of all."""
    from wbtui.labels.book import LabelBook, books, path_of

    wanted = [path_of(_target((address,)).fingerprint)] if address else books()
    rows: list[dict[str, Any]] = []
    for path in wanted:
        book = LabelBook(path.stem, 0)
        about = book.about()
        rows += [{"address": about.get("address", path.stem), **origin} for origin in book.origins()]
    if as_json:
        print_json(rows)
        return
    names = ("address", "id", "kind", "name", "model", "source", "labels", "densities", "imported")
    print_table(
        ["SAE", "origin", *names[2:]],
        [[f"{row[n]:,}" if n in ("labels", "densities") else str(row[n]) for n in names] for row in rows],
        right={6, 7},
    )


@labels.command("rm")
@click.argument("address")
@click.option("--origin", type=int, help="Only what came from this origin (a number of `wbtui labels ls`).")
def rm(address: str, origin: int | None) -> None:
    """Remove what is imported for the SAE at ADDRESS."""
    from wbtui.labels.book import LabelBook

    target = _target((address,))
    gone = LabelBook(target.fingerprint, target.d_sae).remove(origin)
    say(f"{target.address}: {gone:,} labels and densities removed")
