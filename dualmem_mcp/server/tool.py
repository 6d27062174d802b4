"""What a tool is to this server: its entry in `tools/list`, and the function that does its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from dualmem_mcp.model.grant import Scope
from dualmem_mcp.ports import Progress, no_progress

if TYPE_CHECKING:
    from dualmem_mcp.app import App

Order = Literal["free", "read", "write"]
"""How calls that a client sends without waiting are ordered: a "write" runs alone and in order of arrival,
a "read" sees every write that arrived before it, a "free" call waits for nobody."""

# A client cuts a tool's result at about 25,000 tokens unless the tool says that more is meant.
# Source: Claude Code's documentation of `_meta["anthropic/maxResultSizeChars"]`.
MAX_RESULT_META = "anthropic/maxResultSizeChars"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool returns: the text for the model, the structured form, the resources that it changed, whether that
    is to be sent at once (`urgent`), as its user may be on the way to another device, and whether it synced.

    A failed call has a text only, which says what to do next.
    """

    text: str
    structured: Mapping[str, Any] | None = None
    updated: tuple[str, ...] = ()
    lists_changed: bool = False
    urgent: bool = False
    synced: bool = False
    is_error: bool = False

    def result(self) -> dict[str, Any]:
        """The `tools/call` result as it goes over the wire, in either protocol era."""
        result: dict[str, Any] = {"content": [{"type": "text", "text": self.text}], "resultType": "complete"}
        if self.structured is not None:
            result["structuredContent"] = self.structured
        if self.is_error:
            result["isError"] = True
        return result


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls a tool. `key` tells callers apart; `profile` is the device profile where a call names none, empty
    for that of the data home."""

    key: str = ""
    profile: str = ""


LOCAL: Final = Caller()
"""The user's own program on this machine."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool: the application, arguments that fit the input schema, where to report progress, and who
    calls."""

    app: App
    arguments: Mapping[str, Any]
    progress: Progress = no_progress
    caller: Caller = LOCAL


Handler = Callable[[Call], Answer]
"""Blocking; runs in a worker thread."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. Schemas are plain JSON Schema, listed to clients as they stand here."""

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    annotations: Mapping[str, bool]
    handler: Handler
    order: Order = "free"
    meta: Mapping[str, Any] = field(default_factory=dict)
    mends: bool = False
    """It replaces something, but what it replaces is kept and can be had back."""
    shared: bool = False
    """It reads only, takes no arguments and reports no progress: calls that wait at once get one answer."""

    @property
    def reads_only(self) -> bool:
        """Whether it changes nothing, as its annotations say."""
        return bool(self.annotations.get("readOnlyHint"))

    @property
    def scope(self) -> Scope:
        """What a remote client needs to be allowed to call it, as its annotations say."""
        if self.reads_only:
            return "read"
        return "erase" if self.annotations.get("destructiveHint") and not self.mends else "write"

    def entry(self) -> dict[str, Any]:
        """The tool's entry in `tools/list`."""
        entry: dict[str, Any] = {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.input_schema,
            "annotations": self.annotations,
            "execution": {"taskSupport": "forbidden"},
            "outputSchema": self.output_schema,
        }
        if self.meta:
            entry["_meta"] = self.meta
        return entry
