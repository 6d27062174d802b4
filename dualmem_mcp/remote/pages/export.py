"""The memory graph as one file, for whoever shows the passphrase again."""

from __future__ import annotations

from dualmem_mcp.errors import LockedError
from dualmem_mcp.reference_jsonl import serialise_graph
from dualmem_mcp.remote.pages.visit import Download, Page, Visit


def export_form(visit: Visit) -> Page:
    """What the file will hold, and the form that asks for the passphrase."""
    return _form(visit, "")


def export(visit: Visit) -> Page | Download:
    """The graph in the reference's form, a line each; the form again for a wrong passphrase."""
    try:
        visit.check_passphrase(visit.form.get("passphrase", ""))
    except LockedError:
        return _form(visit, "That is not the passphrase. Nothing was exported.")
    name = f"memory-{visit.app.clock.now():%Y-%m-%d}.jsonl"
    return Download(name, "application/jsonl; charset=utf-8", serialise_graph(visit.app.graph.read_graph()))


def _form(visit: Visit, problem: str) -> Page:
    entities, relations = visit.app.graph.counts()
    context = {"entities": entities, "relations": relations, "problem": problem}
    return Page("export.html", "Export", context, 403 if problem else 200)
