"""The `agents` section: what each agent was asked, where it stands, and how its definition changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.conversation import Session


def agents_to_json(session: Session, definition_changes: Sequence[Mapping[str, Any]]) -> bytes:
    """The section's bytes: {format, model, permission_mode, agents [AgentRun], definition_changes}."""
    document = {
        "format": 1,
        "model": session.model,
        "permission_mode": session.permission_mode,
        "agents": [asdict(agent) for agent in session.agents],
        "definition_changes": [dict(change) for change in definition_changes],
    }
    return json.dumps(document, ensure_ascii=False, default=_time_text).encode("utf-8", "surrogatepass")


def agents_from_json(data: bytes) -> dict[str, Any]:
    """The section as plain values. Raises TamperedError when it is not an object with an agent list."""
    try:
        document = json.loads(data.decode("utf-8", "surrogatepass"))
        if not isinstance(document, dict) or not isinstance(document["agents"], list):
            raise TypeError("not an agents section")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TamperedError(
            f"the agents section does not have the form it should ({type(error).__name__})",
            operation="read agents",
            hint="Hand the conversation over again; if that fails too, update dualmem on both devices.",
        ) from None
    return document


def _time_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")
