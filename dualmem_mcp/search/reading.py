"""From the sources into the truth: what session files gained, and what was decided and done in them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dualmem_mcp.errors import DualmemError, MalformedError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.model.source import Finding, SessionChunk
from dualmem_mcp.ports import Progress, no_progress
from dualmem_mcp.search.filling import ShouldStop, never
from dualmem_mcp.search.findings import (
    FROM_SESSION,
    GIVEN,
    QUOTED,
    USER,
    decision_findings,
    knowledge_findings,
    project_source,
    session_findings,
)
from dualmem_mcp.search.sources import CarriedSession, CarriedSessions, SessionFiles, SourceLog


@dataclass(slots=True)
class Read:
    """What was read: sources that had something new and those that had not, turns that were new, and warnings
    about what could not be read, which name files and never quote them."""

    changed: int = 0
    unchanged: int = 0
    turns: int = 0
    bad_lines: int = 0
    warnings: list[str] = field(default_factory=list)


def read_sessions(
    files: SessionFiles,
    log: SourceLog,
    *,
    should_stop: ShouldStop = never,
    progress: Progress = no_progress,
) -> Read:
    """Keep what the session files gained since the last time, then their decisions and agents.

    A file that cannot be read is a warning. Raises the errors of the log alone.
    """
    read = Read()
    paths = files.paths()
    for number, path in enumerate(paths):
        if should_stop():
            return read
        progress(number, len(paths), "reading sessions")
        _read_file(path, files, log, read, should_stop)
    progress(len(paths), len(paths), "reading sessions")
    _read_findings(files, log, read, should_stop)
    _read_projects(files, log)
    return read


def _read_file(path: str, files: SessionFiles, log: SourceLog, read: Read, should_stop: ShouldStop) -> None:
    mark = log.mark(path)
    chunks = files.read_tail(path, mark)
    grown = False
    while not should_stop() and (chunk := _next_chunk(chunks, read)) is not None:
        added = log.add_chunk(chunk, mark)
        if added is None:
            break  # another process goes on from there
        grown = grown or added > 0
        read.turns += added
        read.bad_lines += chunk.skipped
        mark = chunk.mark
        time.sleep(0)  # other threads may have waited for the interpreter
    read.changed += grown
    read.unchanged += not grown


def _next_chunk(chunks: Iterator[SessionChunk], read: Read) -> SessionChunk | None:
    try:
        return next(chunks, None)
    except StoreUnreachableError as error:
        read.warnings.append(error.message)
        return None


def _read_findings(files: SessionFiles, log: SourceLog, read: Read, should_stop: ShouldStop) -> None:
    for path, conversation_id in log.findings_due():
        if should_stop():
            return
        try:
            findings = session_findings(files.read_session(path))
        except StoreUnreachableError as error:
            read.warnings.append(error.message)
            continue
        except (NotFoundError, MalformedError):  # what was found before stays
            log.put_findings(conversation_id, (), path=path)
            continue
        log.put_findings(conversation_id, findings, replacing=FROM_SESSION, path=path)
        time.sleep(0)


def _read_projects(files: SessionFiles, log: SourceLog) -> None:
    put: list[Finding] | None = None
    for project, known in files.changed_knowledge():
        source = project_source(project)
        log.put_findings("", knowledge_findings(known, source), replacing=source)
        users = knowledge_findings(known, USER)  # the same in each
        if users != put:
            log.put_findings("", users, replacing=USER)
            put = users


def read_carried(carried: CarriedSessions, log: SourceLog, *, should_stop: ShouldStop = never) -> Read:
    """Keep the conversations of other devices whose packages are kept here, each once.

    A package that cannot be read is a warning. Raises the errors of the log alone.
    """
    read = Read()
    for source, device_name in carried.sources():
        if should_stop():
            return read
        if log.mark(source) is not None:
            read.unchanged += 1
            continue
        try:
            found = carried.read(source)
        except (StoreUnreachableError, NotFoundError, TamperedError, MalformedError) as error:
            read.warnings.append(_passed_over(error))
            continue
        _keep_findings(found, device_name, log)
        read.turns += log.add_session(source, found.conversation_id, found.session, device_name)
        read.changed += 1
    return read


def _keep_findings(found: CarriedSession, device_name: str, log: SourceLog) -> None:
    given = [one for one in found.decisions if one.origin == "model"]
    quoted = [one for one in found.decisions if one.origin == "extracted"]
    findings = [
        *decision_findings(found.conversation_id, given, GIVEN),
        *(session_findings(found.session) if found.session is not None else ()),
    ]
    log.put_findings(found.conversation_id, [replace(one, device=device_name) for one in findings])
    # What a later digest no longer quotes goes; what the model once said was decided stays.
    sentences = decision_findings(found.conversation_id, quoted, QUOTED)
    log.put_findings(
        found.conversation_id, [replace(one, device=device_name) for one in sentences], replacing=QUOTED
    )


def _passed_over(error: DualmemError) -> str:
    return f"a conversation of another device was passed over: {error.message}"
