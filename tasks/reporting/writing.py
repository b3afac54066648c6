"""Writes the pages of rounds and campaigns into the home's folder of reports, outside of every version.

reports/<version16>/report.html     a round
reports/campaign-<name>.html        a campaign
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from storage.campaigns import Campaign, RoundRecord, current_name, list_campaigns, load_campaign
from storage.digests import short
from storage.errors import InputError
from storage.home import Home
from storage.versions import MANIFEST, load_manifest, resolve_version, version_uri
from tasks.reporting.campaign_page import campaign_key, campaign_page
from tasks.reporting.measured import record_of
from tasks.reporting.page import key_of, write_page
from tasks.reporting.round_page import round_page
from tasks.reporting.round_view import RoundView, page_key, round_view

if TYPE_CHECKING:
    from tasks.audit.checks import AuditReport

Audit = Callable[[Home, str], "AuditReport"]


def round_path(home: Home, version: str) -> Path:
    """Where a round's page lies."""
    return home / f"reports/{short(version, 16)}/report.html"


def campaign_path(home: Home, name: str) -> Path:
    """Where a campaign's page lies."""
    return home / f"reports/campaign-{name}.html"


def named(home: Home, text: str | None) -> tuple[str, None] | tuple[str | None, str]:
    """What a user names: (campaign, None), or (campaign or None, version) for one round.

    ``text`` is a campaign, or what ``storage.versions.resolve_version`` takes; None is the current campaign. Raises
    ``InputError`` for what is not there, and for a name that is a campaign's and a version's first characters as well.
    """
    if text is None:
        return load_campaign(home).name, None
    name = text.strip()
    if name in list_campaigns(home):
        try:
            version = resolve_version(home, name)
        except InputError:
            return name, None
        raise InputError(
            f"{name!r} is a campaign, and {short(version)} is meant by it as well.",
            hint=f"Give {short(version, 16)} for the version, or the campaign's rounds one by one: {name}:1.",
        )
    campaign, colon, _ = name.rpartition(":")
    try:
        version = resolve_version(home, name)
    except InputError as error:
        known = ", ".join(list_campaigns(home)) or "none"
        raise InputError(f"{error.message} Campaigns here: {known}.", hint=error.hint) from error
    return (campaign if colon else current_name(home) if name.isdecimal() else None), version


def write_round(home: Home, version: str, name: str | None = None, audit: Audit | None = None) -> Path:
    """Writes the page of a version, given in full or as ``resolve_version`` takes it; returns its path.

    ``name`` is the campaign whose record is shown, by default the current one or the first that has the version.
    ``audit`` audits it for the page. Raises as ``tasks.reporting.round_view.round_view`` does.
    """
    full = load_manifest(home, version).version
    found = _record(home, full, name)
    return _write_round(home, round_view(home, full, found, audit(home, full) if audit else None))


def write_campaign(home: Home, name: str, audit: Audit | None = None) -> list[Path]:
    """Writes the page of a campaign and those of its rounds; returns their paths, the campaign's first.

    A round whose version is not in this home is named on the page. Raises ``InputError`` for an unknown campaign.
    """
    campaign = load_campaign(home, name)
    views: list[RoundView] = []
    gone: list[str] = []
    there = versions_at_hand(home, name)
    for record in campaign.rounds:
        if record.version not in there:
            gone.append(f"Round {record.round}, version {short(record.version)}, is not in this home.")
            continue
        checked = audit(home, record.version) if audit else None
        views.append(round_view(home, record.version, (campaign, record), checked))
    pages = [_write_round(home, view, linked=True) for view in views]
    whole = write_page(campaign_path(home, name), campaign_page(campaign, tuple(views), tuple(gone)))
    return [whole, *pages]


def versions_at_hand(home: Home, name: str) -> list[str]:
    """The versions of a campaign's rounds that are in this home, in order; one that was changed counts as there."""
    rounds = load_campaign(home, name).rounds
    return [r.version for r in rounds if (home / version_uri(r.version) / MANIFEST).is_file()]


def up_to_date(home: Home, campaign: Campaign) -> bool:
    """Whether the pages of a campaign and its rounds are there and made from its record as it is now."""
    there = versions_at_hand(home, campaign.name)
    rounds = ((round_path(home, version), page_key(version, campaign)) for version in there)
    wanted = [(campaign_path(home, campaign.name), campaign_key(campaign)), *rounds]
    return all(key_of(path) == key for path, key in wanted)


def _write_round(home: Home, view: RoundView, *, linked: bool = False) -> Path:
    """With ``linked`` the campaign's page is written too, so the round's links to it in any case."""
    whole = campaign_path(home, view.campaign.name) if view.campaign else None
    back = f"../{whole.name}" if whole is not None and (linked or whole.is_file()) else None
    return write_page(round_path(home, view.figures.version), round_page(view, back))


def _record(home: Home, version: str, name: str | None) -> tuple[Campaign, RoundRecord] | None:
    for known in [name] if name else [current_name(home), None]:
        try:
            found = record_of(home, version, known)
        except InputError:
            continue  # a current campaign without a record
        if found is not None:
            return found
    return None
