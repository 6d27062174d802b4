"""Indexing as a whole: sources into the truth, the truth into the indexes, vectors for what has none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from dualmem_mcp.errors import ConflictError
from dualmem_mcp.model.search import Collection
from dualmem_mcp.ports import Embedder, Progress, SearchIndex, Unembedded, no_progress
from dualmem_mcp.search.filling import ShouldStop, fill_indexes, never
from dualmem_mcp.search.likeness import likeness
from dualmem_mcp.search.passages import passages
from dualmem_mcp.search.reading import read_carried, read_sessions
from dualmem_mcp.search.sources import CarriedSessions, SearchTruth, SessionFiles, SourceLog

BATCH_TEXTS: Final = 32
"""Texts embedded at once at the beginning; later as many as can be in `_BATCH_SECONDS`."""

_BATCH_SECONDS: Final = 0.7
"""Between two looks at whether to stop. Larger batches waste less on padding and keep all cores busy."""

_BATCH_LIMITS: Final = (16, 256)

_LOOK_AGAIN_SECONDS: Final = 0.2


@dataclass(slots=True)
class IndexReport:
    """What one run did. `busy` means that another process was at it, and nothing was done here.

    `conversations` had turns that were new to the index, `skipped` session files had nothing new; `embedded`
    counts items that got their vectors, `deduplicated` those of them that share another's, `waiting` those that
    have none yet.
    """

    conversations: int = 0
    turns_indexed: int = 0
    items_indexed: int = 0
    skipped: int = 0
    embedded: int = 0
    deduplicated: int = 0
    waiting: int = 0
    duration_ms: float = 0.0
    busy: bool = False
    warnings: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """The contract's fields of `index`, and what else there is to say."""
        return {
            "conversations": self.conversations,
            "turns_indexed": self.turns_indexed,
            "skipped": self.skipped,
            "duration_ms": round(self.duration_ms, 1),
            "embedded": self.embedded,
            "deduplicated": self.deduplicated,
            "waiting": self.waiting,
            "warnings": list(self.warnings),
        }


class Indexer:
    """Keeps the indexes of one data home up to date.

    `lock` gives whether this process may index now, and holds that until it is left: only one does at a time.
    Safe to be interrupted at any moment, by `should_stop` or by a kill; the next run goes on from there.
    """

    def __init__(
        self,
        *,
        log: SourceLog,
        truth: SearchTruth,
        indexes: Mapping[Collection, SearchIndex],
        lock: Callable[[], AbstractContextManager[bool]],
    ) -> None:
        self._log = log
        self._truth = truth
        self._indexes = indexes
        self._lock = lock

    def run(
        self,
        *,
        files: SessionFiles | None = None,
        carried: CarriedSessions | None = None,
        embedder: Embedder | None = None,
        should_stop: ShouldStop = never,
        progress: Progress = no_progress,
    ) -> IndexReport:
        """Read what is new in the sources given, put it into the indexes, and embed it if there is a model.

        If another process is at it, nothing is done and the report says `busy`. Raises the errors of the
        truth, the indexes and the embedder.
        """
        started = time.perf_counter()
        report = IndexReport()
        with self._lock() as held:
            if held:
                self._read(files, carried, report, should_stop, progress)
                self._fill(report, should_stop, progress)
                if embedder is not None:
                    embed_items(self._indexes, embedder, report, should_stop=should_stop, progress=progress)
            else:
                report.busy = True
        counts = [index.counts() for index in self._indexes.values()]
        report.waiting = sum(count.items - count.embedded for count in counts)
        report.duration_ms = (time.perf_counter() - started) * 1000
        return report

    def run_alone(self, *, wait_seconds: float, **given: Any) -> IndexReport:
        """As `run`, after waiting for another process that is at it. Raises ConflictError if it takes longer."""
        deadline = time.monotonic() + wait_seconds
        while (report := self.run(**given)).busy:
            if time.monotonic() > deadline:
                raise ConflictError(
                    "another process of this data home is indexing",
                    operation="index",
                    hint="It indexes the same memory: let it finish, or try again later.",
                )
            time.sleep(_LOOK_AGAIN_SECONDS)
        return report

    def _read(
        self,
        files: SessionFiles | None,
        carried: CarriedSessions | None,
        report: IndexReport,
        should_stop: ShouldStop,
        progress: Progress,
    ) -> None:
        if files is not None:
            read = read_sessions(files, self._log, should_stop=should_stop, progress=progress)
            report.skipped += read.unchanged
            report.warnings += read.warnings
            if read.bad_lines:
                report.warnings.append(f"{read.bad_lines:,} lines of session files are no records; passed over")
        if carried is not None:
            report.warnings += read_carried(carried, self._log, should_stop=should_stop).warnings

    def _fill(self, report: IndexReport, should_stop: ShouldStop, progress: Progress) -> None:
        filled = fill_indexes(self._truth, self._indexes, should_stop=should_stop, progress=progress)
        report.conversations = len(filled.conversations)
        report.turns_indexed = filled.turns
        report.items_indexed = filled.turns + filled.others


