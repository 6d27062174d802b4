"""Which era of the protocol a message is of, by what its body says before what its headers say.

Claude's connectors send no `MCP-Protocol-Version` after `initialize`, or the header of an older version with a body
of 2026-07-28. Neither leaves a doubt of what is meant, so both are answered; what contradicts itself otherwise is
refused as the specification of 2026-07-28 demands.
"""

from __future__ import annotations

from typing import Final

from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    InboundLadderRejection,
    InboundModernRoute,
    classify_inbound_request,
    encode_header_value,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
)
from mcp_types import HEADER_MISMATCH, PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.datastructures import Headers

from dualmem_mcp.remote.wire import Json, meta_of

# Source: the specification of 2025-06-18 took batches back; 2024-11-05 has them as a part of JSON-RPC.
BATCH_VERSIONS: Final = frozenset({"2024-11-05", "2025-03-26"})


def modern_route(headers: Headers, message: Json) -> InboundModernRoute | InboundLadderRejection | None:
    """How a request is to be served without a handshake, or why not; None if it is of a version that has one."""
    header = headers.get(MCP_PROTOCOL_VERSION_HEADER)
    claimed = claimed_version(message)
    older_header = header is None or header in HANDSHAKE_PROTOCOL_VERSIONS
    if claimed in HANDSHAKE_PROTOCOL_VERSIONS or (claimed is None and older_header):
        return None
    if claimed is None and (unsupported := unsupported_protocol_version_rejection(header or "")) is not None:
        return unsupported
    if (twice := find_duplicated_routing_header(headers.items())) is not None:
        return InboundLadderRejection(HEADER_MISMATCH, f"{twice} header appears more than once")
    told = {name: value.strip() for name, value in headers.items()}  # some servers leave the blanks at the end
    if claimed in MODERN_PROTOCOL_VERSIONS and older_header:
        told = {**_mirrored(message), **told, MCP_PROTOCOL_VERSION_HEADER: str(claimed)}
    return classify_inbound_request(message, headers=told)


def is_modern_handshake(headers: Headers, message: Json) -> bool:
    """Whether an `initialize` is one of the newer era throughout, which has none."""
    versions = (headers.get(MCP_PROTOCOL_VERSION_HEADER), claimed_version(message))
    return all(version in MODERN_PROTOCOL_VERSIONS for version in versions)


def claimed_version(message: Json) -> object:
    """The protocol version that the body names, if it does."""
    return meta_of(message.get("params")).get(PROTOCOL_VERSION_META_KEY)


def refused_version(headers: Headers) -> InboundLadderRejection | None:
    """Why a message of the version in its header is not served; None if it is."""
    header = headers.get(MCP_PROTOCOL_VERSION_HEADER)
    if header is None or header in HANDSHAKE_PROTOCOL_VERSIONS:
        return None
    return unsupported_protocol_version_rejection(header)


def _mirrored(message: Json) -> dict[str, str]:
    """The headers that a message should have beside its version."""
    method = message["method"]
    mirrored = {MCP_METHOD_HEADER: method}
    name = (message.get("params") or {}).get(NAME_BEARING_METHODS.get(method))
    if isinstance(name, str):
        mirrored[MCP_NAME_HEADER] = encode_header_value(name)
    return mirrored
