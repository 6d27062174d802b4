"""Commands on the vault and the installation: init, join, recovery-key, status, doctor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, settings_of_call, warn
from dualmem_mcp.errors import LockedError, UsageError

if TYPE_CHECKING:
    from dualmem_mcp.settings import Settings

WEAK_PASSPHRASE_CHARACTERS = 15
"""Shorter passphrases get a warning: whoever holds the bucket can guess at leisure. Source: NIST
SP 800-63B-4, 3.1.1.2, the least length of a password that stands alone."""


@cli.command()
@click.option("--bucket", help="s3://bucket/prefix or a folder; default: a folder beside the data home.")
@click.option("--device-name", default="", help="What this device is called on the others.")
@json_option
def init(bucket: str | None, device_name: str, as_json: bool) -> None:
    """Make a vault: your keys and your storage."""
    settings = settings_of_call(bucket)
    passphrase = new_passphrase(settings)
    with opened(bucket) as app:
        made = app.init(passphrase, device_name=device_name)
    warn(made.pop("warnings"))
    if as_json:
        print_json(made)
        return
    click.echo(f"Vault {made['vault_id']} made in {made['bucket']}.")
    click.echo(f"This device is {made['device_id']}.\n")
    click.echo(f"Recovery key:\n\n    {made['recovery_key']}\n")
    click.echo("Write it down and keep it away from your devices: it opens the vault when the passphrase is")
    click.echo("forgotten, and it is not shown again. Another device: `dualmem join " + made["bucket"] + "`.")


@cli.command()
@click.argument("bucket")
@click.option("--device-name", default="", help="What this device is called on the others.")
@json_option
def join(bucket: str, device_name: str, as_json: bool) -> None:
    """Make this device one of the vault's in BUCKET, by its passphrase or recovery key."""
    settings = settings_of_call(bucket)
    secret = known_secret(settings)
    with opened(bucket) as app:
        joined = app.join(secret, device_name=device_name)
    if as_json:
        print_json(joined)
        return
    click.echo(f"This device ({joined['device_id']}) is now one of vault {joined['vault_id']}.")
    click.echo("`dualmem resume` takes up the newest conversation that was handed over.")


@cli.group("recovery-key")
def recovery_key() -> None:
    """The key that opens the vault when the passphrase is forgotten."""


@recovery_key.command("new")
@json_option
def new_recovery_key(as_json: bool) -> None:
    """Make a new recovery key; the old one then opens the vault no more."""

    def show(made: dict[str, Any]) -> None:
        if as_json:
            print_json(made)
        else:
            click.echo(f"New recovery key of vault {made['vault_id']}:\n\n    {made['recovery_key']}\n")
            click.echo("Write it down and keep it away from your devices: it is not shown again.")
        sys.stdout.flush()  # before the old one goes

    with opened() as app:
        app.renew_recovery_key(show)
    if not as_json:
        click.echo("The old one opens the vault no more.")


@cli.command()
@json_option
def status(as_json: bool) -> None:
    """Show the vault, the device, and what is stored here."""
    with opened() as app:
        facts = app.status()
    _show_facts(facts, as_json)


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this installation and say what to mend."""
    from dualmem_mcp.doctor import examine  # noqa: PLC0415  (only this command needs it)

    with opened() as app:
        checks = examine(app)
    if as_json:
        print_json({"checks": checks})
    else:
        for check in checks:
            click.echo(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['detail']}")
            if check["hint"]:
                click.echo(f"      {check['hint']}")
    if not all(check["ok"] for check in checks):
        click.get_current_context().exit(1)


def new_passphrase(settings: Settings) -> str:
    passphrase = settings.read_passphrase()
    if passphrase is None:
        if not sys.stdin.isatty():
            raise _no_passphrase()
        prompt = "Passphrase for the new vault"
        passphrase = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True))
    if not passphrase:
        raise UsageError("the passphrase is empty", operation="init", hint="Take four or five random words.")
    if len(passphrase) < WEAK_PASSPHRASE_CHARACTERS:
        warn(
            ["a short passphrase: whoever holds the bucket can guess at leisure; four or five random words resist"]
        )
    return passphrase


def known_secret(settings: Settings, prompt: str = "The vault's passphrase or recovery key") -> str:
    secret = settings.read_passphrase()
    if secret is None:
        if not sys.stdin.isatty():
            raise _no_passphrase()
        secret = click.prompt(prompt, hide_input=True, err=True)
    return str(secret)


def _no_passphrase() -> LockedError:
    return LockedError(
        "no passphrase was given, and there is no terminal to ask for one",
        operation="read passphrase",
        hint="Set DUALMEM_PASSPHRASE_FILE to a file that holds it (or DUALMEM_PASSPHRASE), or run in a terminal.",
    )


def _show_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):<19} {_fact_text(value)}")


def _fact_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_fact_text(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else "; ".join(map(str, value)) if isinstance(value, list) else str(value)
