"""The package manifest and the handoff record: what is written is read, and nothing else is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.manifest import (
    CarriedFile,
    PackageManifest,
    Part,
    PatchedSection,
    ThreadFile,
    manifest_from_json,
    manifest_to_json,
    record_from_json,
    record_to_json,
)
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId

HANDOFF = HandoffId("ab" * 16)
MANIFEST = PackageManifest(
    handoff_id=HANDOFF,
    conversation_id=ConversationId("0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"),
    created_at=datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC),
    device_id=DeviceId("cd" * 16),
    device_name="työpöytä \ud800",
    base=None,
    stream_size=7,
    chunk_size=4,
    sources={HANDOFF: f"packages/{HANDOFF}"},
    thread=(ThreadFile("s.jsonl", 7, "00", (Part(HANDOFF, 0, 7, 7),)),),
    files=(CarriedFile("protected", "a/b.json", 3, "11", 0, 0),),
    facts={"title": "t", "message_count": 3},
)
RECORD = HandoffRecord(
    handoff_id=HANDOFF,
    conversation_id=MANIFEST.conversation_id,
    title="Tïtle",
    cwd="/x",
    created_at=MANIFEST.created_at,
    device_id=MANIFEST.device_id,
    device_name="desk",
    base=HandoffId("ef" * 16),
    package_key=f"packages/{HANDOFF}",
    package_bytes=10,
    manifest_key="manifests/a/b",
    message_count=3,
    visible_tokens=100,
    digest_tokens=5,
    last_turn_uuid="u",
)


PATCHED = replace(
    MANIFEST,
    thread=(ThreadFile("s.jsonl", 900, "00", (Part(HANDOFF, 0, 7, 7), Part(HANDOFF, 7, 893, 20, patched=True))),),
    patched=(PatchedSection("digest", HandoffId("ef" * 16), 5_000, 90, "22"),),
    bundled=(("patches", 90), ("thread/00000", 27)),
)


@pytest.mark.parametrize(
    ("manifest", "format"), [(MANIFEST, 1), (PATCHED, 3), (replace(MANIFEST, base=HandoffId("ef" * 16)), 3)]
)
def test_the_manifest_comes_back(manifest: PackageManifest, format: int) -> None:  # noqa: A002
    assert manifest_from_json(manifest_to_json(manifest)) == manifest
    assert json.loads(manifest_to_json(manifest))["format"] == manifest.format == format


def test_the_record_comes_back_with_the_key_it_was_found_at() -> None:
    assert record_from_json(record_to_json(RECORD), manifest_key="manifests/a/b") == RECORD


def test_unknown_members_are_ignored() -> None:
    document = json.loads(record_to_json(RECORD))
    document["later"] = {"x": 1}
    assert record_from_json(json.dumps(document).encode(), manifest_key="manifests/a/b") == RECORD


@pytest.mark.parametrize("name", sorted(json.loads(record_to_json(RECORD)).keys() - {"base"}))
@pytest.mark.parametrize("value", [None, [], {}, -1, 1.5, 2**60, True])
def test_a_record_with_a_member_of_another_type_is_refused(name: str, value: object) -> None:
    document = json.loads(record_to_json(RECORD))
    document[name] = value
    with pytest.raises(TamperedError):
        record_from_json(json.dumps(document).encode(), manifest_key="k")


@pytest.mark.parametrize("hostile", ["../../x", "", "/etc/passwd", "a/b", "x" * 200, "a\x00"])
def test_a_conversation_id_that_could_be_a_path_is_refused(hostile: str) -> None:
    document = json.loads(record_to_json(RECORD))
    document["conversation_id"] = hostile
    with pytest.raises(TamperedError):
        record_from_json(json.dumps(document).encode(), manifest_key="k")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b'{"format": 4}', b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(TamperedError):
        manifest_from_json(data)
    with pytest.raises(TamperedError):
        record_from_json(data, manifest_key="k")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(manifest_to_json(PATCHED)))), json_values))
def test_no_manifest_raises_anything_but_tampered(changes: dict[str, object]) -> None:
    document = json.loads(manifest_to_json(PATCHED)) | changes
    try:
        read = manifest_from_json(json.dumps(document).encode())
    except TamperedError:
        return
    # What is taken is what was stated, and can be written and read again.
    assert manifest_from_json(manifest_to_json(read)) == read
    keys = json.loads(manifest_to_json(read)).keys()
    assert keys - {"patched", "bundled"} == json.loads(manifest_to_json(MANIFEST)).keys()
