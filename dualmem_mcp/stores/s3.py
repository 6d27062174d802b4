"""An object store in an S3 bucket: AWS itself, or any server of that protocol that keeps conditional writes.

boto3 reads the usual AWS variables, profiles and AWS_ENDPOINT_URL_S3 itself. Retries are ours and not
botocore's: only who knows that an earlier try got no answer can tell a lost race from a write of its own
whose answer was lost.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import boto3.session
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError

from dualmem_mcp.errors import (
    ConflictError,
    NotFoundError,
    StoreRefusedError,
    TamperedError,
    UsageError,
)
from dualmem_mcp.ports import ObjectInfo
from dualmem_mcp.stores.object_keys import check_key, check_prefix, check_range, is_key
from dualmem_mcp.stores.s3_errors import DriverError, classify, code_of, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import (
        GetObjectOutputTypeDef,
        ListObjectsV2OutputTypeDef,
        ListObjectsV2RequestTypeDef,
        PutObjectRequestTypeDef,
    )

Result = TypeVar("Result")

# Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; older buckets and other
# servers allow upper case and underscores.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", re.ASCII)
# Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html, largest single PUT.
_MAX_PUT_BYTES = 5 * 1024**3

_CONNECT_TIMEOUT_SECONDS = 5
_READ_TIMEOUT_SECONDS = 30
_POOL_CONNECTIONS = 16
_RETRY_WITHIN_SECONDS = 60.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

_CHECKSUM = "sha256"
_TAG = re.compile(r"[A-Za-z0-9+/=._:-]+", re.ASCII)


class S3ObjectStore:
    """An ObjectStore in a bucket, below a prefix; usable from many threads at once.

    Tags are the server's ETags without their quotes. Every write carries Content-MD5, which servers check,
    and its SHA-256 as metadata, which whole reads check. Throttling, timeouts and broken connections are
    tried again, at most five times within a minute, with growing random pauses.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        connect: Callable[[], S3Client] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""
        self._connect = connect or connect_client
        self._sleep = sleep
        self._client: S3Client | None = None
        self._connecting = threading.Lock()
        self._bucket_seen = False
        self._quotes_tags: bool | None = None
        self._server_time: tuple[datetime, float] | None = None

    @classmethod
    def at(cls, location: str, *, connect: Callable[[], S3Client] | None = None) -> S3ObjectStore:
        """The store at `s3://bucket` or `s3://bucket/prefix`. Raises UsageError if that is not the form."""
        bucket, _, prefix = location[len("s3://") :].partition("/")
        prefix = prefix.rstrip("/")
        if not _BUCKET.fullmatch(bucket) or (prefix and not is_key(prefix)):
            raise UsageError(
                "the location of the bucket is not of the form s3://bucket/prefix",
                operation="open bucket",
                hint="Bucket and prefix are letters, digits, `.`, `_` and `-`; credentials and the server are not "
                "part of it: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL_S3.",
            )
        return cls(bucket, prefix, connect=connect)

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        check_key(key)
        if length == 0:
            self.stat(key)
            return b""
        if start == 0 and length is None:
            return self._send("read object", key, lambda: self._read_whole(key))[0]
        return self._send("read object", key, lambda: self._read_range(key, start, length))

    def stat(self, key: str) -> ObjectInfo:
        full_key = self._full(key)
        try:
            head = self._send(
                "look up object", key, lambda: self._s3().head_object(Bucket=self._bucket, Key=full_key)
            )
        except NotFoundError:
            self._check_bucket()
            raise
        return ObjectInfo(key, head["ContentLength"], self._tag(head))

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if if_absent and if_match is not None:
            raise ValueError("a write is conditional on absence or on a version, not both")
        if len(data) > _MAX_PUT_BYTES:
            raise UsageError(
                f"the object {key} has {len(data)} bytes; S3 takes {_MAX_PUT_BYTES} in one write",
                operation="write object",
                subject=key,
                hint="Hand over less at once.",
            )
        request: PutObjectRequestTypeDef = {
            "Bucket": self._bucket,
            "Key": self._full(key),
            "Body": data,
            "ContentType": "application/octet-stream",
            "ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            "Metadata": {_CHECKSUM: hashlib.sha256(data).hexdigest()},
        }
        if if_match is not None:
            return self._put_over(key, request, data, if_match)
        if if_absent:
            request["IfNoneMatch"] = "*"
        return self._put(key, request, data)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(start_after)
        token = ""
        last = start_after
        while True:
            # What the type promises, a server may leave out.
            page: Mapping[str, Any] = self._send(
                "list objects", prefix, partial(self._page, prefix, start_after, token)
            )
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(self._prefix)
                if self._prefix + key != entry["Key"] or not is_key(key) or not key.startswith(prefix):
                    continue  # what others put there; the console makes `folder/` objects
                if key <= last:
                    raise StoreRefusedError(
                        f"{self.location} does not list keys in order of their bytes",
                        operation="list objects",
                        subject=self.location,
                        hint="Use a general purpose bucket; directory buckets (S3 Express) are not ordered.",
                    )
                last = key
                yield ObjectInfo(key, entry["Size"], self._tag(entry))
            token = page.get("NextContinuationToken", "")
            if "IsTruncated" not in page or (page["IsTruncated"] and not token):
                raise self._no_s3("its listing does not say whether it is complete")
            if not page["IsTruncated"]:
                return

    def delete(self, key: str) -> None:
        full_key = self._full(key)
        try:
            self._send("delete object", key, lambda: self._s3().delete_object(Bucket=self._bucket, Key=full_key))
        except NotFoundError:
            return  # AWS answers 204; some servers say what they did not find

    def server_time(self) -> datetime | None:
        stated, seen_at = self._server_time or (None, 0.0)
        return stated and stated + timedelta(seconds=time.monotonic() - seen_at)

    def _note_time(self, parsed: Mapping[str, Any], **_: object) -> None:
        """Keep the time that an answer of the server states. Source: RFC 9110, 6.6.1 "Date"."""
        stated = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            self._server_time = (parsedate_to_datetime(stated).astimezone(UTC), time.monotonic())
        except (TypeError, ValueError):
            return  # a server that states none, or in no form of HTTP's

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _s3(self) -> S3Client:
        """The client, made at first use: it reads credentials, which may come from the network."""
        with self._connecting:
            if self._client is None:
                try:
                    self._client = self._connect()
                    self._client.meta.events.register("after-call.s3", self._note_time)
                except ValueError as fault:  # how botocore says that an endpoint is no URL
                    raise StoreRefusedError(
                        f"the server's address for {self.location} cannot be used",
                        operation="open bucket",
                        subject=self.location,
                        hint="Set AWS_ENDPOINT_URL_S3 to a URL such as https://s3.example.org.",
                    ) from fault
            return self._client

    def _send(
        self,
        operation: str,
        key: str,
        request: Callable[[], Result],
        *,
        done_earlier: Callable[[], Result | None] = lambda: None,
    ) -> Result:
        """The answer to a request, tried again as its faults allow.

        A conflict that follows a try without an answer may be with our own write: then `done_earlier` gives
        the result of that try, if it was done.
        """
        deadline = time.monotonic() + _RETRY_WITHIN_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        tries = 0
        perhaps_done = False
        while True:
            tries += 1
            try:
                answer = request()
            except (*DriverError, TamperedError) as raised:
                fault = classify(raised, operation, key, self.location)
                if perhaps_done and isinstance(fault.error, ConflictError):
                    result = done_earlier()
                    if result is not None:
                        return result
                if tries >= fault.max_tries or time.monotonic() > deadline:
                    raise fault.error from raised
                perhaps_done = perhaps_done or fault.perhaps_done
            else:
                self._bucket_seen = True
                return answer
            # Half of it random, so that many clients of a busy server do not come back at once.
            self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _read_whole(self, key: str) -> tuple[bytes, str]:
        """Content and tag of an object, checked against its checksum if it has one."""
        answer = self._s3().get_object(Bucket=self._bucket, Key=self._full(key))
        data = _read_body(answer, None)
        expected = answer.get("Metadata", {}).get(_CHECKSUM)
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise TamperedError(
                f"the object {key} in {self.location} does not fit the checksum stored with it",
                operation="read object",
                subject=key,
                hint="It was damaged or changed in the bucket; write it again from a device that has it.",
            )
        return data, self._tag(answer)

    def _read_range(self, key: str, start: int, length: int | None) -> bytes:
        end = "" if length is None else str(start + length - 1)
        try:
            answer = self._s3().get_object(Bucket=self._bucket, Key=self._full(key), Range=f"bytes={start}-{end}")
        except ClientError as raised:
            if status_of(raised) == 416 or code_of(raised) == "InvalidRange":
                return b""
            raise
        self._tag(answer)
        if answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            return _read_body(answer, length)
        # A server that does not know ranges sends the whole.
        return _read_body(answer, None if length is None else start + length)[start:]

    def _page(self, prefix: str, start_after: str, token: str) -> ListObjectsV2OutputTypeDef:
        """At most 1,000 objects of a listing; `token` is empty for the first."""
        request: ListObjectsV2RequestTypeDef = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if token:
            request["ContinuationToken"] = token
        elif start_after:
            request["StartAfter"] = self._prefix + start_after
        return self._s3().list_objects_v2(**request)

    def _put(self, key: str, request: PutObjectRequestTypeDef, data: bytes) -> str:
        """The new tag of an object that one write request made."""

        def own_write() -> str | None:
            try:
                stored, tag = self._send("read object", key, lambda: self._read_whole(key))
            except (NotFoundError, TamperedError):
                return None
            return tag if stored == data else None

        return self._send(
            "write object", key, lambda: self._tag(self._s3().put_object(**request)), done_earlier=own_write
        )

    def _put_over(self, key: str, request: PutObjectRequestTypeDef, data: bytes, tag: str) -> str:
        """The new tag of an object that a write replaced, if it still had that tag.

        AWS documents the tag of If-Match in quotes, as HTTP has it; Ceph's gateway compares it with the tag
        as it stands and so never matches a quoted one. A server that refuses the very tag it shows is asked
        again without quotes, and what it understood is remembered.
        """
        if not _TAG.fullmatch(tag):
            raise self._changed(key)
        for quoted in (True, False) if self._quotes_tags is None else (self._quotes_tags,):
            request["IfMatch"] = f'"{tag}"' if quoted else tag
            try:
                new_tag = self._put(key, request, data)
            except NotFoundError:
                raise self._changed(key) from None
            except ConflictError:
                if self._quotes_tags is not None or not quoted or not self._has_tag(key, tag):
                    raise
            else:
                self._quotes_tags = quoted
                return new_tag
        raise self._changed(key)

    def _has_tag(self, key: str, tag: str) -> bool:
        try:
            return self.stat(key).etag == tag
        except NotFoundError:
            return False

    def _changed(self, key: str) -> ConflictError:
        return ConflictError(
            f"the object {key} in {self.location} is not the version that was read",
            operation="write object",
            subject=key,
            hint="Read it again, and repeat the change on what is there now.",
        )

    def _check_bucket(self) -> None:
        """Raises StoreRefusedError if it is the bucket that is missing: answers to HEAD have no body to say so."""
        if not self._bucket_seen:
            try:
                self._send("look up bucket", "", lambda: self._s3().head_bucket(Bucket=self._bucket))
            except NotFoundError as error:
                raise StoreRefusedError(
                    f"there is no bucket {self._bucket}",
                    operation="look up bucket",
                    subject=self.location,
                    hint="Make the bucket with your provider's tools, or correct DUALMEM_BUCKET.",
                ) from error

    def _tag(self, answer: Mapping[str, Any]) -> str:
        tag = answer.get("ETag")
        if not isinstance(tag, str):
            raise self._no_s3("its answer has no ETag")
        return tag.strip('"')

    def _no_s3(self, reason: str) -> StoreRefusedError:
        return StoreRefusedError(
            f"what answers for {self.location} is no S3 server: {reason}",
            operation="read answer",
            subject=self.location,
            hint="Check AWS_ENDPOINT_URL_S3, and that no proxy or sign-in page of the network answers instead.",
        )


def _read_body(answer: GetObjectOutputTypeDef, limit: int | None) -> bytes:
    """The content of an answer, at most `limit` bytes. Raises IncompleteReadError if it ends too early."""
    with contextlib.closing(answer["Body"]) as body:
        data: bytes = body.read(limit)
    expected = answer["ContentLength"] if limit is None else min(limit, answer["ContentLength"])
    if len(data) < expected:
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=expected)
    return data


def connect_client(session: boto3.session.Session | None = None, endpoint_url: str | None = None) -> S3Client:
    """A client with what boto3 finds in the environment and its files, or with what is given of it."""
    return (session or boto3.session.Session()).client(
        "s3",
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            read_timeout=_READ_TIMEOUT_SECONDS,
            max_pool_connections=_POOL_CONNECTIONS,
            retries={"total_max_attempts": 1},
            # By default boto3 since 1.36 adds checksums that many servers other than AWS refuse; Content-MD5 is
            # older than all of them. Source: https://github.com/boto/boto3/issues/4392
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
