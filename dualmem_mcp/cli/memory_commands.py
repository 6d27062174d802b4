"""Commands on the memory: import, export."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, shown_bar, warn
from dualmem_mcp.model.source import ImportFormat


@cli.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(get_args(ImportFormat)), default="auto", show_default=True)
@json_option
def import_file(file: Path, form: ImportFormat, as_json: bool) -> None:
    """Add a memory file of the reference server, in any of its forms, or a file of turns."""
    with shown_bar() as progress, opened() as app:
        counts = app.import_file(file, form, progress)
    warn(counts["warnings"])
    if as_json:
        print_json(counts)
        return
    what = (
        f"{counts['turns']:,} turns"
        if counts["form"] == "turns"
        else f"{counts['entities']:,} entities, {counts['observations']:,} observations and "
        f"{counts['relations']:,} relations"
    )
    click.echo(f"Imported {what}; skipped {counts['skipped']:,}.")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def export(file: Path, as_json: bool) -> None:
    """Write the memory graph in clear to FILE, in the reference server's form."""
    with opened() as app:
        written = app.export_file(file)
    if as_json:
        print_json(written)
        return
    click.echo(f"Wrote {written['entities']:,} entities and {written['relations']:,} relations in clear to {file}.")
