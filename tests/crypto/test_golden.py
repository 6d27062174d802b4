"""A vault of format version 1, written from docs/format.md by another program, stays readable, and hostile
objects stay refused. Made by tests/golden/make_vault_v1.py."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp import errors
from dualmem_mcp.crypto.envelope import ObjectKind, SealedReader, bytes_reader
from dualmem_mcp.crypto.keys import DeviceKeys
from dualmem_mcp.crypto.membership import join_vault, open_vault
from dualmem_mcp.crypto.vault import Vault
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryBlobCache, MemoryObjectStore

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "vault-v1"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def bucket() -> MemoryObjectStore:
    store = MemoryObjectStore()
    root = FOLDER / "bucket"
    for path in root.rglob("*"):
        if path.is_file():
            store.objects[path.relative_to(root).as_posix()] = path.read_bytes()
    return store


def join(store: MemoryObjectStore, secret: str, device: int | None = None) -> Vault:
    known = EXPECTED["devices"][device] if device is not None else None
    return join_vault(
        store,
        MemoryBlobCache(),
        secret=secret,
        device_id=known["device_id"] if known else "f0" * 16,
        device_name="new",
        device_keys=DeviceKeys.from_bytes(bytes.fromhex(known["keys"])) if known else DeviceKeys.generate(),
        clock=SteppingClock(),
    )


@pytest.fixture(scope="module")
def vault() -> Vault:
    return join(bucket(), EXPECTED["passphrase"])


@pytest.mark.parametrize("secret", ["passphrase", "recovery_key"])
def test_both_secrets_open_it(secret):
    joined = join(bucket(), EXPECTED[secret])
    assert joined.vault_id == EXPECTED["vault_id"]
    assert [device.name for device in joined.devices()] == ["Schreibtisch", "phone", "new"]


@pytest.mark.parametrize(("secret", "error"), EXPECTED["wrong_secrets"].items())
def test_wrong_secrets(secret, error):
    with pytest.raises(getattr(errors, error)):
        join(bucket(), secret)


@pytest.mark.parametrize("device", [0, 1])
def test_its_devices_open_it_with_their_own_keys(device):
    """From their caches alone, as after years."""
    known, cache = EXPECTED["devices"][device], MemoryBlobCache()
    cache.blobs = dict(bucket().objects)
    vault = open_vault(
        cache, device_id=known["device_id"], device_keys=DeviceKeys.from_bytes(bytes.fromhex(known["keys"]))
    )
    assert vault.device_name == known["name"]
    assert {str(epoch): vault.epoch_key(int(epoch)).hex() for epoch in EXPECTED["epochs"]} == EXPECTED["epochs"]


def test_a_device_of_the_roster_joins_again_under_its_number():
    assert len(join(bucket(), EXPECTED["passphrase"], device=1).devices()) == 2


def test_conversation_keys(vault):
    for key_id, stated in EXPECTED["conversation_keys"].items():
        key = vault.conversation_key(key_id)
        assert (key.conversation_id, key.key.hex()) == (stated["conversation_id"], stated["key"])


def test_the_erased_conversation(vault):
    [key_id] = [
        key.removeprefix("keys/c/")
        for key in bucket().objects
        if key.startswith("keys/c/") and key.removeprefix("keys/c/") not in EXPECTED["conversation_keys"]
    ]
    with pytest.raises(errors.NotFoundError, match="erased"):
        vault.conversation_key(key_id)


def test_the_package(vault):
    key = EXPECTED["package"]["key"]
    reader = SealedReader.open(
        bytes_reader(bucket().objects[key]), place_of=vault.place_of(ObjectKind.PACKAGE, key), unwrap=vault.unwrap
    )
    read = {name: hashlib.sha256(reader.read_section(name)).hexdigest() for name in reader.names}
    assert read == EXPECTED["package"]["sections"]


def test_the_manifest_and_its_name(vault):
    key, record = EXPECTED["manifest"]["key"], EXPECTED["manifest"]["record"].encode()
    reader = SealedReader.open(
        bytes_reader(bucket().objects[key]), place_of=vault.place_of(ObjectKind.MANIFEST, key), unwrap=vault.unwrap
    )
    assert reader.read_section("record") == record
    [conversation_id, _] = [stated["conversation_id"] for stated in EXPECTED["conversation_keys"].values()]
    names = (
        vault.object_name("conversation", conversation_id),
        vault.object_name("manifest", hashlib.sha256(record).hexdigest()),
    )
    assert key == "manifests/{}/{}".format(*names)


@pytest.mark.parametrize("stated", EXPECTED["hostile"], ids=lambda stated: stated["file"])
def test_hostile_objects(stated, vault):
    data, key = (FOLDER / "hostile" / stated["file"]).read_bytes(), stated["key"]

    def open_it() -> None:
        if key == "vault.json":
            store = bucket()
            store.objects[key] = data
            join(store, EXPECTED["passphrase"])
        else:
            place_of = vault.place_of(ObjectKind.PACKAGE, key)
            reader = SealedReader.open(bytes_reader(data), place_of=place_of, unwrap=vault.unwrap)
            for name in reader.names:
                reader.read_section(name)

    with pytest.raises(errors.DualmemError) as caught:
        open_it()
    assert type(caught.value).__name__ == stated["error"]
    assert caught.value.hint
