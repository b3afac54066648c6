"""How an audit is printed: a line for each check, a heading for each round of a campaign, the counts at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console

from storage.digests import short
from storage.findings import Finding
from tasks.reporting.visible import visible_line

if TYPE_CHECKING:
    from tasks.audit.campaign import CampaignReport
    from tasks.audit.checks import AuditReport

COLOURS = {"passed": "green", "failed": "bold red", "not-checkable": "yellow"}


def show_audit(console: Console, report: AuditReport | CampaignReport, *, quiet: bool) -> None:
    """Prints a report; ``quiet`` leaves out what passed."""
    from tasks.audit.checks import AuditReport

    if isinstance(report, AuditReport):
        _lines(console, report.findings, quiet=quiet)
        _heading(console, f"{short(report.version)}: {report.summary}")
        return
    for number in report.rounds:
        title = f"round {number.round}" if number.round else "a round"
        _lines(console, number.findings, quiet=quiet)
        _heading(console, f"{title}, {short(number.version)}: {number.summary}")
    _lines(console, report.findings, quiet=quiet)
    _heading(console, f"campaign {report.campaign}: {report.summary}")


def _lines(console: Console, findings: Iterable[Finding], *, quiet: bool) -> None:
    for finding in findings:
        if not (quiet and finding.status == "passed"):
            line = visible_line(finding.line)  # it may name a file that somebody put there
            console.print(line, style=COLOURS[finding.status], highlight=False, markup=False, soft_wrap=True)


def _heading(console: Console, text: str) -> None:
    console.print(text, style="bold", highlight=False, markup=False, soft_wrap=True)
