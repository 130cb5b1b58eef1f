"""``wbtui show``: one feature's record, or an SAE's summary."""

from __future__ import annotations

from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, print_json, say
from wbtui.cli.compute import table_of, work_options
from wbtui.cli.options import definition_option
from wbtui.errors import UsageError


@cli.command()
@click.argument("where", nargs=-1, required=True, metavar="ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@click.option("--direction", "vector", help="A vector of yours instead: FILE.npy, or FILE.safetensors:NAME.")
@click.option("--at", help="Where the vector lives in the stream: L3.resid_post, L3.resid_mid, L0.resid_pre.")
@click.option("--now", is_flag=True, help="Only a feature's tokens, at once: nothing judged, nothing kept.")
@click.option("--no-compute", is_flag=True, help="Fail instead of computing what is missing.")
@definition_option
@work_options
@click.pass_context
def show(
    ctx: click.Context,
    where: tuple[str, ...],
    as_json: bool,
    vector: str | None,
    at: str | None,
    now: bool,
    no_compute: bool,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Show a feature (MODEL@SAE#FEATURE) or the summary of an SAE (MODEL@SAE), computing what is missing.

    MODEL alone lists its SAEs; MODEL --direction V.npy --at L3.resid_post shows a vector of yours: its words, heads
    and neighbours, by the code and the noise that features are judged by.
    """
    address = address_of(where, sae=False)
    if vector is not None:
        from wbtui.cli.direction import show_direction

        show_direction(
            address, vector, at, as_json=as_json, compute=not no_compute, quiet=quiet, definition=definition,
            device=device, no_daemon=no_daemon, timeout=timeout,
        )  # fmt: skip
        return
    if at is not None:
        raise UsageError(f"--at {at} without a vector", "--direction FILE with it")
    if address.sae is None:
        from wbtui.cli.listing import saes

        ctx.invoke(saes, model=address.model, as_json=as_json)
        return
    if address.feature is not None:
        check_feature(address.model, address.sae, address.feature)
    if now:
        show_now(address, as_json, definition, device=device, no_daemon=no_daemon, timeout=timeout)
        return
    table = table_of(
        address, definition, compute=not no_compute, device=device, no_daemon=no_daemon, timeout=timeout, quiet=quiet,
        priority="screen", around=address.feature, checks=address.feature is None,
    )  # fmt: skip
    if address.feature is None:
        from wbtui.features import summary

        found = summary.summary(table)
        if as_json:
            print_json(found)
        else:
            say(summary.render(found))
        return
    record = table.record(address.feature)
    if as_json:
        print_json(record)
    else:
        from wbtui.features.card_text import render

        say(render(table, address.feature))


def show_now(
    address: Any, as_json: bool, definition: str, *, device: str | None, no_daemon: bool, timeout: float | None
) -> None:
    """A feature's tokens before its model has been read: a second, where all of it takes minutes.

    Raises:
        UsageError: no feature. ServiceError, TimedOut, or the work's own error.
    """
    from wbtui import paths
    from wbtui.cli.compute import check_device
    from wbtui.definitions import named_definition, to_json
    from wbtui.features.first_look import lines
    from wbtui.service.client import Client
    from wbtui.service.config import ServiceConfig
    from wbtui.service.connect import absolute, cache
    from wbtui.service.local import LocalRunner
    from wbtui.service.wishes import RowRequest

    if address.feature is None:
        raise UsageError(f"{address} --now", "a feature: MODEL@SAE#FEATURE")
    body = to_json(named_definition(definition))
    model, sae = absolute(address.model), absolute(address.sae)
    request = RowRequest(model, sae, body, cache(paths.cache_dir()), address.feature, first=True)
    config = ServiceConfig.from_env(**({"devices": (device,)} if device else {}))
    if no_daemon:
        with LocalRunner(config) as runner:
            row = runner.row(request, timeout)
    else:
        if device:
            check_device(device)
        with Client.connect(True, config=config) as client:
            row = client.row(request, timeout)
    if as_json:
        print_json({"schema": "wbtui.first_look/1", "address": str(address), **row})
    else:
        say("\n".join(lines(str(address), row)))


def check_feature(model: str, sae: str, feature: int) -> None:
    """Refuse a feature number that the SAE has not, before anything is computed.

    Raises:
        UsageError: out of range.
    """
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import find_sae

    found = find_sae(find_model(model), sae)
    if feature >= found.d_sae:
        raise UsageError(f"feature {feature} of {model}@{sae}", f"a number from 0 to {found.d_sae - 1}")
