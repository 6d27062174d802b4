"""Sections of a conversation opened ahead of being asked for, in a thread of their own, within a bound."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from dualmem_mcp.errors import DualmemError

_log = logging.getLogger(__name__)

LIMIT_BYTES: Final = 500_000
"""Opened text of one caller, in UTF-8. Source: the product's requirement for phones."""

MOST_CALLERS: Final = 8
"""Callers of one application for whom something is kept: one conversation of each."""

IDLE_SECONDS: Final = 600.0
"""What nobody asked for so long is dropped."""

_PAUSE_SECONDS: Final = 0.05
"""Before anything is opened: the answer that gave rise to it goes out first."""

Page = tuple[str, str]
"""The text of a page, and the cursor of the next."""


class Opened(Protocol):
    """Pages of one section."""

    @property
    def section(self) -> str:
        """Its name."""
        ...

    @property
    def size_bytes(self) -> int:
        """What it takes, in UTF-8."""
        ...

    def page(self, cursor: str) -> Page | None:
        """The page at a cursor, as it would be read from the package; None if it is not among them."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedPages:
    """Pages of a section by their cursors."""

    section: str
    pages: dict[str, Page]

    @property
    def size_bytes(self) -> int:
        """What it takes, in UTF-8."""
        return sum(len(text.encode("utf-8", "replace")) for text, _ in self.pages.values())

    def page(self, cursor: str) -> Page | None:
        """The page at that cursor, if it is here."""
        return self.pages.get(cursor)


Open = Callable[[int], Iterator[Opened]]
"""What to open, the likeliest first, for a budget of bytes; ended early when it is used up or no longer wanted.
Raises DualmemError."""


@dataclass(slots=True)
class _Kept:
    conversation: str
    version: str
    used_at: float
    opened: list[Opened] = field(default_factory=list)
    size_bytes: int = 0
    done: bool = False


class OpenedAhead:
    """What is opened ahead, per caller. Safe to use from any thread; holds no thread while nothing is kept.

    `clock` counts seconds and never goes back.
    """

    def __init__(
        self,
        *,
        limit_bytes: int = LIMIT_BYTES,
        most_callers: int = MOST_CALLERS,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit_bytes
        self._most = most_callers
        self._idle = idle_seconds
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._waiting: OrderedDict[str, Open] = OrderedDict()
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closed = False

    def begin(self, caller: str, conversation: str, version: str, open_pages: Open) -> None:
        """Open these pages in the background, in place of what the caller had; returns at once.

        `version` is that of the conversation: pages of another are not given. What is there already of the same
        stays.
        """
        with self._lock:
            kept = self._kept.get(caller)
            if self._closed or (kept is not None and (kept.conversation, kept.version) == (conversation, version)):
                return
            self._kept[caller] = _Kept(conversation, version, self._clock())
            self._kept.move_to_end(caller)
            self._waiting[caller] = open_pages
            while len(self._kept) > self._most:
                self._drop(next(iter(self._kept)))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="open ahead", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def page(self, caller: str, conversation: str, version: str, section: str, cursor: str) -> Page | None:
        """The page, if it was opened ahead for that caller and the conversation is as it was."""
        with self._lock:
            kept = self._kept.get(caller)
            if kept is None or kept.conversation != conversation:
                return None
            if kept.version != version or self._clock() - kept.used_at > self._idle:
                self._drop(caller)
                return None
            kept.used_at = self._clock()
            self._kept.move_to_end(caller)
            found = [opened.page(cursor) for opened in kept.opened if opened.section == section]
        return next((page for page in found if page is not None), None)

    def forget(self, conversation: str) -> None:
        """Keep nothing of that conversation."""
        with self._lock:
            for caller in [name for name, kept in self._kept.items() if kept.conversation == conversation]:
                self._drop(caller)
            self._news.notify_all()

    def size_bytes(self, caller: str) -> int:
        """What is kept for a caller, in bytes of UTF-8."""
        with self._lock:
            kept = self._kept.get(caller)
            return kept.size_bytes if kept is not None else 0

    def wait(self, caller: str, seconds: float) -> bool:
        """Wait until all is opened that was to be opened for the caller; whether it is."""
        with self._lock:
            return self._news.wait_for(
                lambda: (kept := self._kept.get(caller)) is None or kept.done, timeout=seconds
            )

    def close(self) -> None:
        """Keep nothing any more, and let what is being opened come to its end."""
        with self._lock:
            self._closed = True
            self._kept.clear()
            self._waiting.clear()
            self._news.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _drop(self, caller: str) -> None:
        self._kept.pop(caller, None)
        self._waiting.pop(caller, None)

    def _run(self) -> None:
        """Open what waits; then wait for more until everything was dropped."""
        while True:
            with self._lock:
                while not self._waiting:
                    self._drop_idle()
                    if not self._kept:
                        self._thread = None
                        return
                    self._news.wait(self._idle_left())
                caller, open_pages = self._waiting.popitem(last=False)
                kept = self._kept[caller]
                self._news.wait_for(lambda: self._closed, timeout=_PAUSE_SECONDS)
            try:
                for opened in open_pages(self._limit):
                    if not self._take(caller, kept, opened):
                        break
            except DualmemError as error:  # whoever asks for it is told
                _log.info("not opened ahead: %s", error.message)
            except Exception as error:  # noqa: BLE001 - nobody waits for this; whoever asks for it meets the fault
                _log.info("not opened ahead: %s", type(error).__name__)
            with self._lock:
                kept.done = True
                self._news.notify_all()

    def _take(self, caller: str, kept: _Kept, opened: Opened) -> bool:
        """Keep that if there is room; whether more is wanted."""
        size = opened.size_bytes
        with self._lock:
            if self._kept.get(caller) is not kept:
                return False
            if kept.size_bytes + size <= self._limit:
                kept.opened.append(opened)
                kept.size_bytes += size
            return True

    def _drop_idle(self) -> None:
        now = self._clock()
        for caller in [name for name, kept in self._kept.items() if now - kept.used_at > self._idle]:
            self._drop(caller)

    def _idle_left(self) -> float:
        oldest = min(kept.used_at for kept in self._kept.values())
        return max(0.01, self._idle - (self._clock() - oldest) + 0.01)
