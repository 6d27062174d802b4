"""What the parts of a digest remember of texts they have seen, to be quick the next time, and its forgetting."""

from __future__ import annotations

from dualmem_mcp.handoff import redact
from dualmem_mcp.handoff.digest import commands, suites


def forget_texts() -> None:
    """Keep no text of any conversation in this process: whose they were has gone, and others go on."""
    for remembered in (redact.redact_again, commands.read_output, suites.runs_tests):
        remembered.cache_clear()
