"""Writes `snapshot-v1/`: a snapshot and an acknowledgement in the golden vault, as docs/format.md lays them down,
and hostile ones.

    python tests/golden/make_snapshot_v1.py

It uses the second writer in tests/crypto/spec.py and the keys of make_vault_v1.py, and nothing of `dualmem_mcp`.
The files are made once and kept: every later version has to read them, and to refuse the hostile ones as
`expected.json` says.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HERE = Path(__file__).resolve().parent


def load(name: str) -> Any:
    """A module beside this one, wherever this is started from."""
    source = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules[name] = module
    source.loader.exec_module(module)
    return module


vault = load("make_vault_v1")
spec = vault.spec
DESK, PHONE = vault.devices
DESK_ID, PHONE_ID = DESK["device_id"].hex(), PHONE["device_id"].hex()
TICKS = 0x019CA9450A000000
SNAPSHOT = "5a" * 16
AT = "2026-03-15T12:00:00Z"


def stamp(number: int, device: str = DESK_ID) -> str:
    return f"{TICKS + number:016x}-{device}"


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def line(number: int, op_kind: str, op_payload: Any, op_sequence: int = 0, **changes: Any) -> bytes:
    """One op; `changes` give members hostile values, or add some."""
    payload = op_payload if isinstance(op_payload, str) else text(op_payload)
    values = {"kind": op_kind, "payload": payload, "sequence": op_sequence, "stamp": stamp(number), **changes}
    return bytes(spec.canonical(values))


OPS = [
    [
        line(9, "conversation.erase", {"name": "ab" * 16}),
        line(8, "tombstones", [[stamp(1) + ".2", stamp(8)], [stamp(3, PHONE_ID) + ".0", stamp(8)]]),
        line(
            1,
            "entity.create",
            {"name": "Ada", "entityType": "person", "observations": ["n\u00e9e Byron", None, "\u4f60\u597d"]},
            1,
        ),
        line(2, "relation.create", {"from": "Ada", "to": "Engine", "relationType": "studies"}, 2),
        line(4, "record.set", {"type": "task", "id": "6f1c", "fields": {"text": "Check the crane"}, "over": {}}, 4),
    ],
    [
        line(
            5,
            "conversation.set",
            {
                "conversation_id": "thread-1",
                "title": "The crane",
                "cwd": "/home/ada",
                "updated_at": "2026-03-01T10:00:00.000000+00:00",
                "message_count": 1,
                "device_name": "Schreibtisch",
                "listed": True,
            },
        ),
        line(
            6,
            "turn.add",
            {
                "conversation_id": "thread-1",
                "device_name": "Schreibtisch",
                "turns": [
                    {
                        "uuid": "u1",
                        "parent": None,
                        "role": "user",
                        "timestamp": "2026-03-01T10:00:00.000000+00:00",
                        "text": "Why does it \ud83c\udfd7 lean?",
                        "tokens": 5,
                    }
                ],
            },
        ),
        line(7, "future.kind", {"anything": [1.5, None]}, 7),
    ],
]
VECTOR: dict[str, Any] = {DESK_ID: [3, "11" * 32, 9], PHONE_ID: [1, "22" * 32, 4]}


def sealed(of_kind: int, at: str, name: bytes, content: bytes, **fields: Any) -> tuple[bytes, bytes]:
    usual = {
        "kind": of_kind,
        "vault_id": vault.vault_id,
        "device_id": DESK["device_id"],
        "key": at,
        "key_id": b"epoch",
        "key_epoch": vault.epochs[1],
        "wrapping_key": vault.epoch_keys[1],
        "parts": [spec.Part(name, content)],
        "random": vault.random,
    }
    envelope = spec.Envelope(**{**usual, **fields})
    data = envelope.seal()
    return data, envelope.object_hash


def part(number: int, lines: Sequence[bytes] | bytes, **fields: Any) -> tuple[bytes, bytes]:
    content = lines if isinstance(lines, bytes) else b"".join(one + b"\n" for one in lines)
    key = f"snapshots/{SNAPSHOT}/{number:020d}"
    return sealed(7, key, b"state", content, **{"sequence": number, **fields})


def signed(label: bytes, ids: bytes, content: bytes, signer: bytes) -> bytes:
    private = Ed25519PrivateKey.from_private_bytes(signer)
    return private.sign(label + ids + hashlib.sha256(content).digest()) + content


def manifest(
    hashes: Sequence[bytes], ops: int, *, signer: bytes = DESK["ed25519"], **changes: Any
) -> tuple[bytes, bytes]:
    header = changes.pop("header", {})
    values = {
        "format": 1,
        "snapshot": SNAPSHOT,
        "made_by": DESK_ID,
        "at": AT,
        "vector": VECTOR,
        "parts": [one.hex() for one in hashes],
        "ops": ops,
        **changes,
    }
    content = signed(b"dualmem/1/snapshot", vault.vault_id, spec.canonical(values), signer)
    return sealed(7, f"snapshots/{SNAPSHOT}/manifest", b"manifest", content, **header)


def pointer(manifest_hash: bytes, **changes: Any) -> bytes:
    header = changes.pop("header", {"sequence": 4})
    values = {"format": 1, "snapshot": SNAPSHOT, "manifest": manifest_hash.hex(), "sequence": 4, **changes}
    return sealed(8, "snapshots/latest", b"pointer", bytes(spec.canonical(values)), **header)[0]


def ack(*, signer: bytes = PHONE["ed25519"], **changes: Any) -> bytes:
    header = changes.pop("header", {})
    values = {
        "format": 1,
        "device_id": PHONE_ID,
        "at": AT,
        "vector": {DESK_ID: 3, PHONE_ID: 1},
        "snapshot": SNAPSHOT,
        **changes,
    }
    content = signed(b"dualmem/1/ack", vault.vault_id + PHONE["device_id"], spec.canonical(values), signer)
    return sealed(11, f"acks/{PHONE_ID}", b"ack", content, **{"device_id": PHONE["device_id"], **header})[0]


def whole(made: Sequence[tuple[bytes, bytes]], count: int, **changes: Any) -> dict[str, bytes]:
    """The objects of a snapshot of these parts."""
    latest = changes.pop("latest", {})
    data, object_hash = manifest([found for _, found in made], count, **changes)
    keys = {f"snapshots/{SNAPSHOT}/{number:020d}": one for number, (one, _) in enumerate(made, start=1)}
    return {**keys, f"snapshots/{SNAPSHOT}/manifest": data, "snapshots/latest": pointer(object_hash, **latest)}


def hostile_snapshots() -> Iterator[tuple[str, str, Mapping[str, bytes]]]:
    """Title, error and objects of what may lie in the bucket, and must not be taken in."""
    tampered, newer = "TamperedError", "NewerFormatError"
    parts = [part(1, OPS[0]), part(2, OPS[1])]
    count = sum(map(len, OPS))

    def of(lines: Sequence[bytes] | bytes, number: int = 1) -> dict[str, bytes]:
        return whole([part(1, lines)], number)

    yield "manifest-signed-by-another", tampered, whole(parts, count, signer=PHONE["ed25519"])
    yield "manifest-of-a-stranger", tampered, whole(parts, count, made_by="cd" * 16)
    yield "manifest-of-another-snapshot", tampered, whole(parts, count, snapshot="6b" * 16)
    yield "manifest-of-a-newer-format", newer, whole(parts, count, format=2)
    yield "manifest-with-a-bent-time", tampered, whole(parts, count, at="yesterday")
    yield "manifest-with-more-ops", tampered, whole(parts, count + 1)
    yield "manifest-of-another-kind", tampered, whole(parts, count, header={"kind": 6})
    for title, vector in {
        "no-object": [],
        "no-device": {"desk": [1, "11" * 32, 1]},
        "short": {DESK_ID: [1, "11" * 32]},
        "segment-0": {DESK_ID: [0, "11" * 32, 1]},
        "huge": {DESK_ID: [2**60, "11" * 32, 1]},
        "hash": {DESK_ID: [1, "11", 1]},
    }.items():
        yield f"vector-{title}", tampered, whole(parts, count, vector=vector)
    for title, named in {"no-list": {}, "bent": ["xy"], "none": [None]}.items():
        yield f"parts-{title}", tampered, whole(parts, count, parts=named)
    yield (
        "part-missing",
        tampered,
        {key: data for key, data in whole(parts, count).items() if not key.endswith("2")},
    )
    yield "parts-exchanged", tampered, whole([part(1, OPS[0]), part(1, OPS[1])], count)
    yield (
        "part-of-another-device",
        tampered,
        whole([part(1, OPS[0], device_id=PHONE["device_id"]), parts[1]], count),
    )
    yield "part-without-its-section", tampered, whole([sealed_part_of(b"ops")], 1)
    yield "pointer-of-another-sequence", tampered, whole(parts, count, latest={"header": {"sequence": 5}})
    yield "pointer-of-a-newer-format", newer, whole(parts, count, latest={"format": 2})
    yield "pointer-to-another-manifest", tampered, whole(parts, count, latest={"manifest": "00" * 32})
    yield "pointer-0", tampered, whole(parts, count, latest={"sequence": 0, "header": {"sequence": 0}})
    yield "no-last-line-feed", tampered, of(OPS[0][0])
    good = line(1, "x.y", "{}", 1)
    for title, lines in {
        "empty": [b""],
        "no-json": [b"hello"],
        "deep": [b"[" * 200_000],
        "not-canonical": [good.replace(b",", b", ", 1)],
        "member-twice": [good.replace(b"{", b'{"kind":"x.y",', 1)],
        "another-member": [line(1, "x.y", "{}", 1, more=1)],
        "kind-spaced": [line(1, "x y", "{}", 1)],
        "kind-null": [line(1, "", "{}", 1, kind=None)],
        "stamp-bent": [line(1, "x.y", "{}", 1, stamp="now")],
        "sequence-negative": [line(1, "x.y", "{}", -1)],
        "sequence-true": [line(1, "x.y", "{}", 1, sequence=True)],
        "entity-without-a-number": [line(1, "entity.create", {"name": "x"})],
        "record-without-a-number": [line(1, "record.set", {"type": "note", "id": "x"})],
        "payload-no-json": [line(1, "x.y", "{", 1)],
        "payload-a-list": [line(1, "x.y", "[]", 1)],
        "payload-half-a-pair": [line(1, "x.y", '{"name":"\ud83d"}', 1)],
        "payload-nested": [line(1, "x.y", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", 1)],
        "tombstones-an-object": [line(1, "tombstones", "{}")],
        "tombstones-numbered": [line(1, "tombstones", "[]", 1)],
        "tombstones-bent-tag": [line(1, "tombstones", [["x", stamp(1)]])],
        "tombstones-bent-stamp": [line(1, "tombstones", [[stamp(1) + ".0", "x"]])],
        "tombstones-single": [line(1, "tombstones", [[stamp(1) + ".0"]])],
    }.items():
        yield f"line-{title}", tampered, of(lines)


def sealed_part_of(name: bytes) -> tuple[bytes, bytes]:
    return sealed(7, f"snapshots/{SNAPSHOT}/{1:020d}", name, OPS[0][0] + b"\n", sequence=1)


def hostile_acks() -> Iterator[tuple[str, str, bytes]]:
    tampered, newer = "TamperedError", "NewerFormatError"
    yield "signed-by-another", tampered, ack(signer=DESK["ed25519"])
    yield "in-another-device-s-name", tampered, ack(device_id=DESK_ID)
    yield "of-another-device", tampered, ack(header={"device_id": DESK["device_id"]})
    yield "of-a-newer-format", newer, ack(format=2)
    yield "with-a-bent-time", tampered, ack(at="2026-03-15")
    yield "with-a-negative-number", tampered, ack(vector={DESK_ID: -1})
    yield "with-a-strange-name", tampered, ack(vector={"desk": 1})
    yield "with-a-strange-snapshot", tampered, ack(snapshot="../x")
    yield "without-its-section", tampered, ack(header={"parts": [spec.Part(b"other", b"x")]})
    yield "without-a-signature", tampered, ack(header={"parts": [spec.Part(b"ack", b"")]})


def main() -> None:
    folder = HERE / "snapshot-v1"
    shutil.rmtree(folder, ignore_errors=True)
    objects = whole([part(1, OPS[0]), part(2, OPS[1])], sum(map(len, OPS)))
    objects[f"acks/{PHONE_ID}"] = ack()
    write(folder / "bucket", objects)
    refusals = []
    for title, error, bad in hostile_snapshots():
        write(folder / "hostile" / title, bad)
        refusals.append({"folder": title, "error": error})
    acks = []
    for title, error, data in hostile_acks():
        write(folder / "hostile-acks", {title: data})
        acks.append({"file": title, "error": error})
    expected = {
        "snapshot": SNAPSHOT,
        "made_by": DESK_ID,
        "at": AT,
        "sequence": 4,
        "vector": VECTOR,
        "ops": [json.loads(one) for lines in OPS for one in lines],
        "ack": {"device_id": PHONE_ID, "vector": {DESK_ID: 3, PHONE_ID: 1}},
        "hostile": refusals,
        "hostile_acks": acks,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def write(folder: Path, objects: Mapping[str, bytes]) -> None:
    for key, data in objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
