"""The S3 store beyond the common contract: faults of network and server, what is sent, set-ups that cannot work."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import boto3
import pytest

from dualmem_mcp.errors import (
    ConflictError,
    NotFoundError,
    StoreRefusedError,
    StoreUnreachableError,
    TamperedError,
)
from dualmem_mcp.stores import s3
from dualmem_mcp.stores.s3 import S3ObjectStore

if TYPE_CHECKING:
    from tests.stores.conftest import Exchange, FaultyProxy, S3Server

Answer = tuple[int, dict[str, str], bytes]


# Faults, as functions of an exchange


def busy(exchange: Exchange, body: bytes) -> None:
    error(503, "SlowDown")(exchange, body)


def error(status: int, code: str, text: str = "") -> Callable[[Exchange, bytes], None]:
    """The server answers with that error and does nothing."""
    document = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'.encode()

    def reply(exchange: Exchange, body: bytes) -> None:
        exchange.reply(status, {"Content-Type": "application/xml"}, b"" if exchange.command == "HEAD" else document)

    reply.__name__ = f"{status}_{code}"
    return reply


def lost(exchange: Exchange, body: bytes) -> None:
    """The server does it, and its answer is lost."""
    exchange.ask(body)
    exchange.hang_up()


def dead(exchange: Exchange, body: bytes) -> None:
    """The connection breaks before anything is done."""
    exchange.hang_up()


def cut_short(exchange: Exchange, body: bytes) -> None:
    exchange.reply(*exchange.ask(body), cut=5)


def changed(exchange: Exchange, body: bytes) -> None:
    """The content has one byte changed on its way."""
    status, headers, content = exchange.ask(body)
    exchange.reply(status, headers, bytes([content[0] ^ 1]) + content[1:])


def sign_in_page(exchange: Exchange, body: bytes) -> None:
    exchange.reply(200, {"Content-Type": "text/html"}, b"<html>Welcome to the hotel</html>")


class Pauses:
    """Stands in for sleep, so that tests of retries do not take their time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket()


@pytest.fixture
def store(proxy: FaultyProxy, bucket: str, pauses: Pauses) -> S3ObjectStore:
    return S3ObjectStore(bucket, "vault", connect=proxy.client, sleep=pauses)


# Passing faults


@pytest.mark.parametrize("fault", [busy, dead, error(500, "InternalError"), error(429, "TooManyRequests")])
def test_passing_faults_are_waited_out(
    store: S3ObjectStore, proxy: FaultyProxy, pauses: Pauses, fault: Callable[[Exchange, bytes], None]
) -> None:
    proxy.will("PUT", fault, fault)
    tag = store.put("k", b"content")
    proxy.will("GET", fault)
    assert store.get("k") == b"content"
    proxy.will("GET", fault)
    assert store.get("k", start=3, length=2) == b"te"
    proxy.will("HEAD", fault)
    assert store.stat("k").etag == tag
    proxy.will("GET", fault)
    assert [info.key for info in store.list()] == ["k"]
    proxy.will("DELETE", fault)
    store.delete("k")
    assert list(store.list()) == []
    assert proxy.faults == []
    assert len(pauses.seconds) == 7


def test_a_server_that_stays_busy(store: S3ObjectStore, proxy: FaultyProxy, pauses: Pauses) -> None:
    proxy.will("PUT", *[busy] * 20)
    with pytest.raises(StoreUnreachableError, match=re.escape("SlowDown (503)")) as raised:
        store.put("k", b"x", if_absent=True)
    assert not isinstance(raised.value, StoreRefusedError)
    assert len(proxy.seen) == 5
    assert len(pauses.seconds) == 4
    assert all(0.5 * 0.2 * 2**n <= pause <= 0.2 * 2**n for n, pause in enumerate(pauses.seconds))


