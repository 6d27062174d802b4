"""What every command has: the group with its options, the open application, progress, and how answers are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dualmem_mcp import __version__
from dualmem_mcp.errors import UsageError

if TYPE_CHECKING:
    from dualmem_mcp.app import App
    from dualmem_mcp.ports import Progress
    from dualmem_mcp.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dualmem")
@click.option("--home", type=click.Path(), help="Data home; default: DUALMEM_HOME, else user data.")
@click.option("--debug", is_flag=True, help="Show where an unexpected error came from.")
@click.pass_context
def cli(context: click.Context, home: str | None, debug: bool) -> None:
    """Hand a Claude Code conversation to another device, encrypted, and keep one memory across all."""
    if home == "":
        raise UsageError("--home names no folder", operation="open data home", hint="Give a path, or leave it out.")
    context.obj = {"home": Path(home) if home else None, "debug": debug}


def json_option(command: Command) -> Command:
    """Add `--json`, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def settings_of_call(bucket: str | None = None) -> Settings:
    from dualmem_mcp.settings import load_settings  # noqa: PLC0415  (pydantic-settings takes 0.2 s to import)

    return load_settings(click.get_current_context().find_root().obj["home"], bucket=bucket)


@contextmanager
def opened(bucket: str | None = None) -> Iterator[App]:
    """The application, closed at the end; what it has to say at opening goes to stderr."""
    from dualmem_mcp.app import open_app  # noqa: PLC0415  (--help and --version need none of it)

    with open_app(settings_of_call(bucket)) as app:
        for notice in app.notices:
            click.echo(f"note: {notice}", err=True)
        yield app


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Where a person watches: what a long command is doing, in a line on stderr that goes away at its end."""
    if not sys.stderr.isatty():
        from dualmem_mcp.ports import no_progress  # noqa: PLC0415

        yield no_progress
        return
    from rich.console import Console  # noqa: PLC0415  (takes 0.1 s, which scripts need not wait for)

    with Console(stderr=True).status("opening the data home") as line:
        yield lambda done, total, message: line.update(f"{message} ({done} of {total} done)")


@contextmanager
def shown_bar() -> Iterator[Progress]:
    """Where a person watches: a bar on stderr with what is done of how much, and how long it still takes."""
    if not sys.stderr.isatty():
        from dualmem_mcp.ports import no_progress  # noqa: PLC0415

        yield no_progress
        return
    from rich.console import Console  # noqa: PLC0415  (takes 0.1 s, which scripts need not wait for)
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("opening the data home", total=None)
        stage = ""

        def progress(done: int, total: int, message: str) -> None:
            nonlocal stage
            # What stands after a comma may change from step to step.
            if (now := message.partition(",")[0]) != stage:
                stage = now
                bar.reset(task, description=message)  # a new stage, with a speed of its own
            bar.update(task, completed=done, total=total, description=message)

        yield progress


def print_json(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Lone surrogates, as in names of folders, have no UTF-8, and much else is not in Windows' code pages;
        # JSON has an escape for all of it.
        text = json.dumps(document, indent=2)
    click.echo(text)


def warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def size_text(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000 or unit == "MB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
