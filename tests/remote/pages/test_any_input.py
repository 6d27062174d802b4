"""Whatever is asked or sent, the answer is a page that was meant."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.app import App
from dualmem_mcp.model.grant import OWNER
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.pages.rendering import CONTENT_SECURITY_POLICY
from tests.handoff.conftest import SESSION_ID
from tests.remote.pages.conftest import PUBLIC_URL, Browser
from tests.remote.pages.memory import HOSTILE, Host

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from([*HOSTILE, "..", "../../etc/passwd", "\0", "%00", "0", "0:0", "-1", "9" * 30, "﷽", "\u202e"]),
)
PATHS = st.sampled_from(
    ["/", "/search", "/devices/revoke", "/conflicts", "/clients", "/state", "/login", "/export"]
)
NAMES = st.sampled_from(["q", "after", "at", "where", "when", "done", "device", "next", "out"])
ACTIONS = st.sampled_from(["/clients/revoke", "/conflicts/decide", "/devices/revoke", "/export"])
FIELDS = st.sampled_from(["grant", "conflict", "seen", "keep", "take", "device", "passphrase"])


@pytest.fixture(scope="module")
def client(filled: App) -> Iterator[Browser]:
    with Browser(Host({OWNER: filled}, RemoteOptions(PUBLIC_URL))) as made:
        made.log_in()
        yield made


def check(answer) -> None:
    assert answer.status_code in {200, 303, 400, 403, 404, 409, 429}, (answer.status_code, answer.text)
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "<script" not in answer.text
    assert "<img" not in answer.text
    assert not answer.headers.get("location", "/").startswith("//")


@settings(max_examples=40)
@given(path=PATHS, query=st.dictionaries(NAMES, TEXTS, max_size=3))
def test_any_query(client: Browser, path: str, query: dict[str, str]) -> None:
    check(
        client.get(f"{path}?{urlencode({name: text.encode('utf-8', 'replace') for name, text in query.items()})}")
    )


@settings(max_examples=40)
@given(conversation=st.one_of(st.just(SESSION_ID), TEXTS), section=st.one_of(st.just("thread"), TEXTS), at=TEXTS)
def test_any_place_in_a_conversation(client: Browser, conversation: str, section: str, at: str) -> None:
    place = "/".join(quote(part.encode("utf-8", "replace"), safe="") for part in ("c", conversation, section))
    check(client.get(f"/{place}?{urlencode({'at': at.encode('utf-8', 'replace')})}"))


@settings(max_examples=30)
@given(path=ACTIONS, form=st.dictionaries(FIELDS, TEXTS, max_size=4))
def test_any_form(client: Browser, path: str, form: dict[str, str]) -> None:
    before = client.host.app.list_conflicts()["count"], len(client.host.let_in.connections(OWNER))
    check(client.submit(path, **{name: text.encode("utf-8", "replace").decode() for name, text in form.items()}))
    assert (client.host.app.list_conflicts()["count"], len(client.host.let_in.connections(OWNER))) == before
