"""The command line: `dualmem COMMAND`.

Every command validates, calls the application, and shows the answer: for people by default, with `--json`
as one JSON document with the fields of the tool of that name. Exit codes are those of `errors.py`.
"""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dualmem_mcp import __version__
from dualmem_mcp.errors import LockedError, UsageError
from dualmem_mcp.exit_status import exit_after

if TYPE_CHECKING:
    from dualmem_mcp.app import App
    from dualmem_mcp.ports import Progress
    from dualmem_mcp.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

WEAK_PASSPHRASE_CHARACTERS = 15
"""Shorter passphrases get a warning: whoever holds the bucket can guess at leisure. Source: NIST
SP 800-63B-4, 3.1.1.2, the least length of a password that stands alone."""


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


def _settings(bucket: str | None = None) -> Settings:
    from dualmem_mcp.settings import load_settings  # noqa: PLC0415  (pydantic-settings takes 0.2 s to import)

    return load_settings(click.get_current_context().find_root().obj["home"], bucket=bucket)


@contextmanager
def _opened(bucket: str | None = None) -> Iterator[App]:
    """The application, closed at the end; what it has to say at opening goes to stderr."""
    from dualmem_mcp.app import open_app  # noqa: PLC0415  (--help and --version need none of it)

    with open_app(_settings(bucket)) as app:
        for notice in app.notices:
            click.echo(f"note: {notice}", err=True)
        yield app


@contextmanager
def _shown_progress() -> Iterator[Progress]:
    """Where a person watches: what a long command is doing, in a line on stderr that goes away at its end."""
    if not sys.stderr.isatty():
        from dualmem_mcp.ports import no_progress  # noqa: PLC0415

        yield no_progress
        return
    from rich.console import Console  # noqa: PLC0415  (takes 0.1 s, which scripts need not wait for)

    with Console(stderr=True).status("opening the data home") as line:
        yield lambda done, total, message: line.update(f"{message} ({done} of {total} done)")


def _print_json(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Lone surrogates, as in names of folders, have no UTF-8, and much else is not in Windows' code pages;
        # JSON has an escape for all of it.
        text = json.dumps(document, indent=2)
    click.echo(text)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000 or unit == "MB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _new_passphrase(settings: Settings) -> str:
    passphrase = settings.read_passphrase()
    if passphrase is None:
        if not sys.stdin.isatty():
            raise _no_passphrase()
        prompt = "Passphrase for the new vault"
        passphrase = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True))
    if not passphrase:
        raise UsageError("the passphrase is empty", operation="init", hint="Take four or five random words.")
    if len(passphrase) < WEAK_PASSPHRASE_CHARACTERS:
        _warn(
            ["a short passphrase: whoever holds the bucket can guess at leisure; four or five random words resist"]
        )
    return passphrase


def _known_secret(settings: Settings) -> str:
    secret = settings.read_passphrase()
    if secret is None:
        if not sys.stdin.isatty():
            raise _no_passphrase()
        secret = click.prompt("The vault's passphrase or recovery key", hide_input=True, err=True)
    return str(secret)


def _no_passphrase() -> LockedError:
    return LockedError(
        "no passphrase was given, and there is no terminal to ask for one",
        operation="read passphrase",
        hint="Set DUALMEM_PASSPHRASE_FILE to a file that holds it (or DUALMEM_PASSPHRASE), or run in a terminal.",
    )


@cli.command()
@click.option("--bucket", help="s3://bucket/prefix or a folder; default: a folder beside the data home.")
@click.option("--device-name", default="", help="What this device is called on the others.")
@json_option
def init(bucket: str | None, device_name: str, as_json: bool) -> None:
    """Make a vault: your keys and your storage."""
    settings = _settings(bucket)
    passphrase = _new_passphrase(settings)
    with _opened(bucket) as app:
        made = app.init(passphrase, device_name=device_name)
    _warn(made.pop("warnings"))
    if as_json:
        _print_json(made)
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
    settings = _settings(bucket)
    secret = _known_secret(settings)
    with _opened(bucket) as app:
        joined = app.join(secret, device_name=device_name)
    if as_json:
        _print_json(joined)
        return
    click.echo(f"This device ({joined['device_id']}) is now one of vault {joined['vault_id']}.")
    click.echo("`dualmem resume` takes up the newest conversation that was handed over.")


