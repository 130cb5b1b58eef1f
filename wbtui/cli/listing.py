"""``wbtui models`` and ``wbtui saes``: what can be opened here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from wbtui.cli import cli
from wbtui.cli.common import print_json, print_table


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def models(as_json: bool) -> None:
    """List models that can be opened without a download."""
    from wbtui.catalog.models import list_models

    found = list_models()
    if as_json:
        print_json([dataclasses.asdict(m) for m in found])
        return
    rows = [
        [m.name, m.kind, m.model_type, str(m.n_layers), str(m.d_model), str(m.n_heads), f"{m.d_vocab:,}"] for m in found
    ]
    print_table(["MODEL", "kind", "type", "layers", "d_model", "heads", "vocabulary"], rows, right={3, 4, 5, 6})


@cli.command()
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def keys(as_markdown: bool, as_json: bool) -> None:
    """List every key of the app with its id, your own ones (config.toml, [keys]) included."""
    from wbtui import settings
    from wbtui.tui import keymap

    mine = settings.keys()
    keymap.use(mine)
    if as_markdown:
        click.echo(keymap.markdown())
    elif as_json:
        print_json(
            [
                {
                    "context": context, "id": key.id, "keys": list(key.keys), "shown": key.shown,
                    "what": key.tooltip, "group": key.group, "yours": key.id in mine,
                }
                for context, every in keymap.current().items()
                for key in every
            ]
        )  # fmt: skip
    else:
        for heading, group in keymap.groups():
            click.echo(f"{heading}:")
            for key in group:
                click.echo(f"  {key.shown:<14} {key.id:<18} {key.tooltip}")


@cli.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def saes(model: str, as_json: bool) -> None:
    """List the SAEs of MODEL and what is computed of each."""
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan import plan_tokens
    from wbtui.catalog.saes import list_saes
    from wbtui.definitions import named_definition
    from wbtui.errors import WbtuiError
    from wbtui.store.products import Product

    info = find_model(model)
    cache = paths.cache_dir()
    records = []
    for sae in list_saes(info):
        try:
            state = Product(cache, plan_tokens(info, sae, named_definition("folded"), cache).tokens).state
        except WbtuiError as error:
            state = f"unreadable: {error.line()}"
        records.append({**dataclasses.asdict(sae), "tokens": state})
    if as_json:
        print_json(records)
        return
    rows = [
        [
            r["name"],
            r["hook_name"],
            r["architecture"],
            f"{r['d_sae']:,}",
            "none" if r["reader_layer"] is None else f"L{r['reader_layer']}",
            r["tokens"],
        ]
        for r in records
    ]
    print_table(["SAE", "hook", "architecture", "features", "read by", "tokens"], rows, right={3})
    if not rows:
        click.echo(
            f"no SAE of {info.name} is known here; name a folder, put folders into {Path(info.path) / 'saes'}, "
            "or set WBTUI_SAE_ROOTS",
            err=True,
        )
