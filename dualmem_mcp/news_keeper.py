"""Keeping the news of a device's projects, for the hook that tells a starting session of them.

Whatever syncs notes which conversations other devices have gone on with; whoever takes one up settles it.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.durable_files import file_lock, write_durably
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.handoff.quoting import cut, one_line
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.ports import Catalogue, Clock, Threads
from dualmem_mcp.project_news import (
    MOST_NAME_CHARACTERS,
    MOST_NEWS,
    NEWS_FILE,
    project_folders,
    project_key,
    read_news,
    real_folder,
)

_log = logging.getLogger(__name__)

_LOCK_FILE: Final = ".project_news.lock"
_LOCK_SECONDS: Final = 5.0
_SALT_BYTES: Final = 32
_STALE_AFTER: Final = timedelta(days=30)

_News = list[dict[str, Any]]


class NewsKeeper:
    """The file of news in one data home. If it cannot be written, that is logged: it is beside what is kept."""

    def __init__(self, home: Path, clock: Clock) -> None:
        self._home = home
        self._clock = clock

    def note(self, conversations: Iterable[str], catalogue: Catalogue, threads: Threads, *, own_name: str) -> None:
        """Look at conversations of which something came in: those that another device went on with last are news,
        if they were handed over or have turns of several devices; all others are none, or no longer."""
        try:
            found = self._look_at(conversations, catalogue, threads, own_name)
        except DualmemError as error:
            _log.info("news of projects: %s", error)
            return
        if found:
            self._change(lambda salt, news: _with(found, salt, news))

    def _look_at(
        self, conversations: Iterable[str], catalogue: Catalogue, threads: Threads, own_name: str
    ) -> dict[str, dict[str, Any] | None]:
        """What is news of each of the conversations; None where nothing is."""
        found: dict[str, dict[str, Any] | None] = {}
        for name in conversations:
            wanted = ConversationId(name)
            known = threads.conversation(wanted)
            if (
                known is None
                or known.device_name in ("", own_name)
                or known.updated_at < self._clock.now() - _STALE_AFTER
                or not (known.handoff_id or threads.shared([wanted]))
            ):
                found[name] = None
                continue
            # A device that went on with it elsewhere may have moved it to a folder of its own.
            cwds = {known.cwd, *(record.cwd for record in catalogue.handoffs(wanted))}
            found[name] = {
                "conversation_id": name,
                "device": cut(one_line(known.device_name), MOST_NAME_CHARACTERS),
                "at": known.updated_at.astimezone(UTC).isoformat(timespec="milliseconds"),
                "folders": [folder for cwd in sorted(cwds) for folder in project_folders(cwd)],
            }
        return found

    def settle(self, conversation_id: str) -> None:
        """Somebody took the conversation up here: what other devices added is known."""
        _, news = read_news(str(self._home))
        if any(one["conversation_id"] == conversation_id for one in news):
            self._change(lambda salt, news: _with({conversation_id: None}, salt, news))

    def key_of(self, folder: str) -> str:
        """The keyed hash of a project's folder; empty if there is none, or the file cannot be written."""
        if not read_news(str(self._home))[0]:
            self._change(lambda _, news: news)
        salt, _ = read_news(str(self._home))
        return project_key(salt, real_folder(folder)) if salt else ""

    def _change(self, change: Callable[[bytes, _News], _News]) -> None:
        try:
            with file_lock(self._home / _LOCK_FILE, timeout_seconds=_LOCK_SECONDS):
                kept, news = read_news(str(self._home))
                salt = kept or secrets.token_bytes(_SALT_BYTES)
                changed = [one for one in change(salt, news) if not self._is_stale(one)]
                if kept and changed == news:
                    return
                changed.sort(key=lambda one: str(one["at"]))
                document = {"format": 1, "salt": salt.hex(), "news": changed[-MOST_NEWS:]}
                write_durably(self._home / NEWS_FILE, [json.dumps(document).encode("ascii")])
        except DualmemError as error:
            _log.info("news of projects: %s", error)

    def _is_stale(self, one: dict[str, Any]) -> bool:
        try:
            return datetime.fromisoformat(one["at"]) < self._clock.now() - _STALE_AFTER
        except (ValueError, TypeError):  # not what this writes
            return True


def _with(found: dict[str, dict[str, Any] | None], salt: bytes, news: _News) -> _News:
    """The news with those of some conversations replaced, or taken out where there is none."""
    kept = [one for one in news if one["conversation_id"] not in found]
    for one in found.values():
        if one is not None and one["folders"]:
            projects = sorted({project_key(salt, folder) for folder in one["folders"]})
            kept.append({**{name: one[name] for name in ("conversation_id", "device", "at")}, "projects": projects})
    return kept
