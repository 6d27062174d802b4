"""Writes `log-v1/`: a device's log in the golden vault, as docs/format.md lays it down, and hostile segments.

    python tests/golden/make_log_v1.py

It uses the second writer in tests/crypto/spec.py and the keys of make_vault_v1.py, and nothing of `dualmem_mcp`.
The files are made once and kept: every later version has to read them, and to refuse the hostile ones as
`expected.json` says.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence
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
FIRST_TICKS = 0x019CA9450A000000
Lines = Sequence[bytes]


def line(number: int, op_kind: str, op_payload: str, **changes: Any) -> bytes:
    """One op; `changes` give members hostile values, or add some."""
    stamp = f"{FIRST_TICKS + number:016x}-{DESK['device_id'].hex()}"
    return spec.canonical({"kind": op_kind, "payload": op_payload, "sequence": number, "stamp": stamp, **changes})


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


ADA = text({"name": "Ada", "entityType": "person", "observations": ["n\u00e9e Byron"]})
TAG = f"{FIRST_TICKS + 1:016x}-{DESK['device_id'].hex()}"
OPS = [
    line(1, "entity.create", ADA),
    line(
        2,
        "observation.add",
        text({"name": "Ada", "entity": [f"{TAG}.0"], "observations": ["wrote notes", "\u4f60\u597d"]}),
    ),
    line(3, "future.kind", text({"anything": [1.5, None, {"nested": True}]})),
    line(4, "record.set", text({"type": "note", "id": "6f1c", "fields": {"text": "Check the crane"}})),
    line(5, "entity.set", '{"name":"Ada","fields":{"extra.mood":"\\ud83d"}}'),
]


class Chain:
    """A log as its device writes it; each part can be given hostile values."""

    def __init__(self, device: dict[str, Any] = DESK) -> None:
        self.device = device
        self.number = 0
        self.hash = bytes(32)

    def segment(
        self,
        lines: Lines | bytes,
        *,
        signer: bytes | None = None,
        signed: bytes | None = None,
        previous: bytes | None = None,
        **header: Any,
    ) -> tuple[str, bytes]:
        self.number += 1
        ops = lines if isinstance(lines, bytes) else b"".join(one + b"\n" for one in lines)
        previous = self.hash if previous is None else previous
        key = f"log/{self.device['device_id'].hex()}/{self.number:020d}"
        message = (
            b"dualmem/1/log"
            + vault.vault_id
            + self.device["device_id"]
            + struct.pack(">Q", self.number)
            + previous
            + hashlib.sha256(ops).digest()
        )
        private = Ed25519PrivateKey.from_private_bytes(signer or self.device["ed25519"])
        content = private.sign(message if signed is None else signed) + ops
        fields = {
            "kind": 6,
            "vault_id": vault.vault_id,
            "device_id": self.device["device_id"],
            "key": key,
            "key_id": b"epoch",
            "key_epoch": vault.epochs[1],
            "wrapping_key": vault.epoch_keys[1],
            "parts": [spec.Part(b"segment", content)],
            "random": vault.random,
            "sequence": self.number,
            "previous": previous,
            **header,
        }
        envelope = spec.Envelope(**fields)
        data = envelope.seal()
        self.hash = envelope.object_hash
        return key, data


def hostile() -> Iterator[tuple[str, str, bytes]]:
    """Title, error and bytes of what may lie at the key of the first segment, and must not be taken in."""
    tampered, newer = "TamperedError", "NewerFormatError"

    def first(lines: Lines | bytes, **how: Any) -> bytes:
        return Chain().segment(lines, **how)[1]

    yield "signed-by-another-device", tampered, first(OPS, signer=PHONE["ed25519"])
    yield "signature-of-other-ops", tampered, first(OPS, signed=b"dualmem/1/log")
    yield "in-another-device-s-name", tampered, first(OPS, device_id=PHONE["device_id"])
    yield "of-another-number", tampered, first(OPS, sequence=2)
    yield "of-another-vault", tampered, first(OPS, vault_id=bytes(16))
    yield "of-another-key", tampered, first(OPS, key=f"log/{PHONE['device_id'].hex()}/{1:020d}")
    yield "of-another-kind", tampered, first(OPS, kind=7)
    yield "newer-kind", newer, first(OPS, kind=99)
    yield "newer-version", newer, first(OPS, version=2)
    yield "under-a-conversation-key", tampered, first(OPS, key_id=vault.conversation_keys[0][0].encode())
    yield "without-its-section", tampered, first(OPS, parts=[spec.Part(b"ops", b"x" * 100)])
    yield "without-a-signature", tampered, first(OPS, parts=[spec.Part(b"segment", b"")])
    yield "no-ops", tampered, first([])
    yield "no-last-line-feed", tampered, first(b"\n".join(OPS))
    yield "an-empty-line", tampered, first(b"\n".join(OPS) + b"\n\n")
    yield "501-ops", tampered, first([line(number, "x.y", "{}") for number in range(1, 502)])
    yield (
        "two-ops-over-1-mib",
        tampered,
        first([line(1, "x.y", "{}"), line(2, "x.y", text({"name": "x" * (1 << 20)}))]),
    )
    yield "one-op-over-16-mib", tampered, first([line(1, "x.y", text({"name": "x" * (16 << 20)}))])
    yield "a-gap", tampered, first([line(1, "x.y", "{}"), line(3, "x.y", "{}")])
    yield "begins-at-0", tampered, first([line(0, "x.y", "{}")])
    yield "backwards", tampered, first([line(2, "x.y", "{}"), line(1, "x.y", "{}")])
    yield "a-number-twice", tampered, first([line(1, "x.y", "{}"), line(1, "x.y", "{}")])
    stamps = {
        "of-another-device": f"{FIRST_TICKS:016x}-{PHONE['device_id'].hex()}",
        "beyond-2-63": f"{2**63:016x}-{DESK['device_id'].hex()}",
        "in-capitals": f"{FIRST_TICKS:016X}-{DESK['device_id'].hex()}",
        "of-nothing": "",
        "no-text": 7,
    }
    for title, stamp in stamps.items():
        yield f"stamp-{title}", tampered, first([line(1, "x.y", "{}", stamp=stamp)])
    same = f"{FIRST_TICKS + 1:016x}-{DESK['device_id'].hex()}"
    yield "one-stamp-twice", tampered, first([line(1, "x.y", "{}"), line(2, "x.y", "{}", stamp=same)])
    for title, sequence in {"text": "1", "true": True, "real": 1.0, "huge": 2**70, "null": None}.items():
        yield f"sequence-{title}", tampered, first([line(1, "x.y", "{}", sequence=sequence)])
    for title, kind in {"empty": "", "long": "x" * 200, "spaced": "entity create", "null": None}.items():
        yield f"kind-{title}", tampered, first([line(1, "", "{}", kind=kind)])
    payloads = {
        "no-json": "{",
        "a-list": "[]",
        "a-number": "1",
        "nothing": "",
        "an-object": {},
        "half-a-pair": '{"name":"\ud83d"}',
        "nested": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        "digits": '{"a":' + "9" * 5_000 + "}",
    }
    for title, payload in payloads.items():
        yield f"payload-{title}", tampered, first([line(1, "x.y", "", payload=payload)])
    good = line(1, "x.y", "{}")
    yield "another-member", tampered, first([line(1, "x.y", "{}", more=1)])
    yield "a-member-missing", tampered, first([b'{"kind":"x.y"}'])
    yield "not-canonical", tampered, first([good.replace(b",", b", ", 1)])
    yield "a-member-twice", tampered, first([good.replace(b"{", b'{"kind":"x.y",', 1)])
    yield "no-json", tampered, first([b"hello"])
    yield "deeply-nested", tampered, first([b"[" * 200_000])
    yield "not-utf-8", tampered, first([b"\xff\xfe"])
    yield "nan", tampered, first([b"NaN"])


def main() -> None:
    folder = HERE / "log-v1"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "hostile").mkdir(parents=True)
    chain = Chain()
    segments = [chain.segment(OPS[:3]), chain.segment(OPS[3:])]
    for key, data in segments:
        path = folder / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    refusals = []
    for title, error, data in hostile():
        (folder / "hostile" / title).write_bytes(data)
        refusals.append({"file": title, "error": error})
    expected = {
        "device_id": DESK["device_id"].hex(),
        "keys": [key for key, _ in segments],
        "last_hash": chain.hash.hex(),
        "ops": [json.loads(one) for one in OPS],
        "hostile": refusals,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
