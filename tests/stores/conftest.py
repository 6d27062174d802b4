"""Object stores to test against: a folder, moto's server, and a Ceph gateway where one runs."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.stores.objects import open_object_store
from dualmem_mcp.stores.s3 import S3ObjectStore, connect_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


_TOLD = ("ENDPOINT_URL_S3", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class S3Server:
    """An S3 server on loopback and the credentials of a user who may make buckets there."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str

    def set_environment(self, patch: pytest.MonkeyPatch, endpoint: str = "") -> None:
        """What a user would set, for `with` and instead of anything that this machine has set."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL_S3", endpoint or self.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", self.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", self.secret_key)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")

    def client(self) -> S3Client:
        """A client for this server; one for all tests, since each takes 0.3 s to make."""
        return _client(self)

    def make_bucket(self) -> str:
        """The name of a new bucket."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


@functools.cache
def _client(server: S3Server) -> S3Client:
    with pytest.MonkeyPatch.context() as patch:
        server.set_environment(patch)
        client = connect_client()
        client.list_buckets()  # reads the credentials while they are set
    return client


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto's S3, a real server on a free port of loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server("moto", f"http://{host}:{port}", "testing", "testing")
    server.stop()


@pytest.fixture(scope="session")
def radosgw_server() -> S3Server:
    """The Ceph gateway that scripts/test started and told of in the environment."""
    told = [os.environ.get(f"DUALMEM_TEST_AWS_{name}", "") for name in _TOLD]
    if not all(told):
        pytest.skip("needs a Ceph gateway: scripts/test starts one where Debian's packages can be had")
    return S3Server("radosgw", *told)


S3_SERVERS = ["moto", pytest.param("radosgw", marks=pytest.mark.radosgw)]


@pytest.fixture(params=S3_SERVERS)
def s3_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Each S3 server there is, its address and credentials in the environment."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    server.set_environment(monkeypatch)
    return server


@pytest.fixture(params=["directory", *S3_SERVERS])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where an empty store of each implementation is."""
    if request.param == "directory":
        location = str(tmp_path / "bucket")
        open_object_store(location, create=True)
        return location
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    server.set_environment(monkeypatch)
    return f"s3://{server.make_bucket()}/vaults/one"


@pytest.fixture
def store(location: str, request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store of each implementation."""
    if not location.startswith("s3://"):
        return open_object_store(location)
    server: S3Server = request.getfixturevalue(f"{request.node.callspec.params['location']}_server")
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    return S3ObjectStore(bucket, prefix, connect=server.client)


Opener = Callable[[], ObjectStore]


@pytest.fixture
def reopen(location: str) -> Opener:
    """Opens the same store again, as another process would."""
    return lambda: open_object_store(location)
