"""Object stores to test against: a folder, moto's server, and a Ceph gateway where one runs."""

from __future__ import annotations

import functools
import http.client
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
        return _client(self, self.endpoint)

    def make_bucket(self) -> str:
        """The name of a new bucket."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name


@functools.cache
def _client(server: S3Server, endpoint: str) -> S3Client:
    with pytest.MonkeyPatch.context() as patch:
        server.set_environment(patch, endpoint)
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


class FaultyProxy:
    """A server in front of an S3 server that passes requests on, and does with some what it is told.

    `faults` are taken in order, one for each request of the method that they are for; `seen` lists the
    requests that came.
    """

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.upstream = urlsplit(server.endpoint).netloc
        self.faults: list[tuple[str, Fault]] = []
        self.seen: list[tuple[str, str, Message]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def client(self) -> S3Client:
        """A client that goes through this proxy; one for all tests."""
        return _client(self.server, self.endpoint)

    def forget(self) -> None:
        self.faults.clear()
        self.seen.clear()

    def will(self, method: str, *faults: Fault) -> None:
        """Do these, one for each of the next requests of that method."""
        self.faults += [(method, fault) for fault in faults]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Exchange(BaseHTTPRequestHandler):
    """One connection to the proxy; faults are functions of it and of the request's body."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.seen.append((self.command, self.path, self.headers))
        for number, (method, fault) in enumerate(self.proxy.faults):
            if method == self.command:
                del self.proxy.faults[number]
                fault(self, body)
                return
        self.reply(*self.ask(body))

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do_any

    def ask(self, body: bytes, *without: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the server's own answer."""
        headers = {name: value for name, value in self.headers.items() if name not in {"Expect", *without}}
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=20)
        try:
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            upstream.close()

    def reply(self, status: int, headers: dict[str, str], body: bytes, *, cut: int | None = None) -> None:
        """Answer; with `cut`, only so many bytes of the body and then the end of the connection."""
        self.send_response_only(status)
        dropped = {"transfer-encoding", "connection", "content-length"}
        for name, value in headers.items():
            if name.lower() not in dropped:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.hang_up()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: object) -> None:
        """Nothing: pytest shows what matters."""


Fault = Callable[[Exchange, bytes], None]


def _handler(proxy: FaultyProxy) -> type[Exchange]:
    return type("BoundExchange", (Exchange,), {"proxy": proxy})


@pytest.fixture(scope="session")
def proxies() -> Iterator[dict[S3Server, FaultyProxy]]:
    """The proxies that were needed so far."""
    proxies: dict[S3Server, FaultyProxy] = {}
    yield proxies
    for proxy in proxies.values():
        proxy.close()


@pytest.fixture
def proxy(
    s3_server: S3Server, proxies: dict[S3Server, FaultyProxy], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyProxy]:
    """A proxy in front of each S3 server; its address is the one in the environment."""
    proxy = proxies.get(s3_server) or proxies.setdefault(s3_server, FaultyProxy(s3_server))
    proxy.client()
    proxy.forget()
    s3_server.set_environment(monkeypatch, proxy.endpoint)
    yield proxy
    proxy.forget()


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