@cli.command()
@click.argument("conversation_id", required=False)
@click.option("--transcript", type=click.Path(path_type=Path), help="A session file to hand over.")
@click.option("--device", help="The profile to make ready for: ios, android, pwa, desktop.")
@click.option("--summary-file", type=click.Path(path_type=Path), help="Your own summary, as text.")
@json_option
def handoff(
    conversation_id: str | None,
    transcript: Path | None,
    device: str | None,
    summary_file: Path | None,
    as_json: bool,
) -> None:
    """Hand over a Claude Code conversation (default: the current or newest one)."""
    summary = _read_text(summary_file) if summary_file else ""
    with _shown_progress() as progress, _opened() as app:
        report = app.prepare_handoff(
            conversation_id, target_device=device, summary=summary, transcript=transcript, progress=progress
        )
    _warn(report["warnings"])
    if as_json:
        _print_json(report)
        return
    click.echo(f"{'Queued' if report['queued'] else 'Handed over'}: {report['title']}")
    click.echo(f"  conversation  {report['conversation_id']}")
    click.echo(f"  messages      {report['message_count']:,}")
    click.echo(
        f"  digest        {report['digest_tokens']:,} of {report['visible_tokens']:,} tokens "
        f"({report['reduction']:.1%} less)"
    )
    click.echo(
        f"  package       {_size(report['package_bytes'])} for {_size(report['transcript_bytes'])} of session files"
    )
    click.echo(f"  time          {report['duration_ms'] / 1000:.2f} s")
    click.echo("Go on elsewhere with `dualmem resume`, or ask Claude there to resume the conversation.")


@cli.command()
@click.argument("conversation_id", required=False)
@click.option("--device", help="The profile to fit the brief to: ios, android, pwa, desktop.")
@click.option("--budget", type=click.IntRange(min=1), help="Tokens that the brief may take.")
@json_option
def resume(conversation_id: str | None, device: str | None, budget: int | None, as_json: bool) -> None:
    """Show the brief of a handed-over conversation (default: the newest)."""
    with _shown_progress() as progress, _opened() as app:
        brief = app.resume_conversation(conversation_id, device=device, token_budget=budget, progress=progress)
    _warn(brief["warnings"])
    if as_json:
        _print_json(brief)
        return
    click.echo(brief["brief"].encode("utf-8", "replace").decode("utf-8"))


@cli.command()
@click.argument("conversation_id")
@click.option("--section", required=True, help="A section that the brief names, or thread, state, agents/ID.")
@click.option("--cursor", default="", help="Where to go on, as the last page said.")
@json_option
def show(conversation_id: str, section: str, cursor: str, as_json: bool) -> None:
    """Show one section of a handed-over conversation."""
    with _opened() as app:
        page = app.load_context(conversation_id, section, cursor)
    if as_json:
        _print_json(page)
        return
    click.echo(page["text"].encode("utf-8", "replace").decode("utf-8"))
    if page["next_cursor"]:
        again = f"dualmem show {conversation_id} --section {section} --cursor {page['next_cursor']}"
        click.echo(f"more: {again}", err=True)


