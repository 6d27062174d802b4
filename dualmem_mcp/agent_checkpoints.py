"""What an open application keeps of the agents of running sessions, and gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any

from dualmem_mcp.handoff.agent_states import agents_to_json
from dualmem_mcp.handoff.checkpoints import Checkpoints
from dualmem_mcp.model.ids import ConversationId, DeviceId, conversation_id_for
from dualmem_mcp.ports import Clock
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.source import SessionSource


class AgentCheckpoints(ABC):
    """The part of an application that works on checkpoints; `App` opens what it needs."""

    settings: Settings
    clock: Clock
    device_id: DeviceId
    records: RecordStore

    def save_checkpoint(self) -> dict[str, Any] | None:
        """Keep what the agents of the running session are at, if the last checkpoint is old enough and something
        changed since; the checkpoint as `list_checkpoints` shows it, else None. Raises what reading it raises."""
        every = timedelta(seconds=self._checkpoints.every_seconds)
        path = self._source().running(self.clock.now() - 2 * every)
        if path is None or not self._checkpoints.is_due(conversation_id_for(path.stem)):
            return None
        session = read_session(path)
        if not session.agents:
            return None
        made = self._checkpoints.save(session.conversation_id, agents_to_json(session, ()))
        return made.to_json() if made else None

    def list_checkpoints(self, conversation_id: str) -> list[dict[str, Any]]:
        """Checkpoints of a conversation's agents, the oldest first: checkpoint_id, made_at, device_id, state_bytes,
        stored_bytes, whole. Raises UsageError, NotFoundError for one that was erased."""
        wanted = self._not_erased(conversation_id, "list checkpoints")
        return [one.to_json() for one in self._checkpoints.find(wanted)]

    def restore_checkpoint(self, conversation_id: str, checkpoint_id: str = "") -> str:
        """The state that a checkpoint kept, by default the newest: JSON as in the section `agents` of a package.

        Raises NotFoundError, TamperedError, UsageError.
        """
        wanted = self._not_erased(conversation_id, "restore checkpoint")
        state = self._checkpoints.restore(wanted, checkpoint_id)
        return state.decode("utf-8", "surrogatepass")

    @abstractmethod
    def _source(self) -> SessionSource:
        """The sessions of this device."""

    @abstractmethod
    def _not_erased(self, conversation_id: str, operation: str) -> ConversationId:
        """The id, if the conversation was not erased. Raises UsageError, NotFoundError."""

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.records, self.device_id, self.clock, self.settings.profile.sync.checkpoint_seconds)
