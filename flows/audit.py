"""The audit flow: the check of ``policylong audit`` as a flow, for a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from storage.digests import short
from storage.errors import IntegrityError
from storage.home import Home
from tasks.audit.campaign import audit_named
from tasks.audit.checks import AuditReport, Deeper


@flow(name="audit", flow_run_name="audit {version}")
def audit(home_path: str, version: str, deep: int = 0, seed: int = 0) -> dict[str, Any]:
    """Audits a round, given by number, version or prefix, or a campaign by its name; returns the report as JSON.

    ``deep`` verdicts of each round are drawn with ``seed`` and scored again. Raises ``IntegrityError`` naming the first
    failure, so that a scheduled audit that finds damage is a failed run.
    """
    report = audit_named(Home.open(Path(home_path)), version, Deeper(verdicts=deep, seed=seed))
    if report.failures:
        one = isinstance(report, AuditReport)
        name = short(report.version) if isinstance(report, AuditReport) else report.campaign
        raise IntegrityError(
            f"{'version' if one else 'campaign'} {name}: {report.summary}; the first: {report.failures[0].line}.",
            hint=f"policylong audit {name} shows all.",
        )
    return report.model_dump(mode="json")
