"""Thread parts: whatever the files were before, the bytes come back exactly, and only the new ones travel."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.envelope import ObjectKind, Place, SealedReader, bytes_reader, seal_object
from dualmem_mcp.errors import TamperedError, UsageError
from dualmem_mcp.handoff import thread
from dualmem_mcp.handoff.manifest import PackageManifest, Part, ThreadFile
from dualmem_mcp.handoff.thread import (
    CHUNK_BYTES,
    MAX_PATCHED_BYTES,
    MAX_SOURCES,
    ThreadPlan,
    plan_thread,
    read_thread,
    thread_sections,
)
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId, VaultId

KEY = os.urandom(32)


class Packages:
    """Sealed packages of one conversation, in memory, each with only its thread."""

    def __init__(self) -> None:
        self.sealed: dict[HandoffId, bytes] = {}
        self.base: PackageManifest | None = None

    def hand_over(self, files: list[tuple[str, bytes]]) -> ThreadPlan:
        handoff_id = HandoffId(f"{len(self.sealed):032x}")
        key = f"packages/{handoff_id}"
        plan = plan_thread(files, handoff_id=handoff_id, package_key=key, base=self.base)
        place = Place(VaultId("0" * 32), ObjectKind.PACKAGE, key, DeviceId("1" * 32))
        sections = list(thread_sections(plan.stream))
        if sections:
            self.sealed[handoff_id] = seal_object(
                sections, place=place, key_id="2" * 32, key_epoch=1, wrapping_key=KEY
            )
        else:
            self.sealed[handoff_id] = b""
        self.base = manifest_of(plan, handoff_id)
        return plan

    def open_source(self, handoff_id: HandoffId) -> SealedReader:
        assert self.base is not None
        place = Place(VaultId("0" * 32), ObjectKind.PACKAGE, self.base.sources[handoff_id], DeviceId("1" * 32))
        return SealedReader.open(bytes_reader(self.sealed[handoff_id]), place_of=place, unwrap=lambda header: KEY)

    def read(self) -> dict[str, bytes]:
        assert self.base is not None
        return dict(read_thread(self.base, self.open_source))


def manifest_of(plan: ThreadPlan, handoff_id: HandoffId) -> PackageManifest:
    from datetime import UTC, datetime

    return PackageManifest(
        handoff_id=handoff_id,
        conversation_id=ConversationId("c"),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        device_id=DeviceId("1" * 32),
        device_name="",
        base=None,
        stream_size=len(plan.stream),
        chunk_size=CHUNK_BYTES,
        sources=plan.sources,
        thread=plan.files,
        files=(),
    )


names = st.sampled_from(["s.jsonl", "s/subagents/agent-a.jsonl", "s/tool-results/x.txt"])
versions = st.lists(st.dictionaries(names, st.binary(max_size=300), max_size=3), min_size=1, max_size=6)


@given(versions)
def test_any_history_of_files_comes_back_exactly(history: list[dict[str, bytes]]) -> None:
    packages = Packages()
    for files in history:
        packages.hand_over(list(files.items()))
        assert packages.read() == files


def test_a_grown_file_sends_only_its_new_bytes() -> None:
    packages = Packages()
    first = os.urandom(3 * CHUNK_BYTES + 17)
    packages.hand_over([("s.jsonl", first)])
    plan = packages.hand_over([("s.jsonl", first + b"more")])
    assert plan.stream == b"more"
    assert packages.read() == {"s.jsonl": first + b"more"}


def test_what_a_file_says_again_is_sent_as_a_patch() -> None:
    packages = Packages()
    first = b"".join(b'{"cwd": "/home/ada/crane", "number": %d}\n' % number for number in range(500))
    more = b'{"cwd": "/home/ada/crane", "number": 7}\n{"cwd": "/home/ada/crane", "number": 9}\n'
    packages.hand_over([("s.jsonl", first)])
    plan = packages.hand_over([("s.jsonl", first + more)])
    assert len(plan.stream) < len(more) / 2
    assert packages.read() == {"s.jsonl": first + more}
    packages.hand_over([("s.jsonl", first + more + more)])
    assert packages.read() == {"s.jsonl": first + more + more}


@pytest.mark.parametrize("size", [1, 79, 2**49])
def test_a_patch_of_another_size_is_tampering(size: int) -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", b"the same line\n" * 50)])
    packages.hand_over([("s.jsonl", b"the same line\n" * 60)])
    assert packages.base is not None
    (file,) = packages.base.thread
    whole, patch = file.parts
    assert patch.patched
    hostile = replace(file, size=2**49, parts=(whole, replace(patch, size=size)))
    packages.base = replace(packages.base, thread=(hostile,))
    with pytest.raises(TamperedError):
        packages.read()


growths = st.dictionaries(names, st.integers(0, 70), max_size=3)


@given(st.lists(st.tuples(growths, st.sampled_from([b"a", b"ab", bytes(range(256))])), min_size=1, max_size=8))
def test_what_is_written_is_read_and_only_what_is_too_long_is_not_written(
    history: list[tuple[dict[str, int], bytes]],
) -> None:
    """Over threads of all sizes about the bounds, which are small here."""
    packages = Packages()
    files: dict[str, bytes] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thread, "MAX_THREAD_BYTES", 200)
        patch.setattr(thread, "MAX_PATCHED_BYTES", 40)
        patch.setattr(thread, "MAX_SOURCES", 3)
        for growth, letters in history:
            grown = files | {name: files.get(name, b"") + (letters * size)[:size] for name, size in growth.items()}
            if sum(map(len, grown.values())) > 200:
                with pytest.raises(UsageError, match="more than 200 bytes"):
                    packages.hand_over(list(grown.items()))
                continue
            files = grown
            packages.hand_over(list(files.items()))
            assert packages.read() == files


@pytest.mark.parametrize("size", [MAX_PATCHED_BYTES, MAX_PATCHED_BYTES + 1])
def test_the_longest_patch_of_what_shrinks_most_is_read(size: int) -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", b"0")])
    plan = packages.hand_over([("s.jsonl", b"0" + bytes(size))])
    part = plan.files[0].parts[-1]
    assert part.patched == (size == MAX_PATCHED_BYTES)
    assert packages.read()["s.jsonl"] == b"0" + bytes(size)


def test_a_base_that_is_none_is_not_built_upon() -> None:
    """Its package was another device's, and says what no writer says."""
    packages = Packages()
    packages.hand_over([("s.jsonl", b"abcd")])
    assert packages.base is not None
    (file,) = packages.base.thread
    packages.base = replace(packages.base, thread=(replace(file, parts=(*file.parts, *file.parts)),))
    plan = packages.hand_over([("s.jsonl", b"abcdef")])
    assert plan.stream == b"abcdef"
    assert packages.read() == {"s.jsonl": b"abcdef"}
    packages.base = replace(packages.base, sources={})
    assert packages.hand_over([("s.jsonl", b"abcdefgh")]).stream == b"abcdefgh"


