"""``wbtui models`` and ``wbtui saes``: what can be opened here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wbtui.cli import cli
from wbtui.cli.common import print_json, print_table, say

if TYPE_CHECKING:
    from wbtui.catalog.registry import Release


@cli.command()
@click.option("--registry", is_flag=True, help="List the models that published SAEs are for, on this disk or not.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def models(registry: bool, as_json: bool) -> None:
    """List models that can be opened without a download."""
    from wbtui.catalog.models import hub_snapshot, list_models
    from wbtui.catalog.registry import about, spellings
    from wbtui.catalog.registry import models as published

    if registry:
        items = [
            {"model": name, "saes": count, "on_disk": any(map(hub_snapshot, (name, *spellings(name))))}
            for name, count in sorted(published().items())
        ]
        if as_json:
            print_json(items)
            return
        lines = [[str(i["model"]), f"{i['saes']:,}", "yes" if i["on_disk"] else ""] for i in items]
        print_table(["MODEL", "published SAEs", "on disk"], lines, right={1})
        say(f"as of {about()}; `wbtui saes MODEL` lists its releases", err=True)
        return
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
        say(keymap.markdown())
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
            say(f"{heading}:")
            for key in group:
                say(f"  {key.shown:<14} {key.id:<18} {key.tooltip}")


@cli.command()
@click.argument("model")
@click.option("--release", help="List the SAEs of one published release, on this disk or not.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def saes(model: str, release: str | None, as_json: bool) -> None:
    """List the SAEs of MODEL and what is computed of each; then the published releases for it."""
    from wbtui import paths
    from wbtui.catalog.computed import tokens_state
    from wbtui.catalog.models import find_model
    from wbtui.catalog.registry import releases_of
    from wbtui.catalog.saes import list_saes
    from wbtui.definitions import named_definition
    from wbtui.errors import UsageError

    if release is not None:
        _release(model, release, as_json)
        return
    published = releases_of(model)
    try:
        info = find_model(model)
    except UsageError:
        if not published:
            raise
        info = None
    cache = paths.cache_dir()
    records = []
    for sae in list_saes(info) if info is not None else ():
        assert info is not None
        state, line = tokens_state(info, sae, named_definition("folded"), cache)
        records.append({**dataclasses.asdict(sae), "tokens": f"unreadable: {line}" if state == "error" else state})
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
    if rows:
        print_table(["SAE", "hook", "architecture", "features", "read by", "tokens"], rows, right={3})
    elif info is not None:
        say(
            f"no SAE of {info.name} is known here; name a folder, put folders into {Path(info.path) / 'saes'}, "
            "or set WBTUI_SAE_ROOTS",
            err=True,
        )
    if published:
        if info is None:
            say(f"{model} is not on this disk: `wbtui download {model}` fetches it", err=True)
        if rows:
            say("")
        _releases(published, model)


def _releases(found: Sequence[Release], model: str) -> None:
    """The published releases of a model, with what is on disk."""
    from wbtui.catalog.formats import by_loader
    from wbtui.catalog.hub import local_counts
    from wbtui.catalog.registry import about

    lines = []
    for item in found:
        known = by_loader(item.loader)
        lines.append(
            [item.name, str(len(item.saes)), str(local_counts(item) or ""), known.title if known else "by SAELens"]
        )
    print_table(["PUBLISHED RELEASE", "SAEs", "on disk", "format"], lines, right={1, 2})
    say(
        f"as of {about()}; `wbtui saes {model} --release NAME` lists one, `wbtui download {model} NAME/ID` fetches one",
        err=True,
    )


def _release(model: str, name: str, as_json: bool) -> None:
    """The SAEs of one published release."""
    import difflib

    from wbtui.catalog.hub import local_candidates
    from wbtui.catalog.registry import releases_of
    from wbtui.errors import UsageError

    found = {item.name: item for item in releases_of(model)}
    if name not in found:
        near = difflib.get_close_matches(name, list(found), n=3) or list(found)[:5]
        raise UsageError(
            f"no release {name!r} for {model}", "one of " + ", ".join(near) if near else "a model with published SAEs"
        )
    records = [
        {
            "name": e.name, "id": e.sae, "repo": e.repo, "path": e.path, "l0": e.l0,
            "on_disk": bool(local_candidates(e)),
        }
        for e in found[name].saes
    ]  # fmt: skip
    if as_json:
        print_json(records)
        return
    rows = [[str(r["name"]), "" if r["l0"] is None else f"{r['l0']:g}", "yes" if r["on_disk"] else ""] for r in records]
    print_table(["SAE", "L0", "on disk"], rows, right={1})
