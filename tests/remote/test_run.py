"""The server: where it listens, TLS, and how it ends."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dualmem_mcp.errors import DualmemError, StoreUnreachableError, UsageError
from dualmem_mcp.remote.options import Limits, RemoteOptions
from dualmem_mcp.remote.run import addresses, check, run
from dualmem_mcp.remote.tls import Certificate
from tests.remote.http_host import AUTHORIZED, HOST, listening

PUBLIC = RemoteOptions(f"https://{HOST}")


def write_certificate(folder: Path, name: str = HOST, *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """A self-signed certificate and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return paths


# What cannot be served


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "memory.example"])
def test_no_plain_http_beyond_this_machine(host: str) -> None:
    with pytest.raises(UsageError, match="plain HTTP") as caught:
        check(replace(PUBLIC, host=host))
    assert "--certificate" in caught.value.hint
    check(replace(PUBLIC, host=host, certificate=Path("c"), key=Path("k")))


def test_a_certificate_and_its_key_belong_together() -> None:
    for half in ({"certificate": Path("c")}, {"key": Path("k")}):
        with pytest.raises(UsageError, match="belong together"):
            check(replace(PUBLIC, **half))


def test_a_certificate_is_of_no_use_to_clients_that_come_over_http() -> None:
    with pytest.raises(UsageError, match="not what clients call"):
        check(RemoteOptions("http://localhost:8787", certificate=Path("c"), key=Path("k")))


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = write_certificate(tmp_path / "other")
    (tmp_path / "locked").mkdir()
    locked = write_certificate(tmp_path / "locked", passphrase=b"secret")
    (tmp_path / "empty.pem").touch()
    for pair in [
        (tmp_path / "missing.pem", key),
        (certificate, tmp_path / "missing.pem"),
        (tmp_path / "empty.pem", key),
        (key, certificate),
        (certificate, other_key),
        locked,
        (tmp_path, key),
    ]:
        with pytest.raises(UsageError, match="cannot be used") as caught:
            Certificate(*pair)
        assert "PEM" in caught.value.hint
    assert Certificate(certificate, key).context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = replace(PUBLIC, port=taken.getsockname()[1])
        with pytest.raises(StoreUnreachableError, match="cannot be listened on") as caught:
            run(options, lambda: pytest.fail("nothing may be opened"), lambda _: None)
        assert "--port" in caught.value.hint


def test_an_address_that_is_not_here() -> None:
    options = RemoteOptions(f"https://{HOST}", host="127.0.0.1.nowhere.invalid")
    with pytest.raises(DualmemError):
        run(options, lambda: pytest.fail("nothing may be opened"), lambda _: None)


async def test_a_socket_that_cannot_be_listened_on_is_no_endless_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = socket.socket()
    broken.close()
    monkeypatch.setattr("dualmem_mcp.remote.run._listening_sockets", lambda *_: [broken])
    with pytest.raises((OSError, ValueError)):
        async with asyncio.timeout(5), listening(tmp_path):
            raise AssertionError("unreachable")


# What is told at the start


def test_what_to_add_in_claude() -> None:
    told = "\n".join(addresses(PUBLIC, 8787))
    assert "listening on http://127.0.0.1:8787" in told
    assert "https://memory.example/mcp" in told
    assert "Add custom connector" in told
    told = "\n".join(addresses(RemoteOptions("http://localhost:8787", host="::1"), 8787))
    assert "listening on http://[::1]:8787" in told
    assert "Add custom connector" not in told
    assert "--public-url" in told


# TLS