FIRST, SECOND = HandoffId("0" * 31 + "0"), HandoffId("0" * 31 + "1")
MIB = 1 << 20


def file_of(*parts: Part, name: str = "s.jsonl") -> ThreadFile:
    return ThreadFile(name, sum(part.size for part in parts), "0" * 64, parts)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param([file_of(*[Part(FIRST, 0, MIB, MIB)] * 1_000)], id="one range a thousand times"),
        pytest.param(
            [file_of(Part(FIRST, 0, MIB, MIB), name=f"{n}") for n in range(1_000)], id="one range in many files"
        ),
        pytest.param(
            [file_of(Part(FIRST, n, MIB, MIB), name=f"{n}") for n in range(3)], id="ranges that overlap by a part"
        ),
        pytest.param(
            [file_of(Part(FIRST, 0, 9, 9)), file_of(Part(FIRST, 8, 9, 1, patched=True), name="b")],
            id="a patch within other bytes",
        ),
        pytest.param([file_of(Part(FIRST, 0, 4, 4), Part(FIRST, 4, 4, 4))], id="two parts in one package"),
        pytest.param([file_of(Part(FIRST, 0, 64 * MIB, 20, patched=True))], id="64 MiB of 20 bytes"),
        pytest.param(
            [file_of(Part(FIRST, n * 9, 9 << 15, 8, patched=True), name=f"{n}") for n in range(3)],
            id="patches of more than bytes give",
        ),
        pytest.param([file_of(Part(FIRST, 0, 9, 2**40, patched=True))], id="a patch longer than what it gives"),
        pytest.param([file_of(Part(FIRST, 0, 65 * MIB, 64 * MIB, patched=True))], id="a patch over the bound"),
        pytest.param(
            [file_of(Part(FIRST, n * MIB, 64 * MIB, MIB, patched=True), name=f"{n}") for n in range(17)],
            id="many patches of 64 MiB",
        ),
        pytest.param([file_of(Part(FIRST, 0, 2**49, 2**49))], id="a file of 2^49 bytes"),
        pytest.param([replace(file_of(), size=2**49)], id="a size without parts"),
        pytest.param([replace(file_of(Part(FIRST, 0, 4, 4)), size=3)], id="parts longer than the file"),
        pytest.param([file_of(Part(FIRST, 0, 0, 0))], id="a part of nothing"),
        pytest.param([file_of(Part(FIRST, 0, 5, 4))], id="more than what is stored"),
        pytest.param([file_of(*(Part(HandoffId(f"{n:032x}"), 0, 1, 1) for n in range(17)))], id="17 packages"),
        pytest.param([file_of(Part(SECOND, 3, 8, 8))], id="behind the end of the package"),
    ],
)
def test_a_hostile_thread_is_refused_before_anything_is_read(hostile: list[ThreadFile]) -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", bytes(2 * MIB))])
    packages.hand_over([("s.jsonl", b"otherwise")])
    assert packages.base is not None
    opened: list[HandoffId] = []
    manifest = replace(packages.base, thread=tuple(hostile))
    with pytest.raises(TamperedError, match="cannot be"):
        dict(read_thread(manifest, opened.append))  # type: ignore[func-returns-value, arg-type]
    assert opened == []


