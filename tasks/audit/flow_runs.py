"""Audit of Prefect's history: the flow runs that built a round and trained on it, read from the home's own database.

Prefect forgets: runs are pruned, databases are moved. So a run that is not there is *not-checkable*; what fails is a
finished run of this round that worked with another policy or version, and no one that worked with the right one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from storage.digests import short
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from tasks.audit.looked import Looked
from tasks.audit.memberships import naming

DATABASE = "prefect/prefect.db"
BUILT = "Prefect flow run that built it"
TRAINED = "Prefect flow run that trained on it"
_FINISHED = (
    "SELECT flow_run.id, flow.name, flow_run.parameters FROM flow_run JOIN flow ON flow.id = flow_run.flow_id"
    " WHERE flow_run.state_type = 'COMPLETED' AND flow.name IN ('build', 'train') ORDER BY flow_run.start_time"
)
Run = tuple[str, str, dict[str, Any]]
"""(id, flow, parameters)"""


def audit_flow_runs(looked: Looked, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The finished flow runs of a version's round and of the trainings on it, for every campaign that names it."""
    runs = looked.once("prefect", lambda: _finished(looked.home))
    if isinstance(runs, Finding):
        yield runs
        return
    for members in naming(looked, version):
        name = members.campaign.name
        yield _built(runs, name, manifest)
        for member in members.rounds:
            if member.record.version == version and member.record.next_policy is not None:
                yield _trained(runs, name, version, member.trained)


def _built(runs: list[Run], campaign: str, manifest: Manifest) -> Finding:
    of_round = [
        (run, inputs)
        for run, flow, parameters in runs
        if flow == "build"
        and isinstance(inputs := parameters.get("inputs"), dict)
        and (inputs.get("campaign"), inputs.get("round")) == (campaign, manifest.round)
    ]
    what = f"build {campaign} round {manifest.round}"
    if not of_round:
        return not_checkable(BUILT, f"the history has no finished run {what}: it was pruned", DATABASE)
    for run, inputs in of_round:
        if manifest.policy in (inputs.get("screener") or inputs.get("policy"), inputs.get("policy")):
            return passed(BUILT, f"{run}, by {short(manifest.policy)}")
    run, inputs = of_round[-1]
    by = short(str(inputs.get("screener") or inputs.get("policy")))
    return failed(BUILT, f"{run} ({what}) was by {by}, the manifest says {short(manifest.policy)}", DATABASE)


def _trained(runs: list[Run], campaign: str, version: str, policy: str | None) -> Finding:
    on_it = [
        (run, parameters)
        for run, flow, parameters in runs
        if flow == "train" and parameters.get("version") == version and parameters.get("campaign") in (campaign, None)
    ]
    if not on_it:
        return not_checkable(TRAINED, "the history has no finished run: trained elsewhere, or it was pruned", DATABASE)
    for run, parameters in on_it:
        if policy in (None, parameters.get("policy")):
            return passed(TRAINED, f"{run}, version {short(version)} in full")
    run, parameters = on_it[-1]
    says = f"{run} trained {short(str(parameters.get('policy')))}, the campaign says {short(policy or '')}"
    return failed(TRAINED, says, DATABASE)


def _finished(home: Home) -> list[Run] | Finding:
    address = os.environ.get("PREFECT_API_URL")
    if address:
        return not_checkable(BUILT, f"Prefect's history is at {address}, not in this home")
    path = home / DATABASE
    if not path.is_file():
        return not_checkable(BUILT, "this home has no Prefect database", DATABASE)
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
            rows = database.execute(_FINISHED).fetchall()
        database.close()
    except sqlite3.Error as error:
        return not_checkable(BUILT, f"the database can't be read ({error})", DATABASE)
    return [(str(run), str(flow), _parameters(text)) for run, flow, text in rows]


def _parameters(text: object) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str | bytes) else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
