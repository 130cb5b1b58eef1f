"""``wbtui compute``, and waiting for work with a progress bar (shared with ``show`` and ``export``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wbtui.cli import cli
from wbtui.cli.common import address_of, offering_restart, print_json, print_path, say
from wbtui.cli.options import definition_option
from wbtui.display import safe_token_text
from wbtui.errors import UsageError

if TYPE_CHECKING:
    from wbtui.catalog.plan import TokensPlan
    from wbtui.catalog.plan_attention import AttentionPlan
    from wbtui.catalog.plan_match import MatchPlan
    from wbtui.catalog.plan_neighbours import NeighboursPlan
    from wbtui.features.table import FeatureTable


def work_options(command: Any) -> Any:
    """Options of every command that may have to compute first."""
    for option in (
        click.option("--device", help="cpu, cuda, cuda:N, mps or auto (default: auto, or WBTUI_DEVICE)."),
        click.option("--no-daemon", is_flag=True, help="Compute in this process's own worker, without the service."),
        click.option("--timeout", type=float, help="Give up after so many seconds (exit code 4)."),
        click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    ):
        command = option(command)
    return command


class Progress:
    """Progress of one job on stderr: a bar on a terminal, a line per finished product elsewhere."""

    def __init__(self, label: str, quiet: bool) -> None:
        self.quiet = quiet
        self.label = label
        self._bar: Any = None
        self._task: Any = None
        self._lines = not quiet and not sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """One event of the job."""
        if self.quiet:
            return
        kind = event["event"]
        if self._lines:
            if kind == "product" and event.get("state") == "complete":
                say(f"wbtui: {self.label}: {event.get('analysis')} {event.get('key')} done", err=True)
            return
        if kind == "planned" and any(not p["complete"] for p in event["products"]):
            self._start()
        if self._bar is not None and "fraction" in event:
            self._bar.update(self._task, completed=event["fraction"], what=event.get("phase") or "")

    def _start(self) -> None:
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(safe_token_text(self.label), total=1.0, what="")
        self._bar.start()


def plan_of(address: Any, definition: str) -> tuple[TokensPlan, Path]:
    """The plan that an address (with an SAE) and a definition's name mean, and the cache folder."""
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan import plan_tokens
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import named_definition

    cache = paths.cache_dir()
    model = find_model(address.model)
    sae = find_sae(model, address.sae)
    for note in sae.notes:
        say(f"wbtui: {sae.name}: {note}", err=True)
    return plan_tokens(model, sae, named_definition(definition), cache), cache


def heads_plan_of(address: Any, layer: int | None, parts: tuple[str, ...] = ()) -> tuple[AttentionPlan, Path]:
    """The plan of E2 for an address (with an SAE) at a reading layer, and the cache folder.

    Args:
        parts: of the definition, see :func:`wbtui.definitions.attention_parts`.
    """
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan_attention import plan_attention
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import attention_parts

    cache = paths.cache_dir()
    model = find_model(address.model)
    return plan_attention(model, find_sae(model, address.sae), attention_parts(parts), cache, layer), cache


def neighbours_plan_of(address: Any, other: str | None) -> tuple[NeighboursPlan, Path]:
    """The plan of nearest features for an address (with an SAE) in others, and the cache folder."""
    from wbtui import paths
    from wbtui.catalog.models import find_model
    from wbtui.catalog.plan_neighbours import plan_neighbours
    from wbtui.catalog.saes import find_sae
    from wbtui.definitions import NeighboursDefinition

    cache = paths.cache_dir()
    model = find_model(address.model)
    return plan_neighbours(model, find_sae(model, address.sae), NeighboursDefinition(), cache, other), cache


