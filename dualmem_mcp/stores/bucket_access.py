"""A user's own credentials for the bucket, inside their encrypted database and nowhere else.

Source of the layout: docs/format.md, "Users of a host".
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from dualmem_mcp.crypto.canonical import Fields, canonical_json
from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.bucket_access import BucketAccess
from dualmem_mcp.ports import BlobCache

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BLOB: Final = "local/bucket-credentials"
_LONGEST: Final = 8_192  # session tokens have a few hundred characters, and no bound that is stated anywhere
_NEEDS_NO_NAMING: Final = ".amazonaws.com"


def keep_bucket_access(blobs: BlobCache, access: BucketAccess) -> None:
    """Keep the credentials for this data home's bucket, in the place of those that were there."""
    blobs.put(_BLOB, canonical_json({name: value for name, value in asdict(access).items() if value}))


def kept_bucket_access(blobs: BlobCache) -> BucketAccess | None:
    """The credentials that are kept; None if the program's own are used. Raises TamperedError."""
    data = blobs.get(_BLOB)
    if not data:
        return None
    fields = Fields.parse(data, subject=_BLOB)
    return BucketAccess(**{name: fields.text(name, longest=_LONGEST) for name in fields.values})


def bucket_access_here() -> BucketAccess:
    """The credentials that boto3 finds in the environment and its files. Raises UsageError if there are none."""
    import boto3.session  # noqa: PLC0415  (takes 0.2 s)

    from dualmem_mcp.stores.s3 import connect_client  # noqa: PLC0415

    session = boto3.session.Session()
    found = session.get_credentials()
    frozen = found.get_frozen_credentials() if found is not None else None
    if frozen is None or not (frozen.access_key and frozen.secret_key):
        raise UsageError(
            "there are no credentials for a bucket here",
            operation="read credentials",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the user's own.",
        )
    endpoint = connect_client(session).meta.endpoint_url
    return BucketAccess(
        access_key_id=frozen.access_key,
        secret_access_key=frozen.secret_key,
        session_token=frozen.token or "",
        region=session.region_name or "",
        endpoint_url="" if endpoint.endswith(_NEEDS_NO_NAMING) else endpoint,
    )


def connect_as(access: BucketAccess) -> S3Client:
    """A client that signs with these credentials and with nothing that the environment says."""
    import boto3.session  # noqa: PLC0415

    from dualmem_mcp.stores.s3 import connect_client  # noqa: PLC0415

    session = boto3.session.Session(
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.secret_access_key,
        aws_session_token=access.session_token or None,
        region_name=access.region or None,
    )
    return connect_client(session, access.endpoint_url or None)
