"""Which object store a location names."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.bucket_access import BucketAccess
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.stores.bucket_access import connect_as
from dualmem_mcp.stores.directory import DirectoryObjectStore

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def open_object_store(location: str, *, create: bool = False, access: BucketAccess | None = None) -> ObjectStore:
    """The store at a location: `s3://bucket/prefix`, or the path of a folder; `access` where a bucket has not to be
    reached with what the environment says.

    Nothing is contacted yet. With `create` a folder is made and marked as a store, unless it is one already;
    a bucket is never made. Raises UsageError if the location is of another kind, and with `create`
    StoreUnreachableError if the folder cannot be made.
    """
    scheme = _SCHEME.match(location)
    if scheme is None:
        if not location.strip():
            raise UsageError(
                "the bucket has no location",
                operation="open bucket",
                hint="Give a folder or s3://bucket/prefix in DUALMEM_BUCKET.",
            )
        root = Path(location).expanduser().absolute()
        return DirectoryObjectStore.create(root) if create else DirectoryObjectStore(root)
    if scheme[1].lower() == "s3":
        # boto3 takes 0.2 s to import and most processes use a folder or the local cache.
        from dualmem_mcp.stores.s3 import S3ObjectStore  # noqa: PLC0415

        return S3ObjectStore.at(location, connect=partial(connect_as, access) if access else None)
    raise UsageError(
        f"buckets of kind {scheme[1]}:// are not known",
        operation="open bucket",
        subject=scheme[1],
        hint="Use s3://bucket/prefix (AWS_ENDPOINT_URL_S3 names servers other than AWS), or a folder.",
    )