@pytest.mark.parametrize("chunk_size", [0, 1, 4_096, 2**49])
def test_chunks_of_a_hostile_size_are_refused(chunk_size: int) -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", b"abcd")])
    assert packages.base is not None
    packages.base = replace(packages.base, chunk_size=chunk_size)
    with pytest.raises(TamperedError, match="chunks of"):
        packages.read()


def test_an_unchanged_file_sends_nothing() -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", b"same")])
    assert packages.hand_over([("s.jsonl", b"same")]).stream == b""
    assert packages.read() == {"s.jsonl": b"same"}


@pytest.mark.parametrize("changed", [b"Xbcd", b"abc", b""])
def test_a_rewritten_or_shortened_file_is_sent_whole(changed: bytes) -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", b"abcd")])
    assert packages.hand_over([("s.jsonl", changed)]).stream == changed
    assert packages.read() == {"s.jsonl": changed}


def test_a_thread_is_never_spread_over_more_packages_than_allowed() -> None:
    packages = Packages()
    data = b""
    for number in range(3 * MAX_SOURCES):
        data += f"line {number}\n".encode()
        plan = packages.hand_over([("s.jsonl", data)])
        assert len(plan.sources) <= MAX_SOURCES
        assert packages.read() == {"s.jsonl": data}


def test_only_the_named_files_are_read() -> None:
    packages = Packages()
    packages.hand_over([("a", b"1"), ("b", b"2")])
    assert packages.base is not None
    assert dict(read_thread(packages.base, packages.open_source, ["b"])) == {"b": b"2"}


@pytest.mark.parametrize(
    "parts",
    [(Part(HandoffId("0" * 32), start, size, size),) for start, size in ((0, 3), (1, 4), (9, 4))],
)
def test_parts_that_do_not_make_up_the_file_are_tampering(parts: tuple[Part, ...]) -> None:
    packages = Packages()
    packages.hand_over([("s.jsonl", b"abcd!")])
    assert packages.base is not None
    file = ThreadFile("s.jsonl", 4, hashlib.sha256(b"abcd").hexdigest(), parts)
    packages.base = replace(packages.base, thread=(file,))
    with pytest.raises(TamperedError):
        packages.read()
