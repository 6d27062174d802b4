"""What has opened once is remembered for its own point, its own bytes and its own keys alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualmem_mcp.crypto.vector_payload import VectorPayload, seal_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.ports.tiers import TierHit
from dualmem_mcp.tiers import opening
from dualmem_mcp.tiers.opening import Openings

D = 4
OWN = VectorKeys(bytes(32), VaultId("0a" * 16), 1 << 32)
OTHER = VectorKeys(bytes(32), VaultId("0b" * 16), 1 << 32)


def hit(number: int, text: str = "text", keys: VectorKeys = OWN, length: int = D) -> TierHit:
    item = SearchItem(f"note/{number}", "note", text)
    payload = VectorPayload(item, 0, "m", 2 * np.ones(length, np.float32))
    return TierHit(keys.point_id(item.key, 0), seal_payload(keys, payload))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the points whose payloads were opened."""
    seen: list[str] = []
    real = opening.open_payload

    def noting(keys: VectorKeys, point: str, sealed: bytes) -> VectorPayload:
        seen.append(point)
        return real(keys, point, sealed)

    monkeypatch.setattr(opening, "open_payload", noting)
    return seen


def texts(openings: Openings, hits: list[TierHit], keys: VectorKeys = OWN, dimensions: int = D) -> list[str]:
    return [candidate.item.text for candidate in openings.opened(keys, hits, dimensions)[0]]


def test_what_has_opened_is_not_opened_again(times: list[str]) -> None:
    openings = Openings()
    assert texts(openings, [hit(1), hit(2)]) == ["text", "text"]
    assert texts(openings, [hit(2), hit(1), hit(3)]) == ["text"] * 3
    assert times == [hit(number).id for number in (1, 2, 3)]


def test_changed_bytes_and_other_points_and_keys_are_opened_for_themselves(times: list[str]) -> None:
    openings = Openings()
    first = hit(1)
    assert texts(openings, [first]) == ["text"]
    assert texts(openings, [hit(1, "changed")]) == ["changed"]
    for other in (replace(first, id=hit(2).id), replace(first, payload=first.payload[:-1] + b"x")):
        assert openings.opened(OWN, [other], D) == ([], 1)
    assert openings.opened(OTHER, [first], D) == ([], 1)
    assert texts(openings, [first]) == ["text"]
    assert len(times) == 5


def test_what_does_not_open_is_not_remembered_as_if_it_had(times: list[str]) -> None:
    openings = Openings()
    bad = replace(hit(1), payload=b"\1" * 3000)
    assert [openings.opened(OWN, [bad], D) for _ in range(2)] == [([], 1), ([], 1)]


def test_a_vector_of_another_length_is_passed_over_whenever_it_was_opened() -> None:
    openings = Openings()
    assert texts(openings, [hit(1)]) == ["text"]
    assert openings.opened(OWN, [hit(1)], D + 1) == ([], 1)
    (candidate,), _ = openings.opened(OWN, [hit(1)], D)
    assert np.linalg.norm(candidate.vector) == pytest.approx(1)


def test_no_more_are_kept_than_there_is_room_for(times: list[str]) -> None:
    openings = Openings(most=2)
    for number in (1, 2, 1, 3, 1, 2):
        texts(openings, [hit(number)])
    assert times == [hit(number).id for number in (1, 2, 3, 2)]
