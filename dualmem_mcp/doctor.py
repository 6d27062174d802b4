"""Checks of an installation: each says what it looked at, what it found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dualmem_mcp.app import App
from dualmem_mcp.errors import DualmemError, NotFoundError
from dualmem_mcp.transcripts.claude_code import ClaudeCode


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `ok` is False only for what needs mending."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def examine(app: App) -> list[dict[str, Any]]:
    """All checks on an open application, as plain values: name, ok, detail, hint. Writes nothing."""
    checks = (_data_home, _database, _key, _claude_code, _vault, _bucket, _waiting)
    return [asdict(_guarded(check, app)) for check in checks]


def _guarded(check: Callable[[App], Check], app: App) -> Check:
    try:
        return check(app)
    except DualmemError as error:
        return Check(check.__name__.strip("_").replace("_", " "), ok=False, detail=error.message, hint=error.hint)


def _data_home(app: App) -> Check:
    root = app.settings.home
    loose = [path.name for path in (root, *root.iterdir()) if path.stat().st_mode & 0o077 and not path.is_symlink()]
    if loose:
        hint = f"chmod -R go-rwx {root}"
        return Check("data home", ok=False, detail=f"others can read {', '.join(sorted(loose)[:5])}", hint=hint)
    return Check("data home", ok=True, detail=str(root))


def _database(app: App) -> Check:
    damaged = app.database.damaged_pages()
    if damaged:
        hint = "Copy the data home away, then restore it from a backup, or `dualmem join` with a new one."
        return Check("database", ok=False, detail=f"{len(damaged)} damaged pages", hint=hint)
    return Check("database", ok=True, detail="every page authenticates")


def _key(app: App) -> Check:
    where = {
        "keyring": "in the operating system's keyring",
        "file": "in a private file beside the database: whoever can read this user's files can read the memory",
    }
    return Check("device key", ok=True, detail=where[app.key_kept_in])


def _claude_code(app: App) -> Check:
    sessions = ClaudeCode(app.settings.claude_dir).sessions()
    if not sessions:
        hint = "Set CLAUDE_CONFIG_DIR if Claude Code keeps its folder elsewhere."
        return Check("Claude Code", ok=True, detail=f"no sessions in {app.settings.claude_dir}", hint=hint)
    return Check("Claude Code", ok=True, detail=f"{len(sessions)} sessions in {app.settings.claude_dir}")


def _vault(app: App) -> Check:
    try:
        vault = app.channel().vault
    except NotFoundError as error:
        return Check("vault", ok=True, detail="none: conversations stay on this device", hint=error.hint)
    return Check("vault", ok=True, detail=f"{vault.vault_id}, devices known here: {len(vault.devices())}")


def _bucket(app: App) -> Check:
    try:
        channel = app.channel()
    except NotFoundError:
        return Check("bucket", ok=True, detail=f"{app.settings.bucket}, not in use yet")
    channel.vault.refresh(channel.objects)
    return Check("bucket", ok=True, detail=f"{channel.objects.location} is this vault's and answers")


def _waiting(app: App) -> Check:
    waiting = len(app.outbox.pending())
    if waiting:
        hint = "They go out with the next `dualmem handoff` that reaches the bucket."
        return Check("outbox", ok=True, detail=f"{waiting} sealed objects wait to be uploaded", hint=hint)
    return Check("outbox", ok=True, detail="nothing waits to be uploaded")
