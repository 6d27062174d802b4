"""Commands that remove things from the bucket: compact, erase."""

from __future__ import annotations

import sys
from typing import Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, shown_progress, size_text, warn
from dualmem_mcp.errors import UsageError


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go, and why the rest stays.")
@click.option("--force", is_flag=True, help="Write a snapshot even if little is new, or the last one is damaged.")
@click.option("--grace-days", type=click.FloatRange(0, 3650), help="How long replaced objects stay.  [default: 14]")
@json_option
def compact(*, dry_run: bool, force: bool, grace_days: float | None, as_json: bool) -> None:
    """Replace the log in the bucket by a snapshot, and remove what no device needs any more."""
    with opened() as app, shown_progress() as progress:
        done = app.compact(dry_run=dry_run, force=force, grace_days=grace_days, progress=progress)
    warn(done["warnings"])
    if as_json:
        print_json(done)
        return
    _show_compacted(done)


@cli.command()
@click.argument("conversation_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def erase(conversation_id: str, *, yes: bool, as_json: bool) -> None:
    """Erase a conversation for good: here, in the bucket, and on every device when it syncs."""
    if not yes:
        _confirm(conversation_id)
    with opened() as app:
        done = app.erase(conversation_id)
    warn(done["warnings"])
    if as_json:
        print_json(done)
        return
    click.echo(
        f"Erased conversation {conversation_id}: {_counted(done['keys'], 'key')} destroyed, "
        f"{_counted(done['packages'], 'package')} and {_counted(done['manifests'], 'record')} removed. "
        "Its id is banned for good."
    )
    click.echo("What this does not reach:")
    for sentence in done["remains"]:
        click.echo(f"  - {sentence}")


def _confirm(conversation_id: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "erasing is for good, and there is no terminal to ask on",
            operation="erase conversation",
            subject=conversation_id,
            hint="Add --yes if that is what you want.",
        )
    click.confirm(f"Erase conversation {conversation_id} on all devices, for good?", abort=True, err=True)


def _show_compacted(done: dict[str, Any]) -> None:
    would = "would be " if done["dry_run"] else ""
    if done["written"]:
        told = "" if done["dry_run"] else f" ({done['ops']:,} changes)"
        click.echo(f"A new snapshot {would or 'was '}written{told}.")
    elif done["snapshot"]:
        click.echo("The last snapshot is new enough; --force writes another.")
    else:
        click.echo("There is too little in the log for a snapshot; --force writes one.")
    segments = _counted(done["segments_deleted"], "segment")
    snapshots = _counted(done["snapshots_deleted"], "old snapshot")
    click.echo(f"{segments} and {snapshots} {would or 'were '}removed: {size_text(done['bytes_freed'])}.")
    if done["kept"]:
        click.echo(f"{_counted(done['kept'], 'segment')} ({size_text(done['kept_bytes'])}) stay:")
        for one in done["why"]:
            click.echo(f"  {one['segments']:>7,}  {one['reason']}")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
