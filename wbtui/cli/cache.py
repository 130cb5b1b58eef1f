"""``wbtui cache``: what lies in the cache, whether it is sound, and making room."""

from __future__ import annotations

import dataclasses
import re
import time

import click

from wbtui import paths
from wbtui.cli import cli
from wbtui.cli.common import print_json, print_path, print_table, say
from wbtui.errors import UsageError

UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@cli.group()
def cache() -> None:
    """Look into the product cache, check it, make room."""


@cache.command()
def path() -> None:
    """Print where the cache is (WBTUI_CACHE_DIR moves it)."""
    print_path(paths.cache_dir())


@cache.command()
@click.option("--json", "as_json", is_flag=True)
def ls(as_json: bool) -> None:
    """List products."""
    from wbtui.store.cache import list_products

    entries = list_products(paths.cache_dir())
    if as_json:
        print_json([dataclasses.asdict(e) for e in entries])
        return
    rows = [
        [
            e.model,
            e.sae or "",
            e.analysis,
            e.key,
            e.state,
            f"{e.rows:,}" if e.rows else "",
            human(e.bytes),
            when(e.used),
        ]
        for e in entries
    ]
    print_table(["MODEL", "SAE", "analysis", "key", "state", "rows", "size", "used"], rows, right={5, 6})


@cache.command()
@click.option("--json", "as_json", is_flag=True)
def du(as_json: bool) -> None:
    """Say how much space products take, by model, SAE and analysis."""
    from wbtui.store.cache import disk_usage

    usage = disk_usage(paths.cache_dir())
    if as_json:
        print_json(dataclasses.asdict(usage))
        return
    rows = [["all", human(usage.total)]]
    rows += [[f"model {k}", human(v)] for k, v in usage.by_model.items()]
    rows += [[f"SAE {k}", human(v)] for k, v in usage.by_sae.items()]
    rows += [[f"analysis {k}", human(v)] for k, v in usage.by_analysis.items()]
    rows += [
        ["row lengths", human(usage.lengths)],
        ["temporary", human(usage.temporaries)],
        ["free on the disk", human(usage.free)],
    ]
    print_table(["WHAT", "size"], rows, right={1})


@cache.command()
@click.option("--repair", is_flag=True, help="Remove what is damaged, so that it is computed again.")
@click.option("--json", "as_json", is_flag=True)
def verify(repair: bool, as_json: bool) -> int:
    """Check every checksum; exit code 1 if something is damaged."""
    from wbtui.store.verify import verify as check

    problems = check(paths.cache_dir(), repair=repair)
    if as_json:
        print_json([dataclasses.asdict(p) for p in problems])
    else:
        for p in problems:
            say(f"{p.path}: {p.detail}; {'mended' if p.repaired else p.do}")
        say(f"{len(problems)} problems" if problems else "clean")
    return 1 if any(not p.repaired for p in problems) else 0


@cache.command()
@click.option("--max-size", help="Remove products used longest ago until the rest fits (for example 20G).")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True)
def gc(max_size: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove left-over files and, with --max-size, the products used longest ago; never what is open or pinned."""
    from wbtui.store.cache import gc as collect

    report = collect(paths.cache_dir(), size_of(max_size) if max_size else None, dry_run=dry_run)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    verb = "would go" if dry_run else "removed"
    for relative in report.removed:
        say(f"{verb}: {relative}")
    say(
        f"{verb}: {len(report.removed)} products ({human(report.removed_bytes)}), "
        f"{report.temporaries} left-over files ({human(report.temporary_bytes)}); kept {human(report.kept_bytes)}"
    )


def size_of(text: str) -> int:
    """Bytes out of ``20G``, ``500M``, ``1048576``.

    Raises:
        UsageError: not a size.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)i?B?\s*", text.upper())
    if not match:
        raise UsageError(f"size {text!r}", "a number of bytes, or one with K, M, G or T (20G)")
    return int(float(match.group(1)) * UNITS[match.group(2)])


def human(n: int) -> str:
    """Bytes for people."""
    size = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def when(seconds: float) -> str:
    """A time for people, local."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
