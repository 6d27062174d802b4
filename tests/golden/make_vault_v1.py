"""Writes `vault-v1/`: a vault of format version 1 as docs/format.md lays it down, and hostile objects beside it.

    python tests/golden/make_vault_v1.py

It uses the second writer in tests/crypto/spec.py and nothing of `dualmem_mcp`; its randomness is a counter, so
that it writes the same again (but for other versions of zstd). The files are made once and kept: every later
version has to read them, and to refuse the hostile ones as `expected.json` says.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

HERE = Path(__file__).resolve().parent


def load_spec() -> Any:
    """tests/crypto/spec.py, wherever this is started from."""
    source = importlib.util.spec_from_file_location("spec", HERE.parent / "crypto" / "spec.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    sys.modules["spec"] = module
    source.loader.exec_module(module)
    return module


spec = load_spec()
Envelope, Part = spec.Envelope, spec.Part


class Counter:
    """Bytes that look random and are the same on each run."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, length: int) -> bytes:
        self.number += 1
        return hashlib.shake_256(f"golden vault 1, {self.number}".encode()).digest(length)


random = Counter()

PASSPHRASE = "perf\u00e9ct h\u00f6rse battery staple"
CREATED_AT = "2026-03-01T12:00:00Z"
ROUNDS = 600_000

vault_id, master_key, recovery_key = random(16), random(32), random(32)
devices = [
    {"device_id": random(16), "name": "Schreibtisch", "x25519": random(32), "ed25519": random(32)},
    {"device_id": random(16), "name": "phone", "x25519": random(32), "ed25519": random(32)},
]
desk = devices[0]["device_id"]
epochs = [(1 << 32) + 0x0A0B0C0D, (2 << 32) + 0x01020304]
epoch_keys = [random(32), random(32)]
conversation_ids = ["3f0c2a4e-1111-4222-8333-444455556666", "other-thread"]
conversation_keys = [(random(16).hex(), random(32)) for _ in conversation_ids]
handoff_id = random(16).hex()
package_key = f"packages/{handoff_id}"

MANIFEST = b'{"title":"a golden conversation","turns":3}\n'
SECTIONS = {
    "manifest": (MANIFEST, 1),
    "digest": ("Er sagte \u201egut\u201c, und ging. ".encode() * 200, 1),
    "empty": (b"", 1),
    "vectors": (hashlib.shake_256(b"vectors").digest(6000), 2),
    "thread/00000": (b'{"type":"user"}\n' * 3000, 1),
}


def master_subkey(purpose: str) -> bytes:
    return spec.expand(master_key, f"dualmem/1/master/{purpose}".encode())


def name(domain: str, text: str) -> str:
    return spec.hmac_sha256(master_subkey("names"), domain.encode(), b"\0", text.encode())[:16].hex()


def vault_json(**changes: Any) -> bytes:
    """vault.json; `rounds`, `kdf` and `mac` of the passphrase wrap can be given hostile values."""

    def context(kind: str) -> bytes:
        return b"dualmem/1/vault/" + kind.encode() + b"\0" + vault_id + (1).to_bytes(4)

    salt, recovery_salt = random(32), random(32)
    rounds = changes.pop("rounds", ROUNDS)
    secret = hashlib.pbkdf2_hmac("sha256", PASSPHRASE.encode(), salt, min(rounds, ROUNDS))
    kdf = changes.pop("kdf", {"name": "pbkdf2-hmac-sha256", "rounds": rounds, "salt": salt.hex()})
    mac = changes.pop("mac", None)
    recovery_secret = spec.hkdf(recovery_key, recovery_salt, b"dualmem/1/recovery")
    values = {
        "format": 1,
        "vault_id": vault_id.hex(),
        "generation": 1,
        "revision": 1,
        "created_at": CREATED_AT,
        "wraps": [
            {"kind": "passphrase", "kdf": kdf, **spec.wrap(secret, master_key, context("passphrase"))},
            {
                "kind": "recovery",
                "kdf": {"name": "hkdf-sha256", "salt": recovery_salt.hex()},
                **spec.wrap(recovery_secret, master_key, context("recovery")),
            },
        ],
        **changes,
    }
    values["mac"] = mac or spec.hmac_sha256(master_subkey("vault"), spec.canonical(values)).hex()
    values["checksum"] = hashlib.sha256(spec.canonical(values)).hexdigest()
    return spec.canonical(values)


def device_copy(device: dict[str, Any]) -> bytes:
    private, ephemeral = (X25519PrivateKey.from_private_bytes(key) for key in (device["x25519"], random(32)))
    public, ephemeral_public = private.public_key().public_bytes_raw(), ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    secret = spec.hkdf(shared, ephemeral_public + public, b"dualmem/1/device")
    context = b"dualmem/1/device/" + vault_id + device["device_id"] + (1).to_bytes(4)
    return spec.canonical(
        {
            "format": 1,
            "vault_id": vault_id.hex(),
            "device_id": device["device_id"].hex(),
            "generation": 1,
            "ephemeral": ephemeral_public.hex(),
            **spec.wrap(secret, master_key, context),
        }
    )


