"""What a remote client must be allowed to do to call a tool."""

from __future__ import annotations

from dualmem_mcp.model.grant import DEFAULT_SCOPES, SCOPES
from dualmem_mcp.server.protocol import TOOLS


def test_what_deletes_needs_a_permission_that_is_off_by_default() -> None:
    by_scope = {scope: {tool.name for tool in TOOLS if tool.scope == scope} for scope in SCOPES}
    assert by_scope["erase"] == {"delete_entities", "delete_observations", "delete_relations"}
    assert {"search_memory", "resume_conversation", "load_context", "read_graph"} <= by_scope["read"]
    assert {"create_entities", "save_progress", "resolve_conflict", "sync_memory"} <= by_scope["write"]
    assert "erase" not in DEFAULT_SCOPES


def test_a_tool_that_reads_changes_nothing_by_its_annotations() -> None:
    for tool in TOOLS:
        assert (tool.scope == "read") == tool.reads_only, tool.name
