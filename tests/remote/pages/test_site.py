"""Who may see which page, and what a form must carry."""

from __future__ import annotations

import pytest

from dualmem_mcp.model.grant import ALL_SCOPES, OWNER
from dualmem_mcp.remote.pages.rendering import CONTENT_SECURITY_POLICY
from tests.handoff.conftest import SESSION_ID
from tests.remote.pages.conftest import PUBLIC_URL, Browser
from tests.remote.pages.memory import Host

PAGES = [
    "/",
    f"/c/{SESSION_ID}",
    f"/c/{SESSION_ID}/thread",
    "/search",
    "/devices",
    "/clients",
    "/conflicts",
    "/state",
    "/export",
]
ACTIONS = ["/clients/revoke", "/devices/revoke", "/conflicts/decide", "/state/sync", "/export", "/logout"]


def test_every_page_is_for_its_owner_alone(visitor: Browser, owner: Browser) -> None:
    for path in PAGES:
        away = visitor.get(path)
        assert away.status_code == 303, path
        assert away.headers["location"].startswith("/login"), path
        assert away.content == b""
        assert owner.get(path).status_code == 200, path
    for path in ACTIONS:
        away = visitor.post(path, data={"csrf": "x"})
        assert (away.status_code, away.content) == (303, b""), path


def test_every_answer_forbids_scripts_frames_and_keeping(visitor: Browser, owner: Browser) -> None:
    answers = [*map(owner.get, PAGES), owner.get("/c/nope"), visitor.get("/"), visitor.get("/login")]
    answers += [visitor.post("/login", data={}), owner.post("/state/sync", data={}), owner.submit("/logout")]
    for answer in answers:
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "<script" not in answer.text
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "script-src" not in CONTENT_SECURITY_POLICY  # so default-src counts, which is 'none'


@pytest.mark.parametrize("path", ACTIONS)
def test_a_form_counts_only_with_its_sessions_token(owner: Browser, host: Host, path: str) -> None:
    other = Browser(host)
    other.log_in()
    [foreign] = [value for name, value in other.cookies.items() if name == "__Host-dualmem"]
    for token in ("", "x", host.sessions.csrf(foreign)):
        refused = owner.post(path, data={"csrf": token, "grant": "g1"})
        assert refused.status_code == 403
        assert "not of this session" in refused.text
    assert owner.get("/").status_code == 200
    assert len(host.let_in.connections(OWNER)) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://memory.example"},
        {"Origin": PUBLIC_URL, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_nothing_even_with_the_token(
    owner: Browser, host: Host, headers: dict[str, str]
) -> None:
    token = owner.token("/clients")
    refused = owner.post("/clients/revoke", data={"csrf": token, "grant": "g1"}, headers=headers)
    assert refused.status_code == 403
    assert "another site" in refused.text
    assert "Open it at " in refused.text
    assert len(host.let_in.connections(OWNER)) == 3
    own = {"Origin": PUBLIC_URL, "Sec-Fetch-Site": "same-origin"}
    assert owner.post("/clients/revoke", data={"csrf": token, "grant": "g1"}, headers=own).status_code == 303
    assert len(host.let_in.connections(OWNER)) == 2


def test_bodies_that_are_no_form_are_refused(owner: Browser) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for content, headers in (
        (b"{}", {"Content-Type": "application/json"}),
        (b"csrf=" + b"x" * 70_000, form),
        (b"csrf=\xff\xfe", form),
        (b"csrf=%ff%fe", form),
        (b"&".join(b"a%d=b" % index for index in range(100)), form),
    ):
        refused = owner.post("/state/sync", content=content, headers=headers)
        assert refused.status_code == 400
        assert "reload the page" in refused.text


def test_a_session_may_only_what_its_login_was_given(host: Host) -> None:
    host.sessions.scopes = frozenset({"read"})
    with Browser(host) as reader:
        reader.log_in()
        assert reader.get("/state").status_code == 200
        assert "/export" not in reader.get("/state").text
        for answer in (reader.get("/export"), reader.submit("/state/sync"), reader.submit("/export")):
            assert answer.status_code == 403
            assert "may not" in answer.text
    host.sessions.scopes = ALL_SCOPES - {"read"}
    with Browser(host) as writer:
        writer.log_in()
        assert writer.get("/").status_code == 403


def test_a_session_whose_secret_opens_nothing_any_more_is_ended(owner: Browser, host: Host) -> None:
    host.tenants.locked = True
    assert owner.get("/state").headers["location"] == "/login?next=%2Fstate"
    host.tenants.locked = False
    assert owner.get("/state").status_code == 303


def test_a_fault_of_the_program_is_a_page_without_its_words(
    owner: Browser, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("".join(("marma", "lade")))  # its source line may be logged

    monkeypatch.setattr(host.app, "sync_waiting", fail)
    answer = owner.get("/state")
    assert answer.status_code == 500
    assert "internal fault" in answer.text
    assert "marmalade" not in answer.text + caplog.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/c/..%2f..%2fetc%2fpasswd", 400),
        ("/c/%2e%2e/thread", 400),
        ("/c/nope", 404),
        (f"/c/{SESSION_ID}/nope", 404),
        (f"/c/{SESSION_ID}/carried_files/..%2f..%2fx", 404),
        (f"/c/{SESSION_ID}/thread?at=zzzz", 400),
        ("/?after=zzzz", 400),
        ("/static/..%2fvisit.py", 404),
        ("/static/nope.css", 404),
        ("/nope", 404),
        ("/devices/revoke?device=nope", 404),
    ],
)
def test_what_there_is_not_is_a_page_that_says_what_to_do(owner: Browser, path: str, status: int) -> None:
    answer = owner.get(path)
    assert answer.status_code == status
    assert "<h1>" in answer.text
    assert 'class="button"' in answer.text
    assert "root:" not in answer.text


def test_static_files_change_their_path_with_their_content(visitor: Browser) -> None:
    page = visitor.get("/login").text
    [path] = [part.partition('"')[0] for part in page.split('href="')[1:] if part.startswith("/static/style.css")]
    assert "?v=" in path
    style = visitor.get(path)
    assert style.headers["content-type"].startswith("text/css")
    assert "immutable" in style.headers["cache-control"]
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_a_tenant_is_busy_while_a_page_is_made(owner: Browser, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    [tenant] = host.tenants.all
    works: list[int] = []
    waiting = host.app.sync_waiting
    monkeypatch.setattr(host.app, "sync_waiting", lambda: works.append(tenant.works) or waiting())
    assert owner.get("/state").status_code == 200
    assert works == [1]
    assert tenant.works == 0
    tenant.stopping = True
    answer = owner.get("/state")
    assert answer.status_code == 503
    assert "Try again in a moment" in answer.text
