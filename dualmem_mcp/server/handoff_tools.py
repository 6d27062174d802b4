"""The tools that hand conversations over and take them up again."""

from __future__ import annotations

from dualmem_mcp.server.tool import Tool

HANDOFF_TOOLS: tuple[Tool, ...] = ()
