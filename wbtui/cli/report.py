"""``wbtui report``: the paper's three experiments for a model, as CSV, SVG and one Markdown page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, check_out, print_path, say
from wbtui.cli.compute import run, table_of, work_options
from wbtui.cli.options import definition_option
from wbtui.errors import UsageError


@cli.command()
@click.argument("where", nargs=-1, required=True, metavar="MODEL [SAE] | ADDRESS")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write (default: wbtui-report-MODEL here).",
)  # fmt: skip
@click.option("--no-attention", is_flag=True, help="Leave out the heads: experiments 1 and 3 of the weights alone.")
@click.option("--no-compute", is_flag=True, help="Fail instead of computing what is missing.")
@click.option(
    "--permutations", type=click.IntRange(20, 10_000), default=200, show_default=True, help="Label permutations."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the permutations.")
@definition_option
@work_options
def report(
    where: tuple[str, ...],
    output: Path | None,
    no_attention: bool,
    no_compute: bool,
    permutations: int,
    seed: int,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Write a report on all SAEs of MODEL (or on one): tables, figures, and the paper's findings as hypotheses.

    Missing products are computed first. Files of an earlier report in the folder are replaced.
    """
    from wbtui import paths
    from wbtui.address import Address
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import find_sae, list_saes
    from wbtui.report.collect import collect
    from wbtui.report.write import build, write

    address = address_of(where, sae=False)
    if address.feature is not None:
        raise UsageError(f"{address}: a feature", "a model or an SAE", "`wbtui show` has one feature's record")
    model = find_model(address.model)
    saes = list_saes(model) if address.sae is None else [find_sae(model, address.sae)]
    if not saes:
        raise UsageError(
            f"{model.name}: no SAE is known here", "at least one", f"`wbtui saes {model.name}` says where to put them"
        )

    folder = output or Path("wbtui-report-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-.") or "model"))
    check_out(folder, folder=True)

    def said(text: str) -> None:
        if not quiet:
            say(f"wbtui: {text}", err=True)

    work: dict[str, Any] = {"device": device, "no_daemon": no_daemon, "timeout": timeout, "quiet": quiet}
    data = collect(
        model,
        saes,
        paths.cache_dir(),
        lambda sae: table_of(Address(address.model, sae.name), definition, compute=not no_compute, **work),
        definition=definition,
        attention=not no_attention,
        work=None if no_compute else lambda plan: run(plan, paths.cache_dir(), **work),
        said=said,
    )
    settings = {"n_perm": permutations, "seed": seed, "attention": not no_attention}
    found = build(data, n_perm=permutations, seed=seed, said=said)
    files = write(data, found, folder, settings)
    verdicts = [h.verdict for h in found.hypotheses]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    say(f"{len(files)} files in {folder}; hypotheses: {counts}")
    print_path(folder / "report.md")