def test_answers_cut_short_are_asked_for_again(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    store.put("k", b"0123456789")
    proxy.will("GET", cut_short, cut_short)
    assert store.get("k") == b"0123456789"
    proxy.will("GET", cut_short)
    assert store.get("k", start=1, length=8) == b"12345678"
    assert proxy.faults == []


def test_content_changed_on_its_way_is_asked_for_again(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    store.put("k", b"0123456789")
    proxy.will("GET", changed)
    assert store.get("k") == b"0123456789"
    proxy.will("GET", *[changed] * 20)
    with pytest.raises(TamperedError, match="does not fit the checksum"):
        store.get("k")


# Writes whose answer is lost


def test_own_write_is_recognised_when_its_answer_is_lost(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.will("PUT", lost)
    tag = store.put("k", b"mine", if_absent=True)
    assert store.get("k") == b"mine"
    assert store.stat("k").etag == tag


def test_own_replacement_is_recognised_when_its_answer_is_lost(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    first = store.put("k", b"first")
    proxy.will("PUT", lost)
    second = store.put("k", b"second", if_match=first)
    assert store.get("k") == b"second"
    assert store.stat("k").etag == second


def test_a_lost_answer_that_cannot_be_settled_is_no_success(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.will("PUT", lost)
    proxy.will("GET", *[dead] * 20)
    with pytest.raises(StoreUnreachableError):
        store.put("k", b"mine", if_absent=True)


def test_another_write_is_no_success_of_ours(
    store: S3ObjectStore, proxy: FaultyProxy, bucket: str, s3_server: S3Server
) -> None:
    def somebody_else_is_faster(exchange: Exchange, body: bytes) -> None:
        S3ObjectStore(bucket, "vault", connect=s3_server.client).put("k", b"theirs", if_absent=True)
        exchange.hang_up()

    proxy.will("PUT", somebody_else_is_faster)
    with pytest.raises(ConflictError):
        store.put("k", b"mine", if_absent=True)
    assert store.get("k") == b"theirs"


def test_equal_bytes_of_another_are_a_conflict_where_no_answer_was_lost(store: S3ObjectStore) -> None:
    store.put("k", b"same", if_absent=True)
    with pytest.raises(ConflictError):
        store.put("k", b"same", if_absent=True)


# 409: another write is under way


def test_a_write_under_way_is_waited_out(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.will("PUT", *[error(409, "ConditionalRequestConflict")] * 3)
    store.put("k", b"x", if_absent=True)
    assert store.get("k") == b"x"


def test_a_write_that_stays_under_way_is_a_conflict(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.will("PUT", *[error(409, "ConditionalRequestConflict")] * 20)
    with pytest.raises(ConflictError, match="409"):
        store.put("k", b"x", if_absent=True)


def test_a_write_that_was_under_way_and_won(
    store: S3ObjectStore, proxy: FaultyProxy, bucket: str, s3_server: S3Server
) -> None:
    def another_wins(exchange: Exchange, body: bytes) -> None:
        S3ObjectStore(bucket, "vault", connect=s3_server.client).put("k", body)
        error(409, "ConditionalRequestConflict")(exchange, body)

    proxy.will("PUT", another_wins)
    with pytest.raises(ConflictError):
        store.put("k", b"x", if_absent=True)


# What is sent


def test_writes_carry_checksums_that_every_server_knows(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    data = os.urandom(100_000)
    store.put("k", data)
    _, _, headers = proxy.seen[-1]
    assert headers["Content-MD5"] == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert headers["x-amz-meta-sha256"] == hashlib.sha256(data).hexdigest()
    assert headers["Content-Length"] == "100000"
    assert "aws-chunked" not in headers.get("Content-Encoding", "")
    assert not [name for name in headers if name.lower().startswith(("x-amz-checksum", "x-amz-trailer"))]


def test_ranges_fetch_no_more_than_asked(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    store.put("k", bytes(1000))
    store.get("k", start=10, length=5)
    assert proxy.seen[-1][2]["Range"] == "bytes=10-14"
    store.get("k", start=10)
    assert proxy.seen[-1][2]["Range"] == "bytes=10-"


def test_a_server_that_knows_no_ranges(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    def whole(exchange: Exchange, body: bytes) -> None:
        exchange.reply(200, {"ETag": '"0"'}, b"0123456789")

    store.put("k", b"0123456789")
    proxy.will("GET", whole, whole, whole)
    assert store.get("k", start=3, length=4) == b"3456"
    assert store.get("k", start=3) == b"3456789"
    assert store.get("k", start=10, length=4) == b""


def test_the_form_of_tags_is_learnt_once(store: S3ObjectStore, proxy: FaultyProxy, s3_server: S3Server) -> None:
    quoted = s3_server.name != "radosgw"
    tag = store.put("k", b"0")
    for number in range(1, 4):
        tag = store.put("k", b"%d" % number, if_match=tag)
    sent = [headers["If-Match"] for method, _, headers in proxy.seen if method == "PUT" and "If-Match" in headers]
    assert len(sent) == (3 if quoted else 4)
    assert all(value.startswith('"') == quoted for value in sent[-3:])


def test_a_lost_race_teaches_nothing_of_tags(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    first = store.put("k", b"first")
    second = store.put("k", b"second")
    with pytest.raises(ConflictError):
        store.put("k", b"lost", if_match=first)
    store.put("k", b"third", if_match=second)
    assert store.get("k") == b"third"


def test_objects_lie_below_the_prefix(store: S3ObjectStore, bucket: str, s3_server: S3Server) -> None:
    store.put("a/b", b"x")
    client = s3_server.client()
    client.put_object(Bucket=bucket, Key="vault2/other", Body=b"")
    client.put_object(Bucket=bucket, Key="vault/", Body=b"")
    client.put_object(Bucket=bucket, Key="vault/a/", Body=b"")
    client.put_object(Bucket=bucket, Key="vault/a/odd name", Body=b"")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert "vault/a/b" in keys
    assert [info.key for info in store.list()] == ["a/b"]
    assert store.location == f"s3://{bucket}/vault"


def test_whole_bucket_as_store(proxy: FaultyProxy, bucket: str) -> None:
    store = S3ObjectStore(bucket, connect=proxy.client)
    store.put("a", b"x")
    assert [info.key for info in store.list("", start_after="0")] == ["a"]
    assert store.location == f"s3://{bucket}"


def test_pages_follow_each_other(store: S3ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(7)]
    for name in names:
        store.put(name, name.encode())
    client = store._s3()
    small = client.list_objects_v2
    monkeypatch.setattr(client, "list_objects_v2", lambda **request: small(**request, MaxKeys=3))
    assert [info.key for info in store.list()] == names
    assert [info.key for info in store.list(start_after="n1")] == names[2:]


def test_a_server_without_order(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    def backwards(exchange: Exchange, body: bytes) -> None:
        status, headers, content = exchange.ask(body)
        entries = re.findall(rb"<Contents>.*?</Contents>", content, re.DOTALL)
        joined = b"".join(entries)
        assert joined in content
        exchange.reply(status, headers, content.replace(joined, b"".join(reversed(entries))))

    store.put("a", b"x")
    store.put("b", b"x")
    proxy.will("GET", backwards)
    with pytest.raises(StoreRefusedError, match="in order"):
        list(store.list())


# Set-ups that cannot work


def test_no_bucket(store: S3ObjectStore, proxy: FaultyProxy, pauses: Pauses) -> None:
    for operation in (
        lambda store: store.put("k", b"x"),
        lambda store: store.get("k"),
        lambda store: store.get("k", start=1, length=2),
        lambda store: store.stat("k"),
        lambda store: list(store.list()),
        lambda store: store.put("k", b"x", if_match="0" * 32),
    ):
        with pytest.raises(StoreRefusedError, match="bucket") as raised:
            operation(S3ObjectStore("no-such-bucket", connect=proxy.client, sleep=pauses))
        assert "Make the bucket" in raised.value.hint
    assert pauses.seconds == []


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "rights"),
        (403, "InvalidObjectState", "restore-object"),
        (403, "", "rights"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", "sign in"),
        (403, "RequestTimeTooSkewed", "clock"),
        (501, "NotImplemented", "lacks"),
        (400, "InvalidRequest", "set-up"),
    ],
)
def test_refusals_are_not_tried_again(
    store: S3ObjectStore, proxy: FaultyProxy, status: int, code: str, hint: str
) -> None:
    proxy.will("PUT", error(status, code, "the key AKIASECRET"))
    with pytest.raises(StoreRefusedError, match=str(status)) as raised:
        store.put("k", b"x")
    assert hint in raised.value.hint
    assert len(proxy.seen) == 1
    assert "AKIASECRET" not in str(raised.value) + raised.value.hint


def test_a_refusal_by_head_has_no_code(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.will("HEAD", error(403, "AccessDenied"))
    with pytest.raises(StoreRefusedError, match="403"):
        store.stat("k")


@pytest.mark.radosgw
def test_wrong_keys(
    radosgw_server: S3Server, monkeypatch: pytest.MonkeyPatch, bucket: str, s3_server: S3Server
) -> None:
    radosgw_server.set_environment(monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreRefusedError, match="SignatureDoesNotMatch"):
        S3ObjectStore(bucket).get("k")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with pytest.raises(StoreRefusedError, match="InvalidAccessKeyId"):
        S3ObjectStore(bucket).get("k")


@pytest.mark.radosgw
def test_damaged_uploads_are_refused_by_the_server(
    radosgw_server: S3Server, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content-MD5 is worth sending: Ceph checks it (moto does not)."""
    client, bucket = radosgw_server.client(), radosgw_server.make_bucket()
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with pytest.raises(client.exceptions.ClientError, match=r"BadDigest|InvalidDigest"):
        client.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5=wrong)


def test_no_credentials(store: S3ObjectStore, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreRefusedError, match="no usable credentials") as raised:
        S3ObjectStore(bucket).get("k")
    assert "AWS_ACCESS_KEY_ID" in raised.value.hint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(StoreRefusedError, match="no usable credentials"):
        S3ObjectStore(bucket).get("k")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreRefusedError, match="no usable credentials"):
        S3ObjectStore(bucket).get("k")


def test_no_certificates(store: S3ObjectStore, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", " ")
    with pytest.raises(StoreRefusedError, match="InvalidConfigError") as raised:
        S3ObjectStore(bucket).get("k")
    assert "AWS_CA_BUNDLE" in raised.value.hint


def test_an_endpoint_that_is_no_url(store: S3ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(StoreRefusedError, match="address"):
        S3ObjectStore("bucket").get("k")


def test_nobody_listens(store: S3ObjectStore, monkeypatch: pytest.MonkeyPatch, pauses: Pauses) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(StoreUnreachableError, match="EndpointConnectionError") as raised:
            S3ObjectStore("bucket", sleep=pauses).put("k", b"x")
    assert not isinstance(raised.value, StoreRefusedError)
    assert "network" in raised.value.hint
    assert len(pauses.seconds) == 2


def test_a_server_that_says_nothing(store: S3ObjectStore, monkeypatch: pytest.MonkeyPatch, pauses: Pauses) -> None:
    monkeypatch.setattr(s3, "_READ_TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreUnreachableError, match="ReadTimeoutError"):
            S3ObjectStore("bucket", sleep=pauses).get("k")


def test_the_time_for_retries_is_bounded(store: S3ObjectStore, proxy: FaultyProxy, monkeypatch) -> None:
    monkeypatch.setattr(s3, "_RETRY_WITHIN_SECONDS", -1.0)
    proxy.will("GET", busy)
    with pytest.raises(StoreUnreachableError):
        store.get("k")
    assert len(proxy.seen) == 1


def test_a_sign_in_page_is_no_s3(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    proxy.will("PUT", sign_in_page)
    with pytest.raises(StoreRefusedError, match="no S3 server"):
        store.put("k", b"x")
    proxy.will("HEAD", sign_in_page)
    with pytest.raises(StoreRefusedError, match="no S3 server"):
        store.stat("k")
    proxy.will("GET", *[sign_in_page] * 20)
    with pytest.raises(StoreRefusedError, match="no S3 server"):
        list(store.list())
    with pytest.raises(StoreRefusedError, match="no S3 server"):
        store.get("k")
    with pytest.raises(StoreRefusedError, match="no S3 server"):
        store.get("k", start=1)


@pytest.mark.parametrize(
    "end",
    [
        b"<IsTruncated>true</IsTruncated>",
        b"",
        b"<NextContinuationToken>x</NextContinuationToken>",
    ],
)
def test_a_listing_that_breaks_off_is_not_taken_for_whole(
    store: S3ObjectStore, proxy: FaultyProxy, end: bytes
) -> None:
    def broken_off(exchange: Exchange, body: bytes) -> None:
        status, headers, content = exchange.ask(body)
        assert b"<IsTruncated>false</IsTruncated>" in content
        exchange.reply(status, headers, content.replace(b"<IsTruncated>false</IsTruncated>", end))

    store.put("a", b"x")
    proxy.will("GET", broken_off)
    with pytest.raises(StoreRefusedError, match="whether it is complete"):
        list(store.list())


def test_a_server_that_ignores_prefixes(store: S3ObjectStore, proxy: FaultyProxy, bucket: str) -> None:
    def everything(exchange: Exchange, body: bytes) -> None:
        status, headers, content = exchange.ask(body)
        exchange.reply(status, headers, re.sub(rb"<Key>vault(/|%2F)b<", b"<Key>other<", content))

    store.put("a", b"x")
    store.put("b", b"x")
    proxy.will("GET", everything)
    assert [info.key for info in store.list()] == ["a"]


def test_a_missing_object_is_no_missing_bucket(store: S3ObjectStore, proxy: FaultyProxy) -> None:
    for _ in range(2):
        with pytest.raises(NotFoundError):
            store.stat("k")
    assert [method for method, _, _ in proxy.seen] == ["HEAD", "HEAD", "HEAD"]  # the bucket is looked up once


def test_one_client_for_all_threads(proxy: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = []

    def connect():
        made.append(1)
        return s3.connect_client()

    store = S3ObjectStore(bucket, connect=connect)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.put(f"n/{number}", b"x" * number), range(64)))
    assert len(made) == 1
    assert sum(info.size_bytes for info in store.list("n/")) == sum(range(64))


def test_boto3_is_not_loaded_for_folders(tmp_path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from dualmem_mcp.stores.objects import open_object_store\n"
        f"open_object_store({str(tmp_path)!r}, create=True).put('k', b'x')\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert boto3.__version__
