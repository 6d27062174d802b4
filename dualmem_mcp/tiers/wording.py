"""Tiers as a person reads them, and a plan as JSON: what the service can learn, where vectors lie, what moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.cost.wording import usd_text
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.tiers import TIER_NAMES

if TYPE_CHECKING:
    from dualmem_mcp.model.tier_plan import Plan

# Source of both: docs/threat-model.md, "Vectors in a service", with what was measured.
WHAT_IT_LEARNS: Final = """\
Copies of your vectors are to go to {url}.

It gets each passage's text, encrypted with keys that only your devices have, and its vector, which is obfuscated
so that the service can compare it. Obfuscated is not encrypted. Whoever runs the service, or breaks into it, learns

  - how many passages you have, when they are written, searched, moved and removed, and how long the long ones are;
  - which passages are about roughly the same thing, and which of them your searches find;
  - with 50 to 100 of your texts in hand (mails, public pages or commits), how to undo the obfuscation: then, of any
    text that it has, whether you have it too, and roughly what the rest is about.

It does not learn the words of your texts, and can change none without your devices noticing. Everything stays on
this device as well. `dualmem tiers disable --remove` takes the copies away, but not what was learnt from them.
docs/threat-model.md has the whole, with figures."""

WHAT_WORDS_TELL: Final = """\
With words, the words of each text go along as numbers, which only your keys can make of words. The service then
finds texts by their words, too, and learns besides

  - how many different words each text has, which texts have a word in common, and how frequent each word is;
  - from the known statistics of languages, what many of the frequent ones are, and by these others.

That is much more than vectors alone tell."""

_ACTIONS: Final = {
    "remove": "removed",
    "evict": "evicted",
    "demote": "demoted",
    "promote": "promoted",
    "place": "placed",
    "renew": "renewed",
    "finished": "of an earlier run ended",
    "adopted": "found there as another device placed them",
}


def plan_fields(plan: Plan) -> dict[str, Any]:
    """The fields of `dualmem tiers plan --json`. Moves are counted, not listed item by item."""
    return {
        "made_at": plan.made_at.isoformat(timespec="seconds"),
        "items": plan.items,
        "waiting": plan.waiting,
        "duplicates": plan.duplicates,
        "moves": [
            {
                "action": move.action,
                "from": move.source,
                "to": move.target,
                "items": len(move),
                "points": move.points,
                "why": move.reason,
            }
            for move in plan.moves
        ],
        "points_before": dict(plan.points_before),
        "points_after": dict(plan.points_after),
        "usd_month_before": round(plan.usd_month_before, 9),
        "usd_month_after": round(plan.usd_month_after, 9),
        "latency_ms_before": _rounded(plan.latency_ms_before),
        "latency_ms_after": _rounded(plan.latency_ms_after),
    }


def plan_text(plan: Mapping[str, Any]) -> str:
    """A plan's fields as a table, and what it changes."""
    if plan["moves"]:
        rows = [("", "from", "to", "items", "points", "why")]
        rows += [
            (
                one["action"],
                one["from"],
                one["to"],
                f"{one['items']:,}",
                f"{one['points']:,}",
                one["why"],
            )
            for one in plan["moves"]
        ]
        lines = _table(rows, right=(3, 4))
    elif plan["items"]:
        lines = ["Everything lies where it belongs."]
    else:
        lines = ["Nothing is indexed on this device yet; `dualmem index` does that."]
    lines += ["", *_change_text(plan)]
    if plan["waiting"]:
        lines.append(f"{_count(plan['waiting'], 'item')} still without vectors; `dualmem index` makes them.")
    if plan["duplicates"]:
        what = _count(plan["duplicates"], "item")
        lines.append(f"{what} with the same text as another, which is placed once.")
    return "\n".join(lines)


def status_text(status: Mapping[str, Any]) -> str:
    """Where vectors lie, whether the service is used, and what is wrong."""
    lines = [f"Search service: {status['url'] or 'none is set (DUALMEM_QDRANT_URL)'}"]
    if status["configured"]:
        state = "no (`dualmem tiers enable`)"
        if status["enabled"]:
            state = "vectors and words" if status["words"] else "vectors, no words"
        lines.append(f"In use on this device: {state}")
    rows = [("tier", "points", "at most", "latency aimed at", "1,000 a month", "in all")]
    for tier in status["tiers"]:
        price = tier["usd_per_1k_vectors_month"]
        usd = tier["points"] / 1000 * price
        most, latency = f"{tier['most']:,}", f"{tier['target_latency_ms']} ms"
        rows.append((tier["name"], f"{tier['points']:,}", most, latency, usd_text(price), usd_text(usd)))
    lines += ["", *_table(rows, right=(1, 2, 3, 4, 5))]
    notes = []
    if status["epochs"] > 1 and any(tier["points"] for tier in status["tiers"]):
        notes.append(f"Points are under {status['epochs']} keys; those under older ones are renewed as they move.")
    if status["moving"]:
        notes.append(f"{_count(status['moving'], 'item')} on the way between tiers; the next move ends that.")
    if mover := status["mover"]:
        notes.append(f"{one_line(mover['device'])} moves vectors for this vault, until {_minute(mover['until'])}.")
    if status["enabled"]:
        checked = status["checked_at"]
        notes.append(f"Last checked: {_minute(checked) if checked else 'never (`dualmem tiers check`)'}.")
    if status["problem"]:
        notes.append(f"Problem: {status['problem']}")
    return "\n".join([*lines, *([""] if notes else []), *notes])


