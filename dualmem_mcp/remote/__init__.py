"""The server over HTTP: MCP for Claude on the web and on mobile, its login, and the user's pages.

A request goes through `endpoint` (hosts, limits, compression), is told apart by its token (`oauth`), and reaches
the MCP server or the pages of exactly one user (`tenants`), whose data home nobody else's request can open.
"""
