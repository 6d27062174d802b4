"""The command that runs the MCP server."""

from __future__ import annotations

import click

from dualmem_mcp.cli.frame import cli


@cli.command()
@click.option("--transport", type=click.Choice(["stdio"]), default="stdio", show_default=True)
def serve(transport: str) -> None:  # noqa: ARG001  (one transport so far, named so that scripts stay valid)
    """Run the MCP server (the same as `dualmem-mcp`)."""
    from dualmem_mcp.server import serve as server  # noqa: PLC0415  (the SDK takes a second to import)

    server.main(click.get_current_context().find_root().obj["home"])
