"""How a command ends: its exit code, and what stderr says when something went wrong."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import click

from dualmem_mcp.durable_files import DISK_FULL
from dualmem_mcp.errors import DiskFullError, DualmemError, StoreUnreachableError, UsageError

INTERRUPTED = 130
READER_GONE = 141
"""As the shell reports a command that SIGPIPE ended; 130 is that of SIGINT."""


def exit_after(run: Callable[[], object], *, debug: bool) -> NoReturn:
    """Run a click command, not in its standalone mode, and exit with the documented code.

    No traceback is shown unless `debug` asks for it.
    """
    output = sys.stdout
    try:
        code = run()
    except DualmemError as error:
        _fail(error)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(UsageError.exit_code)
    except click.ClickException as error:
        _fail(UsageError(error.format_message(), hint=_usage_hint(error)))
    except (click.Abort, KeyboardInterrupt):
        click.echo("error: interrupted", err=True)
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        # When the reader of our output has gone, as `| head` goes, click silences the streams and ends with 1.
        sys.exit(ended.code if sys.stdout is output else READER_GONE)
    except OSError as error:
        if debug:
            traceback.print_exception(error)
        _fail(_system_error(error))
    except Exception as error:  # noqa: BLE001  (the last line of defence: no traceback for a user)
        _fail_internal(error, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: DualmemError) -> NoReturn:
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    sys.exit(error.exit_code)


def _system_error(error: OSError) -> DualmemError:
    """What the operating system refused and nobody expected; of all places, the output is the likeliest."""
    where = str(error.filename) if error.filename else "the output"
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    kind = DiskFullError if error.errno in DISK_FULL else StoreUnreachableError
    return kind(
        f"{where} cannot be {'read or ' if error.filename else ''}written: {reason}",
        subject=where,
        hint="Check its disk and your rights; `dualmem --debug` shows where it happened.",
    )


def _fail_internal(error: Exception, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exception(error)
    click.echo(f"error: an internal fault ({type(error).__name__})", err=True)
    click.echo("hint: run the command again with `dualmem --debug` and report what it prints.", err=True)
    sys.exit(DualmemError.exit_code)


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path if context else 'dualmem'} --help` shows the arguments."
