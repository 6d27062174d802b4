"""`python -m dualmem_mcp.cli`: the same as `dualmem`."""

from dualmem_mcp.cli import main

main()
