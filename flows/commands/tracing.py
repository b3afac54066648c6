"""``policylong trace``, ``search`` and ``takedown``: where tokens come from, and where a document went."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from flows.session import Session, results

if TYPE_CHECKING:
    from rich.console import RenderableType

Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="Round of the current campaign, CAMPAIGN:ROUND, or a dataset version's first characters.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (trace, search, takedown):
        app.command()(command)


def trace(
    context: typer.Context,
    version: Version,
    sample: Annotated[
        str,
        typer.Argument(
            metavar="SAMPLE[:TOKEN]",
            help="Number of a sample from 0, or the first characters of its id; after a colon a token, or a range a-b"
            " (both ends included).",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say where tokens come from: document, question, entropies before and after, and the model that asked.

    Without TOKEN it lists the sample's segments and dependencies.
    """
    session: Session = context.obj
    home = session.existing()
    from flows.views.trace import trace_lines
    from tasks.provenance.lookup import split_target
    from tasks.provenance.tracing import trace as traced

    found = traced(home, version, *split_target(sample))
    _print(trace_lines(found), found.model_dump_json() if as_json else None)


def search(
    context: typer.Context,
    version: Version,
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            help="Text as it stands in a document (case counts, white space is folded), 8 or more digits of the id of a"
            " sample, root, chunk or document, or a part of a document's source or title.",
        ),
    ],
    limit: Annotated[int, typer.Option(min=1, help="Most segments to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Find the samples that hold a text or a document."""
    session: Session = context.obj
    home = session.existing()
    from flows.views.found import search_lines
    from tasks.provenance.searching import search as searched

    found = searched(home, version, text, limit=limit)
    _print(search_lines(found), found.model_dump_json() if as_json else None)


def takedown(
    context: typer.Context,
    document: Annotated[
        str,
        typer.Argument(
            metavar="DOC_ID", help="8 or more digits of a document's id, or its source as the corpus names it."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """List every version, sample and policy that a document reached; removes nothing.

    Exit code 1 when a version or corpus could not be read, so that the report is incomplete.
    """
    session: Session = context.obj
    home = session.existing()
    from flows.views.found import takedown_lines
    from tasks.provenance.takedown import takedown as followed

    found = followed(home, document)
    _print(takedown_lines(found), found.model_dump_json() if as_json else None)
    raise typer.Exit(found.exit_code)


def _print(blocks: Iterable[RenderableType], as_json: str | None) -> None:
    if as_json is not None:
        results().print_json(as_json)
        return
    show(blocks)


def show(blocks: Iterable[RenderableType]) -> None:
    """Prints blocks as results: lines of text as long as they are, tables in the terminal's width."""
    from rich.text import Text

    console = results()
    for block in blocks:
        console.print(block, highlight=False, soft_wrap=isinstance(block, Text))
