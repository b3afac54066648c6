"""Approval: a campaign is suspended after a dataset version until a person resumes it in Prefect's page.

Suspended, a run has no process: it waits through restarts of everything but the database. What was approved is noted
in the home, so that nobody is asked twice about one version.

campaigns/approvals/<campaign>/<version16>.json
"""

from __future__ import annotations

from pathlib import Path

from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_UI_URL
from pydantic import Field

from flows.logs import say
from storage.digests import short
from storage.errors import ConfigError, StoppedError
from storage.files import write_json
from storage.home import Home


class Approval(RunInput):
    """What a person says about a dataset version."""

    carry_on: bool = Field(True, title="Carry on", description="Off: the campaign stops; the version stays.")
    remark: str = Field("", title="Remark", description="Kept with the approval.")


def check_can_suspend() -> None:
    """Raises ``ConfigError`` unless the current flow run can be suspended: a deployment's, and no part of another."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.deployment_id is None or run.parent_task_run_id is not None:
        raise ConfigError(
            "campaign.approve waits for a person in Prefect's page, and this command's Prefect server ends with it.",
            hint="policylong up, then start the campaign there; or leave campaign.approve off.",
        )


def approve(home: Home, campaign: str, number: int, version: str, report: str) -> None:
    """Waits until a version is approved, by suspending the flow run; returns at once when it was before.

    ``report`` is the round's page in Markdown. Raises ``StoppedError`` when the person says no.
    """
    note = _note(home, campaign, version)
    if note.exists():
        return
    kind = Approval.with_initial_data(description=_question(campaign, number, version, report))
    # The key makes this pause fire once in a flow run: started again, the run goes on behind it.
    given = suspend_flow_run(wait_for_input=kind, timeout=None, key=f"approve-{short(version, 16)}")
    if not given.carry_on:
        why = f": {given.remark}" if given.remark else ""
        raise StoppedError(
            f"round {number} of campaign {campaign!r} ({short(version)}) was not approved{why}.",
            hint="Started again, the campaign asks again.",
        )
    write_json(note, {"campaign": campaign, "round": number, "version": version, "remark": given.remark})
    say(f"round {number}: version {short(version)} was approved{f' ({given.remark})' if given.remark else ''}")


def _note(home: Home, campaign: str, version: str) -> Path:
    return home / f"campaigns/approvals/{campaign}/{short(version, 16)}.json"


def _question(campaign: str, number: int, version: str, report: str) -> str:
    address = str(PREFECT_UI_URL.value() or "").rstrip("/")
    pages = [f"[{key}]({address}/artifacts/key/{key})" for key in ("round-report", "round-funnel")] if address else []
    lines = [
        f"**Train on round {number} of campaign {campaign}, dataset version `{short(version)}`?**",
        *([f"Pages: {' · '.join(pages)}"] if pages else []),
        report,
    ]
    return "\n\n".join(lines)