def run(
    plan: TokensPlan | AttentionPlan | NeighboursPlan | MatchPlan,
    cache: Path,
    *,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
    checks: bool = True,
    priority: str = "batch",
    around: int | None = None,
    other: str | None = None,
) -> dict[str, Any]:
    """Compute what is missing of a plan (E1's, E2's or, with ``other``, of nearest features) and wait for it.

    Raises:
        UsageError: the running service computes on another device.
        ServiceError, TimedOut, Cancelled, or the job's own error.
    """
    from wbtui.definitions import to_json
    from wbtui.service import local, running, wishes
    from wbtui.service.config import ServiceConfig

    layer = getattr(plan, "layer", None)
    analysis = "attention" if layer is not None else "tokens" if hasattr(plan, "tokens") else "neighbours"
    analysis = getattr(plan, "analysis", analysis)
    request = wishes.ComputeRequest(
        model=plan.model.name if plan.model.kind != "folder" else plan.model.path,
        sae=plan.sae.path if plan.sae.name.startswith(("/", ".", "~")) else plan.sae.name,
        definition=to_json(plan.definition),
        cache=str(cache.absolute()),
        priority=priority,
        checks=checks,
        around=around,
        analysis=analysis,
        layer=layer,
        other=other,
    )
    config = ServiceConfig.from_env(**({"devices": (device,)} if device else {}))
    with Progress(f"{plan.model.name}@{plan.sae.name}", quiet) as progress:
        if no_daemon:
            return local.run_job(request, progress, timeout=timeout, config=config)
        if device:
            check_device(device)
        return offering_restart(lambda: running.run_job(request, progress, timeout=timeout, config=config))


def check_device(device: str) -> None:
    """A running service keeps its devices; asking it for another one is refused, never silently ignored."""
    from wbtui.errors import ServiceError
    from wbtui.service.client import Client

    try:
        with Client.connect(False) as service:
            workers = service.status()["workers"]
    except ServiceError:
        return
    names = [str(w.get("device", w.get("name"))) for w in (workers.values() if isinstance(workers, dict) else workers)]
    if device != "auto" and device not in names:
        raise UsageError(
            f"the running service computes on {', '.join(names)}",
            f"a service on {device}",
            f"WBTUI_DEVICE={device} wbtui daemon restart, or --no-daemon",
        )


def table_of(address: Any, definition: str, *, compute: bool, checks: bool = True, **work: Any) -> FeatureTable:
    """The finished table of an address, computed first if something is missing and ``compute`` says so.

    Args:
        checks: whether the fresh nulls and the control must be there too (only summaries and reports read them).

    Raises:
        UsageError: not computed, and computing was not wanted.
    """
    from wbtui.features.table import FeatureTable
    from wbtui.notes.store import kept_of
    from wbtui.store.products import Product

    plan, cache = plan_of(address, definition)
    missing = [spec for spec in plan.all(checks=checks) if Product(cache, spec).state != "complete"]
    if missing and not compute:
        raise UsageError(
            f"{plan.model.name}@{plan.sae.name}: {len(missing)} products are not computed",
            "a finished computation",
            f"wbtui compute {plan.model.name} {plan.sae.name}",
        )
    if missing:
        run(plan, cache, checks=checks, **work)
    table = FeatureTable.open(cache, plan)
    table.keep(kept_of(table.origin))
    return table


