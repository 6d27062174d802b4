"""What the MCP conformance suite says of the remote endpoint.

    python benchmarks/conformance.py [--folder DIR] [--only SCENARIO …] [--verbose]

The suite is installed from the npm registry into a folder, with a Node that it wants (22). It knows no login: the
endpoint runs inside this program, in front of which stands a function that adds a token of a client that was never
asked for one. Scenarios that need nothing of their own run on a new, empty data home; the others on the server of
`benchmarks/conformance_fixtures.py`, over the same endpoint and transports. Prints a table of scenarios and
checks, with what a failing one complains of.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance_fixtures import Fixtures
from mcp.shared.exceptions import MCPDeprecationWarning

from dualmem_mcp.app import open_app
from dualmem_mcp.model.grant import ALL_SCOPES, OWNER, Grant
from dualmem_mcp.remote.endpoint import build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.interfaces import CALLER_KEY, Caller
from dualmem_mcp.remote.options import Limits, RemoteOptions
from dualmem_mcp.remote.run import served
from dualmem_mcp.remote.tenant import McpTenant, Transports, transports
from dualmem_mcp.settings import load_settings

NODE = "node@22"
SUITE = "@modelcontextprotocol/conformance"
RELEASED, NEWEST = "0.1.16", "0.2.0-alpha.12"

TOKEN = "dm1.owner.AAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

WITHOUT_FIXTURES = {
    RELEASED: (
        "server-initialize",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "resources-subscribe",
        "resources-unsubscribe",
        "dns-rebinding-protection",
    ),
    NEWEST: (
        "server-initialize",
        "server-session-lifecycle",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
        "caching",
        "http-header-validation",
        "sep-2164-resource-not-found",
    ),
}

WHY = {
    "server-sse-polling": "streams cannot be resumed: no events are kept, and a client that was cut off asks again",
    "tasks": "the extension for tasks is not offered, by the SDK either",
    "sep-2640": "the extension for skills is not offered, by the SDK either",
}


@dataclass(frozen=True)
class Result:
    """What came of a scenario."""

    scenario: str
    passed: int
    failed: int
    warnings: int
    complaints: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where Node and the suite are installed, to be used again")
    parser.add_argument("--only", nargs="*", help="these scenarios alone")
    parser.add_argument("--verbose", action="store_true", help="print all that the suite prints")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # the older versions' scenarios need what has gone since
    with _folder(arguments.folder) as folder:
        asyncio.run(_measure(folder, frozenset(arguments.only or ()), verbose=arguments.verbose))


async def _measure(folder: Path, only: frozenset[str], *, verbose: bool) -> None:
    for version in (RELEASED, NEWEST):
        suite = await asyncio.to_thread(installed, folder, version)
        every = await asyncio.to_thread(scenarios, suite)
        for title, chosen, tenant in (
            ("on an empty data home", WITHOUT_FIXTURES[version], memory(folder / "home")),
            ("with fixtures", every, FixtureTenant()),
        ):
            print(f"\n{SUITE} {version}, {title}\n")
            results = []
            async with endpoint(folder, tenant) as url:
                for scenario in (each for each in chosen if not only or each in only):
                    results.append(await asyncio.to_thread(run, suite, scenario, url, verbose=verbose))
                    print(line(results[-1]), flush=True)
            passed = sum(result.failed == 0 and result.passed > 0 for result in results)
            print(f"\n{passed} of {len(results)} scenarios passed", flush=True)


def line(result: Result) -> str:
    """A row of the table, and below it what failed."""
    told = "FAIL" if result.failed else "pass" if result.passed else "-"
    counted = f"{result.passed:3} passed {result.failed:3} failed {result.warnings:3} warnings"
    row = f"{result.scenario:48} {told:4} {counted}"
    why = next((text for prefix, text in WHY.items() if result.scenario.startswith(prefix)), None)
    if why is not None:
        return f"{row}\n    {why}"
    return "\n    ".join((row, *result.complaints))


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(given / "home", ignore_errors=True)
        yield given.resolve()
    else:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)


@dataclass(frozen=True)
class Suite:
    """An installed suite and the Node that runs it."""

    node: str
    script: Path

    def run(self, *arguments: str, seconds: float = 120.0) -> str:
        """All that it prints."""
        done = subprocess.run(
            [self.node, self.script, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", ""), "NO_COLOR": "1"},
        )
        return done.stdout + done.stderr


def installed(folder: Path, version: str) -> Suite:
    """The suite of that version, installed if it is not there yet."""
    place = folder / version
    script = place / "node_modules" / SUITE / "dist" / "index.js"
    node = place / "node_modules" / "node" / "bin" / "node"
    if not script.exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}')
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit("npm is needed to install the suite")
        # By its architecture's own package: `node` fetches that in a script, which npm may not run.
        architecture = {"x86_64": "x64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
        binary = f"node-{os.uname().sysname.lower()}-{architecture}"
        packages = [f"{SUITE}@{version}", f"{binary}@{NODE.partition('@')[2]}"]
        subprocess.run([npm, "install", "--no-audit", "--no-fund", *packages], cwd=place, check=True)
    if not node.exists():
        node = next((place / "node_modules").glob("node-*/bin/node"))
    return Suite(str(node), script)


def scenarios(suite: Suite) -> list[str]:
    """The names of all scenarios for servers."""
    _, _, listed = suite.run("list").partition("Server scenarios")
    servers, _, _ = listed.partition("Client scenarios")
    return [each.split()[1] for each in servers.splitlines() if each.strip().startswith("- ")]


def run(suite: Suite, scenario: str, url: str, *, verbose: bool) -> Result:
    """What comes of one scenario."""
    with tempfile.TemporaryDirectory() as folder:
        printed = suite.run("server", "--url", url, "--scenario", scenario, "--output-dir", folder)
        if verbose:
            print(printed)
        files = list(Path(folder).rglob("checks.json"))
        checks: list[dict[str, Any]] = json.loads(files[0].read_text()) if files else []
    if not checks:
        return Result(scenario, 0, 1, 0, (printed.strip()[-300:],))
    counted = {
        status: sum(each["status"] == status for each in checks) for status in ("SUCCESS", "FAILURE", "WARNING")
    }
    complaints = tuple(
        f"{each['status'].lower()} {each['id']}: {str(each.get('errorMessage', each['description']))[:220]}"
        for each in checks
        if each["status"] in {"FAILURE", "WARNING"}
    )
    return Result(scenario, counted["SUCCESS"], counted["FAILURE"], counted["WARNING"], complaints)


class FixtureTenant:
    """The transports of a tenant on the fixtures."""

    user = OWNER
    app = None

    def __init__(self) -> None:
        self.ways: Transports

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        fixtures = Fixtures()
        async with transports(
            fixtures.server, fixtures.options(), limits=Limits(), grant_of=_grant, warm_up=_nothing
        ) as self.ways:
            yield

    async def streamable_http(self, scope: Any, receive: Any, send: Any) -> None:
        await self.ways.streamable_http(scope, receive, send)


def memory(home: Path) -> McpTenant:
    """A tenant on a new data home."""
    settings = replace(load_settings(home), keystore="file")
    return McpTenant(OWNER, lambda: open_app(settings), RemoteOptions("http://localhost"))


def _grant(scope: Any) -> Grant:
    grant: Grant = scope[CALLER_KEY].grant
    return grant


async def _nothing() -> None:
    pass


class _Everybody:
    """The one caller, whoever asks."""

    def __init__(self, tenant: Any) -> None:
        self._tenant = tenant
        self._caller = Caller(Grant(OWNER, "suite", "suite", ALL_SCOPES, int(time.time()) + 86_400), b"")

    def caller(self, _token: str) -> Caller:
        return self._caller

    async def tenant(self, _caller: Caller) -> Any:
        return self._tenant


@asynccontextmanager
async def endpoint(folder: Path, tenant: Any) -> AsyncIterator[str]:
    """The URL of that tenant's MCP server behind the endpoint, where every request has a token."""
    options = RemoteOptions("http://localhost", port=0)
    everybody = _Everybody(tenant)
    real = build_endpoint(options, callers=everybody, tenants=everybody, readiness=Readiness(folder))

    class LetIn:
        """The endpoint, for clients without a login; their names of this machine count without the port."""

        streams = real.streams
        stop = real.stop

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                headers = [
                    (name, without_port(value) if name in {b"host", b"origin"} else value)
                    for name, value in scope["headers"]
                ]
                scope = {**scope, "headers": [*headers, (b"authorization", f"Bearer {TOKEN}".encode())]}
            await real(scope, receive, send)

    async with tenant.running(), served(options, LetIn()) as serving:  # type: ignore[arg-type]
        port = f":{serving.port}".encode()

        def without_port(value: bytes) -> bytes:
            return value.removesuffix(port)

        yield f"http://localhost:{serving.port}/mcp"


if __name__ == "__main__":
    main()
