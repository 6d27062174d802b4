"""The consent page: what it shows, what it takes, and where it never leads."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from tests.remote.oauth.hosts import CLAUDE, PASSPHRASE, URL, Users, action, answered, csrf, host


def ticked(page) -> dict[str, bool]:
    found = re.findall(r'<input type="checkbox" name="scope" value="(\w+)"( checked)?', page.text)
    return {name: bool(checked) for name, checked in found}


async def test_the_page_names_the_client_and_where_access_goes(one):
    browser = one.browser()
    page = await browser.page((await browser.register(client_name="Claude"))["client_id"])
    assert page.status_code == 200
    for text in ("<q>Claude</q>", "<strong>claude.ai</strong>", "memory.example", 'type="password"'):
        assert text in page.text
    assert "Your name on this server" not in page.text


async def test_a_program_on_the_device_is_named_with_a_warning(one):
    browser = one.browser(redirect="http://localhost:5000/callback")
    page = await browser.page((await browser.register())["client_id"])
    assert "<strong>localhost:5000</strong>" in page.text
    assert 'class="warning"' in page.text


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (None, {"read": True, "write": True, "erase": False, "export": False}),
        ("read", {"read": True, "write": False, "erase": False, "export": False}),
        ("read write erase export", {"read": True, "write": True, "erase": False, "export": False}),
        ("erase", {"read": True, "write": False, "erase": False, "export": False}),
        ("offline_access openid", {"read": True, "write": True, "erase": False, "export": False}),
    ],
)
async def test_erase_and_export_are_never_ticked_beforehand(one, asked, shown):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"], scope=asked)
    assert ticked(page) == shown


@pytest.mark.parametrize(
    ("given", "granted"),
    [
        ([], "read"),
        (["write"], "read write"),
        (["write", "erase"], "read write erase"),
        (["read", "write", "erase", "export"], "read write erase export"),
        (["everything", "read"], "read"),
    ],
)
async def test_what_was_ticked_is_granted_and_nothing_else(one, given, granted):
    browser = one.browser()
    client_id = str((await browser.register())["client_id"])
    answer = await browser.exchange(client_id, await browser.code(client_id, scope=given))
    assert answer.json()["scope"] == granted
    assert one.login.caller(answer.json()["access_token"]).grant.scopes == set(granted.split())


async def test_the_answer_tells_who_answers_and_gives_the_state_back(one):
    browser = one.browser()
    answer = await browser.submit(await browser.page((await browser.register())["client_id"]))
    assert answer.status_code == 303
    assert set(answered(answer)) == {"code", "state", "iss"}
    assert (answered(answer)["state"], answered(answer)["iss"]) == ("a state/+", URL)
    without = await browser.submit(await browser.page((await browser.register())["client_id"], state=None))
    assert set(answered(without)) == {"code", "iss"}


async def test_a_refusal_is_told_without_a_passphrase(one):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    answer = await browser.submit(page, decision="deny", passphrase="")
    assert answer.status_code == 303
    assert answered(answer)["error"] == "access_denied"
    assert (answered(answer)["state"], answered(answer)["iss"]) == ("a state/+", URL)
    assert one.users.asked == 0


# Where it never leads


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.example/cb"},
        {"redirect_uri": "https://claude.ai.evil.example/api/mcp/auth_callback"},
        {"redirect_uri": "https://claude.com/api/mcp/auth_callback"},
        {"redirect_uri": "http://localhost:9/other"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "//evil.example"},
        {"redirect_uri": ""},
        {"client_id": "dm-unknown"},
        {"client_id": ""},
        {"client_id": None},
        {"client_id": "x" * 2_000},
        {"client_id": "https://127.0.0.1/client"},
    ],
)
async def test_what_is_wrong_with_client_or_redirect_is_shown_and_leads_nowhere(one, change):
    browser = one.browser()
    client_id = str((await browser.register())["client_id"])
    query = browser.query(**{"client_id": client_id, **change})
    for answer in (
        await browser.http.get(f"/oauth/authorize?{query}"),
        await browser.http.post(f"/oauth/authorize?{query}", data={"decision": "deny", "passphrase": PASSPHRASE}),
    ):
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert "This login cannot go on" in answer.text
        assert "evil.example" not in answer.text
        assert "<form" not in answer.text


async def test_parameters_that_come_twice_are_refused(one):
    browser = one.browser()
    query = browser.query(str((await browser.register())["client_id"]))
    for twice in (f"{query}&redirect_uri=https://evil.example", f"redirect_uri=https://evil.example&{query}"):
        answer = await browser.http.get(f"/oauth/authorize?{twice}")
        assert answer.status_code == 400
        assert "location" not in answer.headers


@pytest.mark.parametrize("query", ["%ff=%fe", "a" * 9_000, "&".join(f"a{n}=1" for n in range(99)), "client_id=%00"])
async def test_queries_that_make_no_sense_are_shown(one, query):
    answer = await one.browser().http.get(f"/oauth/authorize?{query}")
    assert answer.status_code in {400, 414}
    assert "This login cannot go on" in answer.text


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
    ],
)
async def test_what_else_is_wrong_the_client_is_told(one, change, error):
    browser = one.browser()
    answer = await browser.page(str((await browser.register())["client_id"]), **change)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{CLAUDE}?error={error}&")
    assert (answered(answer)["state"], answered(answer)["iss"]) == ("a state/+", URL)


async def test_a_client_with_one_redirect_need_not_name_it(one):
    browser = one.browser()
    client_id = str((await browser.register())["client_id"])
    assert (await browser.page(client_id, redirect_uri=None)).status_code == 200
    browser = one.browser(redirect="http://localhost:1/a")
    two = await browser.register(redirect_uris=["http://localhost:1/a", "http://localhost:1/b"])
    assert (await browser.page(two["client_id"], redirect_uri=None)).status_code == 400


async def test_the_port_of_a_program_on_the_device_may_be_another_one_each_time(one):
    browser = one.browser(redirect="http://localhost:1111/callback")
    client_id = str((await browser.register())["client_id"])
    browser.redirect = "http://localhost:2222/callback"
    answer = await browser.submit(await browser.page(client_id))
    assert answer.headers["location"].startswith("http://localhost:2222/callback?code=")
    assert (await browser.exchange(client_id, answered(answer)["code"])).status_code == 200


# Cross-site request forgery, clickjacking, markup


async def test_a_form_without_its_cookie_is_refused(one):
    browser, victim = one.browser(), one.browser("198.51.100.1")
    page = await browser.page((await browser.register())["client_id"])
    fields = {"csrf": csrf(page), "decision": "allow", "passphrase": PASSPHRASE}
    answer = await victim.http.post(action(page), data=fields)
    assert answer.status_code == 403
    assert "location" not in answer.headers
    await victim.page((await browser.register())["client_id"])  # has a cookie of its own now
    assert (await victim.http.post(action(page), data=fields)).status_code == 403
    assert one.users.asked == 0


async def test_the_token_of_one_login_is_of_no_use_for_another(one):
    browser = one.browser()
    first = await browser.page((await browser.register())["client_id"])
    second = await browser.page((await browser.register(client_name="Another"))["client_id"])
    other_state = await browser.page((await browser.register())["client_id"], state="another")
    for page in (second, other_state):
        assert (await browser.submit(page, csrf=csrf(first))).status_code == 403
    assert (await browser.submit(first)).status_code == 303  # the cookie stayed the same beside the other pages
    assert (await browser.submit(first, csrf="")).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://claude.ai"])
async def test_a_form_from_another_site_is_refused(one, origin):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    fields = {"csrf": csrf(page), "decision": "allow", "passphrase": PASSPHRASE}
    answer = await browser.http.post(action(page), data=fields, headers={"Origin": origin})
    assert answer.status_code == 403
    assert (await browser.http.post(action(page), data=fields, headers={"Origin": URL})).status_code == 303


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
async def test_only_forms_are_taken(one, kind):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    answer = await browser.http.post(action(page), content=b"decision=allow", headers={"Content-Type": kind})
    assert answer.status_code == 400


async def test_the_page_cannot_be_framed_runs_nothing_and_is_not_kept(one):
    browser = one.browser()
    shown = await browser.page((await browser.register())["client_id"])
    for page in (shown, await browser.submit(shown, passphrase="wrong"), await browser.page("unknown")):
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "same-origin"
        assert "cross-origin-opener-policy" not in page.headers  # clients that open a window have to hear from it
        assert not re.search(r"<script|javascript:|\son\w+=|<iframe|<object|\sstyle=|src=", page.text)


async def test_the_cookies_are_of_this_very_host_and_not_for_scripts(one):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    answer = await browser.submit(page)
    for response, name in ((page, "__Host-dualmem-consent"), (answer, "__Host-dualmem-device")):
        cookie = response.headers["set-cookie"]
        assert cookie.startswith(f"{name}=")
        assert {"Path=/", "HttpOnly", "Secure", "SameSite=lax"} <= set(cookie.split("; "))
        assert "Domain" not in cookie


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "' autofocus onfocus=alert(1) x='",
]


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_a_client_calls_itself_is_text(one, name):
    browser = one.browser()
    page = await browser.page((await browser.register(client_name=name))["client_id"])
    assert page.status_code == 200
    assert not re.search(r"<script|<img|<[^>]*\son\w+=", page.text)
    assert "<q>49" not in page.text


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_a_request_says_is_text(one, text):
    browser = one.browser()
    client_id = str((await browser.register())["client_id"])
    page = await browser.page(client_id, state=text, scope=text)
    assert page.status_code == 200
    assert not re.search(r"<script|<img|<[^>]*\son\w+=", page.text)
    answer = await browser.submit(page)
    assert answered(answer)["state"] == text


async def test_the_name_that_a_user_typed_is_text(tmp_path):
    with host(tmp_path, users=Users({"anna": ("pass", b"k" * 32)})) as made:
        browser = made.browser()
        page = await browser.page((await browser.register())["client_id"])
        again = await browser.submit(page, name='"><script>alert(1)</script>', passphrase="x")
        assert again.status_code == 403
        assert "<script" not in again.text


async def test_a_store_that_is_away_is_told_on_the_page(one, monkeypatch):
    browser = one.browser()
    client_id = str((await browser.register())["client_id"])

    def away(*_):
        raise StoreUnreachableError("logins.db cannot be read or written", hint="Check the disk.")

    monkeypatch.setattr(one.login._store, "client", away)
    answer = await browser.page(client_id)
    assert answer.status_code == 503
    assert "ogins.db cannot be read or written. Check the disk." in answer.text


# Passphrases


async def test_a_wrong_passphrase_shows_the_page_again_as_it_was(one):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    again = await browser.submit(page, passphrase="wrong", scope=["erase"])
    assert again.status_code == 403
    assert "Name and passphrase do not fit. Type it again." in again.text
    assert "wrong" not in again.text.split("<form")[1]
    assert ticked(again) == {"read": True, "write": False, "erase": True, "export": False}
    assert (await browser.submit(again)).status_code == 303


@pytest.mark.parametrize("passphrase", ["", "x" * 1_025])
async def test_what_cannot_be_the_passphrase_is_not_tried(one, passphrase):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    assert (await browser.submit(page, passphrase=passphrase)).status_code == 403
    assert one.users.asked == 0


async def test_what_else_keeps_the_user_out_is_told_and_counts_as_no_attempt(one, monkeypatch):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])

    def away(*_):
        raise StoreUnreachableError("the data home is not open yet", hint="Try again in a moment.")

    monkeypatch.setattr(one.users, "unlock", away)
    answer = await browser.submit(page)
    assert answer.status_code == 503
    assert "The data home is not open yet. Try again in a moment." in answer.text
    assert csrf(answer) == csrf(page)


async def test_each_user_logs_in_to_their_own(tmp_path):
    users = Users({"anna": ("pass a", b"a" * 32), "ben": ("pass b", b"b" * 32)})
    with host(tmp_path, users=users) as made:
        browser = made.browser()
        for name, passphrase, secret in (("anna", "pass a", b"a" * 32), (" Ben ", "pass b", b"b" * 32)):
            _, tokens = await browser.log_in(name=name, passphrase=passphrase)
            caller = made.login.caller(tokens["access_token"])
            assert (caller.grant.user, caller.secret) == (name.strip().lower(), secret)
        page = await browser.page((await browser.register())["client_id"])
        assert "Your name on this server" in page.text
        texts = set()
        for name, passphrase in (("anna", "pass b"), ("nobody", "pass a"), ("", "pass a")):
            answer = await browser.submit(page, name=name, passphrase=passphrase)
            assert answer.status_code == 403
            texts.add(re.sub(r'value="[^"]*"', "", answer.text))
        assert len(texts) == 1


async def test_the_form_of_the_page_can_be_sent_by_a_browser_without_scripts(one):
    browser = one.browser()
    page = await browser.page((await browser.register())["client_id"])
    assert page.text.index('value="allow"') < page.text.index('value="deny"')  # what Enter presses
    assert action(page).startswith("/oauth/authorize?")
    assert urlencode({"redirect_uri": CLAUDE}) in action(page)
