"""Sealed objects: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import dataclasses
import os
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.crypto.envelope import (
    Algorithm,
    ObjectKind,
    Place,
    SealedReader,
    Section,
    UnopenedObject,
    bytes_reader,
    seal_object,
)
from dualmem_mcp.crypto.header import HEADER_BYTES
from dualmem_mcp.errors import NewerFormatError, NotFoundError, TamperedError, UsageError
from dualmem_mcp.model.ids import DeviceId, VaultId
from tests.crypto.spec import Envelope, Part

KEY = bytes(range(32))
PLACE = Place(VaultId("a1" * 16), ObjectKind.PACKAGE, "packages/" + "0f" * 16, DeviceId("b2" * 16))
CANARY = b"the canary sings in the mine "


def seal(*sections: Section, place: Place = PLACE, key: bytes = KEY) -> bytes:
    return seal_object(sections, place=place, key_id="epoch", key_epoch=7, wrapping_key=key)


def unseal(data: bytes, place: Place = PLACE, *, key: bytes = KEY, head_bytes: int = 65536) -> dict[str, bytes]:
    reader = SealedReader.open(bytes_reader(data), place_of=place, unwrap=lambda _: key, head_bytes=head_bytes)
    return {name: reader.read_section(name) for name in reader.names}


SMALL = seal(Section("note", CANARY * 4))

NAMES = st.text(
    st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="\u2028\u00a0"), min_size=1, max_size=30
)
SECTIONS = st.lists(
    st.builds(
        Section,
        name=NAMES.filter(str.isprintable),
        data=st.one_of(st.binary(max_size=9000), st.binary(max_size=40).map(lambda data: data * 500)),
        algorithm=st.sampled_from(Algorithm),
        compress=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda section: section.name,
)


@given(SECTIONS, st.integers(0, 20_000))
def test_round_trip(sections, head_bytes):
    data = seal(*sections)
    assert unseal(data, head_bytes=head_bytes) == {section.name: section.data for section in sections}


@given(SECTIONS)
@settings(max_examples=30)
def test_the_format_is_as_written_down(sections):
    """What a writer made from docs/format.md seals, our reader opens, to the same hash."""
    written = Envelope(
        kind=1,
        vault_id=bytes.fromhex(PLACE.vault_id),
        device_id=bytes.fromhex(PLACE.device_id),
        key=PLACE.key,
        key_id=b"epoch",
        key_epoch=7,
        wrapping_key=KEY,
        parts=[Part(section.name.encode(), section.data, int(section.algorithm)) for section in sections],
        random=os.urandom,
    )
    data = written.seal()
    assert unseal(data) == {section.name: section.data for section in sections}
    reader = SealedReader.open(bytes_reader(data), place_of=PLACE, unwrap=lambda _: KEY)
    assert reader.object_hash == written.object_hash
    assert reader.total_bytes == len(data)


def test_what_a_reader_tells_before_sections_are_read():
    data = seal(
        Section("a", b"x" * 5000), Section("b", os.urandom(5000), Algorithm.CHACHA20_POLY1305, compress=False)
    )
    reader = SealedReader.open(bytes_reader(data), place_of=PLACE, unwrap=lambda _: KEY)
    assert reader.names == ("a", "b")
    assert (reader.entry("a").size, reader.entry("a").sealed_size, reader.entry("a").compressed) == (
        5000,
        4112,
        True,
    )
    assert (reader.entry("b").size, reader.entry("b").algorithm) == (5000, Algorithm.CHACHA20_POLY1305)
    assert not reader.entry("b").compressed
    assert reader.header.key_id == "epoch"
    assert reader.header.key_epoch == 7
    assert reader.header.device_id == PLACE.device_id
    with pytest.raises(NotFoundError, match="no section 'c'"):
        reader.read_section("c")


class Counted:
    """A RangeReader that writes down what it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, length: int) -> bytes:
        self.asked.append((start, length))
        return self.data[start : start + length]


def test_one_read_serves_header_index_and_leading_sections():
    read = Counted(seal(Section("digest", b"d" * 9000), Section("thread", os.urandom(200_000), compress=False)))
    reader = SealedReader.open(read, place_of=PLACE, unwrap=lambda _: KEY)
    reader.read_section("digest")
    assert read.asked == [(0, 65536)]
    assert len(reader.read_section("thread")) == 200_000
    entry = reader.entry("thread")
    assert read.asked[1:] == [(entry.offset, entry.sealed_size + 1)]


