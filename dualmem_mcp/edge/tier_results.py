"""What is answered in the place of a placement or a move that could not be made; quick to import."""

from __future__ import annotations

import time
from typing import Any

from dualmem_mcp.errors import BudgetSpentError, DualmemError, StoreRefusedError, StoreUnreachableError


def nothing_placed(warning: str = "", *, ok: bool = False, began: float | None = None) -> dict[str, Any]:
    """The result of a placement that placed nothing, for that reason; `began` is a reading of time.monotonic."""
    return {
        "points": 0,
        "bytes": 0,
        "duration_ms": _since(began),
        "ok": ok,
        "usd_month": 0.0,
        "waiting": 0,
        "warnings": [warning] if warning else [],
    }


def nothing_moved(
    problem: str = "", *, error: DualmemError | None = None, began: float | None = None
) -> dict[str, Any]:
    """The result of a move that moved nothing, for that reason; by the error's kind it is away, refused or over
    budget."""
    refused, over_budget = isinstance(error, StoreRefusedError), isinstance(error, BudgetSpentError)
    return {
        "done": {},
        "points_written": 0,
        "points_removed": 0,
        "bytes": 0,
        "duration_ms": _since(began),
        "stale": 0,
        "left": 0,
        "mover": None,
        "away": isinstance(error, StoreUnreachableError) and not refused and not over_budget,
        "refused": refused,
        "over_budget": over_budget,
        "problem": problem,
        "warnings": [],
    }


def problem_text(what: str, error: DualmemError) -> str:
    """A warning: what is not done, why, and what to do about it."""
    return f"{what}: {error.message}" + (f" ({error.hint})" if error.hint else "")


def _since(began: float | None) -> float:
    return 0.0 if began is None else round((time.monotonic() - began) * 1000, 1)
