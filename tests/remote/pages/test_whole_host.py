"""The pages of the very program that users run, over TLS, in a real Chromium."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.handoff.conftest import PASSPHRASE, SESSION_ID, World
from tests.remote.pages.chromium import find_chromium, log_in, start, window
from tests.remote.pages.memory import fill, free_port
from tests.remote.test_run import write_certificate


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("THE WHOLE HOST WAS NOT TRIED IN A BROWSER: needs Chromium (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = start(playwright, path)
        yield chromium
        chromium.close()


@pytest.fixture
def address(world: World, tmp_path: Path) -> Iterator[str]:
    """`dualmem serve` on the data home of the desktop."""
    fill(world, hostile=False).close()
    certificate, key = write_certificate(tmp_path, "localhost")
    port = free_port()
    url = f"https://localhost:{port}"
    options = ["--transport", "http", "--port", str(port), "--public-url", url]
    process = subprocess.Popen(
        [sys.executable, "-m", "dualmem_mcp.cli", "serve", *options, "--certificate", certificate, "--key", key],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))},
            "DUALMEM_HOME": str(world.root / "desktop"),
            "DUALMEM_BUCKET": str(world.bucket),
            "DUALMEM_KEYSTORE": "file",
            "CLAUDE_CONFIG_DIR": str(world.claude),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        assert "dualmem:" in said, said + process.stderr.read()
        yield url
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait(30)
        process.stderr.close()


def test_log_in_read_search_and_leave(browser: Browser, address: str) -> None:
    with window(browser, address, ignore_https_errors=True) as (page, watch):
        page.goto(f"/c/{SESSION_ID}")
        page.get_by_label("Passphrase").fill("wrong horse")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("passphrase is wrong")
        log_in(page, PASSPHRASE)
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
        session = cookies["__Host-dualmem"]
        assert (session["secure"], session["httpOnly"], session["sameSite"]) == (True, True, "Lax")
        page.get_by_role("link", name="The marmalade importer").click()
        expect(page.get_by_label("Brief")).to_contain_text("files from Windows")
        page.goto("/search?q=order+of+the+rows")
        expect(page.get_by_role("main")).to_contain_text("marmalade importer")
        page.goto("/clients")
        expect(page.get_by_role("main")).to_contain_text("No client is connected")
        page.goto("/state")
        page.get_by_role("button", name="Sync now").click()
        expect(page.get_by_role("status")).to_contain_text("Synced")
        page.goto("/nope")
        expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
        page.goto("/export")
        page.get_by_label("Passphrase, again").fill(PASSPHRASE)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        assert '"Ada"' in download.value.path().read_text()
        page.goto("/")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("status")).to_contain_text("logged out")
        # Another site can neither do nor show anything with this login.
        trap = (
            f"<form method=post action='{address}/state/sync'><button>Free coffee</button></form>"
            f"<iframe src='{address}/'></iframe>"
        )
        log_in(page, PASSPHRASE)
        page.route("https://evil.example/", lambda route: route.fulfill(body=trap, content_type="text/html"))
        page.goto("https://evil.example/")
        frame = page.frames[-1]
        frame.wait_for_load_state()
        assert frame.url.startswith("chrome-error:")
        with page.expect_response(f"{address}/state/sync") as answer:
            page.get_by_role("button", name="Free coffee").click()
        assert answer.value.status in (303, 403)
        expect(page.locator("body")).not_to_contain_text("Synced just now")
        page.goto("/")  # where the login is as good as before
        expect(page.get_by_role("heading", level=1)).to_have_text("Conversations")
        assert watch.dialogs == []
