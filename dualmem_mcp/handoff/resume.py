"""The brief of a handed-over conversation with everything that the resuming side can act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from typing import Any, Final

from dualmem_mcp.errors import NotFoundError, StoreUnreachableError
from dualmem_mcp.handoff.activation import by_activation, taken_up
from dualmem_mcp.handoff.brief import Brief, BriefSection, build_brief, device_budget, section_text
from dualmem_mcp.handoff.brief.sections import SECTIONS, cursor_of, entries_page, flat, left_out
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.context import thread_page
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.handoff.reconstruct import (
    OpenedPackage,
    PackageGoneError,
    find_handoff,
    keep_package,
    open_package,
    refresh_catalogue,
)
from dualmem_mcp.handoff.related import LEAST_ROOM, FindRelated, find_nothing, related_query, related_section
from dualmem_mcp.handoff.since import Newer, branches_to_json, since_items, since_news, since_to_json
from dualmem_mcp.handoff.slim import slim_fields
from dualmem_mcp.handoff.steps import Steps
from dualmem_mcp.model.conversation import Session, estimate_tokens
from dualmem_mcp.model.device import DeviceProfile
from dualmem_mcp.model.digest import Digest
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.ports import Progress, no_progress

SINCE: Final = "since"
"""The section of what came after the handoff, which is in no package."""

FindNewer = Callable[[HandoffRecord, OpenedPackage], Newer]
"""What there is of the conversation that the handoff has not, from whatever device."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A conversation of which there are turns and records here, but no package: it was never handed over, or began
    on a device without session files. `session` has its turns, `digest` what they say."""

    session: Session
    digest: Digest
    newer: Newer

    def has_section(self, name: str) -> bool:
        """Whether it has a section of that name."""
        return name in ("thread", SINCE) or name in SECTIONS

    def section(self, name: str, cursor: str) -> tuple[str, str]:
        """One page of a section of the digest, of `since` or `thread`, and the next cursor. Raises NotFoundError,
        UsageError for a cursor that does not fit."""
        if name == SINCE:
            return since_page(self.newer, cursor)
        return thread_page(self.session, cursor) if name == "thread" else section_text(self.digest, name, cursor)


FindUnpacked = Callable[[ConversationId | None], Unpacked | None]
"""The conversation of that id, or the newest, as far as turns and records tell of it; None if nothing does."""

ProtectedCheck = Callable[[OpenedPackage], Sequence[str]]
"""Compares the protected files that were carried with the ones on this device; differences as sentences."""


TakeAlong = Callable[[OpenedPackage], Sequence[str]]
"""Has at hand for searches what a package brings for them; what went wrong as sentences."""


def resume(
    conversation_id: ConversationId | None,
    *,
    channel: Channel,
    profile: DeviceProfile,
    token_budget: int | None,
    newer: FindNewer,
    unpacked: FindUnpacked,
    protected_check: ProtectedCheck,
    find_related: FindRelated = find_nothing,
    take_along: TakeAlong = lambda _: (),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The contract's *brief* fields for the newest handoff of the conversation, or of all.

    `token_budget` wins over the device's; None gives what suits the device and the conversation's length. What
    it leaves free goes to related material of other conversations. A conversation that was never handed over is
    told by its turns and records; `handoff_id` is then empty. So is one whose package, or one that this is built
    upon, is gone from the bucket; brief and warnings then say so.

    Works from what this device keeps when the bucket cannot be reached. Raises NotFoundError,
    StoreUnreachableError if the package is not kept here, TamperedError, LockedError.
    """
    steps = Steps()
    progress(0, 3, "looking for handoffs")
    with steps.step("fetch"):
        refreshed = refresh_catalogue(channel, conversation_id)
        try:
            record = find_handoff(channel, conversation_id, refreshed)
        except (NotFoundError, StoreUnreachableError):
            known = unpacked(conversation_id)
            if known is None:
                raise
            return _resume_unpacked(
                known,
                None,
                "it was never handed over: this is what synced turns and notes tell of it",
                profile=profile,
                token_budget=token_budget,
                find_related=find_related,
                warnings=refreshed.warnings,
                steps=steps,
            )
    warnings = [*refreshed.warnings]

    progress(1, 3, "opening")
    try:
        with steps.step("open"):
            package = open_package(channel, record)
            digest = package.digest
    except PackageGoneError as error:
        known = unpacked(record.conversation_id)
        if known is None:
            raise
        return _resume_unpacked(
            known,
            record,
            f"{error.message}; what was handed over cannot be read here, and this is what synced turns and notes "
            f"tell of it: no files, commands or agents. {error.hint}",
            profile=profile,
            token_budget=token_budget,
            find_related=find_related,
            warnings=refreshed.warnings,
            steps=steps,
        )

    progress(2, 3, "writing the brief")
    with steps.step("reconstruct"):
        found = newer(record, package)
        warnings += protected_check(package)
        budget = token_budget or device_budget(digest, profile.context_tokens)
        brief, text, related = _written(digest, found, budget, profile, find_related)
        fields = {
            "title": record.title,
            "brief": text,
            "sections": [*_sections(brief, found), *_other_sections(digest, package)],
            "since_handoff": {
                "handed_over_at": record.created_at.isoformat(),
                "from_device": record.device_name,
                "new_turns_on_this_device": found.own_turns,
                **since_to_json(found),
            },
            "branches": branches_to_json(found.branches),
            "related": related,
        }
        parts = _fitting_parts(fields, digest, brief, budget, profile)

    with steps.step("keep"):
        try:
            if not keep_package(channel, record, package):
                warnings.append("the package is too large to be kept on this device; its thread needs the bucket")
        except StoreUnreachableError as error:
            warnings.append(f"the package could not be kept for use offline: {error.message}")
        except NotFoundError:
            warnings.append(
                "an earlier package that the thread is built upon is gone from the bucket: the thread cannot be "
                "read or restored here until the conversation is handed over again"
            )
        warnings += take_along(package)
    progress(3, 3, "done")
    return {
        "conversation_id": record.conversation_id,
        "handoff_id": record.handoff_id,
        "brief_tokens": estimate_tokens(text),
        **parts,
        "timings_ms": {name: steps.duration_of(name) for name in ("fetch", "open", "reconstruct")},
        "completeness": _plain(brief.completeness),
        "warnings": warnings,
    }


