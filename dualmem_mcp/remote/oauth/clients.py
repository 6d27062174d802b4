"""Whom a client id names: a client that registered itself, or one whose id is the address of its document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio import to_thread

from dualmem_mcp.remote.oauth.client_documents import ClientDocuments, is_document_url
from dualmem_mcp.remote.oauth.errors import invalid_client
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.stores.login_store import LoginStore

_LONGEST: Final = 512
_NOTED_SECONDS: Final = 3_600
UNKNOWN: Final = "This server does not know the client: it has to register again."


class Clients:
    """The clients that may ask for a login."""

    def __init__(self, store: LoginStore, documents: ClientDocuments, now: Callable[[], int]) -> None:
        self._store = store
        self._documents = documents
        self._now = now

    async def find(self, client_id: str, *, address: str) -> Client:
        """The client that asks for a login from that address. Raises OAuthError."""
        if is_document_url(client_id):
            return await self._documents.client(client_id, address=address)
        if not client_id or len(client_id) > _LONGEST:
            raise invalid_client(UNKNOWN)
        client = await to_thread.run_sync(self._registered, client_id)
        if client is None:
            raise invalid_client(UNKNOWN)
        return client

    async def check(self, client_id: str) -> None:
        """Raises OAuthError (`invalid_client`) unless there may be a client of that id; what was given to it is
        bound to the id, so nothing need be fetched."""
        if is_document_url(client_id):
            return
        if len(client_id) > _LONGEST or await to_thread.run_sync(self._store.client, client_id) is None:
            raise invalid_client(UNKNOWN)

    def _registered(self, client_id: str) -> Client | None:
        kept = self._store.client(client_id)
        if kept is None:
            return None
        if kept.used_at < self._now() - _NOTED_SECONDS:
            self._store.used_client(client_id, self._now())
        return Client(kept.client_id, kept.name, kept.redirect_uris)
