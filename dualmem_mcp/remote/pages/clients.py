"""The clients that the user let in, and how one is shut out again."""

from __future__ import annotations

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.remote.pages.visit import Goto, Page, Visit


def clients(visit: Visit) -> Page:
    """The clients, the one used last first."""
    found = visit.connections.connections(visit.caller.grant.user) if visit.connections else ()
    context = {"clients": found, "now": visit.app.clock.now(), "done": visit.query.get("done") == "revoked"}
    return Page("clients.html", "Connected clients", context)


def revoke_client(visit: Visit) -> Goto:
    """Shut a client out. Raises NotFoundError for one that is not the user's."""
    grant_id = visit.field("grant")
    if visit.connections is None or not visit.connections.revoke(visit.caller.grant.user, grant_id):
        raise NotFoundError(
            "that client is not connected",
            operation="revoke client",
            subject=grant_id[:60],
            hint="It was disconnected already; the page of clients shows those that are left.",
        )
    return Goto("/clients?done=revoked")