def embed_items(
    indexes: Mapping[Collection, SearchIndex],
    embedder: Embedder,
    report: IndexReport,
    *,
    should_stop: ShouldStop = never,
    progress: Progress = no_progress,
) -> None:
    """Give vectors to all items that have none, newest first, in batches; `report.embedded` counts them.

    What is alike is embedded once, and `report.deduplicated` counts the others.
    """
    for index in indexes.values():
        index.use_model(embedder.model_id, embedder.dimensions)
    waiting = sum(count.items - count.embedded for count in (index.counts() for index in indexes.values()))
    started = time.perf_counter()
    size = BATCH_TEXTS
    for index in indexes.values():
        tried: set[int] = set()
        while not should_stop():
            begun = time.perf_counter()
            batch = _next_batch([one for one in index.unembedded(size) if one.id not in tried], size)
            if not batch:
                break
            tried.update(batch)
            texts, shared = _embed(batch, index, embedder)
            report.embedded += len(batch)
            report.deduplicated += shared
            if texts:
                size = _next_size(texts, time.perf_counter() - begun)
            rate = report.embedded / max(time.perf_counter() - started, 1e-6)
            progress(report.embedded, max(waiting, report.embedded), f"embedding, {rate:,.0f} a second")


_Batch = dict[int, Sequence[str]]
"""The texts of items, by their ids."""


def _next_batch(waiting: Sequence[Unembedded], size: int) -> _Batch:
    """The first of the items, as far as they have no more than `size` texts; at least one."""
    batch: _Batch = {}
    count = 0
    for one in waiting:
        texts = passages(one.item, one.previous)
        count += len(texts)
        if batch and count > size:
            break
        batch[one.id] = texts
    return batch


def _embed(batch: _Batch, index: SearchIndex, embedder: Embedder) -> tuple[int, int]:
    """Give the items their vectors; how many texts were embedded, and how many items share another's."""
    likenesses = {item_id: likeness(texts) for item_id, texts in batch.items()}
    shared = index.share_vectors(embedder.model_id, likenesses)
    waiting = [item_id for item_id in batch if item_id not in shared]
    if not waiting:
        return 0, len(shared)
    different = {likenesses[item_id]: batch[item_id] for item_id in waiting}
    vectors = embedder.embed([text for texts in different.values() for text in texts])
    made = {}
    end = 0
    for alike, texts in different.items():
        start, end = end, end + len(texts)
        made[alike] = vectors[start:end]
    index.put_vectors(embedder.model_id, [(one, made[likenesses[one]]) for one in waiting], likenesses)
    return end, len(batch) - len(different)


def _next_size(texts: int, seconds: float) -> int:
    least, most = _BATCH_LIMITS
    return min(most, max(least, int(texts * _BATCH_SECONDS / max(seconds, 1e-6))))
