#!/usr/bin/env python3
"""Syncs once, for cron and systemd timers: quiet when there is nothing to do, one run at a time.

Run it with the Python that dualmem-mcp is installed in. Nothing of the environment is needed (docs/cron.md), and no
passphrase: this device joined the vault before. What was exchanged is told in a line, in the log if there is one,
else on standard output. Exit status: 0 done, or another run is at it; 2 usage; 3 no vault; 4 locked; 5 tampered
data; 6 the bucket is away, and everything waits.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

try:
    from dualmem_mcp.durable_files import file_lock_if_free
    from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError
    from dualmem_mcp.exit_status import exit_after
except ImportError as fault:
    sys.stderr.write(f"error: {sys.executable} cannot import dualmem-mcp: {fault}\n")
    sys.stderr.write("hint: run this script with the Python that dualmem-mcp is installed in\n")
    sys.exit(2)

LOCK_FILE = ".sync_script.lock"

_log = logging.getLogger("dualmem.sync")


def main() -> None:
    """Sync once, as the arguments say, and exit."""
    options = _options()
    os.umask(0o077)
    exit_after(functools.partial(_run, options), debug=False)


def _run(options: argparse.Namespace) -> int:
    _log_to(options)
    try:
        return _sync_alone(options)
    except DualmemError as error:
        _log.error("%s (exit status %d)", error.message, error.exit_code)
        # A bucket that is away mends itself: cron need not mail it at every run where a log tells it.
        if options.log is not None and type(error) is StoreUnreachableError:
            return error.exit_code
        raise


def _sync_alone(options: argparse.Namespace) -> int:
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


def _sync(settings: Any, options: argparse.Namespace) -> int:
    from dualmem_mcp.app import open_app  # noqa: PLC0415
    from dualmem_mcp.sync.wording import is_news, sync_text  # noqa: PLC0415

    with open_app(settings) as app:
        for notice in app.notices:
            _log.info("%s", notice)
        large_objects = options.large_objects or not settings.sync.wifi_only
        result = app.sync(max_seconds=options.max_seconds, large_objects=large_objects)
    if result["busy"]:
        return 0
    if result["away"] and not (options.max_seconds and result["duration_ms"] >= options.max_seconds * 1000):
        raise StoreUnreachableError("; ".join(result["warnings"]), operation="sync", subject=settings.bucket)
    if is_news(result):
        _log.info("%s", " ".join(sync_text(result, conflicts_hint="`dualmem conflicts`").splitlines()))
    for warning in result["warnings"]:
        _log.warning("%s", warning)
    return 0


def _log_to(options: argparse.Namespace) -> None:
    """Send what is told to the log, which keeps to its size, or to standard output."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if options.log is not None:
        # Opened here and not at the first line, so that a folder that is missing is told at once.
        handler = RotatingFileHandler(
            options.log, maxBytes=options.log_bytes, backupCount=options.log_files, encoding="utf-8"
        )
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.raiseExceptions = False  # a log that cannot be written must not end the sync with a traceback
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    _log.setLevel(logging.INFO)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=_path, metavar="FOLDER", help="data home; default: DUALMEM_HOME, else user data"
    )
    parser.add_argument("--max-seconds", type=_seconds, metavar="N", help="begin no request after so long")
    parser.add_argument("--large-objects", action="store_true", help="also packages, on a mobile profile")
    parser.add_argument("--log", type=_path, metavar="FILE", help="tell what was done here instead of on output")
    parser.add_argument(
        "--log-bytes", type=_count, default=1_000_000, metavar="N", help="size of the log; default: %(default)s"
    )
    parser.add_argument(
        "--log-files", type=_count, default=3, metavar="N", help="older logs kept; default: %(default)s"
    )
    return parser.parse_args()


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("names nothing")
    return Path(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError("has to be more than 0 and at most a day")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return value


if __name__ == "__main__":
    main()
