"""The pages in a real Chromium: by hand, by keyboard, without script, and full of hostile text."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from dualmem_mcp.model.grant import OWNER
from dualmem_mcp.remote.options import RemoteOptions
from tests.conftest import SteppingClock
from tests.handoff.conftest import PASSPHRASE, SESSION_ID, World
from tests.remote.pages.chromium import find_chromium, log_in, start, window
from tests.remote.pages.memory import HOSTILE, Host, fill, free_port, served

PATHS = [
    "/",
    "/?q=nothing+has+this+title",
    f"/c/{SESSION_ID}",
    f"/c/{SESSION_ID}/thread",
    f"/c/{SESSION_ID}/requests",
    "/search?q=marmalade+rows",
    "/search",
    "/devices",
    "/clients",
    "/conflicts",
    "/state",
    "/export",
    "/c/nope",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # One module alone: while Playwright's loop runs, no test can run one of its own.
    path = find_chromium()
    if path is None:
        pytest.skip("THE PAGES WERE NOT TRIED IN A BROWSER: needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = start(playwright, path)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Iterator[tuple[Host, str]]:
    """A host full of hostile text, served; tests leave it as they found it."""
    world = World(tmp_path_factory.mktemp("house"), SteppingClock())
    app = fill(world, hostile=True)
    app.local_edge.catch_up(embed=False)
    port = free_port()
    host = Host({OWNER: app}, RemoteOptions(f"http://127.0.0.1:{port}"))
    with served(host, port) as address:
        yield host, address
    world.close()


@pytest.fixture
def own_house(world: World) -> Iterator[tuple[Host, str]]:
    """A host of the test's own, served."""
    app = fill(world, hostile=False)
    app.local_edge.catch_up(embed=False)
    port = free_port()
    host = Host({OWNER: app}, RemoteOptions(f"http://127.0.0.1:{port}"))
    with served(host, port) as address:
        yield host, address


def test_a_walk_without_script(browser: Browser, own_house: tuple[Host, str]) -> None:
    host, address = own_house
    with window(browser, address, java_script_enabled=False, viewport={"width": 390, "height": 844}) as (
        page,
        watch,
    ):
        page.goto(f"/c/{SESSION_ID}")
        expect(page).to_have_title("Log in · dualmem")
        page.get_by_label("Passphrase").fill("wrong horse")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not fit")
        expect(page.get_by_label("Passphrase")).to_have_value("")
        page.get_by_label("Passphrase").fill(PASSPHRASE)
        page.get_by_role("button", name="Log in").click()
        # On to the page that was asked for.
        expect(page).to_have_url(f"{address}/c/{SESSION_ID}")
        expect(page.get_by_role("heading", level=1)).to_contain_text("marmalade importer")
        expect(page.get_by_label("Brief")).to_contain_text("Does that also hold for files from Windows?")
        page.get_by_role("link", name="Everything that was said").click()
        expect(page.get_by_role("article")).to_contain_text("split as one line end")

        page.get_by_role("link", name="Search").click()
        page.get_by_role("searchbox").fill("order of the rows")
        page.get_by_role("searchbox").press("Enter")
        expect(page).to_have_title("Search: order of the rows · dualmem")
        result = page.get_by_role("listitem").filter(has_text="marmalade importer drops")
        expect(result).to_contain_text("desk")
        result.get_by_role("link").click()
        expect(page).to_have_url(re.compile(rf"/c/{SESSION_ID}/thread\?at=00000000"))

        page.get_by_role("link", name="Conversations", exact=True).click()
        page.get_by_role("link", name="1 conflict").click()
        expect(page.get_by_role("region", name="Counts now")).to_be_visible()
        page.get_by_role("button", name="Take this instead").click()
        expect(page.get_by_role("status")).to_contain_text("the other side counts now")
        expect(page.get_by_text("No conflicts.")).to_be_visible()
        assert host.app.list_conflicts()["count"] == 0

        page.get_by_role("link", name="Clients").click()
        page.get_by_text("Disconnect Claude Code", exact=False).first.click()
        page.get_by_role("button", name="Disconnect Claude Code").click()
        expect(page.get_by_role("status")).to_contain_text("log in again")
        assert "Claude Code" not in [one.name for one in host.let_in.connections(OWNER)]

        page.get_by_role("link", name="State").click()
        page.get_by_role("button", name="Sync now").click()
        expect(page.get_by_role("status")).to_contain_text("Synced")

        page.get_by_role("link", name="Export the memory").click()
        page.get_by_label("Passphrase, again").fill(PASSPHRASE)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "memory-2026-03-01.jsonl"
        assert '"marmalade importer"' in download.value.path().read_text()

        page.goto("/state")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("status")).to_contain_text("logged out")
        for _ in range(3):
            page.go_back()
            expect(page).to_have_title("Log in · dualmem")
            expect(page.locator("body")).not_to_contain_text("Sync now")
        assert watch.elsewhere == watch.dialogs == watch.complaints == []


