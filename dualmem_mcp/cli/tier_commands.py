"""Commands about vectors in a search service: tiers, tiers init, enable, disable, check, plan, apply."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, shown_bar, warn
from dualmem_mcp.errors import OverBudgetError, StoreRefusedError, StoreUnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualmem_mcp.app import App


_ENDINGS = {"refused": StoreRefusedError, "over_budget": OverBudgetError, "away": StoreUnreachableError}


@cli.group(invoke_without_command=True)
@json_option
@click.pass_context
def tiers(context: click.Context, *, as_json: bool) -> None:
    """Show which tiers vectors lie in, and whether a search service is used."""
    if context.invoked_subcommand is not None:
        return
    from dualmem_mcp.tiers.wording import status_text  # noqa: PLC0415  (--help needs none of it)

    with opened() as app:
        status = app.tiers.status()
    if as_json:
        print_json(status)
    else:
        click.echo(status_text(status))


@tiers.command("init")
@click.option("--shards", type=click.IntRange(1, 1_000), help="Shards of each collection; default: 1, or as set.")
@click.option("--replicas", type=click.IntRange(1, 100), help="Copies of each; default: 1, or as set.")
@json_option
def make(*, shards: int | None, replicas: int | None, as_json: bool) -> None:
    """Make the tiers' collections in the service; those that are there stay."""
    from dualmem_mcp.tiers.wording import made_text  # noqa: PLC0415

    with opened() as app:
        enabled = _check_configured(app)["enabled"]
        made = app.make_collections(shards=shards, replicas=replicas)
    if as_json:
        print_json(made)
    else:
        click.echo(made_text(made, enabled=enabled))


@tiers.command()
@click.option("--words", is_flag=True, help="Send words, too: the service finds more, and learns much more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def enable(*, words: bool, yes: bool, as_json: bool) -> None:
    """Let this device use the service, after telling what it can learn."""
    with opened() as app:
        status = _check_configured(app)
        app.tiers.reach()  # before anybody reads on: without its collections there is nothing to agree to
        _ask(status, words=words, yes=yes, quiet=as_json)
        done = app.tiers.enable(words=words)
    if as_json:
        print_json(done)
        return
    if status["enabled"] and status["words"] and not words:
        click.echo("On, now without words: points lose theirs as they are renewed.")
        return
    click.echo(f"On: vectors{' and words' if done['words'] else ''} go to {status['url']}.")
    click.echo("`dualmem tiers apply` places what there is now; `dualmem sync` and a running server go on with it.")


@tiers.command()
@click.option("--remove", is_flag=True, help="Also remove this vault's points from the service.")
@json_option
def disable(*, remove: bool, as_json: bool) -> None:
    """Stop using the service on this device; its own index goes on."""
    with opened() as app:
        _check_configured(app)
        try:
            done = app.tiers.disable(remove=remove)
        except StoreUnreachableError as error:
            error.hint = f"It is switched off all the same; the command again removes what is left. {error.hint}"
            raise
    if as_json:
        print_json(done)
        return
    click.echo("Off: this device neither writes to the service nor asks it.")
    if remove:
        click.echo(
            f"{done['removed']:,} points were removed. Other devices that use the service place theirs again."
        )
    else:
        click.echo("What lies there stays; `dualmem tiers disable --remove` removes it.")


@tiers.command()
@click.option("--dry-run", is_flag=True, help="Only say what is otherwise than it should be.")
@json_option
def check(*, dry_run: bool, as_json: bool) -> None:
    """Compare what the service holds with what it should, and mend it."""
    from dualmem_mcp.tiers.wording import checked_text  # noqa: PLC0415

    with shown_bar() as progress, opened() as app:
        _check_configured(app)
        checked = app.tiers.check(repair=not dry_run, progress=progress)
    warn(checked["warnings"])
    if as_json:
        print_json(checked)
    else:
        click.echo(checked_text(checked, dry_run=dry_run))


@tiers.command()
@json_option
def plan(*, as_json: bool) -> None:
    """Show what should move and why; cost and latency before and after."""
    from dualmem_mcp.tiers.wording import plan_fields, plan_text  # noqa: PLC0415

    with opened() as app:
        _check_configured(app)
        late = app.local_edge.catch_up_quickly()
        planned = plan_fields(app.tiers.plan())
    warn(late)
    if as_json:
        print_json(planned)
    else:
        click.echo(plan_text(planned))


@tiers.command("apply")
@click.option("--take-over", is_flag=True, help="Move even if another device does so for this vault.")
@json_option
def move(*, take_over: bool, as_json: bool) -> None:
    """Carry the plan out; if it is interrupted, the next one goes on."""
    from dualmem_mcp.tiers.wording import moved_text, moved_warnings  # noqa: PLC0415

    with shown_bar() as progress, opened() as app:
        _check_configured(app)
        late = app.local_edge.catch_up_quickly()
        applied = app.tiers.apply(max_seconds=None, take_over=take_over, progress=progress)
    warn([*late, *moved_warnings(applied)])
    if as_json:
        print_json(applied)
    else:
        click.echo(moved_text(applied))
    for name, kind in _ENDINGS.items():
        if applied[name]:
            click.get_current_context().exit(kind.exit_code)


def _check_configured(app: App) -> Mapping[str, Any]:
    """The status. Raises UsageError if no service is set, NotFoundError if this device belongs to no vault."""
    status = app.tiers.status()
    if not status["configured"]:
        raise UsageError(
            "no search service is set",
            operation="tiers",
            subject="DUALMEM_QDRANT_URL",
            hint="Set DUALMEM_QDRANT_URL, to http://localhost:6333, say; docs/tiers.md tells how to get one.",
        )
    app.channel()
    return status


def _ask(status: Mapping[str, Any], *, words: bool, yes: bool, quiet: bool) -> None:
    """Tell what is new of what the service can learn, and ask, each on its own; nothing of what was agreed to."""
    from dualmem_mcp.tiers.wording import WHAT_IT_LEARNS, WHAT_WORDS_TELL  # noqa: PLC0415

    questions = []
    if not status["enabled"]:
        questions.append((WHAT_IT_LEARNS.format(url=status["url"]), "Use the service?"))
    if words and not (status["enabled"] and status["words"]):
        questions.append((WHAT_WORDS_TELL, "Send words as well?"))
    if questions and not yes and not _is_asked_in_a_terminal():
        raise UsageError(
            "the service learns something of you, and there is no terminal to ask on",
            operation="enable tiers",
            hint='Read "Vectors in a service" in docs/threat-model.md, and add --yes if that is what you want.',
        )
    for text, question in questions:
        if not (yes and quiet):
            click.echo(f"{text}\n", err=True)
        if not yes:
            click.confirm(question, abort=True, err=True)


def _is_asked_in_a_terminal() -> bool:
    return sys.stdin.isatty()
