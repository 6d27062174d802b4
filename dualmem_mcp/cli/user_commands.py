"""Commands on the users of a host: users add, users list, users remove."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dualmem_mcp.cli.frame import cli, json_option, print_json, settings_of_call, warn
from dualmem_mcp.cli.vault_commands import known_secret, new_passphrase
from dualmem_mcp.errors import TamperedError, UsageError

if TYPE_CHECKING:
    from dualmem_mcp.model.grant import UserId
    from dualmem_mcp.settings import Settings
    from dualmem_mcp.stores.user_folder import UserFolder

Command = TypeVar("Command", bound=Callable[..., Any])


@cli.group()
def users() -> None:
    """The users of a host that serves several: `dualmem serve --users DIR`."""


def _folder_option(command: Command) -> Command:
    return click.option("--users", "folder", type=click.Path(), required=True, help="The folder of all users.")(
        command
    )


@users.command()
@click.argument("name")
@_folder_option
@click.option("--bucket", required=True, help="s3://bucket/prefix or a folder: the user's own vault.")
@click.option("--new", is_flag=True, help="Make the vault; else the one that is there is joined.")
@click.option("--device-name", default="", help="What this host is called on the user's devices.")
@click.option("--own-credentials", is_flag=True, help="Keep the AWS credentials of this call for this user alone.")
@json_option
def add(
    name: str, *, folder: str, bucket: str, new: bool, device_name: str, own_credentials: bool, as_json: bool
) -> None:
    """Add a user: join their vault with its passphrase, which will be their login here, too."""
    from dualmem_mcp.crypto.recovery import is_recovery_key  # noqa: PLC0415  (--help needs none of it)
    from dualmem_mcp.ports import SystemClock  # noqa: PLC0415
    from dualmem_mcp.stores.bucket_access import bucket_access_here  # noqa: PLC0415

    settings = settings_of_call(bucket)
    user, found = _user(name), _folder(folder)
    access = bucket_access_here() if own_credentials else None
    found.remove_leftovers()
    home, secret = found.begin(user)
    try:
        passphrase = new_passphrase(settings) if new else known_secret(settings, "The vault's passphrase")
        if is_recovery_key(passphrase):
            raise UsageError(
                "a recovery key cannot stand for the passphrase here: it is what the user logs in with",
                operation="add user",
                subject=user,
                hint="Give the vault's passphrase.",
            )
        from dualmem_mcp.app import open_app  # noqa: PLC0415

        with open_app(_hosted(home, settings), secret=secret) as app:
            if access is not None:
                app.keep_bucket_access(access)
            made = (app.init if new else app.join)(passphrase, device_name=device_name)
        if new:
            _show_vault({"user": user, **made}, as_json=as_json)  # before anything else can fail
        found.finish(user, home, secret, passphrase, now=SystemClock().now())
    except BaseException:
        found.abandon(home)
        raise
    if as_json:
        if not new:
            print_json({"user": user, **made})
        return
    click.echo(
        f"{user} can log in with the vault's passphrase. This host is device {made['device_id']} of the vault."
    )


@users.command("list")
@_folder_option
@json_option
def list_users(folder: str, *, as_json: bool) -> None:
    """List the users of a host."""
    found = _folder(folder)
    listed = [_listed(found, user) for user in found.users()]
    if as_json:
        print_json({"users": listed})
        return
    for one in listed:
        click.echo(f"{one['user']:<32}  {one['problem'] or 'added ' + one['added_at'][:10]}")
    if not listed:
        click.echo("no users yet: `dualmem users add NAME --users DIR --bucket BUCKET`")


@users.command()
@click.argument("name")
@_folder_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove(name: str, *, folder: str, yes: bool, as_json: bool) -> None:
    """Remove a user from this host, with everything of theirs here. What is in their bucket stays."""
    user, found = _user(name), _folder(folder)
    found.check(user)  # before anything is asked
    if not yes:
        _confirm(user)
    # First what opens it, so that a run that is killed has taken the access away.
    logins = _end_logins(found.root, user)
    found.remove(user)
    found.remove_leftovers()
    remains = [
        "the vault in the bucket, and the user's own devices",
        "this host's place in the vault: `dualmem revoke` on one of the user's devices ends it",
    ]
    if as_json:
        print_json({"user": user, "logins_ended": logins, "remains": remains})
        return
    click.echo(f"{user} was removed from this host, with {logins} logins. What stays:")
    for sentence in remains:
        click.echo(f"  - {sentence}")


def _end_logins(folder: Path, user: UserId) -> int:
    """End all of a user's logins: how many there were."""
    from dualmem_mcp.stores.login_store import FILE_NAME, open_logins  # noqa: PLC0415

    if not (folder / FILE_NAME).exists():
        return 0
    with open_logins(folder, choice=settings_of_call().keystore) as logins:
        return logins.revoke(user=user)


def _listed(folder: UserFolder, user: UserId) -> dict[str, Any]:
    try:
        return {"user": user, "added_at": folder.made_at(user).isoformat(), "problem": None}
    except TamperedError as error:
        return {"user": user, "added_at": None, "problem": error.message}


def _user(name: str) -> UserId:
    from dualmem_mcp.model.grant import user_id  # noqa: PLC0415

    user = user_id(name)
    if user is None or user != name:
        raise UsageError(
            f"no user can be called {name[:60]!r}",
            operation="find user",
            subject=name[:60],
            hint="1 to 32 lower-case letters, digits and -, with no - at the beginning.",
        )
    return user


def _folder(path: str) -> UserFolder:
    from dualmem_mcp.stores.user_folder import UserFolder  # noqa: PLC0415

    return UserFolder(Path(path).expanduser().absolute())


def _hosted(home: Path, given: Settings) -> Settings:
    """The user's settings: of those of this call only where the vault is."""
    from dualmem_mcp.settings import load_hosted_settings  # noqa: PLC0415

    return replace(load_hosted_settings(home), bucket=given.bucket)


def _show_vault(made: dict[str, Any], *, as_json: bool) -> None:
    warn(made.pop("warnings"))
    if as_json:
        print_json(made)
    else:
        click.echo(f"Vault {made['vault_id']} made in {made['bucket']}.\n")
        click.echo(f"Recovery key:\n\n    {made['recovery_key']}\n")
        click.echo("It opens the vault when the passphrase is forgotten, and it is not shown again: give it to the")
        click.echo("user, who writes it down and keeps it away from their devices.\n")
    sys.stdout.flush()


def _confirm(user: UserId) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            "removing a user is for good, and there is no terminal to ask on",
            operation="remove user",
            subject=user,
            hint="Add --yes if that is what you want.",
        )
    click.confirm(f"Remove {user} and all that is kept of theirs on this host, for good?", abort=True, err=True)