@cli.command()
@click.argument("where", nargs=-1, required=True, metavar="MODEL SAE | ADDRESS")
@click.option(
    "--analysis",
    type=click.Choice(["tokens", "attention", "neighbours", "all"]),
    default="tokens",
    show_default=True,
    help="tokens: what features write and read; attention: how heads of the reading layer see them; neighbours: "
    "their nearest features, here and in the SAEs before and after; all of these.",
)
@click.option("--all-layers", is_flag=True, help="Every SAE that is known of MODEL.")
@click.option("--release", help="Every SAE of MODEL in a release: a folder, or the name of one.")
@click.option("--dry-run", is_flag=True, help="Only print the plan: products, arithmetic, bytes, time.")
@click.option(
    "--executor",
    metavar="URL",
    help="Compute on the workers of a dask scheduler: dask://HOST:PORT (shared cache folder).",
)
@click.option(
    "--layer", type=int, help="For attention: a later reading layer (default: the first that reads the hook)."
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    metavar="NAME=VALUE",
    help="For attention: a part of its definition, as rope=offset|mean|bound, offset=7, offsets=128, "
    "scale=rms|unit|act, softcap=off, bias=off. May be repeated.",
)
@click.option(
    "--other", help="For neighbours: another SAE of the model, or all (default: itself and those before and after)."
)
@click.option("--no-checks", is_flag=True, help="Leave out the fresh nulls and the sign-flip control of the summary.")
@click.option("--json", "as_json", is_flag=True, help="Print what was computed as JSON.")
@definition_option
@work_options
def compute(
    where: tuple[str, ...],
    analysis: str,
    layer: int | None,
    parts: tuple[str, ...],
    other: str | None,
    all_layers: bool,
    release: str | None,
    dry_run: bool,
    executor: str | None,
    no_checks: bool,
    as_json: bool,
    definition: str,
    device: str | None,
    no_daemon: bool,
    timeout: float | None,
    quiet: bool,
) -> int:
    """Compute what is missing of an SAE's products; finished ones are kept and nothing is computed twice.

    With --all-layers or --release, MODEL alone: its SAEs, after a plan that says what they cost.
    """
    from wbtui.catalog.plan_attention import AttentionPlan
    from wbtui.catalog.plan_neighbours import NeighboursPlan
    from wbtui.store.products import Product

    many = all_layers or release is not None
    address = address_of(where, sae=not many)
    if many and address.sae is not None:
        raise UsageError(f"{address} with --all-layers or --release", "a model alone")
    plan: TokensPlan | AttentionPlan | NeighboursPlan
    if layer is not None and analysis != "attention":
        raise UsageError(f"--layer {layer} with --analysis {analysis}", "a layer with --analysis attention only")
    if parts and (analysis != "attention" or many or dry_run or executor is not None):
        raise UsageError("--part", "--analysis attention of one SAE, computed here or by the service")
    if other is not None and analysis != "neighbours":
        raise UsageError(f"--other {other} with --analysis {analysis}", "another SAE with --analysis neighbours only")
    if many or dry_run or executor is not None or analysis == "all":
        from wbtui.catalog.models import find_model
        from wbtui.cli.fill import fill, saes_of

        model = find_model(address.model)
        return fill(
            model, saes_of(model, address.sae, release), analysis=analysis, definition=definition, checks=not no_checks,
            dry_run=dry_run, executor=executor, device=device, no_daemon=no_daemon, timeout=timeout, quiet=quiet,
            as_json=as_json, layer=layer, other=other,
        )  # fmt: skip
    if analysis == "attention":
        plan, cache = heads_plan_of(address, layer, parts)
    elif analysis == "neighbours":
        plan, cache = neighbours_plan_of(address, other)
    else:
        plan, cache = plan_of(address, definition)
    answer = run(
        plan, cache, device=device, no_daemon=no_daemon, timeout=timeout, quiet=quiet, checks=not no_checks, other=other
    )
    products = [
        {"analysis": p["analysis"], "key": p["key"], "path": str(cache / p["relative"]), "was_complete": p["complete"]}
        for p in answer["products"]
    ]
    if isinstance(plan, NeighboursPlan):
        mains = [pair.product for pair in plan.pairs]
    else:
        mains = [plan.attention if isinstance(plan, AttentionPlan) else plan.tokens]
    bad = Product(cache, mains[0]).manifest().get("nonfinite_rows") or [] if analysis == "tokens" else []
    if bad and not quiet:
        shown = ", ".join(f"#{row}" for row in bad[:10]) + (" …" if len(bad) > 10 else "")
        say(f"wbtui: weights that are not finite in features {shown}: marked, the rest is computed", err=True)
    if as_json:
        print_json({"model": plan.model.name, "sae": plan.sae.name, "definition": definition, "products": products})
        return 0
    new = sum(not p["was_complete"] for p in products)
    say(f"{plan.model.name}@{plan.sae.name}: {len(products)} products, {new} computed now")
    for main in mains:
        print_path(cache / main.relative)
    return 0
