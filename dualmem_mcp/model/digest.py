"""The digest of a conversation: what was extracted from it, each entry with the uuid of the turn it comes from.

As JSON every class is an object whose members are the fields here. Reading is tolerant: a missing member or
one of another type takes its default, a member that is not known is kept in `extra` and written again, so
that a digest passes unharmed through an older version of this program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

Origin = str
"""Who stands behind a line: "user" (said or chosen by the user), "extracted" (quoted from the session by rule,
a candidate), "model" (passed by the calling model, not checked)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every part of a digest has: the turn it comes from, and members that this version does not know."""

    uuid: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The entry as plain JSON values; members that hold their default are left out."""
        members: dict[str, Any] = dict(self.extra)
        for name, default in _defaults(type(self)).items():
            value = getattr(self, name)
            if value != default:
                members[name] = _plain(value)
        return members

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """The entry that the JSON object stands for; anything else gives an empty entry."""
        if not isinstance(raw, Mapping):
            return cls()
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        kinds, defaults = _entry_kinds(cls), _defaults(cls)
        for name, value in raw.items():
            if name not in defaults:
                extra[str(name)] = value
            elif name in kinds:
                known[name] = _entry_value(kinds[name], value, many=isinstance(defaults[name], tuple))
            else:
                known[name] = _typed_value(value, defaults[name], timestamp=name in _TIMESTAMPS)
        return cls(**known, extra=extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Entry):
    """A text as it stood in one turn."""

    text: str = ""
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Quote):
    """One request of the user's.

    `kind` is "prompt", "command" (a slash command), "rejection" (what the user said on refusing a tool call), or
    of those typed while the model worked: "queued" (without a uuid: not delivered yet), "mid-turn" (delivered, but
    recorded in no turn), "withdrawn" (taken back before that). `constraint` marks corrections and standing rules.
    `context` is what the model had asked just before, given where the request is too short to be understood alone.
    `reply` is the beginning of the model's last words on it, `outcome` the sentence of them that says most, both
    from the turn `outcome_uuid`. `repeats` counts later requests of the same text, which are not listed again.
    """

    kind: str = "prompt"
    constraint: bool = False
    context: str = ""
    outcome: str = ""
    reply: str = ""
    outcome_uuid: str = ""
    repeats: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTool(Entry):
    """A tool call that has no result: its name and a short form of its input."""

    name: str = ""
    input: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState(Entry):
    """The branch as the last turn has it, the last commit seen, and what `git status` last said.

    `uncommitted` names files edited after the last commit that the session shows; relative to the cwd.
    """

    branch: str = ""
    last_commit: str = ""
    status: str = ""
    uncommitted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption(Entry):
    """Where the conversation stands: what was asked last, what came back, and what is unfinished.

    `steps` are the model's doings after the last request, oldest first; `interrupted` is set where the
    user stopped the model and said nothing more.
    """

    last_request: Quote = Quote()
    last_reply: Quote = Quote()
    steps: tuple[Quote, ...] = ()
    pending_tools: tuple[PendingTool, ...] = ()
    interrupted: bool = False
    git: GitState = GitState()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry(Entry):
    """A file that the session touched, most recently in the turn `uuid`.

    `path` is relative to the cwd where it lies below it. `operations` counts by name (read, edit, write, restore,
    delete, move, shell); `edited` is true for every change, `created` where the session made the file.
    `agent` names the agent that changed it, empty for the main thread.
    """

    path: str = ""
    operations: Mapping[str, int] = field(default_factory=dict)
    last_operation: str = ""
    created: bool = False
    edited: bool = False
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Entry):
    """A shell command at its last run. `status` is "ok", "failed", "rejected", "interrupted", "background" or
    "unfinished"; `exit` its exit code, None if not known; `output` an excerpt; `runs` how often it ran."""

    command: str = ""
    description: str = ""
    status: str = "ok"
    exit: int | None = None
    output: str = ""
    is_test: bool = False
    runs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult(Entry):
    """A test run: counts where its output states them (None where not), and its telling lines."""

    command: str = ""
    status: str = ""
    passed: int | None = None
    failed: int | None = None
    skipped: int | None = None
    summary: str = ""
    edits_after: int = 0
    """Edits of files since then: the result may no longer hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorEntry(Entry):
    """Something that failed, in the turn `uuid`, and what preceded its success; `fix` empty if none is seen."""

    command: str = ""
    error: str = ""
    fix: str = ""
    fix_uuid: str = ""
    resolved: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit(Entry):
    """A commit as git reported it."""

    hash: str = ""
    subject: str = ""
    branch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestEntry(Entry):
    """A pull request that the session made or is linked to."""

    number: int = 0
    url: str = ""
    repository: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAction(Entry):
    """A change made outside the working folder: an issue, a comment, a push, a message."""

    action: str = ""
    subject: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEntry(Entry):
    """A task in its final state: "pending", "in_progress" or "completed" (or what the source calls it)."""

    id: str = ""
    subject: str = ""
    status: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Entry):
    """The last plan, and whether it was "approved", "rejected", or only "proposed"."""

    text: str = ""
    status: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEntry(Entry):
    """One subagent: what it was asked, how it ended, what it reported; `outcome` is the sentence of its report, or
    else of its last message, that says most; `active_at` when it last did something."""

    id: str = ""
    type: str = ""
    description: str = ""
    prompt: str = ""
    status: str = "unknown"
    outcome: str = ""
    result: str = ""
    last_message: str = ""
    context_tokens: int = 0
    message_count: int = 0
    tool_uses: int = 0
    model: str = ""
    order: int = 0
    active_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Quote):
    """A decision or finding; see Origin for who stands behind it. `score` orders the extracted ones."""

    origin: Origin = "extracted"
    question: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest(Entry):
    """All that was extracted from one conversation, and what the calling model said of it.

    Token counts are estimates over what the model sees: `visible_tokens` of the whole conversation,
    `active_tokens` of the thread since its last compaction. `summary`, `next_steps` and `open_questions`
    come from the calling model alone.
    """

    conversation_id: str = ""
    title: str = ""
    cwd: str = ""
    version: str = ""
    model: str = ""
    permission_mode: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    message_count: int = 0
    visible_tokens: int = 0
    active_tokens: int = 0
    resumption: Resumption = Resumption()
    requests: tuple[Request, ...] = ()
    files: tuple[FileEntry, ...] = ()
    commands: tuple[Command, ...] = ()
    tests: tuple[SuiteResult, ...] = ()
    errors: tuple[ErrorEntry, ...] = ()
    commits: tuple[Commit, ...] = ()
    pull_requests: tuple[PullRequestEntry, ...] = ()
    actions: tuple[ExternalAction, ...] = ()
    tasks: tuple[TaskEntry, ...] = ()
    plan: Plan = Plan()
    agents: tuple[AgentEntry, ...] = ()
    decisions: tuple[Decision, ...] = ()
    compaction_summary: Quote = Quote()
    summary: str = ""
    next_steps: tuple[str, ...] = ()
    open_questions: tuple[str, ...] = ()


_TIMESTAMPS = frozenset({"timestamp", "started_at", "ended_at", "active_at"})

_ENTRY_CLASSES: dict[str, type[Entry]] = {
    "last_request": Quote,
    "last_reply": Quote,
    "steps": Quote,
    "pending_tools": PendingTool,
    "git": GitState,
    "resumption": Resumption,
    "requests": Request,
    "files": FileEntry,
    "commands": Command,
    "tests": SuiteResult,
    "errors": ErrorEntry,
    "commits": Commit,
    "pull_requests": PullRequestEntry,
    "actions": ExternalAction,
    "tasks": TaskEntry,
    "plan": Plan,
    "agents": AgentEntry,
    "decisions": Decision,
    "compaction_summary": Quote,
}


def _defaults(cls: type[Entry]) -> dict[str, Any]:
    """Members of a class with the values they have when nothing is said; without `extra`."""
    defaults: dict[str, Any] = {}
    for one in fields(cls):
        if one.name != "extra":
            defaults[one.name] = one.default if one.default_factory is MISSING else one.default_factory()
    return defaults


def _entry_kinds(cls: type[Entry]) -> dict[str, type[Entry]]:
    defaults = _defaults(cls)
    return {
        name: kind
        for name, kind in _ENTRY_CLASSES.items()
        if name in defaults and isinstance(defaults[name], (Entry, tuple))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Entry):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _entry_value(kind: type[Entry], value: object, *, many: bool) -> Any:
    if not many:
        return kind.from_json(value)
    return tuple(kind.from_json(one) for one in value) if isinstance(value, (list, tuple)) else ()


def _typed_value(value: Any, default: Any, *, timestamp: bool) -> Any:
    """The value if it has the type of the default, else the default; a default of None is a time or an integer."""
    if timestamp:
        return _read_time(value)
    if isinstance(default, tuple):
        return tuple(one for one in value if isinstance(one, str)) if isinstance(value, (list, tuple)) else default
    if isinstance(default, Mapping):
        counts = value.items() if isinstance(value, Mapping) else ()
        return {str(name): count for name, count in counts if isinstance(count, int)}
    if isinstance(value, bool) or isinstance(default, bool):
        return value if isinstance(value, bool) and isinstance(default, bool) else default
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    return value if isinstance(value, int if default is None else type(default)) else default


def _read_time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
