"""What a host that installed the bundle runs: the MCP server over standard input and output."""

from dualmem_mcp.server.serve import main

if __name__ == "__main__":
    main()
