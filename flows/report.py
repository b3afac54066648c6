"""The report flow: pages of rounds and campaigns, for a schedule; and those that a campaign writes round by round."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from storage.campaigns import load_campaign
from storage.home import Home
from storage.tracking import Tracking
from tasks.reporting.writing import Audit, named, round_path, up_to_date, versions_at_hand, write_campaign, write_round


@flow(name="report", flow_run_name="report {target}")
def report(home_path: str, target: str | None = None, audit: bool = False) -> list[str]:
    """Writes the page of a round, or of a campaign and all its rounds; returns their paths below the home.

    ``target`` is a round, version or campaign, null for the current campaign.
    """
    home = Home.open(Path(home_path))
    return [path.relative_to(home.path).as_posix() for path in write_reports(home, target, audit=audit)]


def write_reports(home: Home, target: str | None = None, *, audit: bool = False, croissant: bool = False) -> list[Path]:
    """Writes what ``target`` names and returns the paths, the page that was asked for first.

    ``croissant`` writes croissant.json beside each round's page. Raises ``InputError`` for what is not there,
    ``IntegrityError`` for a table that can't be read and ``ConfigError`` where mlcroissant is missing.
    """
    name, version = named(home, target)
    check = _audit() if audit else None
    if version is not None:
        pages, versions = [write_round(home, version, name, check)], [version]
    else:
        assert name is not None
        pages, versions = write_campaign(home, name, check), versions_at_hand(home, name)
    if croissant:
        from tasks.reporting.croissant import write_croissant

        pages += [write_croissant(home, one) for one in versions]
    return pages


def _audit() -> Audit:
    """The audit of a version; it imports much that a page without one needs not."""
    from tasks.audit.checks import audit_version

    return audit_version


def pages_after_round(home: Home, name: str) -> None:
    """Writes a campaign's pages when a round is finished, and adds those of its rounds to their MLflow runs.

    Does nothing when they are there and the campaign's record is what it was when they were written.
    """
    campaign = load_campaign(home, name)
    if up_to_date(home, campaign):
        return
    write_campaign(home, name)
    tracking = Tracking(home)
    for record in campaign.rounds:
        page = round_path(home, record.version)
        if page.is_file():
            run = tracking.round_run(name, record.round, record.version, policy=record.policy)
            tracking.log_round(run, artifacts=[page])
