"""A user's own credentials sign what goes to their bucket, whatever the environment says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from dualmem_mcp.errors import TamperedError, UsageError
from dualmem_mcp.model.bucket_access import BucketAccess
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.bucket_access import (
    bucket_access_here,
    connect_as,
    keep_bucket_access,
    kept_bucket_access,
)
from dualmem_mcp.stores.database import Database

HERS = BucketAccess("AKIAHERS", "her secret", "her token", "eu-north-1", "https://s3.example.org")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_what_is_kept_comes_back_and_shows_nothing(tmp_path: Path) -> None:
    with Database.open(tmp_path / "memory.db", bytes(32)) as database:
        blobs = DatabaseBlobCache(database)
        assert kept_bucket_access(blobs) is None
        keep_bucket_access(blobs, HERS)
        assert kept_bucket_access(blobs) == HERS
        keep_bucket_access(blobs, BucketAccess("AKIA", "only these"))
        assert kept_bucket_access(blobs) == BucketAccess("AKIA", "only these")
        blobs.put("local/bucket-credentials", b'{"access_key_id":7}')
        with pytest.raises(TamperedError):
            kept_bucket_access(blobs)
    assert "her secret" not in repr(HERS)
    assert "her token" not in repr(HERS)
    assert b"AKIA" not in (tmp_path / "memory.db").read_bytes()


def test_requests_are_signed_with_them(bare_environment: pytest.MonkeyPatch) -> None:
    bare_environment.setenv("AWS_ACCESS_KEY_ID", "AKIAHOST")
    bare_environment.setenv("AWS_SECRET_ACCESS_KEY", "the host's")
    bare_environment.setenv("AWS_SESSION_TOKEN", "the host's token")
    url = connect_as(HERS).generate_presigned_url("get_object", Params={"Bucket": "vaults", "Key": "k"})
    assert "AKIAHERS" in url
    assert "HOST" not in url
    assert "s3.example.org" in url
    plain = BucketAccess("AKIAHERS", "her secret", region="eu-north-1")
    url = connect_as(plain).generate_presigned_url("get_object", Params={"Bucket": "vaults", "Key": "k"})
    assert "token" not in url.lower()  # a session token of the host's beside her key would fail


def test_those_of_a_call_are_found(bare_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no credentials"):
        bucket_access_here()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION")
    for name, value in zip((*names, "AWS_ENDPOINT_URL_S3"), asdict(HERS).values(), strict=True):
        bare_environment.setenv(name, value)
    assert bucket_access_here() == HERS
    bare_environment.delenv("AWS_ENDPOINT_URL_S3")
    assert bucket_access_here().endpoint_url == ""
