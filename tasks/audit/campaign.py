"""Audit of a whole campaign: its record, every round of it, and the comparison of the rounds with each other."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, computed_field

from storage.campaigns import current_name, list_campaigns, load_campaign
from storage.digests import short
from storage.errors import InputError, IntegrityError
from storage.findings import Finding, failed, failures, not_checkable
from storage.home import Home
from storage.tombstones import explained
from storage.versions import list_versions, resolve_version, version_uri
from tasks.audit.campaign_record import audit_chain, audit_record, record_uri
from tasks.audit.checks import AuditReport, Deeper, audit_version, counted
from tasks.audit.figures import audit_figures
from tasks.audit.looked import Looked
from tasks.audit.memberships import members_of
from tasks.audit.tracked import audit_registry


class CampaignReport(BaseModel):
    """Every check of a campaign and of its rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: str
    rounds: tuple[AuditReport, ...]
    findings: tuple[Finding, ...]
    """Of the record and of the rounds compared; what is wrong inside a round is in its own report."""

    @property
    def every(self) -> list[Finding]:
        """The findings of the campaign and of all its rounds."""
        return [*self.findings, *(finding for report in self.rounds for finding in report.findings)]

    @property
    def failures(self) -> list[Finding]:
        """The checks that failed."""
        return failures(self.every)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 when nothing failed, else 1."""
        return IntegrityError.exit_code if self.failures else 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """The counts in one line."""
        return f"{len(self.rounds)} rounds, {counted(self.every)}"


def audit_named(home: Home, text: str, deeper: Deeper = Deeper()) -> AuditReport | CampaignReport:
    """Audits what a user names: a round number, CAMPAIGN:ROUND, a version or its first characters, or a campaign.

    Raises ``InputError`` for what is not there, and for a name that is a campaign's and a round or version as well.
    """
    name = text.strip()
    if name not in known_campaigns(home):
        return audit_version(home, name, deeper=deeper)
    try:
        version = resolve_version(home, name)
    except InputError:
        return audit_campaign(home, name, deeper=deeper)
    raise InputError(
        f"{name!r} is a campaign, and {short(version)} is meant by it as well.",
        hint=f"Give {short(version, 16)} for the version; such a campaign is audited round by round: {name}:1.",
    )


def known_campaigns(home: Home) -> list[str]:
    """Campaigns with a record, and the current one, whose record may have been lost."""
    current = current_name(home)
    lost = [current] if current and re.fullmatch(r"[\w.-]+", current) else []
    return sorted({*list_campaigns(home), *lost})


def audit_campaign(home: Home, name: str, *, deeper: Deeper = Deeper()) -> CampaignReport:
    """Audits a campaign: what rounds share is hashed once.

    Raises ``InputError`` when there is no campaign of this name; a damaged or lost record is a finding.
    """
    looked, uri = Looked(home), record_uri(name)
    members = members_of(looked, name)
    if members is None or members.campaign.name != name:
        if members is not None:
            problem = f"says that it is campaign {members.campaign.name!r}"
        elif (home / uri).exists():
            problem = "can't be understood"
        elif name in known_campaigns(home):
            problem = "is missing, and campaigns/current names it"
        else:
            load_campaign(home, name)  # raises, saying which campaigns there are
            problem = ""
        return _without_record(looked, name, failed("campaign record", problem, uri), deeper)
    findings = [*audit_record(looked, members), *audit_chain(looked, members)]
    findings += [*audit_figures(looked, members, uri), *audit_registry(looked, members)]
    rounds: list[AuditReport] = []
    for member in members.rounds:
        number, version = member.record.round, member.record.version
        if not (home / version_uri(version)).is_dir():
            lost = failed(f"round {number}", f"its version {short(version)} is not in this home", version_uri(version))
            gone = explained(home, lost)
            findings.append(gone if gone.status != "failed" else gone.model_copy(update={"file": uri}))
            continue
        rounds.append(audit_version(home, version, deeper=deeper, looked=looked))
    findings = [explained(home, finding) for finding in findings]
    return CampaignReport(campaign=name, rounds=tuple(rounds), findings=tuple(findings))


def _without_record(looked: Looked, name: str, problem: Finding, deeper: Deeper) -> CampaignReport:
    """Without a record that says which versions are the campaign's, every version of the home is audited."""
    rest = not_checkable("rounds", "which versions are the campaign's can't be known: all of this home are audited")
    versions = [version for version in list_versions(looked.home) if len(version) == 64]
    rounds = tuple(audit_version(looked.home, version, deeper=deeper, looked=looked) for version in versions)
    return CampaignReport(campaign=name, rounds=rounds, findings=(problem, rest))
