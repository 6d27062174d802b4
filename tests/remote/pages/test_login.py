"""Logging in: by the passphrase alone, from the page's own form, and on to no other host."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from dualmem_mcp.model.grant import OWNER, UserId
from dualmem_mcp.remote.options import RemoteOptions
from tests.handoff.conftest import PASSPHRASE, SESSION_ID
from tests.remote.pages.conftest import PUBLIC_URL, Browser
from tests.remote.pages.memory import Host, Users


def test_cookies_are_for_this_host_and_no_script(visitor: Browser) -> None:
    done = visitor.log_in()
    assert (done.status_code, done.headers["location"]) == (303, "/")
    cookies = [*visitor.get("/login").headers.get_list("set-cookie"), *done.headers.get_list("set-cookie")]
    assert {cookie.partition("=")[0] for cookie in cookies} == {"__Host-dualmem", "__Host-dualmem-device"}
    for cookie in cookies:
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
    assert visitor.get("/").status_code == 200


def test_over_http_on_this_machine_cookies_have_other_names(host: Host) -> None:
    plain = Host(host.apps, RemoteOptions("http://localhost:8787"))
    with Browser(plain, "http://localhost:8787") as client:
        done = client.log_in()
        [session] = [cookie for cookie in done.headers.get_list("set-cookie") if cookie.startswith("dualmem=")]
        assert "Secure" not in session
        assert client.get("/").status_code == 200


def test_a_wrong_passphrase_is_told_and_not_shown_again(visitor: Browser) -> None:
    for wrong in ("wrong horse", "", "x" * 2_000, '"><script>'):
        refused = visitor.log_in(wrong)
        assert refused.status_code == 403
        assert 'role="alert"' in refused.text
        assert "set-cookie" not in refused.headers or "__Host-dualmem=" not in refused.headers["set-cookie"]
        assert not wrong or wrong not in refused.text
    assert visitor.get("/").status_code == 303


def test_guesses_are_counted(visitor: Browser) -> None:
    answers = [visitor.log_in("wrong") for _ in range(12)]
    last = answers[-1]
    assert last.status_code == 429
    assert int(last.headers["retry-after"]) > 0
    assert "Wait" in last.text
    # Not even the right one counts now.
    assert visitor.log_in().status_code == 429


def test_guesses_at_the_export_are_counted_too(owner: Browser) -> None:
    statuses = [owner.submit("/export", passphrase="wrong").status_code for _ in range(12)]
    assert statuses[0] == 403
    assert statuses[-1] == 429
    assert owner.submit("/export", passphrase=PASSPHRASE).status_code == 429


def test_the_login_form_counts_only_from_its_own_page(visitor: Browser) -> None:
    form = {"passphrase": PASSPHRASE, "next": "/"}
    assert visitor.post("/login", data=form).status_code == 403
    token = visitor.token("/login")
    assert visitor.post("/login", data={**form, "csrf": "x" * 43}).status_code == 403
    foreign = {"Origin": "https://evil.example"}
    assert visitor.post("/login", data={**form, "csrf": token}, headers=foreign).status_code == 403
    visitor.cookies.clear()
    assert visitor.post("/login", data={**form, "csrf": token}).status_code == 403
    visitor.cookies.set("__Host-dualmem-login", "", domain="memory.example")
    assert visitor.post("/login", data={**form, "csrf": ""}).status_code == 403
    assert visitor.get("/").status_code == 303


def test_two_tabs_with_the_form_are_both_good(visitor: Browser) -> None:
    first = visitor.token("/login")
    assert visitor.token("/login") == first


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (f"/c/{SESSION_ID}/thread?at=00000001", f"/c/{SESSION_ID}/thread?at=00000001"),
        ("/search?q=a+b%2F&where=all", "/search?q=a+b%2F&where=all"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/search\r\nSet-Cookie: a=b", "/"),
        ("/login", "/"),
        ("/logout", "/"),
        ("/oauth/authorize?client_id=x", "/"),
        ("/searchevil", "/"),
        ("javascript:alert(1)", "/"),
        ("/c/x/..//evil", "/c/x/..//evil"),  # of this host, where it is no page
    ],
)
def test_a_login_leads_on_to_pages_of_this_host(visitor: Browser, wanted: str, given: str) -> None:
    assert visitor.log_in(next=wanted).headers["location"] == given
    assert visitor.get(f"/login?next={quote(wanted)}").headers["location"] == given


def test_who_asks_for_a_page_comes_back_to_it(visitor: Browser) -> None:
    away = visitor.get("/search?q=a%20b%22&where=all")
    assert away.headers["location"] == "/login?next=%2Fsearch%3Fq%3Da%2520b%2522%26where%3Dall"
    form = visitor.get(away.headers["location"]).text
    assert 'name="next" value="/search?q=a%20b%22&amp;where=all"' in form


def test_a_login_ends_the_session_before_it_and_a_logout_ends_this_one(owner: Browser, host: Host) -> None:
    before = owner.cookies["__Host-dualmem"]
    token = owner.token("/login") or "none"
    assert token == "none"  # whoever is logged in is sent on
    owner.cookies.delete("__Host-dualmem")
    owner.log_in()
    second = owner.cookies["__Host-dualmem"]
    assert second != before
    done = owner.submit("/logout")
    assert done.headers["location"] == "/login?out=1"
    assert host.sessions.caller(second) is None
    assert owner.get("/").status_code == 303


def test_an_unknown_cookie_is_nobody(visitor: Browser) -> None:
    for cookie in ("x", "../../etc", "%00", "a" * 5_000):
        visitor.cookies.set("__Host-dualmem", cookie, domain="memory.example")
        assert visitor.get("/").status_code == 303


def test_of_several_users_each_sees_their_own(host: Host, world) -> None:
    ada, bob = UserId("ada"), UserId("bob")
    other = world.open("other")
    users = Users({ada: PASSPHRASE, bob: "another passphrase"}, several=True)
    shared = Host({OWNER: host.app, ada: host.app, bob: other}, RemoteOptions(PUBLIC_URL), users=users)
    with Browser(shared) as first, Browser(shared) as second:
        assert 'name="name"' in first.get("/login").text
        assert first.log_in(name="ada", passphrase="another passphrase").status_code == 403
        assert first.log_in(name="ada").status_code == 303
        assert second.log_in(name="bob", passphrase="another passphrase").status_code == 303
        assert "marmalade importer" in first.get("/").text
        assert "ada" in first.get("/").text
        for path in ("/", "/search?q=marmalade", "/devices", "/conflicts", "/state", "/clients"):
            answer = second.get(path)
            assert answer.status_code == 200, path
            assert "marmalade importer drops" not in answer.text, path
            assert str(host.app.settings.home) not in answer.text, path
        # What is another's is as what never was.
        missing = second.get("/c/0b5f0c66-0000-4000-8000-000000000000")
        theirs = second.get(f"/c/{SESSION_ID}")
        assert theirs.status_code == missing.status_code
        assert theirs.text.replace(SESSION_ID, "") == missing.text.replace(
            "0b5f0c66-0000-4000-8000-000000000000", ""
        )
        [grant] = [one.grant_id for one in shared.let_in.connections(OWNER)][:1]
        assert second.submit("/clients/revoke", grant=grant).status_code == 404
        [conflict] = host.app.list_conflicts()["conflicts"]
        decided = second.submit("/conflicts/decide", conflict=conflict["conflict_id"], seen="x", keep="yes")
        assert decided.status_code == 404
        # One's passphrase is not the other's.
        assert second.submit("/export", passphrase=PASSPHRASE).status_code == 403
        assert second.submit("/export", passphrase="another passphrase").status_code == 200
        assert len(shared.let_in.connections(OWNER)) == 3
        assert host.app.list_conflicts()["count"] == 1
