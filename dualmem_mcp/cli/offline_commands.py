"""Commands for a device without a network: offline, checkpoints."""

from __future__ import annotations

from typing import Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, shown_progress, size_text, warn


@cli.command()
@click.argument("conversation_id")
@json_option
def offline(conversation_id: str, as_json: bool) -> None:
    """Have all that a handed-over conversation needs on this device, to go on without a network."""
    with shown_progress() as progress, opened() as app:
        report = app.make_offline(conversation_id, progress)
    warn(report["warnings"])
    if as_json:
        print_json(report)
        return
    counts = ", ".join(f"{report[name]:,} {name}" for name in ("messages", "decisions", "snippets", "agents"))
    click.echo(f"Ready without a network: {report['title']}".encode("utf-8", "replace").decode())
    click.echo(f"  {counts}; {size_text(report['package_bytes'])}")
    if not report["search_ready"]:
        click.echo("  search finds its words; for meaning, run `dualmem model pull` and `dualmem index`")
    click.echo(f"Read it with `dualmem show {conversation_id} --section offline`.")


@cli.command()
@click.argument("conversation_id")
@click.option("--restore", metavar="ID", help="Print the state of this checkpoint; `newest` for the newest.")
@json_option
def checkpoints(conversation_id: str, restore: str | None, as_json: bool) -> None:
    """List the checkpoints of a conversation's agents, or print the state that one kept."""
    with opened() as app:
        if restore is not None:
            click.echo(app.restore_checkpoint(conversation_id, "" if restore == "newest" else restore))
            return
        found = app.list_checkpoints(conversation_id)
    if as_json:
        print_json({"checkpoints": found})
        return
    for one in found:
        click.echo(_line(one))
    if not found:
        click.echo("There is none yet; a running server makes one every few minutes while the session changes.")


def _line(one: dict[str, Any]) -> str:
    kind = "whole" if one["whole"] else "changes"
    sizes = f"{size_text(one['stored_bytes'])} for {size_text(one['state_bytes'])}"
    return f"{one['checkpoint_id']}  {one['made_at']}  {kind}, {sizes}"
