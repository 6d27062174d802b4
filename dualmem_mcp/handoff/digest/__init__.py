"""The digest: what is extracted from a session by rule, without a language model."""

from dualmem_mcp.handoff.digest.extract import build_digest

__all__ = ["build_digest"]
