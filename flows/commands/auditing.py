"""``policylong audit``: prove a round, a campaign or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.session import Session, results


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(audit)


def audit(
    context: typer.Context,
    version: Annotated[
        str,
        typer.Argument(
            metavar="ROUND",
            help="Round number, CAMPAIGN:ROUND, a dataset version, the name of a campaign, or the folder of an export.",
        ),
    ],
    deep: Annotated[
        int, typer.Option("--deep", metavar="N", min=0, help="Score N randomly drawn verdicts again with the policy.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the draw of --deep.")] = 0,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build the round again in a scratch home and compare; as long as a build.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only what did not pass, and the summary.")
    ] = False,
) -> None:
    """Recompute every digest and count of a round and its chain, or of all rounds of a campaign.

    The exit code is 1 when anything differs.
    """
    session: Session = context.obj
    from flows.commands.exporting import audit_folder
    from tasks.exporting.record import is_export

    if is_export(version):
        raise typer.Exit(audit_folder(session, Path(version), as_json=as_json, quiet=quiet))
    home = session.existing()
    from flows.views.audit import show_audit
    from tasks.audit.campaign import audit_named
    from tasks.audit.checks import Deeper

    report = audit_named(home, version, Deeper(verdicts=deep, seed=seed, rebuild=rebuild))
    if as_json:
        results().print_json(report.model_dump_json())
    else:
        show_audit(results(), report, quiet=quiet)
    raise typer.Exit(report.exit_code)
