"""Costs as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_BINARY = ((2**30, "GB"), (2**20, "MB"), (2**10, "KB"))


def usd_text(usd: float) -> str:
    """Dollars: to the cent from $1 on, to the hundredth of a cent below."""
    if not usd:
        return "$0"
    if usd >= 1:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.0001 else "under $0.0001"


def cost_text(cost: Mapping[str, Any]) -> str:
    """An estimate, in lines; without its warnings."""
    where = "a folder, which is free" if cost["is_folder"] else f"S3 in {cost['region']}"
    lines = [f"This vault, a month ({where}; list prices of {cost['prices_date']}):"]
    lines += [
        f"  {one['name']:<22}{_quantity(one):>20}  {usd_text(one['usd_month']):>14}" for one in cost["components"]
    ]
    lines.append(f"  {'in all, for its user':<42}  {usd_text(cost['usd_month']):>14}")
    if cost["usd_conversation"] is not None:
        number = cost["conversations_month"] or cost["conversations"]
        lines.append(f"  {f'for each of {number:,} conversations':<42}  {usd_text(cost['usd_conversation']):>14}")
    lines += ["", _forecast_text(cost["forecast"]), "", "With many such users:"]
    lines.append(f"  {'users':>9}{'machines':>10}{'a month':>16}{'each':>14}")
    lines += [
        f"  {one['users']:>9,}{one['machines']:>10,}{usd_text(one['usd_month']):>16}{usd_text(one['usd_user']):>14}"
        for one in cost["projection"]
    ]
    lines += [f"  - {sentence}" for sentence in cost["assumptions"]]
    return "\n".join([*lines, *_budget_text(cost["budget"])])


def proposals_text(found: Mapping[str, Any]) -> str:
    """Proposals in lines, each with its saving and its price."""
    if not found["proposals"]:
        return f"Nothing of what this vault has would cost less otherwise ({usd_text(found['usd_month'])} a month)."
    lines = [f"Of {usd_text(found['usd_month'])} a month:"]
    for one in found["proposals"]:
        lines.append(f"- {one['title']}: saves {usd_text(one['saves_usd_month'])} a month.")
        if one["once_usd"]:
            lines.append(f"  Costs {usd_text(one['once_usd'])} once.")
        lines += [f"  {one['latency']}", *(f"  {sentence}" for sentence in one["notes"])]
    return "\n".join(lines)


def _forecast_text(ahead: Mapping[str, Any]) -> str:
    between = f"between {usd_text(ahead['low_usd'])} and {usd_text(ahead['high_usd'])}"
    if ahead["is_early"]:
        return f"Next month: {between} ({ahead['method']})."
    return f"Next month: {usd_text(ahead['usd_month'])}, {between} ({ahead['method']})."


def _budget_text(budget: Mapping[str, Any]) -> Sequence[str]:
    limits = [
        f"{name} {usd_text(budget[f'{name}_usd'])}"
        for name in ("soft", "hard")
        if budget[f"{name}_usd"] is not None
    ]
    if not limits:
        return []
    return ["", f"Budget: {', '.join(limits)}; {usd_text(budget['spent_usd'])} of this month spent."]


def _quantity(component: Mapping[str, Any]) -> str:
    number, unit = component["quantity"], component["unit"]
    if unit != "bytes":
        return f"{number:,.2f} {unit}" if unit == "machines" else f"{number:,.0f} {unit}"
    for size, name in _BINARY:
        if number >= size:
            return f"{number / size:,.1f} {name}"
    return f"{number:,.0f} bytes"