async def test_tls_1_3_and_nothing_older(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    options = replace(PUBLIC, certificate=certificate, key=key)
    trusting = ssl.create_default_context(cafile=certificate)
    async with listening(tmp_path, options=options) as host:
        headers = {**AUTHORIZED, "Host": HOST, "X-Forwarded-For": "203.0.113.7"}
        async with httpx.AsyncClient(verify=trusting) as client:
            extensions = {"sni_hostname": HOST}
            answer = await client.post(
                f"https://127.0.0.1:{host.port}/mcp", headers=headers, content=b"{}", extensions=extensions
            )
        assert answer.status_code == 200
        assert answer.json()["client"] == "127.0.0.1"  # no proxy stands before it: anybody can send that header
        assert answer.headers["strict-transport-security"] == "max-age=31536000"

        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", host.port, ssl=trusting, server_hostname=HOST)
        assert await host.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", seconds=2) == b""  # not in the clear


async def test_a_renewed_certificate_is_shown_without_a_new_start(tmp_path: Path) -> None:
    paths = write_certificate(tmp_path, "old.example")
    certificate = Certificate(*paths)
    (tmp_path / "new").mkdir()
    new = write_certificate(tmp_path / "new", "new.example")

    async def shown() -> str:
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        server = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unchecked)
            shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
            writer.close()
            return shown.subject.rfc4514_string()

    renewing = asyncio.create_task(certificate.keep_renewed(0.02))
    await asyncio.sleep(0.03)
    assert await shown() == "CN=old.example"
    paths[0].write_bytes(new[0].read_bytes())  # the key still is the old one's
    await asyncio.sleep(0.1)
    assert await shown() == "CN=old.example"
    paths[1].write_bytes(new[1].read_bytes())
    await asyncio.sleep(0.2)
    assert await shown() == "CN=new.example"
    renewing.cancel()


# The end


async def test_at_a_stop_calls_are_answered_and_streams_end(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with listening(tmp_path) as host, host.client() as client:
        host.tenant.gate.clear()
        call = asyncio.create_task(client.post("/mcp", headers=AUTHORIZED, content=b"{}"))
        await host.tenant.has_inside(1)
        async with client.stream("GET", "/mcp", headers=AUTHORIZED) as stream:
            host.endpoint.stop()
            assert [part async for part in stream.aiter_bytes()] == [b": there\n\n"]  # whole, not torn
        late = await client.post("/mcp", headers=AUTHORIZED, content=b"{}")
        assert (late.status_code, late.headers["connection"]) == (503, "close")
        assert (await client.get("/readyz")).status_code == 503
        loop.call_later(0.2, host.tenant.gate.set)
        assert (await call).status_code == 200
    assert host.tenant.finished == 1


async def test_a_call_that_does_not_end_does_not_keep_the_server(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with listening(tmp_path, limits=Limits(stop_seconds=1)) as host:
        client = host.client()
        host.tenant.gate.clear()
        call = asyncio.create_task(client.post("/mcp", headers=AUTHORIZED, content=b"{}"))
        await host.tenant.has_inside(1)
        begun = loop.time()
    assert 0.9 < loop.time() - begun < 8
    with pytest.raises(httpx.HTTPError):
        (await call).raise_for_status()
    await client.aclose()


# As a process


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))}
    return {
        **kept,
        "DUALMEM_HOME": str(tmp_path / "home"),
        "DUALMEM_KEYSTORE": "file",
        "DUALMEM_MODEL_DIR": str(tmp_path),
    }


def serve(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dualmem_mcp.cli", "serve", "--transport", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_as_it_ends_the_server_on_stdio(
    environment: dict[str, str], number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serve(environment, "sse", "--port", str(port)) as process:
        try:
            told = [process.stderr.readline() for _ in range(5)]
            assert told[0].startswith("dualmem-mcp: nobody can log in")  # this data home has no vault
            assert told[1] == f"dualmem: listening on http://127.0.0.1:{port}\n"
            assert f"claude mcp add --transport http dualmem http://localhost:{port}/mcp" in told[2]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                assert client.get("/readyz").json() == {"status": "ok"}
                answer = client.post("/mcp", headers={"Host": f"localhost:{port}"})
                assert answer.status_code == 401
                begun = time.monotonic()
                process.send_signal(number)
                out, err = process.communicate(timeout=20)
            assert process.returncode == -number
            assert time.monotonic() - begun < 9
            assert (out, err) == ("", "")
        finally:
            process.kill()


def test_what_cannot_be_served_is_told_with_a_hint(environment: dict[str, str]) -> None:
    process = serve(environment, "http", "--host", "0.0.0.0")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("error: without a certificate 0.0.0.0 would be served over plain HTTP\nhint: ")
