"""The consent page in a real Chromium, without scripts, as a phone's in-app browser shows it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Route

from dualmem_mcp.remote.endpoint import build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.run import served
from tests.remote.http_host import OneTenant, ShowingTenant
from tests.remote.oauth.hosts import PASSPHRASE, Host, host
from tests.remote.pages.chromium import ARGUMENTS, find_chromium
from tests.remote.pages.memory import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "java_script_enabled": False}


@asynccontextmanager
async def serving(folder: Path):
    """A host on a port of its own, and a program that waits for the answer on another, with what it was sent."""
    port, received = free_port(), []

    async def client(request):
        received.append(str(request.url))
        # Claude's own address leads on, too; a policy on the form must not stop that.
        if request.url.path == "/callback":
            return RedirectResponse(
                str(request.url).replace("localhost", "127.0.0.1").replace("/callback", "/done")
            )
        return PlainTextResponse("You may go back to your program.")

    with host(folder, public_url=f"http://localhost:{port}", port=port) as made:
        routes = [*made.login.routes(), Route("/callback", client), Route("/done", client)]
        endpoint = build_endpoint(
            made.options,
            callers=made.login,
            tenants=OneTenant(ShowingTenant()),
            readiness=Readiness(folder),
            routes=routes,
        )
        async with served(made.options, endpoint):
            yield made, port, received


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    """One Chromium for all."""
    path = find_chromium()
    if path is None:
        pytest.skip("THE LOGIN WAS NOT TRIED IN A BROWSER: needs Chromium (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
def window(chromium):
    """A new window without cookies."""

    @asynccontextmanager
    async def opened(**options):
        context = await chromium.new_context(**options)
        context.set_default_timeout(15_000)
        try:
            yield await context.new_page()
        finally:
            await context.close()

    return opened


async def asked(made: Host, port: int, **other) -> str:
    browser = made.browser(redirect=f"http://localhost:{port}/callback")
    client_id = str((await browser.register(client_name="Claude Code"))["client_id"])
    return f"{made.options.public_url}/oauth/authorize?{browser.query(client_id, resource=None, **other)}"


async def test_a_login_on_a_phone_without_scripts(tmp_path, window):
    async with serving(tmp_path) as (made, port, received), window(**PHONE) as page:
        said = []
        page.on("console", lambda message: said.append(message.text))
        await page.goto(await asked(made, port))
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        await page.get_by_label("passphrase").fill("not it")
        await page.get_by_label("Erase").tap()
        await page.get_by_role("button", name="Allow access").tap()
        await expect(page.get_by_role("alert")).to_contain_text("Name and passphrase do not fit.")
        assert await page.get_by_label("Erase").is_checked()
        assert await page.get_by_label("passphrase").input_value() == ""
        await page.get_by_label("Erase").tap()
        await page.get_by_label("passphrase").fill(PASSPHRASE)
        await page.get_by_role("button", name="Allow access").tap()
        await page.wait_for_url("**/done?**")
        assert [urlsplit(url).path for url in received] == ["/callback", "/done"]
        answer = parse_qs(urlsplit(received[0]).query)
        assert set(answer) == {"code", "state", "iss"}
        assert [text for text in said if "403" not in text] == []  # a wrong passphrase is told so


async def test_a_login_by_the_keyboard_alone(tmp_path, window):
    async with serving(tmp_path) as (made, port, received), window() as page:
        await page.goto(await asked(made, port))
        focused = []
        for _ in range(6):
            await page.keyboard.press("Tab")
            focused.append(await page.evaluate("document.activeElement.value || document.activeElement.name"))
        assert focused == ["write", "erase", "export", "passphrase", "allow", "deny"]
        await page.get_by_label("passphrase").focus()
        await page.keyboard.type(PASSPHRASE)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/done?**")
        assert "code=" in received[0]


async def test_what_can_be_touched_is_large_enough_and_has_a_name(tmp_path, window):
    async with serving(tmp_path) as (made, port, _), window(**{**PHONE, "java_script_enabled": True}) as page:
        await page.goto(await asked(made, port))
        for role, count in (("button", 2), ("textbox", 1), ("checkbox", 4)):
            found = page.get_by_role(role)
            assert await found.count() == count
            for each in await found.all():
                box = await (each.locator("xpath=..") if role == "checkbox" else each).bounding_box()
                assert box["height"] >= 44
                assert await each.evaluate("e => (e.labels?.[0] || e).textContent.trim().length") > 0


async def test_a_page_of_another_site_shows_no_login_in_a_frame(tmp_path, window):
    async with serving(tmp_path) as (made, port, _), window() as page:
        url = await asked(made, port)
        said = []
        page.on("console", lambda message: said.append(message.text))
        await page.set_content(f'<iframe src="{url.replace("&", "&amp;")}" width="600" height="600"></iframe>')
        for _ in range(100):
            if said:
                break
            await asyncio.sleep(0.05)
        assert any("frame-ancestors" in text or "X-Frame-Options" in text for text in said)
        assert not await page.frames[1].locator("form").count()


async def test_hostile_names_do_nothing(tmp_path, window):
    async with serving(tmp_path) as (made, port, _), window() as page:
        dialogs, said = [], []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.on("console", lambda message: said.append(message.text))
        browser = made.browser(redirect=f"http://localhost:{port}/callback")
        name = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
        client_id = str((await browser.register(client_name=name))["client_id"])
        query = browser.query(client_id, resource=None, state=name)
        await page.goto(f"{made.options.public_url}/oauth/authorize?{query}")
        assert name in await page.locator("h1").inner_text()
        assert await page.locator("script, img").count() == 0
        assert dialogs == said == []
