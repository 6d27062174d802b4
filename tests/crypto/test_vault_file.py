"""vault.json: as laid down, with parameters within bounds, opened by the right secret only."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.kdf import Argon2id, Kdf, KdfLimits, Pbkdf2
from dualmem_mcp.crypto.recovery import format_recovery_key
from dualmem_mcp.crypto.vault_file import (
    VaultFile,
    make_vault_file,
    parse_vault_file,
    unlock,
    with_recovery_key,
    without_older_recovery_keys,
)
from dualmem_mcp.errors import ConflictError, LockedError, TamperedError
from dualmem_mcp.model.ids import VaultId
from tests.crypto import spec
from tests.crypto.conftest import FAST_KDF, FAST_LIMITS, PASSPHRASE

MASTER, RECOVERY = bytes(range(32)), bytes(range(32, 64))


def make(kdf: Kdf = FAST_KDF) -> VaultFile:
    return make_vault_file(
        MASTER,
        vault_id=VaultId("ab" * 16),
        passphrase=PASSPHRASE,
        recovery_key=RECOVERY,
        kdf=kdf,
        created_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )


SMALL_ARGON = Argon2id(iterations=1, lanes=1, memory_kib=64)
ANY_LIMITS = KdfLimits(min_rounds=1, min_memory_kib=8, min_iterations=1)


@pytest.mark.parametrize("kdf", [FAST_KDF, SMALL_ARGON])
def test_both_secrets_open_it(kdf):
    file = parse_vault_file(make(kdf).encode())
    assert unlock(file, PASSPHRASE, limits=ANY_LIMITS) == MASTER
    assert unlock(file, format_recovery_key(RECOVERY), limits=ANY_LIMITS) == MASTER
    with pytest.raises(LockedError):
        unlock(file, PASSPHRASE + "x", limits=ANY_LIMITS)


def test_the_default_parameters_open_by_default():
    file = make(Pbkdf2())
    assert file.values["wraps"][0]["kdf"]["rounds"] == 600_000
    assert unlock(file, PASSPHRASE, limits=KdfLimits()) == MASTER


def test_the_layout_is_as_written_down():
    values = json.loads(make().encode())
    context = b"dualmem/1/vault/passphrase\0" + b"\xab" * 16 + (1).to_bytes(4)
    wrap = values["wraps"][0]
    salt = bytes.fromhex(wrap["kdf"]["salt"])
    secret = hashlib.pbkdf2_hmac("sha256", PASSPHRASE.encode(), salt, wrap["kdf"]["rounds"])
    assert {name: wrap[name] for name in ("wrapped", "commitment")} == spec.wrap(secret, MASTER, context)
    wrap = values["wraps"][1]
    secret = spec.hkdf(RECOVERY, bytes.fromhex(wrap["kdf"]["salt"]), b"dualmem/1/recovery")
    context = b"dualmem/1/vault/recovery\0" + b"\xab" * 16 + (1).to_bytes(4)
    assert {name: wrap[name] for name in ("wrapped", "commitment")} == spec.wrap(secret, MASTER, context)
    covered = {name: value for name, value in values.items() if name not in {"mac", "checksum"}}
    assert (
        values["mac"]
        == spec.hmac_sha256(spec.expand(MASTER, b"dualmem/1/master/vault"), spec.canonical(covered)).hex()
    )
    assert spec.recovery_text(RECOVERY) == format_recovery_key(RECOVERY)


def test_salts_are_new_each_time():
    first, second = make().values["wraps"], make().values["wraps"]
    for one, other in zip(first, second, strict=True):
        assert one["kdf"]["salt"] != other["kdf"]["salt"]
        assert one["wrapped"] != other["wrapped"]


def test_every_changed_byte_is_tampering():
    good = make().encode()
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1
        with pytest.raises(TamperedError):
            parse_vault_file(bytes(changed))


def forged(change: dict[str, object], wrap: dict[str, object] | None = None) -> VaultFile:
    """A file changed by somebody with access to the bucket: checksum right, MAC as it was."""
    values = json.loads(make().encode()) | change
    if wrap is not None:
        values["wraps"][0] |= wrap
    del values["checksum"]
    values["checksum"] = hashlib.sha256(canonical_json(values)).hexdigest()
    return parse_vault_file(canonical_json(values))


@pytest.mark.parametrize(
    "wrap",
    [
        {"kdf": {"name": "pbkdf2-hmac-sha256", "rounds": 1, "salt": "00" * 32}},
        {"kdf": {"name": "pbkdf2-hmac-sha256", "rounds": 2**31, "salt": "00" * 32}},
        {"kdf": {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 2**30, "salt": "00" * 32}},
        {"kdf": {"name": "hkdf-sha256", "salt": "00" * 32}},
        {"kdf": {"name": "pbkdf2-hmac-sha256", "rounds": 1000, "salt": "00"}},
        {"kdf": {"name": "pbkdf2-hmac-sha256", "rounds": 1000}},
        {"kdf": []},
        {"wrapped": "00"},
        {"wrapped": "00" * 5000},
        {"commitment": None},
        {"kind": "other"},
    ],
    ids=str,
)
def test_a_hostile_wrap_is_refused_before_any_derivation(wrap, monkeypatch):
    file = forged({}, wrap)

    def never(*_: object) -> bytes:
        raise AssertionError("derived")

    monkeypatch.setattr(Pbkdf2, "derive", never)
    monkeypatch.setattr(Argon2id, "derive", never)
    with pytest.raises(TamperedError):
        unlock(file, PASSPHRASE, limits=FAST_LIMITS)


@pytest.mark.parametrize("wraps", [None, "x", 5, [], [5], [[]], {}], ids=str)
def test_wraps_of_another_form(wraps):
    with pytest.raises(TamperedError):
        unlock(forged({"wraps": wraps}), PASSPHRASE, limits=FAST_LIMITS)


@pytest.mark.parametrize(
    "change", [{"revision": 9}, {"created_at": "2020-01-01T00:00:00Z"}, {"colour": "red"}], ids=str
)
def test_fields_beside_the_wraps_are_covered_by_the_mac(change):
    with pytest.raises(TamperedError, match="changed"):
        unlock(forged(change), PASSPHRASE, limits=FAST_LIMITS)


@pytest.mark.parametrize(
    "change",
    [{"generation": 0}, {"generation": 2**40}, {"revision": 0}, {"vault_id": "ab"}, {"vault_id": None}],
    ids=str,
)
def test_impossible_fields(change):
    with pytest.raises(TamperedError):
        forged(change)


def test_a_wrap_of_another_vault_or_generation_does_not_open():
    for change in ({"vault_id": "cd" * 16}, {"generation": 2}):
        with pytest.raises(LockedError):
            unlock(forged(change), PASSPHRASE, limits=FAST_LIMITS)


def test_a_wrap_changed_behind_its_commitment_is_tampered_not_locked():
    wrapped = make().values["wraps"][0]["wrapped"]
    file = make()
    values = json.loads(file.encode())
    values["wraps"][0]["wrapped"] = wrapped
    del values["checksum"]
    values["checksum"] = hashlib.sha256(canonical_json(values)).hexdigest()
    with pytest.raises(TamperedError):
        unlock(parse_vault_file(canonical_json(values)), PASSPHRASE, limits=FAST_LIMITS)


def test_recovery_keys_one_after_the_other():
    first, second, third = (bytes([number]) * 32 for number in (7, 8, 9))
    file = make(FAST_KDF)
    for key in (first, second, second, third):  # the second twice: the answer to a write was lost
        file = with_recovery_key(file, MASTER, key)
        file.check_mac(MASTER)
    assert file.revision == 5
    for key in (RECOVERY, first, second, third):
        assert unlock(file, format_recovery_key(key), limits=FAST_LIMITS) == MASTER
    file = parse_vault_file(without_older_recovery_keys(file, MASTER, second).encode())
    assert (file.revision, len(file.values["wraps"])) == (6, 3)
    assert unlock(file, format_recovery_key(second), limits=FAST_LIMITS) == MASTER
    assert unlock(file, format_recovery_key(third), limits=FAST_LIMITS) == MASTER
    assert unlock(file, PASSPHRASE, limits=FAST_LIMITS) == MASTER
    for key in (RECOVERY, first):
        with pytest.raises(LockedError):
            unlock(file, format_recovery_key(key), limits=FAST_LIMITS)
    with pytest.raises(ConflictError, match="newer recovery key"):
        without_older_recovery_keys(file, MASTER, first)


def test_what_this_version_does_not_know_stays_in_a_revision():
    values = json.loads(make().encode())
    del values["mac"], values["checksum"]
    values["wraps"].append({"kind": "backup-passphrase", "of": "a later version"})
    values["later"] = True
    file = with_recovery_key(_signed(values), MASTER, bytes(32))
    file = without_older_recovery_keys(file, MASTER, bytes(32))
    assert [wrap["kind"] for wrap in file.values["wraps"]] == ["passphrase", "backup-passphrase", "recovery"]
    assert file.values["later"] is True
    file.check_mac(MASTER)


def _signed(values: dict) -> VaultFile:
    key = spec.expand(MASTER, b"dualmem/1/master/vault")
    values["mac"] = spec.hmac_sha256(key, spec.canonical(values)).hex()
    values["checksum"] = hashlib.sha256(spec.canonical(values)).hexdigest()
    return parse_vault_file(canonical_json(values))
