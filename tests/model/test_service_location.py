"""Where a search service may be, and what is shown of it; refusals are tested where settings are read."""

from __future__ import annotations

import pytest

from dualmem_mcp.model.service_location import service_location, shown_location


@pytest.mark.parametrize(
    "text",
    [
        "https://qdrant.example.org",
        "http://localhost:6333",
        "https://[::1]:6333/behind/a/proxy",
        "/var/lib/vectors",
        "~/vectors",
        "./vectors",
        "C:\\vectors",
        ":memory:",
    ],
)
def test_a_location_stays_as_it_is(text: str) -> None:
    assert service_location(text, "DUALMEM_QDRANT_URL") == text


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://qdrant.example.org:6333/?api-key=wombat", "https://qdrant.example.org:6333"),
        ("https://example.org/qdrant/#x", "https://example.org/qdrant"),
        ("https://me:wombat@qdrant.example.org", "https://qdrant.example.org"),
        ("/var/lib/vectors", "/var/lib/vectors"),
        (":memory:", ":memory:"),
    ],
)
def test_of_a_url_people_see_scheme_host_port_and_path(location: str, shown: str) -> None:
    assert shown_location(location) == shown
