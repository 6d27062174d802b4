"""Parts, manifest, pointer and acknowledgements.

The golden ones were written from docs/format.md by another program, tests/golden/make_snapshot_v1.py. The hostile
ones are refused, and nothing of them is taken in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp import errors
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import LogHead, Op, Stamp
from dualmem_mcp.ports import Applied
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.logical_state import logical_view
from dualmem_mcp.stores.snapshot_state import SnapshotState
from dualmem_mcp.sync.acks import ack_key, open_ack, read_ack
from dualmem_mcp.sync.op_lines import op_line, parse_op_line
from dualmem_mcp.sync.snapshot_format import PART_BYTES, parts_of, snapshot_of
from dualmem_mcp.sync.snapshots import Snapshots
from tests.conftest import SteppingClock
from tests.crypto import test_golden as golden_vault
from tests.crypto.conftest import MemoryBlobCache, MemoryObjectStore

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "snapshot-v1"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
DEVICE = DeviceId("ab" * 16)


@cache
def vault() -> Vault:
    return golden_vault.join(golden_vault.bucket(), golden_vault.EXPECTED["passphrase"])


def bucket(folder: Path) -> MemoryObjectStore:
    """The golden vault with the objects of that folder beside it."""
    store = golden_vault.bucket()
    for path in folder.rglob("*"):
        if path.is_file():
            store.objects[path.relative_to(folder).as_posix()] = path.read_bytes()
    return store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


def snapshots(database: Database, folder: Path) -> Snapshots:
    clock = SteppingClock()
    state = SnapshotState(database, clock, DEVICE, name_of=lambda text: vault().object_name("conversation", text))
    return Snapshots(vault(), bucket(folder), MemoryBlobCache(), state, clock)


def test_the_golden_snapshot_is_read_and_taken_in(database: Database) -> None:
    opened = snapshots(database, FOLDER / "bucket")
    latest = opened.latest()
    assert latest is not None
    manifest = latest.manifest
    assert (latest.pointer.snapshot_id, latest.pointer.sequence) == (EXPECTED["snapshot"], EXPECTED["sequence"])
    assert (manifest.made_by, manifest.at.isoformat()) == (EXPECTED["made_by"], "2026-03-15T12:00:00+00:00")
    assert dict(manifest.vector) == {
        DeviceId(device): LogHead(segment, bytes.fromhex(object_hash), sequence)
        for device, (segment, object_hash, sequence) in EXPECTED["vector"].items()
    }
    opened.take_in(latest)
    with database.read() as connection:
        view = logical_view(connection)
        kept = connection.execute("SELECT sequence, kind, payload FROM ops ORDER BY sequence").fetchall()
    assert [row[:2] for row in view["entities"]] == [["Ada", "person"]]
    assert [row[1] for row in view["observations"]] == ["n\u00e9e Byron", "\u4f60\u597d"]
    assert [row[:3] for row in view["relations"]] == [["Ada", "Engine", "studies"]]
    assert [row[:2] for row in view["records"]] == [["task", "6f1c"]]
    assert [row[1] for row in view["turns"]] == ["u1"]
    assert view["bans"] == [["ab" * 16]]
    assert kept == [(op["sequence"], op["kind"], op["payload"]) for op in EXPECTED["ops"] if op["sequence"]]
    assert opened.state.heads() == manifest.vector


@pytest.mark.parametrize("case", EXPECTED["hostile"], ids=lambda case: case["folder"])
def test_hostile_snapshots_are_refused_and_nothing_of_them_counts(database: Database, case: dict[str, str]) -> None:
    opened = snapshots(database, FOLDER / "hostile" / case["folder"])
    changes: list[Applied] = []
    with pytest.raises(getattr(errors, case["error"])) as raised:
        opened.catch_up(DeviceId(EXPECTED["made_by"]), into=changes.append)
    assert type(raised.value).__name__ == case["error"]
    assert raised.value.hint
    assert changes == []
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM ops").fetchone() == (0,)
        assert not any(logical_view(connection).values())
    assert opened.state.heads() == {}


def test_the_golden_acknowledgement_is_read() -> None:
    entry = next(one for one in vault().devices() if one.device_id == EXPECTED["ack"]["device_id"])
    ack = read_ack(vault(), bucket(FOLDER / "bucket"), entry)
    assert ack is not None
    assert (dict(ack.vector), ack.snapshot) == (EXPECTED["ack"]["vector"], EXPECTED["snapshot"])


@pytest.mark.parametrize("case", EXPECTED["hostile_acks"], ids=lambda case: case["file"])
def test_hostile_acknowledgements_are_refused(case: dict[str, str]) -> None:
    entry = next(one for one in vault().devices() if one.device_id == EXPECTED["ack"]["device_id"])
    with pytest.raises(getattr(errors, case["error"])) as raised:
        open_ack(vault(), entry, (FOLDER / "hostile-acks" / case["file"]).read_bytes())
    assert type(raised.value).__name__ == case["error"]
    assert raised.value.subject == ack_key(entry.device_id)


payloads = st.dictionaries(
    st.text(), st.text() | st.integers() | st.floats(allow_nan=False) | st.none(), max_size=4
)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**53 - 1), payloads)
def test_a_line_says_what_its_op_says(ticks: int, sequence: int, payload: dict[str, Any]) -> None:
    op = Op(Stamp(ticks, DEVICE), sequence, "x.y", json.dumps(payload))
    line = op_line(op)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert parse_op_line(line[:-1], subject="s") == parse_op_line(line[:-1], subject="s", checked=True) == op


@given(st.integers(0, 300), st.integers(1, 255))
@settings(max_examples=60)
def test_a_line_with_another_byte_is_another_op_or_none(at: int, change: int) -> None:
    op = Op(Stamp(77, DEVICE), 5, "entity.create", '{"name":"Ada","observations":["x","\u00e9"]}')
    line = bytearray(op_line(op)[:-1])
    line[at % len(line)] ^= change
    try:
        read = parse_op_line(bytes(line), subject="s")
    except TamperedError:
        return
    assert read != op


def test_parts_are_cut_at_four_mebibytes_and_a_longer_line_stands_alone() -> None:
    def op(number: int, size: int) -> Op:
        return Op(Stamp(number, DEVICE), number, "x.y", json.dumps({"text": "x" * size}))

    sizes = [1_500_000, 1_500_000, 1_500_000, 5_000_000, 10]
    parts = list(parts_of(op(number, size) for number, size in enumerate(sizes, start=1)))
    assert [count for _, count in parts] == [2, 1, 1, 1]
    assert [len(part) <= PART_BYTES for part, _ in parts] == [True, True, False, True]
    assert sum(part.count(b"\n") for part, _ in parts) == len(sizes)
    assert list(parts_of([])) == []


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("snapshots/latest", None),
        ("snapshots/" + "ab" * 16 + "/manifest", "ab" * 16),
        ("snapshots/" + "ab" * 16 + "/00000000000000000001", "ab" * 16),
        ("snapshots/" + "ab" * 16 + "/1", None),
        ("snapshots/x/manifest", None),
        ("log/" + "ab" * 16 + "/00000000000000000001", None),
    ],
)
def test_whose_an_object_is_stands_in_its_key(key: str, found: str | None) -> None:
    assert snapshot_of(key) == found
