"""``wbtui match``: what of one SAE is found in another at the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, check_out, print_json, say
from wbtui.cli.compute import definition_option, run, table_of, work_options
from wbtui.errors import UsageError

WORDS = {"single": "one", "coherent": "set", "diffuse": "mix", "none": "none"}


@cli.command("match")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--control", help="A third SAE that learned nothing; its shares stand beside those of B.")
@click.option("--no-control", is_flag=True, help="No control, though one called A-control is there.")
@click.option(
    "--assign",
    is_flag=True,
    help="Also the one-to-one pairing of largest total cosine (up to 16,384 each: there a minute, 2.7 GB).",
)
@click.option("--bar", type=click.FloatRange(0, 1), default=0.7, show_default=True, help="Cosine that counts as found.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False),
    help="A folder to write: match.json, and matched, lost, new, splits as CSV.",
)  # fmt: skip
@click.option("--no-classes", is_flag=True, help="Only the match: leave out the classes of what features write.")
@definition_option
@work_options
def match_(
    a: str,
    b: str,
    control: str | None,
    no_control: bool,
    assign: bool,
    bar: float,
    as_json: bool,
    output: Path | None,
    no_classes: bool,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> None:
    """Match SAE A (MODEL@SAE) with SAE B (an SAE of the same model, or MODEL@SAE) at the same place of the stream."""
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan_match import find_other, plan_match
    from wbtui.catalog.saes import find_sae, list_saes
    from wbtui.definitions import MatchDefinition
    from wbtui.features.match import Matching, summary
    from wbtui.features.match_files import write
    from wbtui.store.products import Product

    address = address_of((a,), sae=True)
    if address.feature is not None:
        raise UsageError(f"{address}: a feature", "an SAE", "`wbtui show` has one feature's nearest")
    if output is not None:
        check_out(output, folder=True)
    cache = paths.cache_dir()
    model = find_model(address.model)
    sae = find_sae(model, address.sae or "")
    work: dict[str, Any] = {"device": device, "no_daemon": no_daemon, "timeout": timeout, "quiet": quiet}

    def matched(text: str, assign: bool) -> tuple[Any, Any]:
        plan = plan_match(model, sae, *find_other(model, text), MatchDefinition(assign=assign), cache)
        if Product(cache, plan.product).state != "complete":
            run(plan, cache, other=str(plan.other_address), **work)
        return plan, Matching.open(cache, plan)

    plan, matching = matched(b, assign)
    for warning in plan.warnings:
        say(f"wbtui: {warning}", err=True)
    usual = f"{sae.name}-control"
    if control is None and not no_control and plan.other.name != usual and usual in {s.name for s in list_saes(model)}:
        control = usual
    third = matched(control, False)[1] if control and not no_control else None
    tables = None
    if not no_classes:
        there = plan.other_address
        tables = tuple(table_of(x, definition, compute=True, **work) for x in (address, there))
    found = summary(matching, plan, tables, third, bar)  # type: ignore[arg-type]
    if output is not None:
        files = write(output, matching, found, tables, bar)  # type: ignore[arg-type]
        say(f"{len(files)} files in {output}", err=True)
    if as_json:
        print_json(found)
    elif output is None:
        say("\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """The figures of :func:`wbtui.features.match.summary` as text."""
    n, bar, counts = found["features"], found["bar"], found["counts"]
    out = [
        f"A {found['a']}  {n['a']:,} features",
        f"B {found['b']}  {n['b']:,} features",
        *(f"note: {warning}" for warning in found["warnings"]),
        "",
        f"{'NEAREST':<34}{'median cosine':>14}{'≥ 0.7':>9}{'≥ 0.9':>9}",
    ]
    for name, key, side in (("A's features in B", "from_a", "A"), ("B's features in A", "from_b", "B")):
        part = found[key]
        out.append(_row(name, part["median"], part["above"]))
        out.append(_row("  mutual alone", None, part["mutual"], f"{_percent(part['mutual']['any'])} mutual"))
        for kind, null in part["random"].items():
            words = {"isotropic": "random directions", "decoder_cov": f"random, covariance of {side}"}[kind]
            out.append(_row(f"  {words}", null["median"], null["above"]))
    if found["control"]:
        part = found["control"]["from_a"]
        out.append(_row("A's features in the control", part["median"], part["above"], found["control"]["b"]))
    out += ["", f"AT A COSINE OF {bar:g}"]
    out.append(
        f"matched {counts['matched']:,} · lost {counts['lost']:,} of A · new {counts['new']:,} in B · "
        f"splits {counts['splits']:,} of A · merges {counts['merges']:,} in B"
    )
    if (pairing := found["assignment"]) is not None:
        out.append(
            f"one-to-one pairing: {pairing['pairs']:,} pairs, mean cosine {pairing['mean'] or 0:.3f}, "
            f"{_percent(pairing['above']['0.7'])} ≥ 0.7, {_percent(pairing['above']['0.9'])} ≥ 0.9; "
            f"keeps {_percent(pairing['mutual_kept'])} of the mutual pairs"
        )
    if (shares := found["classes"]) is not None:
        order = ("coherent", "single", "diffuse", "none")
        out += ["", f"{'CLASS OF WHAT IS WRITTEN':<34}" + "".join(f"{WORDS[name]:>9}" for name in order)]
        for key, words in (("a", "A, all"), ("b", "B, all"), ("matched", "matched, in A"), ("lost", "lost, of A"),
                           ("new", "new, in B")):  # fmt: skip
            out.append(f"{words:<34}" + "".join(f"{_percent(shares[key][name]):>9}" for name in order))
        kept, chance = _percent(shares["kept"]), _percent(shares["by_chance"])
        out.append(f"matched pairs of one class: {kept} (dealt out anew: {chance})")
    out.append(found["note"])
    return out


def _row(name: str, median: float | None, above: dict[str, float | None], note: str = "") -> str:
    middle = f"{median:14.2f}" if median is not None else f"{'':14}"
    return f"{name:<34}{middle}{_percent(above['0.7']):>9}{_percent(above['0.9']):>9}" + (f"  {note}" if note else "")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
