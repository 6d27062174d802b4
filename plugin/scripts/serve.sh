#!/bin/sh
# Starts the plugin's MCP server: the one that is installed; else, by uvx or pipx, the one that DUALMEM_FROM names.
# Without either it says how to install it. No package is ever fetched by its mere name: nobody asked for whatever
# somebody may have put under that name into a public index.
PATH="$PATH:${HOME:-/}/.local/bin"
export PATH

if command -v dualmem-mcp >/dev/null 2>&1; then
    exec dualmem-mcp
fi
if [ -n "${DUALMEM_FROM:-}" ]; then
    if command -v uvx >/dev/null 2>&1; then
        exec uvx --from "$DUALMEM_FROM" dualmem-mcp
    fi
    if command -v pipx >/dev/null 2>&1; then
        exec pipx run --spec "$DUALMEM_FROM" dualmem-mcp
    fi
    echo "dualmem: DUALMEM_FROM is set, but neither uvx nor pipx is there to run it" >&2
fi
cat >&2 <<'TEXT'
error: dualmem-mcp is not installed
hint: In a checkout of dualmem-mcp run `pipx install .` (or `uv tool install .`), then restart Claude Code. Or set
DUALMEM_FROM to what uvx or pipx shall run: a folder with a checkout, a wheel, or git+https://… with a tag.
TEXT
exit 1
