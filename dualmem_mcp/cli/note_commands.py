"""Commands on what a person notes: note, task, bookmark, notes, forget; they work without the bucket."""

from __future__ import annotations

from typing import Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json
from dualmem_mcp.errors import UsageError

_conversation = click.option("--conversation", help="The conversation it belongs to; default: none.")


@cli.command()
@click.argument("text")
@click.option("--title", default="", help="A title for the note.")
@_conversation
@json_option
def note(text: str, title: str, conversation: str | None, as_json: bool) -> None:
    """Keep a note; other devices have it with their next sync."""
    with opened() as app:
        entry = app.notebook.add_note(text, title=title, conversation_id=conversation)
    _show(entry, as_json)


@cli.command()
@click.argument("text", required=False)
@click.option("--done", metavar="ID", help="Mark the task of this id as done.")
@click.option("--drop", metavar="ID", help="Mark the task of this id as dropped.")
@_conversation
@json_option
def task(text: str | None, done: str | None, drop: str | None, conversation: str | None, as_json: bool) -> None:
    """Keep a task, or say how one ended."""
    if [text, done, drop].count(None) != 2:
        raise UsageError(
            "give the text of a new task, or --done ID, or --drop ID",
            operation="task",
            hint="`dualmem notes` lists tasks with their ids.",
        )
    with opened() as app:
        if text is not None:
            entry = app.notebook.add_task(text, conversation_id=conversation)
        else:
            entry = app.notebook.set_task(done or drop or "", "done" if done is not None else "dropped")
    _show(entry, as_json)


@cli.command()
@click.argument("conversation_id")
@click.argument("turn")
@click.option("--label", default="", help="What is there.")
@json_option
def bookmark(conversation_id: str, turn: str, label: str, as_json: bool) -> None:
    """Mark a TURN, by its uuid, of a conversation."""
    with opened() as app:
        entry = app.notebook.add_bookmark(conversation_id, turn, label=label)
    _show(entry, as_json)


@cli.command()
@click.option("--conversation", help="Only those of this conversation.")
@json_option
def notes(conversation: str | None, as_json: bool) -> None:
    """List notes, tasks and bookmarks of all devices, the newest last."""
    with opened() as app:
        entries = app.notebook.entries(conversation_id=conversation)
    if as_json:
        print_json({"entries": entries})
        return
    for entry in entries:
        click.echo(_line(entry))
    if not entries:
        click.echo("Nothing is noted yet; `dualmem note TEXT` keeps a note.")


@cli.command()
@click.argument("entry_id")
@json_option
def forget(entry_id: str, as_json: bool) -> None:
    """Remove a note, task or bookmark, on all devices."""
    with opened() as app:
        entry = app.notebook.remove(entry_id)
    _show(entry, as_json, verb="Removed ")


def _show(entry: dict[str, Any], as_json: bool, verb: str = "") -> None:
    if as_json:
        print_json(entry)
    else:
        click.echo(verb + _line(entry))


def _line(entry: dict[str, Any]) -> str:
    kind = entry["type"]
    text = entry.get("text") or " ".join(filter(None, (entry.get("label"), f"turn {entry.get('turn_uuid', '')}")))
    status = f" ({entry['status']})" if kind == "task" else ""
    title = f"{entry['title']}: " if entry.get("title") else ""
    first_line = f"{title}{text}".strip().partition("\n")[0]
    return f"{entry['id'][:8]}  {kind}{status}  {first_line}".encode("utf-8", "replace").decode()
