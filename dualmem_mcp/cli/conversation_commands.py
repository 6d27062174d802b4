"""Commands on conversations: handoff, resume, show, restore, conversations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, shown_progress, size_text, warn
from dualmem_mcp.errors import DualmemError, NotFoundError, OverBudgetError, UsageError
from dualmem_mcp.model.branches import branches_text

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_CATCH_UP_SECONDS: Final = 5.0
"""For so long requests of a sync are begun before a command shows or restores a conversation."""


@cli.command()
@click.argument("conversation_id", required=False)
@click.option("--transcript", type=click.Path(path_type=Path), help="A session file to hand over.")
@click.option("--device", help="The profile to make ready for: ios, android, pwa, desktop.")
@click.option("--summary-file", type=click.Path(path_type=Path), help="Your own summary, as text.")
@json_option
def handoff(
    conversation_id: str | None,
    transcript: Path | None,
    device: str | None,
    summary_file: Path | None,
    as_json: bool,
) -> None:
    """Hand over a Claude Code conversation (default: the current or newest one)."""
    summary = _read_text(summary_file) if summary_file else ""
    with shown_progress() as progress, opened() as app:
        report = app.prepare_handoff(
            conversation_id, target_device=device, summary=summary, transcript=transcript, progress=progress
        )
    warn(report["warnings"])
    if as_json:
        print_json(report)
    else:
        _show_handoff(report)
    if report.get("over_budget"):
        click.get_current_context().exit(OverBudgetError.exit_code)


def _show_handoff(report: Mapping[str, Any]) -> None:
    click.echo(f"{'Queued' if report['queued'] else 'Handed over'}: {report['title']}")
    click.echo(f"  conversation  {report['conversation_id']}")
    click.echo(f"  messages      {report['message_count']:,}")
    less = f" ({report['reduction']:.1%} less)" if report["reduction"] > 0 else ""
    click.echo(f"  digest        {report['digest_tokens']:,} of {report['visible_tokens']:,} tokens{less}")
    sizes = size_text(report["package_bytes"]), size_text(report["transcript_bytes"])
    click.echo(f"  package       {sizes[0]} for {sizes[1]} of session files")
    click.echo(f"  fidelity      {_fidelity_text(report['fidelity'])}")
    click.echo(f"  time          {report['duration_ms'] / 1000:.2f} s")
    click.echo("Go on elsewhere with `dualmem resume`, or ask Claude there to resume the conversation.")


@cli.command()
@click.argument("conversation_id", required=False)
@click.option("--device", help="The profile to fit the brief to: ios, android, pwa, desktop.")
@click.option("--budget", type=click.IntRange(min=1), help="Tokens that the brief may take.")
@json_option
def resume(conversation_id: str | None, device: str | None, budget: int | None, as_json: bool) -> None:
    """Show the brief of a handed-over conversation (default: the newest)."""
    with shown_progress() as progress, opened() as app:
        _catch_up(app)
        brief = app.resume_conversation(conversation_id, device=device, token_budget=budget, progress=progress)
    warn(brief["warnings"])
    if as_json:
        print_json(brief)
        return
    click.echo(brief["brief"].encode("utf-8", "replace").decode("utf-8"))


@cli.command()
@click.argument("conversation_id")
@click.option("--section", required=True, help="A section that the brief names, or thread, state, agents/ID.")
@click.option("--cursor", default="", help="Where to go on, as the last page said.")
@json_option
def show(conversation_id: str, section: str, cursor: str, as_json: bool) -> None:
    """Show one section of a handed-over conversation."""
    with opened() as app:
        page = app.load_context(conversation_id, section, cursor)
    if as_json:
        print_json(page)
        return
    click.echo(page["text"].encode("utf-8", "replace").decode("utf-8"))
    if page["next_cursor"]:
        again = f"dualmem show {conversation_id} --section {section} --cursor {page['next_cursor']}"
        click.echo(f"more: {again}", err=True)


@cli.command()
@click.argument("conversation_id")
@click.option("--claude-dir", type=click.Path(path_type=Path), help="Claude Code's configuration folder.")
@click.option("--cwd", help="The project's folder on this machine.")
@json_option
def restore(conversation_id: str, claude_dir: Path | None, cwd: str | None, as_json: bool) -> None:
    """Write a conversation as a session that `claude --resume` opens."""
    with opened() as app:
        _catch_up(app)
        restored = app.restore(conversation_id, claude_dir=claude_dir, cwd=cwd)
    warn(restored.pop("warnings"))
    if as_json:
        print_json(restored)
        return
    if restored["written"]:
        click.echo(f"Restored {restored['records']:,} records to {restored['session_path']}")
    else:
        click.echo(f"{restored['session_path']} has all {restored['records']:,} records already")
    if woven := restored["woven_turns"]:
        click.echo(f"With {woven} turn{'' if woven == 1 else 's'} of other devices")
    click.echo(f"Open it in its project's folder with: claude --resume {restored['session_id']}")


@cli.command()
@click.option("--query", default="", help="Only those whose title, folder or id holds this.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--cursor", default="", help="Where to go on, as the last page said.")
@json_option
def conversations(query: str, limit: int, cursor: str, as_json: bool) -> None:
    """List the conversations that were handed over, here or on other devices, newest first."""
    with opened() as app:
        listed = app.list_conversations(query=query, limit=limit, cursor=cursor)
    warn(listed.pop("warnings", []))
    if as_json:
        print_json(listed)
        return
    if not listed["conversations"]:
        click.echo("No conversation has been handed over yet. `dualmem handoff` does that.")
    for row in listed["conversations"]:
        click.echo(f"{row['conversation_id']}  {row['updated_at'][:16]}  {row['message_count']:>6,} messages")
        click.echo(f"    {row['title'] or '(no title)'}  [{row['device_name'] or 'this device'}]")
        if row["branches"]:
            click.echo(f"    {branches_text(row['branches'])}")
    if listed["next_cursor"]:
        click.echo(f"more: dualmem conversations --cursor {listed['next_cursor']}", err=True)


def _catch_up(app: App) -> None:
    """Take in what other devices said of the conversations: no server may have run here to do so."""
    try:
        app.sync(max_seconds=_CATCH_UP_SECONDS, large_objects=False)
    except NotFoundError:
        pass  # this device belongs to no vault: the command itself says so
    except DualmemError as error:
        warn([f"not all that other devices added may be here: {error.message}"])


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",
            operation="read file",
            subject=str(path),
            hint="Give a text file in UTF-8.",
        ) from None


def _fidelity_text(fidelity: Mapping[str, Any]) -> str:
    """What the handoff keeps, in one line of plain words; what could not be asked is left out."""
    asked, facts, pointers = (fidelity[name] for name in ("probes_asked", "facts", "pointers"))
    parts = []
    if asked["all"]:
        here, there = (
            round(fidelity[name]["all"] * asked["all"]) for name in ("probes_held", "probes_held_on_device")
        )
        parts.append(f"answers {here} of {asked['all']} questions about it, {there} on the device")
    for what, figures in (("of its facts", facts), ("of its sentences found again", pointers)):
        if figures["held"] is not None:
            chance = "" if figures["random"] is None else f" (by chance {figures['random']:.0%})"
            parts.append(f"{figures['held']:.0%} {what}{chance}")
    return "; ".join(parts) or "nothing to ask in so short a conversation"
