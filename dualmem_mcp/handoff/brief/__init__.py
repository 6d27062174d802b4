"""The brief: a digest fitted to a token budget, and its sections in full."""

from dualmem_mcp.handoff.brief.page import Brief, BriefSection, build_brief, device_budget, natural_budget
from dualmem_mcp.handoff.brief.sections import SECTIONS, section_text

__all__ = [
    "SECTIONS",
    "Brief",
    "BriefSection",
    "build_brief",
    "device_budget",
    "natural_budget",
    "section_text",
]
