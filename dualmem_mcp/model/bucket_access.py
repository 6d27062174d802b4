"""Credentials for a bucket that are one user's own, on a host whose program has others."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BucketAccess:
    """What is signed with, and where the server is; what is empty is as the host's program finds it."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    region: str = ""
    endpoint_url: str = ""
