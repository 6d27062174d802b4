"""What a failed S3 request means: which of our errors it is, and whether trying again may help."""

from __future__ import annotations

import re
from dataclasses import dataclass

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.parsers import ResponseParserError

from dualmem_mcp.errors import (
    ConflictError,
    DualmemError,
    NotFoundError,
    StoreRefusedError,
    StoreUnreachableError,
    TamperedError,
)

DriverError = (ClientError, BotoCoreError, ResponseParserError)
"""What boto3 raises for a request that failed; TamperedError is ours, for bytes that do not fit their checksum."""

_NEVER, _SELDOM, _OFTEN = 1, 3, 5

# Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT_CODES = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
    | {"BadDigest", "RequestLimitExceeded", "RequestThrottled", "TooManyRequests", "503"}
)
_TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504})
_HINTS = {
    "NoSuchBucket": "Make the bucket with your provider's tools, or correct DUALMEM_BUCKET.",
    "AccessDenied": "Give these credentials the rights to list, read, write and delete objects in the bucket.",
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID, and that AWS_ENDPOINT_URL_S3 names the server it belongs to.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY.",
    "ExpiredToken": "The session token has expired; sign in again.",
    "RequestTimeTooSkewed": "Set this machine's clock: it differs too much from the server's.",
    "AuthorizationHeaderMalformed": "Set AWS_REGION to the bucket's region.",
    "PermanentRedirect": "Set AWS_REGION to the bucket's region, or AWS_ENDPOINT_URL_S3 to the bucket's server.",
    "InvalidObjectState": "The object is archived: ask for it by `aws s3api restore-object`, and try again later.",
    "NotImplemented": "This server lacks a part of S3 that is needed; use another.",
}
_CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
    SSOError,
    LoginError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed request: our error, how often to try in all, whether the server may have done it all the same."""

    error: DualmemError
    max_tries: int
    perhaps_done: bool = False


def classify(raised: Exception, operation: str, subject: str, location: str) -> Fault:
    """The fault behind an exception of DriverError or a TamperedError.

    Messages name the server's error code and never quote its text, which may repeat parts of credentials.
    """
    if isinstance(raised, TamperedError):
        return Fault(raised, _SELDOM)
    where = f"{subject} in {location}" if subject else location
    if isinstance(raised, ClientError):
        return _answered(raised, operation, where, subject)
    if isinstance(raised, _CREDENTIAL_ERRORS):
        return Fault(
            StoreRefusedError(
                f"there are no usable credentials for {location} ({type(raised).__name__})",
                operation=operation,
                subject=subject,
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or sign in again.",
            ),
            _NEVER,
        )
    unreached = isinstance(raised, EndpointConnectionError | ConnectTimeoutError)
    if isinstance(raised, SSLError) or not isinstance(
        raised, BotoConnectionError | HTTPClientError | IncompleteReadError | ResponseParserError
    ):
        refused = StoreUnreachableError if isinstance(raised, SSLError) else StoreRefusedError
        return Fault(
            refused(
                f"could not {operation} {where}: {type(raised).__name__}",
                operation=operation,
                subject=subject,
                hint="Check AWS_ENDPOINT_URL_S3, AWS_REGION and the server's certificate (AWS_CA_BUNDLE).",
            ),
            _NEVER,
        )
    return Fault(
        StoreUnreachableError(
            f"could not {operation} {where}: {type(raised).__name__}",
            operation=operation,
            subject=subject,
            hint="Check the network connection and AWS_ENDPOINT_URL_S3, and try again.",
        ),
        _SELDOM if unreached else _OFTEN,
        perhaps_done=not unreached,
    )


def status_of(raised: ClientError) -> int:
    """The HTTP status of an answer that S3 gave as an error; 0 if it had none."""
    return int(raised.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(raised: ClientError) -> str:
    """The error code of S3's answer, `NoSuchKey` for one; made of letters and digits whatever the server sent."""
    return re.sub(r"[^A-Za-z0-9.]", "", str(raised.response.get("Error", {}).get("Code", "")))[:64]


def _answered(raised: ClientError, operation: str, where: str, subject: str) -> Fault:
    """The fault behind an answer of the server's."""
    status, code = status_of(raised), code_of(raised)
    shown = f"could not {operation} {where}: {code or 'error'} ({status})"
    if status == 412:
        return Fault(
            ConflictError(
                f"the object {where} was written by somebody else",
                operation=operation,
                subject=subject,
                hint="Read it again, and repeat the change on what is there now.",
            ),
            _NEVER,
        )
    if status == 409:
        # Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html:
        # ConditionalRequestConflict means another write is under way, and asks to try again.
        return Fault(
            ConflictError(
                shown,
                operation=operation,
                subject=subject,
                hint="Somebody else is writing it; read it again, and repeat the change on what is there then.",
            ),
            _OFTEN,
        )
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return Fault(
            StoreUnreachableError(
                shown, operation=operation, subject=subject, hint="The server is busy or broken; try again later."
            ),
            _OFTEN,
            perhaps_done=True,
        )
    if status == 404 and code != "NoSuchBucket":
        return Fault(
            NotFoundError(f"there is no object {where}", operation=operation, subject=subject),
            _NEVER,
        )
    hint = _HINTS.get(code) or (
        _HINTS["AccessDenied"] if status == 403 else "Check the bucket's set-up and AWS_ENDPOINT_URL_S3."
    )
    return Fault(StoreRefusedError(shown, operation=operation, subject=subject, hint=hint), _NEVER)
