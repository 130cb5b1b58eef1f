"""``wbtui find``, ``edges``, ``flow``, and a direction for ``show``: questions about every feature, answered now."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, check_out, print_json, print_table, say, status_line
from wbtui.cli.compute import check_device, work_options
from wbtui.cli.options import definition_option
from wbtui.errors import UsageError

json_option = click.option("--json", "as_json", is_flag=True, help="Print the whole answer as JSON.")
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the rows to FILE.csv, .jsonl or .json."
)
top_option = click.option("--top", default=20, show_default=True, help="Rows of each list.")


def ask(
    address: Any,
    what: str,
    args: dict[str, Any],
    *,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    on_part: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Ask the service, or this process's own worker.

    Args:
        address: with an SAE: where the question starts.

    Raises:
        UsageError, ServiceError, TimedOut, or the question's own error.
    """
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import named_definition, to_json
    from wbtui.service import client, local, wishes
    from wbtui.service.config import ServiceConfig

    model = find_model(address.model)
    sae = find_sae(model, address.sae)
    request = wishes.AskRequest(
        model=model.name if model.kind != "folder" else model.path,
        sae=sae.path if sae.name.startswith(("/", ".", "~")) else sae.name,
        definition=to_json(named_definition(definition)),
        cache=str(paths.cache_dir().absolute()),
        what=what,
        args=args,
    )
    config = ServiceConfig.from_env(**({"devices": (device,)} if device else {}))
    if no_daemon:
        with local.LocalRunner(config) as runner:
            return runner.ask(request, on_part, timeout)
    if device:
        check_device(device)
    with client.Client.connect(True, config=config) as service:
        return service.ask(request, on_part, timeout)


def anchored(where: str, *, all_layers: bool) -> Any:
    """An address with an SAE: the one that was named, or for all layers the model's first.

    Raises:
        UsageError: no SAE where one is needed, or a model that has none.
    """
    from wbtui.address import Address
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import list_saes
    from wbtui.catalog.stream import one_per_hook

    address = address_of((where,), sae=False)
    if address.sae is not None:
        return address
    if not all_layers:
        raise UsageError(f"{where}: no SAE", "MODEL@SAE, or --all-layers", f"`wbtui saes {where}` lists them")
    saes = one_per_hook(list_saes(find_model(address.model)))
    if not saes:
        raise UsageError(f"{where}: no SAE of this model", "at least one", "see `wbtui saes --help`")
    return Address(address.model, saes[0].name)


def absolute_vector(text: str) -> str:
    """A path of a vector, absolute: the service works in another folder."""
    return os.path.abspath(os.path.expanduser(text))


