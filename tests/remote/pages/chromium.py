"""Debian's Chromium, or another that is installed: found, started, and watched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Request

ARGUMENTS = [
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path of a Chromium that is installed here."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def start(playwright: Playwright, path: str) -> Browser:
    """That Chromium without a window."""
    return playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


@dataclass
class Watch:
    """What a browser met: what its policies stopped, scripts' words, and requests to others."""

    address: str
    complaints: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        """Chromium tells of each violation of a policy here."""
        if "Content Security Policy" in message.text or "Refused" in message.text:
            self.complaints.append(message.text)

    def request(self, request: Request) -> None:
        """A request that the page made."""
        if not request.url.startswith(f"{self.address}/"):
            self.elsewhere.append(request.url)

    def dialog(self, dialog: Any) -> None:
        """Only a script opens one."""
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def window(browser: Browser, address: str, **options: Any) -> Iterator[tuple[Page, Watch]]:
    """A new window without cookies, watched."""
    context: BrowserContext = browser.new_context(base_url=address, **options)
    context.set_default_timeout(15_000)
    watch = Watch(address)
    context.on("console", watch.console)
    context.on("request", watch.request)
    context.on("dialog", watch.dialog)
    try:
        yield context.new_page(), watch
    finally:
        context.close()


def log_in(page: Page, passphrase: str) -> None:
    """Log in as the owner, and wait for the first page."""
    page.goto("/login")
    page.get_by_label("Passphrase").fill(passphrase)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("/")
