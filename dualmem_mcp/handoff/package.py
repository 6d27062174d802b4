"""Making a handoff: digest, agents, files and thread sealed into one package, queued, delivered, reported."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dualmem_mcp.crypto.envelope import ObjectKind, Section
from dualmem_mcp.crypto.index import Algorithm
from dualmem_mcp.errors import BudgetSpentError, ConflictError, DualmemError, StoreUnreachableError
from dualmem_mcp.handoff.agent_states import agents_to_json
from dualmem_mcp.handoff.beside import BesideHandoff, NothingBeside, Preloaded
from dualmem_mcp.handoff.brief import build_brief, device_budget, natural_budget
from dualmem_mcp.handoff.bundle import bundle_sections
from dualmem_mcp.handoff.channel import Channel, manifest_key, package_key, packed_handoff
from dualmem_mcp.handoff.delivery import Delivery, deliver
from dualmem_mcp.handoff.fidelity import measure_fidelity
from dualmem_mcp.handoff.last_handoff import EMPTY, patched_sections, sources_of, usable_base
from dualmem_mcp.handoff.manifest import CarriedFile, PackageManifest, manifest_to_json, record_to_json
from dualmem_mcp.handoff.preload import SECTION as PRELOAD
from dualmem_mcp.handoff.reconstruct import open_package
from dualmem_mcp.handoff.steps import Steps
from dualmem_mcp.handoff.thread import CHUNK_BYTES, ThreadPlan, plan_thread, thread_sections
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.cost import request_cost_usd
from dualmem_mcp.model.device import DeviceProfile
from dualmem_mcp.model.digest import Digest
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.model.project import ProjectFile
from dualmem_mcp.ports import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Content:
    """What one handoff carries: the conversation, its digest, the session's files byte for byte, the
    project's files and the user's opaque state."""

    session: Session
    digest: Digest
    thread: Sequence[tuple[str, bytes]]
    project_files: Sequence[ProjectFile]
    state: Mapping[str, Any]
    changes_since: Callable[[Sequence[ProjectFile]], Sequence[Mapping[str, Any]]]
    """What changed in the agent definitions since those of an earlier handoff."""
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class HandoffResult:
    """A finished handoff: its record and the report for the user (the contract's *handoff* fields)."""

    record: HandoffRecord
    report: dict[str, Any]


def hand_over(
    content: Content,
    *,
    channel: Channel,
    target: DeviceProfile,
    steps: Steps,
    beside: BesideHandoff | None = None,
    progress: Progress = no_progress,
) -> HandoffResult:
    """Seal the content, queue it durably, deliver it if the bucket can be reached, and report.

    `queued` in the report is true when the bucket could not be reached: nothing is lost, and the next
    handoff delivers it. Raises DiskFullError when this device cannot even queue it; TamperedError or
    NotFoundError, with everything queued, when the bucket is not the vault's as it was.
    """
    session = content.session
    beside = beside or NothingBeside()
    beside.begin_preload(session, content.digest)
    brief = build_brief(content.digest, token_budget=natural_budget(content.digest))
    warnings = [*session.warnings, *content.warnings]

    progress(2, 5, "sealing")
    parts = _parts(content, channel, target=target, beside=beside, steps=steps, warnings=warnings)
    with steps.step("seal") as facts:
        sealed = _seal(content, parts, channel, digest_tokens=brief.tokens)
        facts["bytes"] = len(sealed.package)

    progress(3, 5, "queueing")
    with steps.step("queue") as facts:
        try:
            # The package first: once the record is queued, everything it names must be on the disk.
            channel.packages.write(sealed.record.handoff_id, sealed.package, made_here=True)
            for key, data in sealed.objects:
                channel.outbox.add(key, data)
                facts["bytes"] = facts.get("bytes", 0) + len(data)
            channel.catalogue.save_session(session)
            channel.catalogue.save_handoff(sealed.record)
        except DualmemError:
            _take_back(channel, sealed)
            raise

    progress(4, 5, "uploading")
    with steps.step("upload") as facts:
        delivery = _upload(channel, warnings)
        facts["bytes"] = delivery.uploaded_bytes
        facts["ok"] = not delivery.waiting
        facts["cost_usd"] = request_cost_usd(channel.objects.location, writes=delivery.uploaded)
    if delivery.waiting:
        warnings.append(f"not uploaded yet: {delivery.reason}; it is queued, run the handoff again to deliver it")
    if (placed := beside.placed()) is not None:
        with steps.step("vectors") as facts:
            facts.update(
                bytes=placed.bytes, ok=placed.ok, cost_usd=placed.usd_month, duration_ms=placed.duration_ms
            )
        warnings += placed.warnings

    # The sealed bytes are opened once more as the other device will: what cannot be read back is not handed over.
    with steps.step("verify") as facts:
        opened = open_package(channel, sealed.record)
        device_tokens = device_budget(opened.digest, target.context_tokens)
        readable = len(opened.preload.entries) if parts.preloaded is not None else 0
        on_device = build_brief(opened.digest, token_budget=device_tokens, max_agents=target.max_agents)
        facts["bytes"] = len(sealed.package)
    with steps.step("measure"):
        fidelity = measure_fidelity(session, brief.text, device_brief=on_device.text)

    progress(5, 5, "done")
    transcript_bytes = sum(len(data) for _, data in content.thread)
    visible_tokens = sealed.record.visible_tokens
    report: dict[str, Any] = {
        "handoff_id": sealed.record.handoff_id,
        "conversation_id": session.conversation_id,
        "title": content.digest.title,
        "message_count": session.message_count,
        "visible_tokens": visible_tokens,
        "digest_tokens": brief.tokens,
        "reduction": round(1 - brief.tokens / visible_tokens, 4) if visible_tokens else 0.0,
        "transcript_bytes": transcript_bytes,
        "package_bytes": len(sealed.package),
        "compression_ratio": round(parts.plain_bytes / len(sealed.package), 2),
        "fidelity": {**brief.completeness, **fidelity},
        "operations": steps.as_list(),
        "queued": bool(delivery.waiting),
        # Vectors in a service are nothing that a device needs: what it takes up it indexes by itself.
        "mobile_ready": not delivery.waiting and _has_preload(parts.preloaded, readable),
        "estimated_reconstruction_ms": steps.duration_of("verify"),
        "duration_ms": steps.duration_ms,
        "warnings": warnings,
    }
    if isinstance(delivery.fault, BudgetSpentError):
        report["over_budget"] = True
    return HandoffResult(sealed.record, report)


def _has_preload(preloaded: Preloaded | None, readable: int) -> bool:
    """Whether the target finds in the package what it is to have at hand, as far as there is anything."""
    return preloaded is None or bool(readable) or not (preloaded.data or preloaded.problems)


def _upload(channel: Channel, warnings: list[str]) -> Delivery:
    """Deliver what waits, once the bucket has proved to be the vault's as this device knows it."""
    try:
        channel.vault.refresh(channel.objects)
    except StoreUnreachableError as error:
        return Delivery(0, 0, len(channel.outbox.pending()), error.message, fault=error)
    return deliver(
        channel.outbox,
        channel.objects,
        on_delivered=channel.vault.mark_uploaded,
        mend=lambda key: mend_queued(channel, key, warnings),
    )


def mend_queued(channel: Channel, key: str, warnings: list[str]) -> None:
    """Make a damaged object of the outbox whole from the other copy that this device keeps; where there is none,
    take it out, and with a package the record that would lead other devices to it."""
    handoff_id = packed_handoff(key)
    copy = channel.packages.read(handoff_id) if handoff_id else channel.blobs.get(key)
    try:
        if copy is not None:
            channel.outbox.add(key, copy)
            return
    except ConflictError:
        pass  # that copy is not what was queued, either
    channel.outbox.remove(key)
    record = channel.catalogue.handoff(handoff_id) if handoff_id else None
    if record is not None:
        channel.outbox.remove(record.manifest_key)
    lost = f"the handoff of {record.title!r}" if record else f"the object {key}"
    warnings.append(f"{lost} was damaged while it waited to be uploaded and is left out; hand it over again")


def _take_back(channel: Channel, sealed: _Sealed) -> None:
    """Leave nothing of a handoff that could not be queued whole: on a full disk each try would take more of it.

    Key objects stay: what is queued later may need them.
    """
    # The record first: a package without a record is never looked for.
    for key in (sealed.record.manifest_key, sealed.record.package_key):
        with contextlib.suppress(DualmemError):
            channel.outbox.remove(key)
    with contextlib.suppress(DualmemError):
        channel.packages.remove(sealed.record.handoff_id)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a package is made of: its manifest, its sections in their order, and what the target is to have at
    hand."""

    key: str
    manifest: PackageManifest
    sections: Sequence[Section]
    preloaded: Preloaded | None
    plain_bytes: int


@dataclass(frozen=True, slots=True)
class _Sealed:
    record: HandoffRecord
    package: bytes
    objects: Sequence[tuple[str, bytes]]
    """Everything to be uploaded, in order: keys first, the handoff record last."""


def _parts(
    content: Content,
    channel: Channel,
    *,
    target: DeviceProfile,
    beside: BesideHandoff,
    steps: Steps,
    warnings: list[str],
) -> _Parts:
    session, vault = content.session, channel.vault
    handoff_id = HandoffId(secrets.token_hex(16))
    key = package_key(handoff_id)
    files_blob, carried = _pack_files(content.project_files)
    contents = {
        "digest": digest_bytes(content.digest),
        "agents": b"",
        "state": _json(dict(content.state)),
        "files": files_blob,
    }
    with steps.step("thread") as facts:
        names = (*contents, PRELOAD) if target.has_small_cache else (*contents,)
        base = usable_base(session.conversation_id, names, channel, warnings)
        plan = plan_thread(
            content.thread, handoff_id=handoff_id, package_key=key, base=base.manifest if base else None
        )
        facts["bytes"] = len(plan.stream)
    with steps.step("agents") as facts:
        contents["agents"] = agents_to_json(session, content.changes_since(base.definitions) if base else ())
        facts["bytes"] = len(contents["agents"])
    preloaded = beside.preloaded()
    if preloaded is not None:
        with steps.step("preload") as facts:
            contents[PRELOAD] = preloaded.data
            facts.update(bytes=len(preloaded.data), ok=not preloaded.problems, duration_ms=preloaded.duration_ms)
        warnings += [f"the preload set for {target.name} is not whole: {problem}" for problem in preloaded.problems]
    builds_on = bool(plan.sources.keys() - {handoff_id})
    patched, patches = patched_sections(contents, base.sections if base and builds_on else {})
    manifest = PackageManifest(
        handoff_id=handoff_id,
        conversation_id=session.conversation_id,
        created_at=_later_than_known(channel.clock.now(), session.conversation_id, channel),
        device_id=vault.device_id,
        device_name=vault.device_name,
        base=base.manifest.handoff_id if base and builds_on else None,
        stream_size=len(plan.stream),
        chunk_size=CHUNK_BYTES,
        sources={**plan.sources, **sources_of(patched, base.manifest if base else None)},
        thread=plan.files,
        patched=patched,
        files=carried,
        facts={
            "title": content.digest.title,
            "cwd": session.cwd,
            "project": session.project,
            "git_branch": session.git_branch,
            "client_version": session.version,
            "model": session.model,
            "permission_mode": session.permission_mode,
            "message_count": session.message_count,
            "last_turn_uuid": _last_uuid(session),
        },
    )
    whole = [name for name in contents if name not in {section.name for section in patched}]
    if manifest.format > 1:  # readers of the first format want all sections, empty ones too
        whole = [name for name in whole if contents[name] not in EMPTY]
    sections = [
        *([Section("patches", patches, compress=False)] if patched else []),
        *(Section(name, contents[name]) for name in whole if name != PRELOAD),
        *thread_sections(plan.stream),
        *(_preload_section(contents[name]) for name in whole if name == PRELOAD and contents[name]),
    ]
    return _Parts(
        key=key,
        manifest=manifest,
        sections=bundle_sections(manifest, sections)
        if manifest.format > 1
        else [Section("manifest", manifest_to_json(manifest)), *sections],
        preloaded=preloaded,
        plain_bytes=sum(map(len, contents.values())) + _new_bytes(plan, handoff_id),
    )


def _preload_section(data: bytes) -> Section:
    return Section(PRELOAD, data, algorithm=Algorithm.CHACHA20_POLY1305)


def _seal(content: Content, parts: _Parts, channel: Channel, *, digest_tokens: int) -> _Sealed:
    session, manifest, vault = content.session, parts.manifest, channel.vault
    conversation_key, key_objects = channel.conversation_key(session.conversation_id)
    package = channel.seal(ObjectKind.PACKAGE, parts.key, parts.sections, conversation_key)
    record = HandoffRecord(
        handoff_id=manifest.handoff_id,
        conversation_id=session.conversation_id,
        title=content.digest.title,
        cwd=session.cwd,
        created_at=manifest.created_at,
        device_id=vault.device_id,
        device_name=vault.device_name,
        base=manifest.base,
        package_key=parts.key,
        package_bytes=len(package),
        manifest_key="",
        message_count=session.message_count,
        visible_tokens=session.visible_tokens,
        digest_tokens=digest_tokens,
        last_turn_uuid=_last_uuid(session),
    )
    statement = record_to_json(record)
    record_key = manifest_key(vault, session.conversation_id, hashlib.sha256(statement).hexdigest())
    sealed_record = channel.seal(ObjectKind.MANIFEST, record_key, [Section("record", statement)], conversation_key)
    return _Sealed(
        record=dataclasses.replace(record, manifest_key=record_key),
        package=package,
        objects=[*key_objects, (parts.key, package), (record_key, sealed_record)],
    )


def _new_bytes(plan: ThreadPlan, handoff_id: HandoffId) -> int:
    return sum(part.size for file in plan.files for part in file.parts if part.handoff_id == handoff_id)


def _later_than_known(now: datetime, conversation_id: ConversationId, channel: Channel) -> datetime:
    """The time of a new handoff: after that of every handoff known here, whatever this device's clock says.

    The newest is what others take up, and a clock that is behind, or was set back, must not hide this one.
    """
    newest = channel.catalogue.handoffs(conversation_id)[:1]
    return max(now, *(record.created_at + timedelta(milliseconds=1) for record in newest)) if newest else now


def _pack_files(files: Sequence[ProjectFile]) -> tuple[bytes, tuple[CarriedFile, ...]]:
    carried, pieces, position = [], [], 0
    for file in files:
        carried.append(CarriedFile(file.kind, file.name, len(file.data), file.sha256, file.order, position))
        pieces.append(file.data)
        position += len(file.data)
    return b"".join(pieces), tuple(carried)


def digest_bytes(digest: Digest) -> bytes:
    """The section `digest`."""
    return _json(digest.to_json())


def _last_uuid(session: Session) -> str:
    return session.turns[-1].uuid if session.turns else ""


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
