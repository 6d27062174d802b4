"""The MCP server: tools, prompts and resources, and the transport they are spoken over."""
