"""Commands on the remote clients that users let in: clients, clients revoke."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualmem_mcp.cli.frame import cli, json_option, print_json, settings_of_call
from dualmem_mcp.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from dualmem_mcp.stores.login_store import KeptGrant, LoginStore

_users = click.option("--users", "folder", type=click.Path(), help="The folder of a host of several users.")


@cli.group(invoke_without_command=True)
@_users
@json_option
@click.pass_context
def clients(context: click.Context, folder: str | None, as_json: bool) -> None:
    """List the remote clients that may use the memory through `dualmem serve --transport http`."""
    context.obj["users"] = folder
    if context.invoked_subcommand is not None:
        return
    with _logins(folder) as logins:
        found = logins.grants(_now()) if logins else ()
    if as_json:
        print_json({"clients": [_fields(grant) for grant in found]})
        return
    for grant in found:
        click.echo(_line(grant, several=folder is not None))
    if not found:
        click.echo("no remote client has been let in")


@clients.command()
@click.argument("client_id", metavar="ID", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
@_users
@json_option
@click.pass_context
def revoke(context: click.Context, client_id: str | None, every: bool, folder: str | None, as_json: bool) -> None:
    """End the access of client ID, as `dualmem clients` names it (its beginning is enough), or of all.

    A server that runs answers it no more within a second. The client can ask for a login again.
    """
    if (client_id is None) != every:
        raise UsageError(
            "name one client, or --all",
            operation="revoke client",
            hint="`dualmem clients` lists them: `dualmem clients revoke ID`, or `dualmem clients revoke --all`.",
        )
    with _logins(folder or context.obj["users"]) as logins:
        if client_id is None:
            revoked = logins.revoke() if logins else 0
        else:
            grant = _named(client_id, logins.grants(_now()) if logins else ())
            revoked = logins.revoke(grant_id=grant.grant_id) if logins else 0
    if as_json:
        print_json({"revoked": revoked})
    else:
        click.echo(f"{revoked} {'client' if revoked == 1 else 'clients'} shut out")


@contextmanager
def _logins(folder: str | None) -> Iterator[LoginStore | None]:
    """The logins of this data home, or of a folder of users; None if nobody has ever logged in there."""
    from dualmem_mcp.stores.login_store import FILE_NAME, open_logins  # noqa: PLC0415  (--help needs none of it)

    settings = settings_of_call()
    root = Path(folder).expanduser().absolute() if folder is not None else settings.home
    if folder is not None and not root.is_dir():
        raise NotFoundError(
            "there is no such folder of users",
            operation="list clients",
            subject=str(root),
            hint="Give the folder that `dualmem serve --users` was given.",
        )
    if not (root / FILE_NAME).exists():
        yield None
        return
    with open_logins(root, choice=settings.keystore) as store:
        yield store


def _named(beginning: str, found: Sequence[KeptGrant]) -> KeptGrant:
    fitting = [grant for grant in found if beginning and grant.grant_id.startswith(beginning.lower())]
    if len(fitting) == 1:
        return fitting[0]
    raise NotFoundError(
        f"{'several clients have ids that begin with' if fitting else 'there is no client'} {beginning[:40]!r}",
        operation="revoke client",
        subject=beginning[:40],
        hint="`dualmem clients` lists them with their ids.",
    )


def _fields(grant: KeptGrant) -> dict[str, Any]:
    return {
        "id": grant.grant_id,
        "user": grant.user,
        "name": grant.client_name,
        "client_id": grant.client_id,
        "redirect_host": grant.redirect_host,
        "scopes": sorted(grant.scopes),
        "granted_at": _time(grant.granted_at),
        "used_at": _time(grant.used_at),
    }


def _line(grant: KeptGrant, *, several: bool) -> str:
    user = f"  {grant.user}" if several else ""
    scopes = ", ".join(sorted(grant.scopes))
    when = f"since {_time(grant.granted_at)[:10]}, last used {_time(grant.used_at)[:10]}"
    return f"{grant.grant_id}{user}  {grant.client_name} at {grant.redirect_host}  ({scopes}; {when})"


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
