"""The page of clients over the real login: who was let in is shown, and shut out at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

from starlette.applications import Starlette

from dualmem_mcp.app import App
from dualmem_mcp.model.grant import OWNER
from dualmem_mcp.remote.oauth.browser import BrowserSessions
from dualmem_mcp.remote.pages import Pages
from tests.remote.oauth.hosts import PASSPHRASE, host
from tests.remote.pages.conftest import Browser
from tests.remote.pages.memory import HOSTILE, OneOfEach


async def let_in(browser, name: str) -> str:
    client_id = str((await browser.register(client_name=name))["client_id"])
    _, tokens = await browser.log_in(client_id)
    return str(tokens["access_token"])


def test_who_was_let_in_is_shut_out_at_once(tmp_path: Path, filled: App) -> None:
    with host(tmp_path) as made:
        claude, other = (asyncio.run(let_in(made.browser(), name)) for name in ("Claude", HOSTILE[0]))
        assert made.login.caller(claude) is not None
        sessions = BrowserSessions(made.clock)
        pages = Pages(
            OneOfEach({OWNER: lambda: filled}),
            sessions,
            made.users,
            made.options,
            gate=made.login.gate,
            connections=made.login,
        )
        with Browser(SimpleNamespace(asgi=Starlette(routes=pages.routes()), sessions=sessions)) as client:
            assert client.log_in(PASSPHRASE).status_code == 303
            shown = client.get("/clients").text
            assert "returns to claude.ai" in shown
            assert "may read, write" in shown
            assert "&lt;script&gt;" in shown
            grants = [part.partition('"')[0] for part in shown.split('name="grant" value="')[1:]]
            assert len(grants) == 2
            callers = {made.login.caller(token).grant.grant_id: token for token in (claude, other)}
            assert set(callers) == set(grants)
            assert client.submit("/clients/revoke", grant="nope").status_code == 404
            done = client.submit("/clients/revoke", grant=grants[0])
            assert done.headers["location"] == "/clients?done=revoked"
            assert made.login.caller(callers[grants[0]]) is None
            assert made.login.caller(callers[grants[1]]) is not None
            assert grants[0] not in client.get("/clients?done=revoked").text
