"""What a request's body and headers together say of its version."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.shared.inbound import InboundLadderRejection, InboundModernRoute
from starlette.datastructures import Headers

from dualmem_mcp.remote.versions import modern_route
from tests.remote.mcp_host import META, MODERN, modern, request

CALL = modern("tools/call", {"name": "read_graph"})


def headers(**named: str) -> Headers:
    return Headers(raw=[(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()])


def test_blanks_around_a_header_do_not_count() -> None:
    given = headers(mcp_protocol_version=MODERN, mcp_method=" tools/call", mcp_name="\tread_graph  ")
    assert isinstance(modern_route(given, CALL), InboundModernRoute)


def test_a_header_given_twice_is_refused() -> None:
    raw = [(b"mcp-protocol-version", b"2025-11-25"), (b"mcp-method", b"tools/call"), (b"mcp-method", b"ping")]
    route = modern_route(Headers(raw=raw), CALL)
    assert isinstance(route, InboundLadderRejection)
    assert route.code == -32020


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"io.modelcontextprotocol/protocolVersion": None},
        {"io.modelcontextprotocol/protocolVersion": "2025-06-18"},
        {"progressToken": 1},
        [],
        "2026-07-28",
        None,
    ],
)
def test_a_body_that_does_not_say_2026_is_of_the_older_versions(meta: Any) -> None:
    assert modern_route(headers(), request("tools/list", {"_meta": meta})) is None


@pytest.mark.parametrize("version", [7, [], {}, "", "2026-07-29"])
def test_a_version_that_there_is_not_is_refused(version: Any) -> None:
    body = request("tools/list", {"_meta": {**META, "io.modelcontextprotocol/protocolVersion": version}})
    for given in (headers(), headers(mcp_protocol_version="2025-11-25"), headers(mcp_protocol_version=MODERN)):
        assert isinstance(modern_route(given, body), InboundLadderRejection)


def test_a_name_that_no_header_can_hold_is_compared_as_it_would_be_sent() -> None:
    call = modern("tools/call", {"name": "naïve ☃"})
    assert isinstance(modern_route(headers(), call), InboundModernRoute)