@cli.command()
@click.argument("where", metavar="MODEL[@SAE]")
@click.argument("query")
@click.option("--all-layers", is_flag=True, help="Every hook of the model that has an SAE, not only one.")
@top_option
@click.option("--at", help="Where a dir: vector lives in the stream: L3.resid_post, L3.resid_mid, L0.resid_pre.")
@click.option("--where", "filter_", default="", help="Filter of the rows: 'rank<=10 z>4', and all that export takes.")
@click.option("--sort", "sort_by", help="A column, '-' before it for descending (default: -score).")
@json_option
@output_option
@definition_option
@work_options
def find(
    where: str,
    query: str,
    all_layers: bool,
    top: int,
    at: str | None,
    filter_: str,
    sort_by: str | None,
    as_json: bool,
    output: Path | None,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Find features by direction: scored exactly against every feature, not against lists.

    \b
    w:London                    writes the word (all its single-token spellings)
    w:'" London"'               writes this very token
    w:'{London,Paris}'          a set          w:'{" he"}-{" she"}'   a difference
    r:London                    reads it
    dir:probe.npy --at L3.resid_post           along a vector (.safetensors:NAME too; r:dir: for encoders)
    like:demo@L3#120            like another feature (r:like: by encoder)
    """
    from wbtui.features import answers
    from wbtui.features.asking import parse

    asked = parse(query)
    if asked.kind == "vector":
        name = f":{asked.tensor}" if asked.tensor else ""
        place = at or asked.position
        prefix = "r:" if asked.side == "reads" else ""
        query = f"{prefix}dir:{absolute_vector(asked.path)}{name}" + (f"@{place}" if place else "")
    column, descending = _sort(sort_by, answers.FIND, "score")
    if output is not None:
        check_out(output)
    seen: list[str] = []

    def part(found: dict[str, Any]) -> None:
        seen.append(str(found["sae"]["sae"]))
        if not quiet and sys.stderr.isatty():
            status_line(f"wbtui: scored {', '.join(seen[-6:])}")

    args = {"query": query, "all_layers": all_layers, "top": top, "at": at}
    answer = ask(
        anchored(where, all_layers=all_layers), "find", args,
        definition=definition, device=device, no_daemon=no_daemon, timeout=timeout, on_part=part,
    )  # fmt: skip
    if seen and not quiet and sys.stderr.isatty():
        say(err=True)
    rows = answers.filtered(answer["hits"], filter_)
    rows = answers.ordered(rows, column, descending)
    if output is not None:
        paths = answers.write(output, rows, answers.FIND, answer)
        say(f"{len(rows)} features written to {paths[0]}", err=True)
    elif as_json:
        print_json({"schema": "wbtui.find/1", **answer, "hits": rows})
    else:
        _print_find(answer, rows)


def _sort(text: str | None, columns: tuple[str, ...], usual: str) -> tuple[str, bool]:
    if not text:
        return usual, True
    name = text.removeprefix("-")
    if name not in columns:
        raise UsageError(
            f"no column {name!r}", "one of " + ", ".join(columns), "sort by one of them, - in front: largest first"
        )
    return name, text.startswith("-")


def meaning_lines(answer: dict[str, Any]) -> list[str]:
    """What a find query was taken to mean, and what was left out."""
    from wbtui.features import answers

    lines = []
    for word in answer["words"]:
        tokens = " ".join(f'"{t["text"]}"' for t in word["tokens"])
        lines.append(f"{'-' if word['sign'] < 0 else '+'} {word['word'].strip()}: {tokens}")
    if answer.get("position"):
        lines.append(f"a direction of the stream at {answer['position']}")
    for sae in answer["skipped"]:
        lines.append(f"without {sae['sae']}: {sae['why']}")
    lines += [line for sae in answer["saes"] if (line := answers.left_out(sae))]
    if answer.get("unmasked"):
        lines.append("ranks and words without the token mask, which is not computed yet")
    return lines


def _print_find(answer: dict[str, Any], rows: list[Any]) -> None:
    from wbtui.features.answers import tail_text, value, words_text

    for line in meaning_lines(answer):
        say(f"wbtui: {line}", err=True)
    header = ["feature", "score", "cos", "z", "tail", "rank", "other words" if answer["words"] else "words"]
    table = [
        [
            row["address"], f"{row['score']:.3f}", f"{value(row, 'cosine'):.2f}", f"{value(row, 'z'):.1f}",
            tail_text(value(row, "tail")), "–" if row.get("rank") is None else str(row["rank"]),
            words_text(row.get("others") or row.get("words") or []),
        ]
        for row in rows
    ]  # fmt: skip
    print_table(header, table, right={1, 2, 3, 4, 5})


@cli.command()
@click.argument("address")
@top_option
@click.option("--layer", type=int, help="Whose heads: a later layer than the first that reads the feature.")
@json_option
@output_option
@definition_option
@work_options
def edges(
    address: str,
    top: int,
    layer: int | None,
    as_json: bool,
    output: Path | None,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """What could feed a feature and what could read it, directly and through each head, by weights alone.

    Input-independent: what could flow, not what does.
    """
    from wbtui.features import answers

    del quiet
    place = address_of((address,), sae=True)
    if place.feature is None:
        raise UsageError(f"{address}: no feature", "MODEL@SAE#FEATURE", "put the feature's number behind #")
    if output is not None:
        check_out(output)
    args = {"feature": place.feature, "top": top, "layer": layer}
    answer = ask(
        place, "edges", args, definition=definition, device=device, no_daemon=no_daemon, timeout=timeout
    )  # fmt: skip
    if output is not None:
        rows = answers.edge_rows(answer)
        paths = answers.write(output, rows, answers.EDGES, answer)
        say(f"{len(rows)} edges written to {paths[0]}", err=True)
    elif as_json:
        print_json({"schema": "wbtui.edges/1", **answer})
    else:
        _print_edges(answer)


def _print_edges(answer: dict[str, Any]) -> None:
    from wbtui.features.answers import tail_text, value, words_text

    say(f"{answer['address']}  {words_text(answer['words'])}")
    titles = {
        "up": "UP  features whose decoder its encoder answers to, d_j · e_i",
        "down": "DOWN  features whose encoder answers to its decoder, d_i · e_j",
        "heads": "DOWN THROUGH HEADS  o_i · e_j, attending to it fully",
    }
    for name, title in titles.items():
        part = answer[name]
        if name == "heads" and part.get("layer") is not None:
            title += f", heads of layer {part['layer']}"
        say(f"\n{title}")
        if part["absent"]:
            say(f"  – {part['absent']}")
            continue
        say(f"  {part['count']:,} edges, sum of sizes {part['total']:.4g}; input-independent")
        table = [
            [
                row["address"], row["via"], f"{row['weight']:+.3f}", f"{100 * value(row, 'share'):.2f} %",
                tail_text(value(row, "tail")), words_text(row["words"]),
            ]
            for row in part["edges"]
        ]  # fmt: skip
        print_table(["feature", "via", "weight", "share", "tail", "words"], table, right={2, 3, 4})


@cli.command()
@click.argument("address")
@click.option("--r", "bar_r", type=float, default=0.5, show_default=True, help="High cosine with the stream before.")
@click.option("--m", "bar_m", type=float, default=0.25, show_default=True, help="High cosine with the MLP's output.")
@click.option("--a", "bar_a", type=float, default=0.25, show_default=True, help="High cosine with the attention's.")
@json_option
@click.option("--svg", type=click.Path(path_type=Path), help="Write a picture of the chain.")
@definition_option
@work_options
def flow(
    address: str,
    bar_r: float,
    bar_m: float,
    bar_a: float,
    as_json: bool,
    svg: Path | None,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Where a feature comes from and where it goes: best decoder cosines, layer by layer (after arXiv 2502.03032)."""
    from wbtui.features.flow_text import flow_lines, flow_svg

    del quiet
    place = address_of((address,), sae=True)
    if place.feature is None:
        raise UsageError(f"{address}: no feature", "MODEL@SAE#FEATURE", "put the feature's number behind #")
    if svg is not None:
        check_out(svg)
    answer = ask(
        place, "flow", {"feature": place.feature, "thresholds": {"r": bar_r, "m": bar_m, "a": bar_a}},
        definition=definition, device=device, no_daemon=no_daemon, timeout=timeout,
    )  # fmt: skip
    if svg is not None:
        from wbtui.errors import StoreError
        from wbtui.store import io

        try:
            io.write_bytes(svg, flow_svg(answer).encode("utf-8"))
        except OSError as error:
            raise StoreError(f"{svg}: {error.strerror or error}", "a folder that can be written") from None
        say(f"written to {svg}", err=True)
    if as_json:
        print_json({"schema": "wbtui.flow/1", **answer})
    elif svg is None:
        say("\n".join(flow_lines(answer)))
