#!/usr/bin/env python3
"""Syncs once, for cron and systemd timers: quiet when there is nothing to do, one run at a time.

Run it with the Python that dualmem-mcp is installed in. Nothing of the environment is needed (docs/cron.md), and no
passphrase: this device joined the vault before.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
import time
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

try:
    import click

    from dualmem_mcp.durable_files import file_lock_if_free
    from dualmem_mcp.errors import DualmemError, NotFoundError, StoreRefusedError, StoreUnreachableError
    from dualmem_mcp.exit_status import exit_after
except ImportError as fault:
    sys.stderr.write(f"error: {sys.executable} cannot import dualmem-mcp: {fault}\n")
    sys.stderr.write("hint: run this script with the Python that dualmem-mcp is installed in\n")
    sys.exit(2)

LOCK_FILE = ".sync_script.lock"

_log = logging.getLogger("dualmem.sync")


@dataclass(frozen=True, slots=True)
class Options:
    """What one run is told."""

    home: Path | None
    max_seconds: float | None
    large_objects: bool
    log: Path | None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", type=click.Path(path_type=Path), help="Data home; default: DUALMEM_HOME, else user data.")
@click.option("--max-seconds", type=click.FloatRange(0, 86_400, min_open=True), help="Begin nothing after so long.")
@click.option("--large-objects", is_flag=True, help="Also packages, on a mobile profile.")
@click.option("--log", type=click.Path(path_type=Path), help="Tell what was done here, not on standard output.")
@click.option("--log-bytes", type=click.IntRange(1), default=1_000_000, show_default=True, help="Size of a log.")
@click.option("--log-files", type=click.IntRange(1), default=3, show_default=True, help="Older logs that are kept.")
def command(
    *,
    home: Path | None,
    max_seconds: float | None,
    large_objects: bool,
    log: Path | None,
    log_bytes: int,
    log_files: int,
) -> int:
    """Sync once, for cron and systemd timers: quiet when there is nothing to do, one run at a time.

    Exit status: 0 done, or another run is at it; 2 usage; 3 no vault; 4 locked; 5 tampered data; 6 the bucket is
    away or refuses this device, and everything waits.
    """
    os.umask(0o077)
    _log_to(log, log_bytes, log_files)
    try:
        return _sync_alone(Options(home, max_seconds, large_objects, log))
    except DualmemError as error:
        if log is None:
            raise
        _log.error("%s (exit status %d)", error.message, error.exit_code)
        # A bucket that is away mends itself: cron need not mail it at every run where a log tells it.
        if type(error) is StoreUnreachableError:
            return error.exit_code
        raise


def _sync_alone(options: Options) -> int:
    # Here, since it takes most of a second, which a wrong option need not wait for.
    from dualmem_mcp.settings import load_settings  # noqa: PLC0415

    settings = load_settings(options.home)
    if not (settings.home / "memory.db").exists():
        raise NotFoundError(
            f"there is no data home in {settings.home}",
            operation="sync",
            subject=str(settings.home),
            hint="Give the one that `dualmem status` names, as --home; `dualmem init` or `dualmem join` makes one.",
        )
    with file_lock_if_free(settings.home / LOCK_FILE) as free:
        return _sync(settings, options) if free else 0


def _sync(settings: Any, options: Options) -> int:
    from dualmem_mcp.app import open_app  # noqa: PLC0415
    from dualmem_mcp.edge.moving import MOST_SECONDS  # noqa: PLC0415
    from dualmem_mcp.sync.wording import has_moved, sync_text  # noqa: PLC0415
    from dualmem_mcp.tiers.wording import has_moved as has_moved_vectors  # noqa: PLC0415
    from dualmem_mcp.tiers.wording import moved_text, moved_warnings  # noqa: PLC0415

    with open_app(settings) as app:
        for notice in app.notices:
            _log.info("%s", notice)
        large_objects = options.large_objects or not settings.sync.wifi_only
        result = app.sync(max_seconds=options.max_seconds, large_objects=large_objects)
        left_seconds = (options.max_seconds or math.inf) - result["duration_ms"] / 1000
        moved = None
        if left_seconds > 0 and not (result["busy"] or result["away"] or result["refused"]):
            moved = app.vectors.move_if_due(max_seconds=min(left_seconds, MOST_SECONDS))
    if result["busy"]:
        return 0
    out_of_time = left_seconds <= 0
    if result["refused"]:
        raise StoreRefusedError("; ".join(result["warnings"]), operation="sync", subject=settings.bucket)
    if result["away"] and not out_of_time:
        raise StoreUnreachableError("; ".join(result["warnings"]), operation="sync", subject=settings.bucket)
    if has_moved(result):
        _log.info("%s", " ".join(sync_text(result, conflicts_hint="`dualmem conflicts`").splitlines()))
    if moved and has_moved_vectors(moved):
        _log.info("%s", " ".join(moved_text(moved).splitlines()))
    for warning in (*result["warnings"], *(moved_warnings(moved) if moved else ())):
        _log.warning("%s", warning)
    return 0


def _log_to(log: Path | None, size_bytes: int, files: int) -> None:
    """Send what is told to the log, which keeps to its size, or to standard output."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if log is not None:
        # Opened here and not at the first line, so that a folder that is missing is told at once.
        handler = RotatingFileHandler(log, maxBytes=size_bytes, backupCount=files, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.raiseExceptions = False  # a log that cannot be written must not end the sync with a traceback
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _log.setLevel(logging.INFO)


if __name__ == "__main__":
    exit_after(functools.partial(command.main, prog_name="sync.py", standalone_mode=False), debug=False)