def made_text(made: Mapping[str, Any], *, enabled: bool) -> str:
    """Which collections were made, and what comes next where the service is not `enabled` on this device."""
    new = [one["name"] for one in made["collections"] if one["made"]]
    old = [one["name"] for one in made["collections"] if not one["made"]]
    lines = []
    if new:
        lines.append(f"Made: {', '.join(new)}, for vectors of {made['model']} ({made['dimensions']} dimensions).")
    if old:
        lines.append(f"There already, and left as they are: {', '.join(old)}.")
    if not enabled:
        lines.append("`dualmem tiers enable` tells what the service can learn, and then begins to use it.")
    return "\n".join(lines)


def moved_text(applied: Mapping[str, Any]) -> str:
    """What was moved, in at most three lines."""
    done = [f"{count:,} {_ACTIONS.get(action, action)}" for action, count in applied["done"].items() if count]
    seconds = applied["duration_ms"] / 1000
    if not done:
        # With a problem or a warning nobody knows whether all is well: another process may be at it.
        is_well = not (applied["left"] or applied["stale"] or applied["problem"] or applied["warnings"])
        lines = ["Vectors: all lie where they belong." if is_well else "Vectors: nothing was moved."]
    else:
        points = f"{_count(applied['points_written'], 'point')} written, {applied['points_removed']:,} removed"
        lines = [f"Vectors: {', '.join(done)} ({points}; {_size(applied['bytes'])}, {seconds:.1f} s)."]
    if applied["stale"]:
        lines.append(f"{_count(applied['stale'], 'item')} changed meanwhile and left for the next plan.")
    if applied["left"]:
        lines.append(f"{_count(applied['left'], 'item')} left for the next time.")
    if applied["mover"]:
        lines.append(
            f"{one_line(applied['mover'])} moves vectors for this vault; this device only placed and removed. "
            "`--take-over` makes it this one."
        )
    return "\n".join(lines)


def moved_warnings(applied: Mapping[str, Any]) -> list[str]:
    """What went wrong on the way, and what it is about."""
    return [*([applied["problem"]] if applied["problem"] else []), *applied["warnings"]]


def has_moved(applied: Mapping[str, Any]) -> bool:
    """Whether anything was moved."""
    return any(applied["done"].values())


def checked_text(checked: Mapping[str, Any], *, dry_run: bool) -> str:
    """What is otherwise than it should be, and what was done about it."""
    findings = (
        ("missing", "missing"),
        ("changed", "not as they were written"),
        ("doubled", "in two tiers"),
        ("unwanted", "of items that are no more"),
        ("foreign", "that nobody here knows of"),
    )
    found = [f"{checked[name]:,} {told}" for name, told in findings if checked[name]]
    lines = [f"{_count(checked['points'], 'point')} looked at in {checked['duration_ms'] / 1000:.1f} s."]
    if not found:
        return f"{lines[0]} All are as they should be."
    lines.append(f"{', '.join(found)}.")
    if dry_run:
        lines.append("Nothing was changed; without --dry-run it is mended.")
    else:
        lines.append(f"{checked['mended']:,} mended.")
    return "\n".join(lines)


def _change_text(plan: Mapping[str, Any]) -> list[str]:
    before, after = plan["points_before"], plan["points_after"]
    names = [name for name in TIER_NAMES if name != "edge" and (before.get(name) or after.get(name))]
    rows = [("", "now", "then")]
    rows += [(f"{name}, points", f"{before.get(name, 0):,}", f"{after.get(name, 0):,}") for name in names]
    rows.append(("cost a month", usd_text(plan["usd_month_before"]), usd_text(plan["usd_month_after"])))
    rows.append(("mean latency", _ms_text(plan["latency_ms_before"]), _ms_text(plan["latency_ms_after"])))
    return _table(rows, right=(1, 2))


def _table(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _minute(iso: str) -> str:
    return f"{iso[:16].replace('T', ' ')} UTC"


def _rounded(latency_ms: float | None) -> float | None:
    return None if latency_ms is None else round(latency_ms, 1)


def _ms_text(latency_ms: float | None) -> str:
    return "nothing asked for" if latency_ms is None else f"{latency_ms:,.0f} ms"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(size_bytes: float) -> str:
    if size_bytes < 1000:
        return f"{size_bytes:,.0f} bytes"
    return f"{size_bytes / 1000:,.1f} KB" if size_bytes < 1_000_000 else f"{size_bytes / 1_000_000:,.1f} MB"
