"""Commands about money: cost, cost optimize."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dualmem_mcp.cli.frame import cli, json_option, opened, print_json, warn


@cli.group(invoke_without_command=True)
@click.option("--look", "looking", is_flag=True, help="List the bucket first: a request for each 1,000 objects.")
@click.option("--region", default="", help="Prices of that region; default: the bucket's.")
@click.option("--users", type=click.IntRange(1, 10**9), help="Also what so many such users would cost.")
@json_option
@click.pass_context
def cost(context: click.Context, *, looking: bool, region: str, users: int | None, as_json: bool) -> None:
    """Show what this vault costs a month, and will cost."""
    if context.invoked_subcommand is not None:
        return
    from dualmem_mcp.cost.wording import cost_text  # noqa: PLC0415  (--help needs none of it)

    with opened() as app:
        found = app.spending.estimate(looking=looking, region=region, users=users)
    warn(found["warnings"])
    if as_json:
        print_json(found)
    else:
        click.echo(cost_text(found))


@cost.command()
@click.option("--region", default="", help="Prices of that region; default: the bucket's.")
@click.option("--lifecycle", type=click.Path(path_type=Path), help="Write the proposed rules for S3 to this file.")
@json_option
def optimize(region: str, lifecycle: Path | None, *, as_json: bool) -> None:
    """Propose what would cost less, with what each saves and what it costs in time."""
    from dualmem_mcp.cost.wording import proposals_text  # noqa: PLC0415
    from dualmem_mcp.durable_files import write_durably  # noqa: PLC0415

    with opened() as app:
        found = app.spending.optimize(region=region)
    warn(found["warnings"])
    if lifecycle is not None:
        write_durably(lifecycle, [json.dumps(found["lifecycle"], indent=2).encode("ascii") + b"\n"])
    if as_json:
        print_json(found)
    else:
        click.echo(proposals_text(found))
        if lifecycle is not None:
            click.echo(f"Written: {lifecycle}. `aws s3api put-bucket-lifecycle-configuration` replaces all others.")
