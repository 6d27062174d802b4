"""Commands on the memory: import, export."""

from __future__ import annotations

from pathlib import Path

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, warn


@cli.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["auto", "graph"]), default="auto", show_default=True)
@json_option
def import_file(file: Path, form: str, as_json: bool) -> None:  # noqa: ARG001  (one form so far)
    """Add a memory file of the reference server, in any of its forms, to the graph."""
    with opened() as app:
        counts = app.import_file(file)
    warn(counts["warnings"])
    if as_json:
        print_json(counts)
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
    with opened() as app:
        written = app.export_file(file)
    if as_json:
        print_json(written)
        return
    click.echo(f"Wrote {written['entities']:,} entities and {written['relations']:,} relations in clear to {file}.")
