"""Small sections behind the manifest: what was put there comes back, and nothing that is not stated so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.envelope import Section
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.bundle import MAX_BUNDLE_BYTES, bundle_sections, open_bundle
from dualmem_mcp.handoff.manifest import manifest_to_json
from tests.handoff.test_manifest import MANIFEST

names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8).filter(
    lambda name: name != "manifest"
)


@given(st.dictionaries(names, st.binary(max_size=40), max_size=6), st.integers(-400, 400))
def test_all_sections_come_back_whatever_fits(small: dict[str, bytes], over: int) -> None:
    """One section is about as long as there is room for."""
    large = bytes(MAX_BUNDLE_BYTES - len(manifest_to_json(MANIFEST)) - sum(map(len, small.values())) + over)
    sections = [*(Section(name, data) for name, data in small.items()), Section("large 1", large)]
    first, *others = bundle_sections(MANIFEST, sections)
    manifest, bundled = open_bundle(first.data)
    assert first.name == "manifest"
    assert replace(manifest, bundled=()) == MANIFEST
    assert dict(manifest.bundled) == {name: len(data) for name, data in bundled.items()}
    assert {**bundled, **{one.name: one.data for one in others}} == {one.name: one.data for one in sections}
    assert ("large 1" in bundled) == (over <= 0)
    # Its own statement of the names is all that comes on top of the limit.
    assert len(first.data) <= MAX_BUNDLE_BYTES + 60 * (len(small) + 2)


def test_order_is_kept_and_what_does_not_fit_makes_no_room_for_nothing() -> None:
    large = bytes(MAX_BUNDLE_BYTES)
    sections = [Section("a", b"1"), Section("b", large), Section("c", b"3"), Section("d", large)]
    first, *others = bundle_sections(MANIFEST, sections)
    assert list(open_bundle(first.data)[1].items()) == [("a", b"1"), ("c", b"3")]
    assert [one.name for one in others] == ["b", "d"]


def test_a_manifest_alone_is_its_json() -> None:
    (only,) = bundle_sections(MANIFEST, [])
    assert only.data == manifest_to_json(MANIFEST)
    assert open_bundle(only.data) == (MANIFEST, {})


def test_a_text_with_line_feeds_does_not_end_the_manifest() -> None:
    manifest = replace(MANIFEST, device_name="one\ntwo\r\u2028three", facts={"title": "\n\n"})
    (first,) = bundle_sections(manifest, [Section("a", b"\n1\n")])
    read, bundled = open_bundle(first.data)
    assert (replace(read, bundled=()), bundled) == (manifest, {"a": b"\n1\n"})


@pytest.mark.parametrize(
    ("stated", "tail"),
    [
        ([["a", 3]], b"12"),
        ([["a", 3]], b"1234"),
        ([["a", 2**49]], b"123"),
        ([["a", 1], ["b", 2**49], ["c", 1]], b"123"),
        ([["a", 1], ["a", 1]], b"12"),
        ([["manifest", 2]], b"12"),
        ([["a", -1]], b""),
        ([["a", "1"]], b"1"),
        ([["a"]], b"1"),
        (["ab"], b"1"),
        ([3], b"1"),
        (3, b""),
        ([], b"1"),
    ],
)
def test_what_is_stated_wrongly_is_tampering(stated: object, tail: bytes) -> None:
    document = json.loads(manifest_to_json(MANIFEST)) | {"bundled": stated}
    with pytest.raises(TamperedError):
        open_bundle(json.dumps(document).encode() + b"\n" + tail)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_tampered(data: bytes) -> None:
    for one in (data, manifest_to_json(MANIFEST) + data):
        try:
            manifest, bundled = open_bundle(one)
        except TamperedError:
            continue
        assert (manifest, bundled) == (MANIFEST, {})
