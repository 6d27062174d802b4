"""Commands that exchange memory with the other devices: sync, conflicts, resolve."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, warn
from dualmem_mcp.errors import OverBudgetError, StoreRefusedError, StoreUnreachableError, UsageError
from dualmem_mcp.sync.wording import conflict_text, has_moved, sync_text
from dualmem_mcp.tiers.wording import has_moved as has_moved_vectors
from dualmem_mcp.tiers.wording import moved_text, moved_warnings

if TYPE_CHECKING:
    from types import FrameType

    from dualmem_mcp.app import App
    from dualmem_mcp.server.sync_loop import SyncLoop

_LAST_PUSH_SECONDS = 5.0
_LOOK_SECONDS = 1.0


@cli.command()
@click.option("--watch", is_flag=True, help="Go on syncing until Ctrl-C.")
@click.option(
    "--max-seconds", type=click.FloatRange(min=0, min_open=True), help="Begin nothing more after so long."
)
@click.option("--large-objects/--no-large-objects", default=None, help="Also packages; default: not on mobile.")
@click.option("--quiet", is_flag=True, help="Say nothing unless something is wrong.")
@json_option
def sync(*, watch: bool, max_seconds: float | None, large_objects: bool | None, quiet: bool, as_json: bool) -> None:
    """Exchange changes of memory and conversations with your other devices."""
    if watch and max_seconds is not None:
        raise UsageError(
            "--watch goes on until it is ended; --max-seconds is for one sync",
            operation="sync",
            hint="Leave one of them out.",
        )
    from dualmem_mcp.server.sync_loop import sync_by_hand  # noqa: PLC0415  (--help needs none of it)

    with opened() as app:
        large = not app.settings.sync.wifi_only if large_objects is None else large_objects
        show = _Shown(as_json=as_json, quiet=quiet)
        if watch:
            _watch(app, show, large_objects=large)
            return
        result = sync_by_hand(app, max_seconds=max_seconds, large_objects=large)
        result["tiers"] = _move_vectors(app, result, max_seconds, only_if_due=quiet)
    show.result(result)
    out_of_time = _left_seconds(result, max_seconds) <= 0
    if result["refused"]:
        click.get_current_context().exit(StoreRefusedError.exit_code)
    if result["over_budget"]:
        click.get_current_context().exit(OverBudgetError.exit_code)
    if result["away"] and not out_of_time:
        click.get_current_context().exit(StoreUnreachableError.exit_code)


@cli.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@json_option
def conflicts(limit: int, as_json: bool) -> None:
    """Show what two devices changed without knowing of each other."""
    with opened() as app:
        found = app.list_conflicts(limit)
    if as_json:
        print_json(found)
        return
    for conflict in found["conflicts"]:
        click.echo(conflict_text(conflict))
    if not found["conflicts"]:
        click.echo("No conflicts.")
        return
    click.echo(
        "`dualmem resolve ID --keep` for what counts now, `--take` for what lost (`--take STAMP` of several)."
    )


@cli.command()
@click.argument("conflict_id")
@click.option("--keep", is_flag=True, help="What counts now stays.")
@click.option(
    "--take", is_flag=False, flag_value="newest", metavar="[STAMP]", help="What lost counts; default: the newest."
)
@json_option
def resolve(conflict_id: str, *, keep: bool, take: str | None, as_json: bool) -> None:
    """Decide a conflict, for all devices."""
    if keep == (take is not None):
        raise UsageError(
            "say which side counts",
            operation="resolve conflict",
            subject=conflict_id,
            hint="Give --keep for what counts now or --take for what lost; `dualmem conflicts` shows both.",
        )
    with opened() as app:
        resolved = app.resolve_conflict(conflict_id, keep=keep, stamp=None if take == "newest" else take)
    if as_json:
        print_json(resolved)
        return
    click.echo("What counted stays." if keep else "The other side counts now.")
    click.echo("Your other devices take the decision with their next sync.")


class _Shown:
    """How results are shown: for a person, or a JSON document each."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet
        self._warned: set[str] = set()

    def result(self, result: Mapping[str, Any]) -> None:
        """The result of one sync, with what moved between tiers."""
        tiers = result["tiers"]
        warn([*result["warnings"], *(moved_warnings(tiers) if tiers else [])])
        if self._as_json:
            print_json(result)
        elif not self._quiet:
            self._text(result)
            if tiers and (has_moved_vectors(tiers) or tiers["left"]):
                click.echo(moved_text(tiers))

    def news(self, result: Mapping[str, Any]) -> None:
        """The result of one of many syncs: nothing if it did nothing, on one line if as JSON."""
        if not (result["away"] or result["refused"]):  # else that is told as a problem
            new = [warning for warning in result["warnings"] if warning not in self._warned]
            self._warned.update(new)
            warn(new)
        if not has_moved(result):
            return
        if self._as_json:
            click.echo(json.dumps(result))
        elif not self._quiet:
            self._text(result)

    def problem(self, text: str) -> None:
        """What went wrong, and is tried again."""
        click.echo(f"error: {text}", err=True)

    def _text(self, result: Mapping[str, Any]) -> None:
        click.echo(sync_text(result, conflicts_hint="`dualmem conflicts`"))


def _left_seconds(result: Mapping[str, Any], max_seconds: float | None) -> float:
    return math.inf if max_seconds is None else max_seconds - result["duration_ms"] / 1000


def _move_vectors(
    app: App, result: Mapping[str, Any], max_seconds: float | None, *, only_if_due: bool
) -> dict[str, Any] | None:
    """What moved between tiers after a sync that went through; None where nothing was to."""
    left = _left_seconds(result, max_seconds)
    if left <= 0 or any(result[name] for name in ("away", "refused", "busy")):
        return None
    from dualmem_mcp.edge.moving import MOST_SECONDS  # noqa: PLC0415

    move = app.vectors.move_if_due if only_if_due else app.vectors.move
    return move(max_seconds=min(left, MOST_SECONDS))


def _watch(app: App, show: _Shown, *, large_objects: bool) -> None:
    """Sync as a server in use does, and look every second for what other programs changed; until interrupted."""
    from dualmem_mcp.server.sync_loop import SyncLoop  # noqa: PLC0415

    app.channel()  # without a vault there is nothing to watch
    timing = app.settings.sync
    timing = replace(timing, idle_seconds=timing.poll_seconds, background_seconds=_LOOK_SECONDS)
    loop = SyncLoop(app, timing=timing, large_objects=large_objects, report=show.news, problem=show.problem)
    stopping, ended = threading.Event(), threading.Event()
    thread = threading.Thread(target=_run, args=(loop, stopping, ended), name="sync", daemon=True)
    # However it is told to end, what waits is sent first.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        thread.start()
        while not ended.wait(1.0):  # not join, which takes an interrupted wait for the thread's end
            pass
    except KeyboardInterrupt:
        stopping.set()
        loop.wake()
        ended.wait(_LAST_PUSH_SECONDS)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(loop: SyncLoop, stopping: threading.Event, ended: threading.Event) -> None:
    try:
        loop.run(stopping)
        loop.push_last()
    finally:
        ended.set()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