def test_a_device_is_revoked_and_the_new_recovery_key_opens_the_vault(
    browser: Browser, own_house: tuple[Host, str], world: World
) -> None:
    _, address = own_house
    with window(browser, address) as (page, _):
        log_in(page, PASSPHRASE)
        page.get_by_role("link", name="Devices").click()
        page.get_by_role("link", name="Revoke pocket").click()
        page.get_by_label("Passphrase, again").fill("wrong horse")
        page.get_by_role("button", name="Revoke pocket").click()
        expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
        page.get_by_label("Passphrase, again").fill(PASSPHRASE)
        page.get_by_role("button", name="Revoke pocket").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("pocket is revoked")
        key = page.locator(".key").inner_text()
        page.get_by_role("link", name="I have written it down").click()
        expect(page.get_by_role("listitem").filter(has_text="pocket")).to_contain_text("revoked")
        expect(page.get_by_role("link", name="Revoke")).to_have_count(0)
        with contextlib.suppress(PlaywrightError):  # Chromium asks whether to send the form again
            page.go_back()
        assert key not in page.locator("body").inner_text()
    assert world.open("tablet").join(key, device_name="tablet")["vault_id"]


def focused(page: Page) -> str:
    """What has the focus, in words; fails if it cannot be seen."""
    outline = page.evaluate(
        "(() => { const s = getComputedStyle(document.activeElement);"
        " return [s.outlineStyle, parseFloat(s.outlineWidth)] })()"
    )
    assert outline[0] != "none", page.evaluate("document.activeElement.outerHTML")
    assert outline[1] >= 2
    return str(page.evaluate("(document.activeElement.innerText || document.activeElement.id).trim()"))


def press_until(page: Page, wanted: str, most: int = 40) -> None:
    """Tab until what has that text has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if wanted in focused(page):
            return
    raise AssertionError(f"{wanted!r} is not to be reached")


def test_the_keyboard_alone_does_it_all(browser: Browser, own_house: tuple[Host, str]) -> None:
    _, address = own_house
    with window(browser, address) as (page, _):
        page.goto("/")
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the content"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert focused(page) == "passphrase"
        page.keyboard.type(PASSPHRASE)
        page.keyboard.press("Enter")
        page.wait_for_url("/")
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            reached.append(focused(page))
        pages = ["Conversations", "Search", "Conflicts", "Devices", "Clients"]
        assert reached == ["Skip to the content", "dualmem", "Log out", *pages]
        # Over the head, into the content.
        page.reload()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert focused(page) == "q"
        press_until(page, "The marmalade importer")
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{address}/c/{SESSION_ID}")
        page.goto("/conflicts")
        press_until(page, "Keep this")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("what counted stays")
        page.goto("/clients")
        press_until(page, "Disconnect")
        page.keyboard.press("Enter")
        press_until(page, "Disconnect Claude", most=1)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Disconnected")
        press_until(page, "Log out", most=4)
        page.keyboard.press("Enter")
        expect(page).to_have_title("Log in · dualmem")


HARMLESS = (Path(__file__).parent / "harmless.js").read_text()


def test_stored_text_stays_text(browser: Browser, house: tuple[Host, str]) -> None:
    host, address = house
    ids = [row["conversation_id"] for row in host.app.list_conversations(limit=50)["conversations"]]
    assert len(ids) == len(HOSTILE) + 1
    sections = ("thread", "requests", "resumption", "notes", "offline")
    paths = [*PATHS, *(f"/c/{one}" for one in ids), *(f"/c/{SESSION_ID}/{section}" for section in sections)]
    paths += ["/search?q=script+img+onerror+tracker+javascript", "/search?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E"]
    paths += ["/?q=%22%3E%3Cimg+src%3Dx+onerror%3D%22document.title%3D'owned'%22%3E"]
    seen = ""
    with window(browser, address) as (page, watch):
        log_in(page, PASSPHRASE)
        for path in paths:
            page.goto(path)
            found = page.evaluate(HARMLESS)
            assert found["title"].endswith(" · dualmem"), path
            assert found["title"] != "owned", path
            assert found["foreign"] == found["handlers"] == [], path
            assert found["quotes"] == [], path
            assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in found["links"]), path
            assert all(form.startswith("/") and not form.startswith("//") for form in found["forms"]), path
            seen += page.locator("body").inner_text()
        assert watch.complaints == watch.elsewhere == watch.dialogs == []
    # It was there all the time, as text.
    for text in HOSTILE[:5]:
        assert text in seen
    assert "{{ 7 * 7 }}" in seen


MEASURES = (Path(__file__).parent / "measures.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_can_be_read_and_hit(browser: Browser, house: tuple[Host, str], scheme: str, width: int) -> None:
    _, address = house
    view = {"width": width, "height": 844}
    with window(browser, address, viewport=view, color_scheme=scheme, reduced_motion="reduce") as (page, _):
        page.goto("/login")
        measured = {"/login": page.evaluate(MEASURES)}
        log_in(page, PASSPHRASE)
        for path in PATHS:
            page.goto(path)
            page.evaluate("for (const e of document.querySelectorAll('details')) e.open = true")
            measured[path] = page.evaluate(MEASURES)
    assert len({found["title"] for found in measured.values()}) == len(measured)
    for path, found in measured.items():
        assert found["texts"] > 3, path
        for fault in ("contrasts", "targets", "unlabelled", "nameless", "unnamed"):
            assert found[fault] == [], (path, fault)
        assert found["sideways"] <= 0, path
        assert found["landmarks"] == [1, 1], path
        assert found["heads"].count(1) == 1, path
        assert found["heads"][0] == 1, path
        steps = zip(found["heads"], found["heads"][1:], strict=False)
        assert all(below - above <= 1 for above, below in steps), (path, found["heads"])
        assert len(found["ids"]) == len(set(found["ids"])), path
        assert found["language"] == "en"
