"""``policylong report``: the page of a round or campaign, and its metadata as Croissant."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.session import Session, results


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command()(report)


def report(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[VERSION|ROUND|CAMPAIGN]",
            help="Round, CAMPAIGN:ROUND, a dataset version's first characters, or a campaign."
            "  [default: the current campaign]",
            show_default=False,
        ),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Audit what is reported, and put the verdict on the page.")
    ] = False,
    croissant: Annotated[
        bool, typer.Option("--croissant", help="Write croissant.json beside each round's page (extra: croissant).")
    ] = False,
) -> None:
    """Write a round or campaign as one page of HTML that works offline: what the model asked, gained, and changed.

    A campaign's page comes with those of its rounds. Prints the paths; a report changes no version.
    """
    session: Session = context.obj
    home = session.existing()
    from flows.report import write_reports

    for path in write_reports(home, target, audit=audit, croissant=croissant):
        results().print(str(path), highlight=False, markup=False, soft_wrap=True)