def _resume_unpacked(
    known: Unpacked,
    record: HandoffRecord | None,
    why: str,
    *,
    profile: DeviceProfile,
    token_budget: int | None,
    find_related: FindRelated,
    warnings: Sequence[str],
    steps: Steps,
) -> dict[str, Any]:
    digest = known.digest
    # A lack has to be seen by whoever reads the brief alone.
    note = f"> {one_line(why)}\n\n" if record is not None else ""
    with steps.step("reconstruct"):
        budget = token_budget or device_budget(digest, profile.context_tokens)
        budget = max(1, budget - estimate_tokens(note))
        title = "Settled and noted" if record is None else "Settled and noted since"
        brief, text, related = _written(digest, known.newer, budget, profile, find_related, since_title=title)
        text = note + text
        fields = {
            "title": digest.title,
            "brief": text,
            "sections": [*_sections(brief, known.newer), _thread_section(digest)],
            "since_handoff": {
                "handed_over_at": record.created_at.isoformat() if record else None,
                "from_device": record.device_name if record else "",
                "new_turns_on_this_device": known.newer.own_turns,
                **since_to_json(known.newer),
            },
            "branches": branches_to_json(known.newer.branches),
            "related": related,
        }
        parts = _fitting_parts(fields, digest, brief, budget, profile)
    return {
        "conversation_id": digest.conversation_id,
        "handoff_id": record.handoff_id if record else "",
        "brief_tokens": estimate_tokens(text),
        **parts,
        "timings_ms": {"fetch": 0.0, "open": 0.0, "reconstruct": steps.duration_of("reconstruct")},
        "completeness": _plain(brief.completeness),
        "warnings": [*warnings, why],
    }


