"""The probe of conditional writes, against servers that keep them and servers that do not."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualmem_mcp.errors import StoreRefusedError, StoreUnreachableError
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.stores.objects import open_object_store
from dualmem_mcp.stores.probe import check_conditional_writes
from dualmem_mcp.stores.s3 import S3ObjectStore

if TYPE_CHECKING:
    from tests.stores.conftest import Exchange, FaultyProxy

S3RVER = "s3rver@3.7.1"


def test_stores_that_keep_conditions_pass_and_stay_as_they_were(store: ObjectStore) -> None:
    store.put("a", b"x")
    check_conditional_writes(store)
    assert [info.key for info in store.list()] == ["a"]


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)  # Ceph's gateway checks that headers are as signed
@pytest.mark.parametrize("condition", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_a_condition_is_refused(proxy: FaultyProxy, condition: str) -> None:
    def ignoring(exchange: Exchange, body: bytes) -> None:
        exchange.reply(*exchange.ask(body, condition))

    proxy.will("PUT", *[ignoring] * 20)
    store = S3ObjectStore(proxy.server.make_bucket(), connect=proxy.client)
    with pytest.raises(StoreRefusedError, match=f"ignores the condition {condition} ") as raised:
        check_conditional_writes(store)
    assert "lose data" in raised.value.hint
    assert list(store.list()) == []


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
def test_a_server_that_makes_what_should_be_replaced_is_refused(proxy: FaultyProxy) -> None:
    def as_told(exchange: Exchange, body: bytes) -> None:
        exchange.reply(*exchange.ask(body))

    def making(exchange: Exchange, body: bytes) -> None:
        exchange.reply(*exchange.ask(body, "If-Match"))

    proxy.will("PUT", as_told, as_told, as_told, as_told, making)
    store = S3ObjectStore(proxy.server.make_bucket(), connect=proxy.client)
    with pytest.raises(StoreRefusedError, match="If-Match on a missing object"):
        check_conditional_writes(store)
    assert list(store.list()) == []


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
def test_a_server_that_does_not_know_a_condition_is_refused(proxy: FaultyProxy) -> None:
    def unknown(exchange: Exchange, body: bytes) -> None:
        exchange.reply(501, {}, b"<Error><Code>NotImplemented</Code></Error>")

    proxy.will("PUT", unknown)
    store = S3ObjectStore(proxy.server.make_bucket(), connect=proxy.client)
    with pytest.raises(StoreRefusedError, match="NotImplemented"):
        check_conditional_writes(store)


@pytest.mark.parametrize("s3_server", ["moto"], indirect=True)
def test_a_server_that_keeps_other_bytes_is_refused(proxy: FaultyProxy) -> None:
    """A write that was refused as a conflict and done all the same."""

    def done_and_refused(exchange: Exchange, body: bytes) -> None:
        exchange.ask(body, "If-None-Match")
        exchange.reply(412, {}, b"<Error><Code>PreconditionFailed</Code></Error>")

    proxy.will("PUT", lambda exchange, body: exchange.reply(*exchange.ask(body)), done_and_refused)
    store = S3ObjectStore(proxy.server.make_bucket(), connect=proxy.client)
    with pytest.raises(StoreRefusedError, match="If-None-Match"):
        check_conditional_writes(store)


def test_a_store_that_is_away_is_said_to_be_away(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match="is not there"):
        check_conditional_writes(open_object_store(str(tmp_path / "none")))


@pytest.fixture
def s3rver(tmp_path: Path) -> Iterator[str]:
    """The address of npm's s3rver, a server that knows no conditional writes."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs Node.js and npm")
    default = Path(__file__).resolve().parents[2] / ".cache"
    cache = Path(os.environ.get("DUALMEM_TEST_CACHE", default)) / "npm"
    folder = cache / S3RVER
    program = folder / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Beside its place and then moved there whole: several test processes may install at once.
        unfinished = Path(tempfile.mkdtemp(dir=cache))
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(unfinished), S3RVER]
        installed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if installed.returncode:
            shutil.rmtree(unfinished)
            pytest.skip(f"the npm registry does not give {S3RVER}: {installed.stderr[-200:]}")
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    options = ["--directory", str(tmp_path), "--address", "127.0.0.1", "--port", str(port)]
    options += ["--configure-bucket", "test", "--silent"]
    with subprocess.Popen([node, str(program), *options], stdin=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


@pytest.mark.node
def test_s3rver_is_refused(s3rver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3rver)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "S3RVER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3RVER")
    store = open_object_store("s3://test/vault")
    with pytest.raises(StoreRefusedError, match="ignores the condition If-None-Match"):
        check_conditional_writes(store)
    assert list(store.list()) == []
