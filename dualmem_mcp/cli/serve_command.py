"""The command that runs the MCP server: for a program on this machine, or over the network."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dualmem_mcp.cli.frame import cli
from dualmem_mcp.errors import UsageError

if TYPE_CHECKING:
    from dualmem_mcp.config_file import RemoteSettings
    from dualmem_mcp.remote.options import RemoteOptions

_DEFAULT_PORT = 8787


@cli.command()
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse"]),
    default="stdio",
    show_default=True,
    help="stdio for a program that starts the server itself; http and sse are one server, with /mcp and /sse.",
)
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help=f"The port to listen on.  [default: {_DEFAULT_PORT}]")
@click.option("--public-url", help="https://… as clients call it; http://localhost:PORT unless given.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM file, where no proxy brings TLS.")
@click.option("--key", type=click.Path(path_type=Path), help="The certificate's key.")
@click.option(
    "--profile",
    type=click.Choice(["ios", "android", "pwa", "desktop"]),
    help="The device of remote clients that name none; Claude Code's is desktop.  [default: ios]",
)
@click.option("--users", type=click.Path(path_type=Path), help="Serve the users of that folder (`dualmem users`).")
def serve(transport: str, users: Path | None, **given: Any) -> None:
    """Run the MCP server; with --transport http, for Claude on the web and on the phone."""
    home: Path | None = click.get_current_context().find_root().obj["home"]
    if transport == "stdio":
        _serve_stdio(home, {"users": users, **given})
    else:
        _serve_http(home, users, given)


def _serve_stdio(home: Path | None, given: dict[str, Any]) -> None:
    if named := [name for name, value in given.items() if value is not None]:
        raise UsageError(
            f"--{named[0].replace('_', '-')} is of no use with --transport stdio",
            operation="serve",
            hint="Add --transport http to serve over the network.",
        )
    from dualmem_mcp.server import serve as server  # noqa: PLC0415  (the SDK takes a second to import)

    server.main(home)


def _serve_http(home: Path | None, users: Path | None, given: dict[str, Any]) -> None:
    from dualmem_mcp.config_file import RemoteSettings  # noqa: PLC0415
    from dualmem_mcp.remote.host import hosted  # noqa: PLC0415  (the SDK takes a second to import)
    from dualmem_mcp.remote.run import addresses, run  # noqa: PLC0415
    from dualmem_mcp.server.faults import log_to_stderr  # noqa: PLC0415
    from dualmem_mcp.settings import load_settings  # noqa: PLC0415

    log_to_stderr()
    settings = load_settings(users if users is not None else home)
    options = remote_options(RemoteSettings(**given), settings.remote)

    def tell(port: int) -> None:
        for line in addresses(options, port):
            click.echo(f"dualmem: {line}", err=True)

    stopped_by = run(options, lambda: hosted(options, settings, users), tell)
    signal.raise_signal(stopped_by)


def remote_options(call: RemoteSettings, settings: RemoteSettings) -> RemoteOptions:
    """The options of a call, and of the settings where the call says nothing. Raises UsageError."""
    from dualmem_mcp.remote.options import RemoteOptions, public_url  # noqa: PLC0415

    port = next(each for each in (call.port, settings.port, _DEFAULT_PORT) if each is not None)
    url = call.public_url or settings.public_url
    if url is None and not port:
        raise UsageError(
            "no client could know which port is meant",
            operation="serve",
            hint="Give a --port above 0, or the --public-url of the proxy that will know it.",
        )
    # A certificate and its key belong together: not one of the call, and the other of the settings.
    own = call if call.certificate is not None or call.key is not None else settings
    return RemoteOptions(
        public_url(url or f"http://localhost:{port}"),
        host=call.host or settings.host or "127.0.0.1",
        port=port,
        certificate=own.certificate,
        key=own.key,
        extra_redirects=settings.redirects,
        extra_hosts=settings.hosts,
        extra_origins=settings.origins,
        profile=call.profile or settings.profile or "ios",
    )
