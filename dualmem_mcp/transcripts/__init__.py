"""Claude Code's files: find a session, read it, take its project's files along, write it back."""
