"""``wbtui check``: the user's own proof that our formulas are the model's."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, print_json, print_table, say
from wbtui.cli.process import answer_of
from wbtui.errors import WorkError


@cli.command()
@click.argument("where", nargs=-1, required=True, metavar="MODEL [SAE] | ADDRESS")
@click.option("--json", "as_json", is_flag=True, help="Print everything, layer by layer, as JSON.")
@click.option(
    "--prompt", "prompts", multiple=True, help="A text to run (may be repeated; three short ones by default)."
)
@click.option("--device", default="cpu", show_default=True, help="Where the real model runs.")
@click.option("--tolerance", type=click.FloatRange(0, 1), default=1e-3, show_default=True, help="Largest difference.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def check(
    where: tuple[str, ...], as_json: bool, prompts: tuple[str, ...], device: str, tolerance: float, quiet: bool
) -> None:
    """Prove the weight formulas on the real model: load MODEL once with transformers, run a short forward pass, and
    compare logits, attention scores and head outputs with what its weights alone give.

    With an SAE also its directions and pre-activations against SAELens's loader, and top tokens against published
    ones where any are kept. This is the only command that builds a language model; it needs room for it in float32.
    Exit code 1 if anything differs.
    """
    from wbtui.catalog.models import find_model
    from wbtui.catalog.saes import find_sae

    address = address_of(where, sae=False)
    model = find_model(address.model)
    sae = None if address.sae is None else find_sae(model, address.sae)
    request = {
        "model": model.path,
        "name": model.name,
        "sae": None if sae is None else dataclasses.asdict(sae),
        "prompts": list(prompts),
        "device": device,
        "tolerance": tolerance,
    }
    answer = ask(request, quiet=quiet)
    if as_json:
        print_json(_finite(answer))
    else:
        say(f"{model.name} ({answer['model_type']}): {answer['prompts']}, {answer['tokens']} tokens")
        print_table(["", "largest difference", "allowed", "", "where"], [_line(row) for row in answer["rows"]], {1, 2})
        for row in answer["rows"]:
            if row["passed"] is None:
                say(f"not compared: {row['what']}, {row['where']}: {row['why']}".replace(", :", ":"))
    if not answer["passed"]:
        failed = [row["what"] for row in answer["rows"] if row["passed"] is False]
        raise WorkError(
            f"{model.name}: {', '.join(dict.fromkeys(failed))} differ from the real model",
            f"differences of at most {tolerance:g}",
            "please report it with the output of --json",
        )


def ask(request: dict[str, Any], *, quiet: bool = True) -> dict[str, Any]:
    """Run a check in a process of its own.

    Raises:
        WbtuiError: what the check says, or how its process ended.
    """
    return answer_of(
        "wbtui.check.work", request, "the process of the check", quiet=quiet,
        hint="signal 9 mostly means no memory: the model is loaded in float32",
    )  # fmt: skip


def _line(row: dict[str, Any]) -> list[str]:
    if row["passed"] is None:
        return [row["what"], "-", "", "not compared", row["where"]]
    found = f"{row['difference']:.2g} {row['unit']}"
    return [row["what"], found, f"{row['tolerance']:g}", "pass" if row["passed"] else "FAIL", row["where"]]


def _finite(value: Any) -> Any:
    """JSON has no infinity: such a difference is null, its row still fails."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
