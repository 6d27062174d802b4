"""The tool that tells what the memory costs."""

from __future__ import annotations

from dualmem_mcp.server.schema import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    OBJECT,
    OBJECTS,
    READS,
    STRING,
    STRINGS,
    object_of,
    output,
    text,
)
from dualmem_mcp.server.tool import Answer, Call, Tool

_OR_NONE = {"type": ["number", "null"]}


def _estimate_costs(call: Call) -> Answer:
    from dualmem_mcp.cost.wording import cost_text  # noqa: PLC0415  (who starts a server asks for no costs)

    given = call.arguments
    found = call.app.spending.estimate(region=given.get("region", ""), users=given.get("users"))
    told = [cost_text(found), *(f"Warning: {warning}" for warning in found["warnings"])]
    return Answer("\n".join(told), found)


COST_TOOLS: tuple[Tool, ...] = (
    Tool(
        "estimate_costs",
        "Estimate Costs",
        "What the user's memory costs a month in US dollars, by component, with forecast and budget.",
        object_of(
            {
                "region": text("Prices of that S3 region. Default: the bucket's"),
                "users": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 10**9,
                    "description": "Also for so many users",
                },
            }
        ),
        output(
            prices_date=STRING,
            region=STRING,
            is_folder=BOOLEAN,
            components=OBJECTS,
            usd_month=NUMBER,
            usd_conversation=_OR_NONE,
            usd_user_month=NUMBER,
            conversations=INTEGER,
            devices=INTEGER,
            stored_bytes=INTEGER,
            forecast=OBJECT,
            projection=OBJECTS,
            assumptions=STRINGS,
            budget=OBJECT,
            warnings=STRINGS,
        ),
        READS,
        _estimate_costs,
        "read",
    ),
)
