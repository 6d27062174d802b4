"""Commands on the vault's devices: devices, revoke."""

from __future__ import annotations

import sys
from typing import Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, settings_of_call, warn
from dualmem_mcp.cli.vault_commands import known_secret


@cli.command()
@json_option
def devices(as_json: bool) -> None:
    """List the devices of the vault."""
    with opened() as app:
        found = app.sharing.devices()
    if as_json:
        print_json({"devices": found})
        return
    for one in found:
        click.echo(_line(one).encode("utf-8", "replace").decode())


@cli.command()
@click.argument("device")
@json_option
def revoke(device: str, as_json: bool) -> None:
    """Put DEVICE, by its name or the beginning of its id, out of the vault: a lost or sold one, say.

    The vault goes on under a new master key; the passphrase stays, and there is a new recovery key.
    """

    def show(made: dict[str, Any]) -> None:
        if as_json:
            print_json(made)
        else:
            click.echo(f"{made['name']!r} ({made['device_id']}) belongs to the vault no more.\n")
            click.echo(f"New recovery key:\n\n    {made['recovery_key']}\n")
            click.echo("Write it down and keep it away from your devices: it is not shown again, and the old one")
            click.echo("opens the vault no more. What the device has read it keeps; withdraw its credentials for")
            click.echo("the bucket as well.")
            warn(made["warnings"])
        sys.stdout.flush()

    passphrase = known_secret(settings_of_call())
    with opened() as app:
        app.sharing.revoke(device, passphrase, show)


def _line(one: dict[str, Any]) -> str:
    marks = ["this device"] * one["this_device"] + ["revoked"] * one["revoked"]
    suffix = f"  ({', '.join(marks)})" if marks else ""
    return f"{one['device_id'][:8]}  joined {one['joined_at'][:10]}  {one['name']}{suffix}"
