"""Checks of an installation: each says what it looked at, what it found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dualmem_mcp.app import App
from dualmem_mcp.embedding.minilm import NAME as DEFAULT_MODEL
from dualmem_mcp.embedding.model_files import check_present
from dualmem_mcp.errors import DualmemError, NotFoundError
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.hook import PROBLEM_FILE
from dualmem_mcp.sync.last_sync import LastSync
from dualmem_mcp.transcripts.claude_code import ClaudeCode

_MINUTE = "%Y-%m-%d %H:%M UTC"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `ok` is False only for what needs mending."""

    name: str
    ok: bool
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Finding:
    detail: str
    hint: str = ""
    ok: bool = True


def examine(app: App) -> list[dict[str, Any]]:
    """All checks on an open application, as plain values: name, ok, detail, hint. Writes nothing."""
    return [asdict(_guarded(name, check, app)) for name, check in _CHECKS.items()]


def _guarded(name: str, check: Callable[[App], _Finding], app: App) -> Check:
    try:
        finding = check(app)
    except DualmemError as error:
        finding = _Finding(error.message, error.hint, ok=False)
    return Check(name, finding.ok, finding.detail, finding.hint)


def _data_home(app: App) -> _Finding:
    root = app.settings.home
    if loose := app.home.open_to_others():
        return _Finding(f"others can read {', '.join(loose[:5])}", f"chmod -R go-rwx {root}", ok=False)
    return _Finding(str(root))


def _database(app: App) -> _Finding:
    if damaged := app.database.damaged_pages():
        hint = "Copy the data home away, then restore it from a backup, or `dualmem join` with a new one."
        return _Finding(f"{len(damaged)} damaged pages", hint, ok=False)
    return _Finding("every page authenticates")


def _device_key(app: App) -> _Finding:
    where = {
        "keyring": "in the operating system's keyring",
        "file": "in a private file beside the database: whoever can read this user's files can read the memory",
    }
    return _Finding(where[app.key_kept_in])


def _claude_code(app: App) -> _Finding:
    folder = app.settings.claude_dir
    if sessions := ClaudeCode(folder).sessions():
        return _Finding(f"{len(sessions)} sessions in {folder}")
    return _Finding(f"no sessions in {folder}", "Set CLAUDE_CONFIG_DIR if Claude Code keeps its folder elsewhere.")


def _vault(app: App) -> _Finding:
    try:
        vault = app.channel().vault
    except NotFoundError as error:
        return _Finding("none: conversations stay on this device", error.hint)
    return _Finding(f"{vault.vault_id}, devices known here: {len(vault.devices())}")


def _bucket(app: App) -> _Finding:
    channel = app.joined_channel()
    if channel is None:
        return _Finding(f"{app.settings.bucket}, not in use yet")
    channel.vault.refresh(channel.objects)
    return _Finding(f"{channel.objects.location} is this vault's and answers")


def _outbox(app: App) -> _Finding:
    if waiting := len(app.outbox.pending()):
        hint = "They go out with the next `dualmem handoff` that reaches the bucket."
        return _Finding(f"{waiting} sealed objects wait to be uploaded", hint)
    return _Finding("nothing waits to be uploaded")


def _last_sync(app: App) -> _Finding:
    if app.joined_channel() is None:
        return _Finding("none: this device belongs to no vault")
    last = LastSync(app.settings.home, app.clock).outcome()
    well = f"the last ended well at {last.synced_at:{_MINUTE}}" if last.synced_at else "none ended well yet"
    if last.problem:
        when = f", at {last.problem_at:{_MINUTE}}" if last.problem_at else ""
        return _Finding(f"the last one{when}, met a problem ({well})", last.problem, ok=last.away)
    return _Finding(well, "" if last.synced_at else "`dualmem sync` syncs now; a running server does so by itself.")


def _hooks(app: App) -> _Finding:
    try:
        problem = (app.settings.home / PROBLEM_FILE).read_text(encoding="utf-8")
    except OSError:
        return _Finding("nothing went wrong in the background")
    return _Finding("what a hook of Claude Code left to the background failed", one_line(problem), ok=False)


def _budget(app: App) -> _Finding:
    budget, warnings = app.spending.gate.budget, app.spending.gate.warnings()
    if warnings:
        hint = 'Raise {"budget": …} in cloud_sync_config.json, or wait for the next month; `dualmem cost optimize`.'
        return _Finding(warnings[0], hint)
    if budget.soft_usd is None and budget.hard_usd is None:
        return _Finding("none is set")
    return _Finding(f"${app.spending.gate.spent().usd:.4f} spent this month")


def _model(app: App) -> _Finding:
    model = app.local_edge.model
    if model.missing:
        return _Finding(model.missing, "`dualmem model pull` fetches it once.", ok=not _model_is_damaged(app))
    _, problem = model.query_vector("a text", wait_seconds=60.0)
    return _Finding(problem, ok=False) if problem else _Finding(f"{model.model_id} loads and answers")


def _model_is_damaged(app: App) -> bool:
    if app.settings.model != DEFAULT_MODEL:
        return False
    try:
        check_present(app.settings.model_dir)
    except NotFoundError:
        return False
    except DualmemError:
        return True
    return False


def _search_index(app: App) -> _Finding:
    status = app.local_edge.status()
    indexed = f"{sum(status['indexed'].values()):,} items, {status['index_bytes'] / 1e6:,.1f} MB"
    if status["waiting"]:
        hint = "`dualmem index` gives them theirs; the server does so in the background."
        return _Finding(f"{indexed}; {status['waiting']:,} have no vectors yet", hint)
    return _Finding(indexed)


def _search_service(app: App) -> _Finding:
    status = app.tiers.status()
    if not status["configured"]:
        return _Finding("none is set: search works from this device's own index")
    if not status["enabled"]:
        return _Finding(f"{status['url']}, not used", "`dualmem tiers enable` tells what it learns, and uses it.")
    app.tiers.reach()
    points = sum(tier["points"] for tier in status["tiers"])
    looked = status["checked_at"]
    checked = f"checked at {looked[:16].replace('T', ' ')} UTC" if looked else "never checked"
    detail = f"{status['url']} answers, its collections fit; {points:,} points, {checked}"
    if status["problem"]:
        return _Finding(
            f"{detail}; the last time: {status['problem']}", "`dualmem tiers apply` tries again.", ok=False
        )
    return _Finding(detail, "" if looked else "`dualmem tiers check` compares what lies there, and mends it.")


_CHECKS: dict[str, Callable[[App], _Finding]] = {
    "data home": _data_home,
    "database": _database,
    "device key": _device_key,
    "Claude Code": _claude_code,
    "vault": _vault,
    "bucket": _bucket,
    "outbox": _outbox,
    "sync": _last_sync,
    "hooks": _hooks,
    "budget": _budget,
    "search model": _model,
    "search index": _search_index,
    "search service": _search_service,
}