def test_a_long_index_takes_one_more_read():
    sections = [Section(f"section-{number:04d}", b"x") for number in range(2000)]
    read = Counted(seal(*sections))
    reader = SealedReader.open(read, place_of=PLACE, unwrap=lambda _: KEY)
    assert len(reader.names) == 2000
    assert read.asked == [(0, 65536), (65536, HEADER_BYTES + reader.header.index_bytes - 65536)]
    assert reader.read_section("section-1999") == b"x"


def test_a_reader_that_returns_too_much_is_cut():
    data = seal(Section("a", b"x"), Section("b", os.urandom(70_000), compress=False), Section("c", b"z"))
    reader = SealedReader.open(lambda start, length: data[start:], place_of=PLACE, unwrap=lambda _: KEY)
    assert reader.read_section("b")
    assert reader.read_section("c") == b"z"


@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_every_changed_byte_is_tampering(flip):
    for position in range(len(SMALL)):
        changed = bytearray(SMALL)
        changed[position] ^= flip
        with pytest.raises(TamperedError):
            unseal(bytes(changed))


def test_every_bit_of_the_header():
    for position in range(HEADER_BYTES * 8):
        changed = bytearray(SMALL)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(TamperedError) as caught:
            unseal(bytes(changed))
        assert isinstance(caught.value, NewerFormatError) == (position // 8 in {8, 9})


def test_every_cut_is_tampering():
    for length in range(len(SMALL)):
        with pytest.raises(TamperedError):
            unseal(SMALL[:length])


def test_every_cut_of_an_object_longer_than_the_head():
    data = seal(Section("a", os.urandom(5000), compress=False), Section("b", CANARY))
    for length in range(0, len(data), 97):
        with pytest.raises(TamperedError):
            unseal(data[:length], head_bytes=2000)


@pytest.mark.parametrize("head_bytes", [256, len(SMALL) - 1, len(SMALL), len(SMALL) + 1, 65536])
def test_anything_behind_the_object_is_tampering(head_bytes):
    assert unseal(SMALL, head_bytes=head_bytes) == {"note": CANARY * 4}
    with pytest.raises(TamperedError):
        unseal(SMALL + b"\0", head_bytes=head_bytes)


@pytest.mark.parametrize("data", [SMALL + b"\0", SMALL[:-1], SMALL[: HEADER_BYTES + 1040]])
def test_a_wrong_length_shows_at_opening_before_any_section_is_read(data):
    with pytest.raises(TamperedError, match="another length"):
        SealedReader.open(bytes_reader(data), place_of=PLACE, unwrap=lambda _: KEY)


@given(st.integers(0, len(SMALL)), st.binary(min_size=1, max_size=40))
def test_insertions_and_overwrites_are_tampering(position, junk):
    for changed in (
        SMALL[:position] + junk + SMALL[position:],
        SMALL[:position] + junk + SMALL[position + len(junk) :],
    ):
        if changed != SMALL:
            with pytest.raises(TamperedError):
                unseal(changed)


@given(st.binary(max_size=2000))
def test_junk_is_tampering(data):
    with pytest.raises(TamperedError):
        unseal(data)
    with pytest.raises(TamperedError):
        unseal(SMALL[:HEADER_BYTES] + data)


OTHER_PLACES = [
    {"vault_id": VaultId("a2" * 16)},
    {"kind": ObjectKind.MANIFEST},
    {"key": "packages/" + "0e" * 16},
    {"key": PLACE.key + "/x"},
    {"device_id": DeviceId("b3" * 16)},
    {"sequence": 1},
    {"previous_hash": bytes(31) + b"\1"},
]


@pytest.mark.parametrize("change", OTHER_PLACES, ids=lambda change: next(iter(change)))
def test_it_opens_in_its_own_place_only(change):
    with pytest.raises(TamperedError):
        unseal(SMALL, dataclasses.replace(PLACE, **change))
    moved = dataclasses.replace(PLACE, **change)
    with pytest.raises(TamperedError):
        unseal(seal(Section("note", b"x"), place=moved))


@pytest.mark.parametrize("change", OTHER_PLACES, ids=lambda change: next(iter(change)))
def test_a_header_rewritten_for_another_place_does_not_open_there(change):
    """Whoever moves an object can also rewrite what its header says, checksum included."""
    moved = dataclasses.replace(PLACE, **change)
    header = SealedReader.open(bytes_reader(SMALL), place_of=PLACE, unwrap=lambda _: KEY).header
    fields = {name: value for name, value in change.items() if name != "key"}
    rewritten = dataclasses.replace(header, **fields).encode() + SMALL[HEADER_BYTES:]
    with pytest.raises(TamperedError, match="does not authenticate"):
        unseal(rewritten, moved)


def test_key_epoch_and_key_id_are_bound():
    header = SealedReader.open(bytes_reader(SMALL), place_of=PLACE, unwrap=lambda _: KEY).header
    for fields in ({"key_epoch": 8}, {"key_id": "master.1"}):
        with pytest.raises(TamperedError, match="does not authenticate"):
            unseal(dataclasses.replace(header, **fields).encode() + SMALL[HEADER_BYTES:])


def test_parts_of_two_objects_do_not_mix():
    other = seal(Section("note", CANARY * 4))
    cuts = (200, HEADER_BYTES, HEADER_BYTES + 1040)
    for cut in cuts:
        with pytest.raises(TamperedError):
            unseal(SMALL[:cut] + other[cut:])


def test_sections_of_one_object_do_not_change_places():
    data = seal(Section("a", b"one"), Section("b", b"two"))
    start, size = HEADER_BYTES + 1040, 4112
    swapped = data[:start] + data[start + size :] + data[start : start + size]
    with pytest.raises(TamperedError):
        unseal(swapped)


def test_another_key_does_not_open():
    with pytest.raises(TamperedError):
        unseal(SMALL, key=bytes(32))


def test_a_failed_section_gives_out_nothing():
    changed = bytearray(seal(Section("a", CANARY), Section("b", CANARY)))
    changed[-1] ^= 1
    reader = SealedReader.open(bytes_reader(bytes(changed)), place_of=PLACE, unwrap=lambda _: KEY)
    assert reader.read_section("a") == CANARY
    with pytest.raises(TamperedError) as caught:
        reader.read_section("b")
    assert "canary" not in str(caught.value) + caught.value.hint + caught.value.subject


def test_nothing_in_clear():
    name = "a-section-with-a-telling-name"
    data = seal(Section(name, CANARY, compress=False), Section("second", CANARY * 100))
    for secret in (CANARY.strip(), name.encode(), PLACE.key.encode(), b"packages", KEY, KEY[:8]):
        assert secret not in data


def test_sealing_twice_shares_nothing():
    """Every byte behind the clear fields differs as random ones do, so equal contents cannot be told."""
    other = seal(Section("note", CANARY * 4))
    assert len(other) == len(SMALL)
    same = sum(a == b for a, b in zip(SMALL[HEADER_BYTES:], other[HEADER_BYTES:], strict=True))
    assert same < len(SMALL) / 64


def test_lengths_are_padded():
    lengths = {len(seal(Section("a", os.urandom(size), compress=False))) for size in range(0, 4097, 64)}
    assert lengths == {HEADER_BYTES + 1040 + 4112}
    longer = {len(seal(Section("a", os.urandom(size), compress=False))) for size in range(60_000, 64_000, 50)}
    assert len(longer) <= 4


def test_well_compressible_data_stays_small_and_opens():
    data = bytes(20 << 20)
    sealed = seal(Section("zeros", data))
    assert len(sealed) < 30_000
    assert unseal(sealed) == {"zeros": data}


@pytest.mark.parametrize(
    "sections",
    [
        [Section("a", b""), Section("a", b"")],
        [Section("", b"")],
        [Section("x" * 129, b"")],
        [Section("a\nb", b"")],
        [Section("\ud800", b"")],
        [Section(str(number), b"") for number in range(4097)],
        [Section(f"{number:0128d}", b"") for number in range(4096)] + [Section("one-too-many", b"")],
    ],
    ids=["twice", "empty", "long", "control", "surrogate", "many", "index"],
)
def test_what_cannot_be_sealed(sections):
    with pytest.raises(UsageError):
        seal(*sections)


def test_the_most_that_can_be_sealed():
    sections = [Section(f"{number:0128d}", b"") for number in range(4096)]
    assert len(unseal(seal(*sections))) == 4096


@pytest.mark.parametrize("key_id", ["", "A", "x" * 33, "a b", "é"])
def test_unfit_key_ids(key_id):
    with pytest.raises(UsageError, match="key id"):
        seal_object([], place=PLACE, key_id=key_id, key_epoch=0, wrapping_key=KEY)


@pytest.mark.parametrize("key", ["", "k" * 1025])
def test_unfit_object_keys(key):
    with pytest.raises(UsageError, match="object key"):
        seal(place=dataclasses.replace(PLACE, key=key))


# Hostile objects: sealed with the right key, by a writer that keeps no rule.

BOMB = Part(b"bomb", bytes(5 << 20))
ZEROS = Part(b"zeros", bytes(100_000))


def hostile(*parts: Part, **fields: object) -> bytes:
    usual = {
        "kind": 1,
        "vault_id": bytes.fromhex(PLACE.vault_id),
        "device_id": bytes.fromhex(PLACE.device_id),
        "key": PLACE.key,
        "key_id": b"epoch",
        "key_epoch": 7,
        "wrapping_key": KEY,
        "parts": parts,
        "random": os.urandom,
    }
    return Envelope(**(usual | fields)).seal()


def zstd_frame_claiming(size: int) -> bytes:
    """A frame header with a content size of 8 bytes and no data behind it. Source: RFC 8878, section 3.1.1.1."""
    return bytes.fromhex("28b52ffd") + bytes([0b11100000]) + size.to_bytes(8, "little")


HOSTILE: dict[str, Callable[[], bytes]] = {
    "plain size 2**63": lambda: hostile(Part(b"a", b"x", plain_size=2**63)),
    "plain size 2**64-1": lambda: hostile(Part(b"a", b"x", plain_size=2**64 - 1)),
    "sealed size 2**63": lambda: hostile(Part(b"a", b"x", sealed_size=2**63)),
    "sealed size 0": lambda: hostile(Part(b"a", b"x", sealed_size=0)),
    "sealed size 2**40 of 2**39": lambda: hostile(Part(b"a", b"x", sealed_size=2**40, stored_size=2**39)),
    "stored size over sealed": lambda: hostile(Part(b"a", b"x", stored_size=4097)),
    "stored size is not plain size": lambda: hostile(Part(b"a", b"xy", compression=0, plain_size=1)),
    "plain longer than stored": lambda: hostile(Part(b"a", b"xy", compression=0, plain_size=3, stored_size=3)),
    "wrong checksum": lambda: hostile(Part(b"a", b"x", sha256=bytes(32))),
    "padding not zeros": lambda: hostile(Part(b"a", b"x", padding=b"hidden".ljust(4095))),
    "10**6 sections": lambda: hostile(index=(10**6).to_bytes(4) + bytes(60_000)),
    "2**32-1 sections": lambda: hostile(index=b"\xff" * 4 + bytes(1020)),
    "4097 sections": lambda: hostile(
        index=(4097).to_bytes(4) + b"".join(Part(f"{number:04x}".encode(), b"").entry() for number in range(4097))
    ),
    "one section fewer than stated": lambda: hostile(index=(2).to_bytes(4) + Part(b"a", b"").entry() + bytes(900)),
    "an index that ends in a name": lambda: hostile(index=(1).to_bytes(4) + b"\xff" + bytes(100)),
    "an index of 3 bytes": lambda: hostile(index=b"\0\0\0"),
    "something behind the index": lambda: hostile(index=(0).to_bytes(4) + b"\1" + bytes(1000)),
    "a name twice": lambda: hostile(Part(b"a", b"x"), Part(b"a", b"y")),
    "an empty name": lambda: hostile(Part(b"", b"x")),
    "a long name": lambda: hostile(Part(b"x" * 129, b"x")),
    "a name not UTF-8": lambda: hostile(Part(b"\xff\xfe", b"x")),
    "a name with controls": lambda: hostile(Part(b"\x1b[2J", b"x")),
    "an unknown compression": lambda: hostile(Part(b"a", b"x", compression=9)),
    "an index length of 2**32-1": lambda: hostile(index_length=2**32 - 1),
    "an index length of 0": lambda: hostile(index_length=0),
    "another commitment": lambda: hostile(Part(b"a", b"x"), commitment=bytes(range(32))),
    "an epoch of 2**63": lambda: hostile(Part(b"a", b"x"), key_epoch=2**63),
    "a bomb of 5 MiB in 4 KiB": lambda: hostile(
        Part(b"bomb", bytes(5 << 20), padding=bytes(4096 - len(BOMB.stored or b"")))
    ),
    "a bomb that hides its size": lambda: hostile(Part(b"bomb", BOMB.data, plain_size=100)),
    "a frame that claims 2**62": lambda: hostile(
        Part(b"a", b"x", compression=1, stored=zstd_frame_claiming(2**62), plain_size=4000)
    ),
    "a frame that claims what the index does": lambda: hostile(
        Part(b"a", b"x", compression=1, stored=zstd_frame_claiming(4000), plain_size=4000)
    ),
    "a frame and something behind it": lambda: hostile(
        Part(b"a", ZEROS.data, compression=1, stored=(ZEROS.stored or b"") + b"more")
    ),
    "no frame": lambda: hostile(Part(b"a", b"x", compression=1, stored=b"x" * 40)),
    "an empty frame": lambda: hostile(Part(b"a", b"", compression=1, stored=b"")),
    "cut frame": lambda: hostile(Part(b"a", ZEROS.data, compression=1, stored=(ZEROS.stored or b"")[:-5])),
    "no object of ours": lambda: b"PK\x03\x04" + bytes(5000),
    "nothing": lambda: b"",
    "an ELF of zeros": lambda: bytes(6000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_objects_are_refused_with_little_memory(name):
    data = HOSTILE[name]()
    tracemalloc.start()
    try:
        with pytest.raises(TamperedError) as caught:
            unseal(data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.exit_code == 5
    assert caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        lambda: hostile(Part(b"a", b"x"), version=2),
        lambda: hostile(Part(b"a", b"x"), suite=2),
        lambda: hostile(Part(b"a", b"x", algorithm=3)),
        lambda: hostile(Part(b"a", b"x", compression=2)),
    ],
    ids=["version", "suite", "algorithm", "compression"],
)
def test_newer_formats_ask_to_update(data):
    with pytest.raises(NewerFormatError, match="newer version") as caught:
        unseal(data())
    assert "Update dualmem-mcp" in caught.value.hint


def test_an_unknown_kind_asks_to_update():
    data = Envelope(
        kind=200,
        vault_id=bytes(16),
        device_id=bytes(16),
        key="x",
        key_id=b"epoch",
        key_epoch=0,
        wrapping_key=KEY,
        parts=[],
        random=os.urandom,
    ).seal()
    with pytest.raises(NewerFormatError, match="kind 200"):
        unseal(data)


def test_errors_of_the_store_and_of_the_key_pass_through():
    class Away(Exception):
        pass

    def away(*_: object) -> bytes:
        raise Away

    with pytest.raises(Away):
        SealedReader.open(away, place_of=PLACE, unwrap=lambda _: KEY)
    with pytest.raises(Away):
        SealedReader.open(bytes_reader(SMALL), place_of=PLACE, unwrap=away)


@pytest.mark.parametrize("sections", [1, 40])
def test_the_hash_of_an_object_is_read_from_its_head_without_a_key(sections: int) -> None:
    parts = [Section(f"a section with a long name, number {n}", os.urandom(9)) for n in range(sections)]
    key = os.urandom(32)
    data = seal_object(parts, place=PLACE, key_id="epoch", key_epoch=1, wrapping_key=key)
    opened = SealedReader.open(bytes_reader(data), place_of=PLACE, unwrap=lambda header: key)
    reads: list[tuple[int, int]] = []

    def read(start: int, length: int) -> bytes:
        reads.append((start, length))
        return data[start : start + length]

    found = UnopenedObject.read(read, subject="x")
    assert (found.object_hash, found.header) == (opened.object_hash, opened.header)
    assert len(reads) == (1 if sections == 1 else 2)
    assert sum(length for _, length in reads) < len(data)
    for cut in (0, 255, 256, 1295):
        with pytest.raises(TamperedError):
            UnopenedObject.read(bytes_reader(data[:cut]), subject="x")