def envelope(kind: int, key: str, parts: list[Any], **fields: Any) -> Any:
    usual = {"vault_id": vault_id, "device_id": desk, "random": random}
    return Envelope(kind=kind, key=key, parts=parts, **{**usual, **fields})


def roster() -> Iterator[tuple[str, bytes]]:
    previous = bytes(32)
    for number, device in enumerate(devices, start=1):
        signer = Ed25519PrivateKey.from_private_bytes(device["ed25519"])
        x25519 = X25519PrivateKey.from_private_bytes(device["x25519"])
        entry = spec.canonical(
            {
                "format": 1,
                "vault_id": vault_id.hex(),
                "n": number,
                "previous": previous.hex(),
                "action": "add",
                "device_id": device["device_id"].hex(),
                "name": device["name"],
                "x25519": x25519.public_key().public_bytes_raw().hex(),
                "ed25519": signer.public_key().public_bytes_raw().hex(),
                "by": device["device_id"].hex(),
                "at": CREATED_AT,
            }
        )
        key = f"roster/{number:020d}"
        sealed = envelope(
            5,
            key,
            [Part(b"entry", entry), Part(b"signature", signer.sign(b"dualmem/1/roster" + entry))],
            device_id=device["device_id"],
            key_id=b"master.1",
            key_epoch=0,
            wrapping_key=master_subkey("wrap"),
            sequence=number,
            previous=previous,
        )
        yield key, sealed.seal()
        previous = sealed.object_hash


def keys() -> Iterator[tuple[str, bytes]]:
    for epoch, epoch_key in zip(epochs, epoch_keys, strict=True):
        content = {"format": 1, "epoch": epoch, "created_at": CREATED_AT, "key": epoch_key.hex()}
        key, part = f"keys/{epoch:016x}", Part(b"key", spec.canonical(content))
        yield (
            key,
            envelope(
                4, key, [part], key_id=b"master.1", key_epoch=epoch, wrapping_key=master_subkey("wrap")
            ).seal(),
        )
    for conversation_id, (key_id, conversation_key) in zip(conversation_ids, conversation_keys, strict=True):
        content = {
            "format": 1,
            "key_id": key_id,
            "conversation_id": conversation_id,
            "created_at": CREATED_AT,
            "key": conversation_key.hex(),
        }
        key, part = f"keys/c/{key_id}", Part(b"key", spec.canonical(content))
        yield key, envelope(3, key, [part], key_id=b"epoch", key_epoch=epochs[0], wrapping_key=epoch_keys[0]).seal()
    erased = random(16).hex()
    content = {
        "format": 1,
        "key_id": erased,
        "conversation": name("conversation", "erased"),
        "erased_at": CREATED_AT,
        "by": desk.hex(),
    }
    key, part = f"keys/c/{erased}", Part(b"erased", spec.canonical(content))
    yield key, envelope(9, key, [part], key_id=b"epoch", key_epoch=epochs[1], wrapping_key=epoch_keys[1]).seal()


def conversation_object(kind: int, key: str, parts: list[Any], **fields: Any) -> bytes:
    key_id, conversation_key = conversation_keys[0]
    usual = {"key_id": key_id.encode(), "key_epoch": epochs[0], "wrapping_key": conversation_key}
    return envelope(kind, key, parts, **{**usual, **fields}).seal()


def package(**fields: Any) -> bytes:
    parts = [Part(name.encode(), data, algorithm) for name, (data, algorithm) in SECTIONS.items()]
    return conversation_object(1, package_key, parts, **fields)


def small(*parts: Any, **fields: Any) -> bytes:
    return conversation_object(1, package_key, list(parts) or [Part(b"note", b"x" * 50)], **fields)