def _written(
    digest: Digest,
    newer: Newer,
    budget: int,
    profile: DeviceProfile,
    find_related: FindRelated,
    *,
    since_title: str = "Since the handoff",
) -> tuple[Brief, str, list[dict[str, Any]]]:
    """The brief, its text with related material where there is room, and that material."""
    brief = build_brief(
        digest,
        token_budget=budget,
        max_agents=taken_up(digest.agents, profile),
        since=since_news(newer),
        since_title=since_title,
    )
    room = budget - brief.tokens
    passages = find_related(related_query(digest), digest) if room >= LEAST_ROOM else ()
    related_text, related = related_section(passages, room)
    return brief, brief.text + related_text, related


def since_page(newer: Newer, cursor: str) -> tuple[str, str]:
    """One page of what came after the handoff, in full, and the next cursor. Raises UsageError."""
    return entries_page([item.text for item in since_items(newer)], cursor, SINCE)


def _sections(brief: Brief, newer: Newer) -> list[dict[str, Any]]:
    """What `load_context` has of the digest, and of what came after it, in the order of worth."""
    sections = [asdict(section) for section in brief.sections]
    if items := since_items(newer):
        missing = left_out(items, flat(brief.text), brief.shown)
        tokens = estimate_tokens("\n".join(item.text for item in items))
        since = BriefSection(SINCE, tokens, cursor_of(missing, len(items)), len(missing))
        sections.insert(1, asdict(since))
    return sections


def _fitting_parts(
    fields: dict[str, Any], digest: Digest, brief: Brief, budget: int, profile: DeviceProfile
) -> dict[str, Any]:
    """These fields and the digest's parts: whole, or where the profile wants that, as short as the brief."""
    agents = taken_up(digest.agents, profile)
    whole = {**fields, **_parts(digest, agents)}
    return slim_fields(whole, digest, brief.shown, agents=agents, budget=budget) if profile.slim else whole


def _parts(digest: Digest, restored: int) -> dict[str, Any]:
    """The digest's parts under the contract's names; the whole lists, of which the brief shows what fits."""
    resumption = digest.resumption
    taken = {index for index, _ in by_activation(digest.agents)[:restored]}
    return {
        "resumption_point": {
            "last_request": {"text": resumption.last_request.text, "uuid": resumption.last_request.uuid},
            "last_reply": {"text": resumption.last_reply.text, "uuid": resumption.last_reply.uuid},
            "pending_tools": [
                {"name": tool.name, "input": tool.input, "uuid": tool.uuid} for tool in resumption.pending_tools
            ],
            "git": resumption.git.to_json(),
        },
        "requests": [{"text": request.text, "uuid": request.uuid} for request in digest.requests],
        "decisions": [
            {"text": decision.text, "uuid": decision.uuid, "origin": decision.origin}
            for decision in digest.decisions
        ],
        "active_files": [
            {
                "path": file.path,
                "operations": dict(file.operations),
                "last_operation": file.last_operation,
                "uuid": file.uuid,
            }
            for file in digest.files
        ],
        "commands": [command.to_json() for command in digest.commands],
        "tasks": [task.to_json() for task in digest.tasks],
        "agents": [
            {
                "id": agent.id,
                "type": agent.type,
                "description": agent.description,
                "status": agent.status,
                "result": agent.result or agent.last_message,
                "restored": index in taken,
            }
            for index, agent in enumerate(digest.agents)
        ],
    }


def _other_sections(digest: Digest, package: OpenedPackage) -> list[dict[str, Any]]:
    """What `load_context` has beside the digest, with the tokens of the whole of it."""
    files = package.manifest.files
    sizes = {
        "agent_definitions": sum(file.size for file in files if file.kind == "agent_definition") // 4,
        "carried_files": sum(file.size for file in files) // 4,
        "state": estimate_tokens(json.dumps(package.state, ensure_ascii=False)) if package.state else 0,
    }
    others = [{"name": name, "tokens": tokens, "cursor": "0"} for name, tokens in sizes.items() if tokens]
    return [_thread_section(digest), *others] if digest.visible_tokens else others


def _thread_section(digest: Digest) -> dict[str, Any]:
    """The whole thread; `end_cursor` is the page that begins with the last request, where it is a turn."""
    section = {"name": "thread", "tokens": digest.visible_tokens, "cursor": "0"}
    uuid = digest.resumption.last_request.uuid
    return {**section, "end_cursor": uuid[:12]} if len(uuid) >= 12 else section


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value
