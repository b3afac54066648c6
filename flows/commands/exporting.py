"""``policylong export`` and ``push``: a version in another format, in another tokenizer's tokens, on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.commands.tracing import AsJson, Version
from flows.session import Session, results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.exporting.record import ExportRecord


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    for command in (export, push):
        app.command()(command)


def export(
    context: typer.Context,
    version: Version,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to; empty, new, or an interrupted export.")],
    format: Annotated[
        Literal["parquet", "jsonl", "datasets"],
        typer.Option(help="parquet: the version as it is; jsonl: samples under zstd; datasets: for load_from_disk."),
    ] = "parquet",
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER_OR_ID", help="Pack the samples anew in the tokens of this tokenizer."),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy Parquet files where hard links would do.")] = False,
    croissant: Annotated[
        bool, typer.Option("--croissant", help="Put croissant.json beside the Parquet files (extra: croissant).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a version in another format. The folder carries the version and passes policylong audit FOLDER.

    An interrupted export is carried on by the same command.
    """
    session: Session = context.obj
    home = session.existing()
    from tasks.exporting.exporting import export_version
    from tasks.exporting.target import check_outside

    folder = to.expanduser().absolute()
    check_outside(home, folder)
    record = export_version(home, version, folder, format, tokenizer=tokenizer, copy=copy, croissant=croissant)
    if as_json:
        results().print_json(record.model_dump_json())
        return
    for line in export_lines(record, folder):
        results().print(line, highlight=False, markup=False, soft_wrap=True)


def export_lines(record: ExportRecord, folder: Path) -> Iterator[str]:
    """An export for people."""
    from tasks.exporting.exporting import export_title

    size = sum(entry.bytes for entry in record.files.values())
    yield f"{export_title(record)}: {len(record.files)} files, {size:,} bytes in {folder}"
    lengths = record.lengths
    spread = f", {lengths.least:,} to {lengths.most:,} each, mean {lengths.mean:,.1f}" if lengths else ""
    yield f"{record.rows:,} samples, {record.tokens:,} tokens{spread}"
    repacked = record.repacked
    if repacked is not None:
        left = ", ".join(f"{reason} {number:,}" for reason, number in sorted(repacked.not_carried.items()))
        yield (
            f"{repacked.carried:,} of {repacked.dependencies:,} dependencies carried over"
            f" ({repacked.carried_inside:,} to a token that begins with other text"
            f"{f'; left out: {left}' if left else ''})"
        )
        yield f"{repacked.segments_empty:,} segments without a token, {repacked.unknown_tokens:,} unknown tokens"
        yield "samples have different lengths and are not padded"
    yield f"check it: policylong audit {folder}"


def push(
    context: typer.Context,
    version: Version,
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="Dataset repository; made when missing.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Push a version as Parquet with its card to a hub repository, in one commit.

    The token is read from HF_TOKEN and from nowhere else; HF_ENDPOINT names another hub.
    """
    session: Session = context.obj
    home = session.existing()
    from tasks.exporting.pushing import push_version

    pushed = push_version(home, version, repo, private=private)
    results().print(pushed, highlight=False, markup=False, soft_wrap=True)


def audit_folder(session: Session, folder: Path, *, as_json: bool, quiet: bool) -> int:
    """Audits an export, beside the version where the home has it; prints the findings and returns the exit code."""
    session.prepared()
    from storage.digests import short
    from storage.home import Home
    from tasks.exporting.audit import audit_export
    from tasks.reporting.visible import visible_line

    home = Home.open(session.home) if (session.home / "home.json").is_file() else None
    report = audit_export(folder, home)
    if as_json:
        results().print_json(report.model_dump_json())
        return report.exit_code
    colours = {"passed": "green", "failed": "bold red", "not-checkable": "yellow"}
    for finding in report.findings:
        if not (quiet and finding.status == "passed"):
            line = visible_line(finding.line)
            results().print(line, style=colours[finding.status], highlight=False, markup=False, soft_wrap=True)
    summary = f"export of {short(report.version)}: {report.summary}"
    results().print(summary, style="bold", highlight=False, markup=False, soft_wrap=True)
    return report.exit_code