def changed(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def hostile() -> Iterator[tuple[str, str, str, bytes]]:
    """Name, object key at which it is found, error class, bytes."""
    good = small()
    tampered, newer = "TamperedError", "NewerFormatError"
    for where, position in (("kind", 10), ("header", 60), ("wrapped-key", 210), ("index", 300), ("section", 4000)):
        yield f"changed-{where}", package_key, tampered, changed(good, position)
    for length in (0, 7, 255, 256, 1000, len(good) - 1):
        yield f"cut-at-{length}", package_key, tampered, good[:length]
    yield "made-longer", package_key, tampered, good + b"\0"
    yield "renamed", "packages/" + "00" * 16, tampered, good
    yield "of-another-kind", package_key, tampered, conversation_object(2, package_key, [Part(b"note", b"x")])
    yield "of-another-vault", package_key, tampered, small(vault_id=random(16))
    yield "in-a-chain", package_key, tampered, small(sequence=1)
    yield "commitment-to-another-key", package_key, tampered, small(commitment=random(32))
    yield "newer-version", package_key, newer, small(version=2)
    yield "newer-suite", package_key, newer, small(suite=2)
    yield "newer-kind", package_key, newer, conversation_object(99, package_key, [Part(b"note", b"x")])
    yield "newer-algorithm", package_key, newer, small(Part(b"a", b"x", algorithm=3))
    yield "plain-size-2-63", package_key, tampered, small(Part(b"a", b"x", plain_size=2**63))
    yield "sealed-size-2-63", package_key, tampered, small(Part(b"a", b"x", sealed_size=2**63))
    yield "a-million-sections", package_key, tampered, small(index=(10**6).to_bytes(4) + bytes(2000))
    yield "index-length-4-gib", package_key, tampered, small(index_length=2**32 - 1)
    yield "two-sections-one-name", package_key, tampered, small(Part(b"a", b"x"), Part(b"a", b"y"))
    bomb = Part(b"bomb", bytes(8 << 20))
    bomb.padding = bytes(4096 - len(bomb.stored))
    yield "bomb", package_key, tampered, small(bomb)
    claim = bytes.fromhex("28b52ffd") + bytes([0b11100000]) + (2**62).to_bytes(8, "little")
    yield (
        "frame-claims-2-62",
        package_key,
        tampered,
        small(Part(b"a", b"x", compression=1, stored=claim, plain_size=4000)),
    )
    yield "key-of-an-unknown-conversation", package_key, "NotFoundError", small(key_id=b"ab" * 16)
    yield "vault-one-round", "vault.json", tampered, vault_json(rounds=1)
    yield "vault-endless-rounds", "vault.json", tampered, vault_json(rounds=2**31 - 1)
    memory = {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 2**31 - 1, "salt": "00" * 32}
    yield "vault-memory-bomb", "vault.json", tampered, vault_json(kdf=memory)
    yield "vault-other-mac", "vault.json", tampered, vault_json(mac="00" * 32)
    yield "vault-changed", "vault.json", tampered, changed(vault_json(), 100)
    yield "vault-newer-format", "vault.json", newer, vault_json(format=2)
    other_salt = {"name": "pbkdf2-hmac-sha256", "rounds": ROUNDS, "salt": "00" * 32}
    yield "vault-other-salt", "vault.json", "LockedError", vault_json(kdf=other_salt)


def main() -> None:
    folder = HERE / "vault-v1"
    shutil.rmtree(folder, ignore_errors=True)
    objects = {"vault.json": vault_json(), **dict(roster()), **dict(keys()), package_key: package()}
    for device in devices:
        objects[f"keys/d/{device['device_id'].hex()}"] = device_copy(device)
    record = MANIFEST
    folded = name("conversation", conversation_ids[0])
    manifest_key = f"manifests/{folded}/{name('manifest', hashlib.sha256(record).hexdigest())}"
    objects[manifest_key] = conversation_object(2, manifest_key, [Part(b"record", record)])
    for key, data in objects.items():
        path = folder / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    refusals = []
    (folder / "hostile").mkdir(parents=True)
    for title, key, error, data in hostile():
        (folder / "hostile" / title).write_bytes(data)
        refusals.append({"file": title, "key": key, "error": error})
    expected = {
        "passphrase": PASSPHRASE,
        "recovery_key": spec.recovery_text(recovery_key),
        "wrong_secrets": {
            "": "LockedError",
            PASSPHRASE.upper(): "LockedError",
            spec.recovery_text(random(32)): "LockedError",
            spec.recovery_text(recovery_key)[:-1] + "*": "LockedError",
        },
        "vault_id": vault_id.hex(),
        "devices": [
            {
                "device_id": device["device_id"].hex(),
                "name": device["name"],
                "keys": (device["x25519"] + device["ed25519"]).hex(),
            }
            for device in devices
        ],
        "epochs": {str(epoch): key.hex() for epoch, key in zip(epochs, epoch_keys, strict=True)},
        "conversation_keys": {
            key_id: {"conversation_id": conversation_id, "key": key.hex()}
            for conversation_id, (key_id, key) in zip(conversation_ids, conversation_keys, strict=True)
        },
        "package": {
            "key": package_key,
            "sections": {name: hashlib.sha256(data).hexdigest() for name, (data, _) in SECTIONS.items()},
        },
        "manifest": {"key": manifest_key, "record": record.decode()},
        "hostile": refusals,
    }
    (folder / "expected.json").write_text(
        json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
