"""Context fidelity: how much of a conversation its digest holds, measured against the conversation itself."""

from dualmem_mcp.handoff.fidelity.measure import measure_fidelity

__all__ = ["measure_fidelity"]
