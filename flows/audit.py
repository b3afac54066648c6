"""The audit flow: the check of ``policylong audit`` as a flow, for a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from storage.digests import short
from storage.errors import IntegrityError
from storage.home import Home
from tasks.audit.checks import audit_version


@flow(name="audit", flow_run_name="audit {version}")
def audit(home_path: str, version: str) -> dict[str, Any]:
    """Audits a round, given by number, version or prefix; returns the report as JSON.

    Raises ``IntegrityError`` naming the first failure, so that a scheduled audit that finds damage is a failed run.
    """
    report = audit_version(Home.open(Path(home_path)), version)
    if report.failures:
        raise IntegrityError(
            f"version {short(report.version)}: {report.summary}; the first: {report.failures[0].line}.",
            hint=f"policylong audit {short(report.version)} shows all.",
        )
    return report.model_dump(mode="json")
