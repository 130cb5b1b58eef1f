"""``wbtui download``: models and SAEs from the Hub into the local Hub cache."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from wbtui.address import is_path
from wbtui.cli import cli
from wbtui.cli.common import print_json, say
from wbtui.display import safe_token_text
from wbtui.errors import UsageError, WbtuiError, WeightsError


@cli.command()
@click.argument("model")
@click.argument("sae", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print progress as lines of JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def download(model: str, sae: str | None, as_json: bool, quiet: bool) -> None:
    """Fetch MODEL, and SAE if one is named, into the local Hub cache.

    MODEL is a Hub id or a registry name (`gpt2-small`); SAE is `release/id` as `wbtui saes MODEL`
    lists it, or `org/repo/path`; a page of Neuronpedia stands for both. Only the files that are
    needed come; what is here already is not asked for again, and a download that was interrupted
    goes on where it stopped. A layout that is not read here is read once by SAELens, in a process
    of its own.
    """
    from wbtui.catalog import neuronpedia
    from wbtui.catalog.from_saelens import goes_through
    from wbtui.catalog.registry import find_entry
    from wbtui.download.fetch import fetch_model, fetch_sae, on_disk, sae_on_disk

    if sae is None and neuronpedia.is_page(model):
        entry = neuronpedia.entry_of(neuronpedia.page_of(model))
        model, sae = entry.model, entry.name
    elif sae is None and "@" in model and not is_path(model):
        model, _, sae = model.partition("@")
    # Ended from outside: stop cleanly, where Ctrl-C is ignored (a job in the background of a script) too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tell: Any = _Lines() if as_json else _Bar(quiet)
    done = []
    try:
        with tell:
            if _is_local(model):
                if sae is None:
                    raise UsageError(f"{model} is on this disk", "a Hub id, or an SAE to fetch for it")
            elif not on_disk(model):
                done.append(fetch_model(model, tell))
            elif not as_json and not quiet:
                say(f"wbtui: {model} is in the local Hub cache already", err=True)
            if sae is not None:
                known = find_entry(sae) or find_entry(sae.rpartition(":")[0])
                if goes_through(sae, known.loader if known else None):
                    done += _through_saelens(sae, tell, quiet or as_json)
                elif known is not None and sae_on_disk(known):
                    if not as_json and not quiet:
                        say(f"wbtui: {sae} is in the local Hub cache already", err=True)
                else:
                    done.append(fetch_sae(sae, tell))
    except WbtuiError as error:
        if as_json:
            _Lines()({"event": "error", **error.to_json()})
        raise
    if as_json:
        _Lines()({"event": "done", "fetched": [vars(item) for item in done]})
        return
    for item in done:
        say(f"{item.repo}: {len(item.files)} files, {item.bytes:,} bytes received, in {item.snapshot}", err=quiet)


def _through_saelens(name: str, tell: Callable[[dict[str, Any]], None], quiet: bool) -> list[Any]:
    """SAELens reads the SAE, of files that are fetched first where they are not here.

    Returns:
        What was fetched: nothing, or one :class:`wbtui.download.fetch.Fetched`.

    Raises:
        WbtuiError: what SAELens says, or the download; WeightsError for a file that SAELens wants and the repository's
            folder does not hold.
    """
    from wbtui.cli.process import answer_of
    from wbtui.download.fetch import fetch_below

    def read() -> dict[str, Any]:
        tell({"event": "waiting", "why": f"SAELens reads {name}", "seconds": 0})
        if not quiet:
            say(f"wbtui: SAELens reads {name}, in a process of its own", err=True)
        hint = "signal 9 mostly means no memory: SAELens reads an SAE whole, in float32"
        answer = answer_of("wbtui.sources.through_saelens", {"name": name}, "the process of SAELens", hint=hint)
        if "missing" not in answer and not quiet:
            version, loader = answer["sae_lens"], answer["loader"]
            say(f"wbtui: {name} is read by SAELens {version} (its loader {loader}) and kept", err=True)
        return answer

    answer = read()
    if "missing" not in answer:
        return []
    fetched = fetch_below(answer["repo"], answer["path"], tell)
    answer = read()
    if "missing" in answer:
        raise WeightsError(
            f"{name}: SAELens's loader {answer['loader']} wants a file that is not below {answer['path']} of "
            f"{answer['repo']} ({answer['missing']})",
            "all that it wants in the Hub cache",
            "load it once with sae_lens, which fetches what it wants, and try again",
        )
    return [fetched]


def _is_local(model: str) -> bool:
    """Whether a name means the demo or a folder, which no Hub has."""
    from wbtui.catalog.models import find_model

    if model == "demo" or is_path(model):
        return True
    try:
        return find_model(model).kind == "folder"
    except WbtuiError:
        return False


class _Lines:
    """Every event as a line of JSON on stdout."""

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def __call__(self, event: dict[str, Any]) -> None:
        from wbtui.download.fetch import event_line

        click.echo(event_line(event))
        sys.stdout.flush()


class _Bar:
    """A bar on a terminal, a line for each wait elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show an event."""
        if self.quiet:
            return
        kind = event["event"]
        if kind == "plan":
            self._start(event)
        elif kind == "waiting" and event["seconds"] >= 1:
            say(f"wbtui: {event['why']}; again in {event['seconds']:g} s", err=True)
        elif kind == "progress" and self._bar is not None:
            self._bar.update(self._task, completed=event["done"])

    def _start(self, event: dict[str, Any]) -> None:
        here = f", {event['have'] / 1e6:,.1f} MB of it here" if event["have"] else ""
        say(f"wbtui: {event['repo']}: {event['files']} files, {event['total'] / 1e6:,.1f} MB{here}", err=True)
        if not sys.stderr.isatty():
            return
        from rich import progress
        from rich.console import Console

        if self._bar is not None:
            self._bar.stop()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(safe_token_text(event["repo"]), total=event["total"], completed=event["have"])
        self._bar.start()


@cli.command()
@click.argument("search", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def releases(search: tuple[str, ...], as_json: bool) -> None:
    """List releases of published SAEs (SAELens's registry, offline), those that hold every word of SEARCH."""
    from wbtui.catalog.formats import by_loader
    from wbtui.catalog.hub import local_counts
    from wbtui.catalog.registry import about
    from wbtui.catalog.registry import search as find
    from wbtui.cli.common import print_table

    found = find(" ".join(search))
    records: list[dict[str, Any]] = []
    for release in found:
        known = by_loader(release.loader)
        records.append(
            {
                "release": release.name, "model": release.model, "repo": release.repo, "saes": len(release.saes),
                "on_disk": local_counts(release), "format": known.name if known else None,
            }
        )  # fmt: skip
    if as_json:
        print_json(records)
        return
    rows = [
        [r["release"], r["model"], str(r["saes"]), str(r["on_disk"] or ""), r["format"] or "by SAELens"]
        for r in records
    ]
    print_table(["RELEASE", "model", "SAEs", "on disk", "format"], rows, right={2, 3})
    say(
        f"wbtui: {len(rows)} releases, {sum(r['saes'] for r in records):,} SAEs, as of {about()}; "
        "`wbtui saes MODEL --release RELEASE` lists one",
        err=True,
    )
