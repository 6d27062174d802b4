"""The vault's devices, and how one is put out of it."""

from __future__ import annotations

from typing import Any

from dualmem_mcp.errors import ConflictError, DualmemError, LockedError, NotFoundError
from dualmem_mcp.remote.pages.visit import Page, Visit


def devices(visit: Visit) -> Page:
    """The devices in the order they joined."""
    try:
        found = visit.app.sharing.devices()
    except NotFoundError:  # no vault: an empty list says what to do
        found = []
    return Page("devices.html", "Devices", {"devices": found, "now": visit.app.clock.now()})


def revoke_form(visit: Visit) -> Page:
    """What revoking a device does, and the form that asks for the passphrase."""
    return _form(_device(visit, visit.query.get("device", "")), "")


def revoke_device(visit: Visit) -> Page:
    """Put a device out of the vault: the new recovery key, which is shown on this answer alone."""
    one = _device(visit, visit.field("device"))
    passphrase = visit.form.get("passphrase", "")
    try:
        visit.check_passphrase(passphrase)
    except LockedError:
        return _form(one, "That is not the passphrase. Nothing was changed.")
    made: dict[str, Any] = {}
    with visit.alone:
        # A form that is sent twice, as by a second tap, must not pass for one that failed.
        one = _device(visit, one["device_id"])
        try:
            visit.app.sharing.revoke(one["device_id"], passphrase, made.update)
        except DualmemError as error:
            if not made:
                raise
            # The key that counts now is shown, whatever could not be finished.
            made["warnings"] = [*made["warnings"], f"{error.message}. {error.hint}"]
    return Page("revoked.html", f"{one['name']} is revoked", {"made": made})


def _device(visit: Visit, device_id: str) -> dict[str, Any]:
    """The device, if it can be revoked from here. Raises NotFoundError, ConflictError."""
    for one in visit.app.sharing.devices():
        if one["device_id"] == device_id and one["revoked"]:
            raise ConflictError(
                f"{one['name']} is revoked already",
                operation="revoke device",
                subject=device_id,
                hint="If you have not seen the new recovery key: `dualmem recovery-key new` on a device of the "
                "vault makes another.",
            )
        if one["device_id"] == device_id and not one["this_device"]:
            return one
    raise NotFoundError(
        "there is no such device to revoke",
        operation="revoke device",
        subject=device_id[:60],
        hint="The page of devices lists them; this host itself is revoked from another device.",
    )


def _form(one: dict[str, Any], problem: str) -> Page:
    return Page(
        "revoke.html", f"Revoke {one['name']}", {"device": one, "problem": problem}, 403 if problem else 200
    )