@cli.command()
@click.argument("conversation_id")
@click.option("--claude-dir", type=click.Path(path_type=Path), help="Claude Code's configuration folder.")
@click.option("--cwd", help="The project's folder on this machine.")
@json_option
def restore(conversation_id: str, claude_dir: Path | None, cwd: str | None, as_json: bool) -> None:
    """Write a handed-over conversation as a session that `claude --resume` opens."""
    with _opened() as app:
        restored = app.restore(conversation_id, claude_dir=claude_dir, cwd=cwd)
    _warn(restored.pop("warnings"))
    if as_json:
        _print_json(restored)
        return
    click.echo(f"Restored {restored['records']:,} records to {restored['session_path']}")
    click.echo(f"Open it in its project's folder with: claude --resume {restored['session_id']}")


@cli.command()
@click.option("--query", default="", help="Only those whose title, folder or id holds this.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--cursor", default="", help="Where to go on, as the last page said.")
@json_option
def conversations(query: str, limit: int, cursor: str, as_json: bool) -> None:
    """List the conversations that were handed over, here or on other devices, newest first."""
    with _opened() as app:
        listed = app.list_conversations(query=query, limit=limit, cursor=cursor)
    _warn(listed.pop("warnings", []))
    if as_json:
        _print_json(listed)
        return
    if not listed["conversations"]:
        click.echo("No conversation has been handed over yet. `dualmem handoff` does that.")
    for row in listed["conversations"]:
        click.echo(f"{row['conversation_id']}  {row['updated_at'][:16]}  {row['message_count']:>6,} messages")
        click.echo(f"    {row['title'] or '(no title)'}  [{row['device_name'] or 'this device'}]")
    if listed["next_cursor"]:
        click.echo(f"more: dualmem conversations --cursor {listed['next_cursor']}", err=True)


@cli.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["auto", "graph"]), default="auto", show_default=True)
@json_option
def import_file(file: Path, form: str, as_json: bool) -> None:  # noqa: ARG001  (one form so far)
    """Add a memory file of the reference server, in any of its forms, to the graph."""
    with _opened() as app:
        counts = app.import_file(file)
    _warn(counts["warnings"])
    if as_json:
        _print_json(counts)
        return
    click.echo(
        f"Imported {counts['entities']:,} entities, {counts['observations']:,} observations and "
        f"{counts['relations']:,} relations; skipped {counts['skipped']:,}."
    )


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def export(file: Path, as_json: bool) -> None:
    """Write the memory graph in clear to FILE, in the reference server's form."""
    with _opened() as app:
        written = app.export_file(file)
    if as_json:
        _print_json(written)
        return
    click.echo(f"Wrote {written['entities']:,} entities and {written['relations']:,} relations in clear to {file}.")


@cli.command()
@json_option
def status(as_json: bool) -> None:
    """Show the vault, the device, and what is stored here."""
    with _opened() as app:
        facts = app.status()
    _show_facts(facts, as_json)


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this installation and say what to mend."""
    from dualmem_mcp.doctor import examine  # noqa: PLC0415  (only this command needs it)

    with _opened() as app:
        checks = examine(app)
    if as_json:
        _print_json({"checks": checks})
    else:
        for check in checks:
            click.echo(f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['detail']}")
            if check["hint"]:
                click.echo(f"      {check['hint']}")
    if not all(check["ok"] for check in checks):
        click.get_current_context().exit(1)


@cli.command()
@click.option("--transport", type=click.Choice(["stdio"]), default="stdio", show_default=True)
def serve(transport: str) -> None:  # noqa: ARG001  (one transport so far, named so that scripts stay valid)
    """Run the MCP server (the same as `dualmem-mcp`)."""
    from dualmem_mcp.server import serve as server  # noqa: PLC0415  (the SDK takes a second to import)

    server.main(click.get_current_context().find_root().obj["home"])


def _show_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    for name, value in facts.items():
        shown = "none" if value is None else "; ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' '):<18} {shown}")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",
            operation="read file",
            subject=str(path),
            hint="Give a text file in UTF-8.",
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code; never shows a traceback unless asked."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # better a question mark in a brief than no brief
    run = functools.partial(cli.main, args=arguments, prog_name="dualmem", standalone_mode=False)
    exit_after(run, debug="--debug" in (sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
