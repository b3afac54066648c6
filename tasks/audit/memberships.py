"""Which campaigns name a version, and from which policy each of their rounds was trained."""

from __future__ import annotations

from dataclasses import dataclass

from storage.campaigns import Campaign, RoundRecord, list_campaigns, load_campaign
from storage.errors import InputError, IntegrityError
from storage.manifests import Manifest
from storage.versions import load_manifest
from tasks.audit.looked import Looked
from tasks.audit.policies import known_policies


@dataclass(frozen=True, slots=True)
class Member:
    """A round of a campaign, with its manifest where that can be read."""

    record: RoundRecord
    manifest: Manifest | None
    trained: str | None
    """Digest of the policy that was trained on it, its parent in the policy's own lineage; None when unknown."""


@dataclass(frozen=True, slots=True)
class Members:
    """A campaign and its rounds in the order of its record."""

    campaign: Campaign
    rounds: tuple[Member, ...]


def members_of(looked: Looked, name: str) -> Members | None:
    """A campaign's rounds; ``None`` when its record can't be read. Read once an audit."""
    return looked.once(f"campaign {name}", lambda: _members(looked, name))


def naming(looked: Looked, version: str) -> list[Members]:
    """The campaigns whose records can be read and name a version."""
    every = [members_of(looked, name) for name in list_campaigns(looked.home)]
    return [m for m in every if m is not None and any(r.record.version == version for r in m.rounds)]


def manifest_at_hand(looked: Looked, version: str) -> Manifest | None:
    """The manifest of a version when it is in this home and whole; read once an audit."""

    def look() -> Manifest | None:
        try:
            return load_manifest(looked.home, version)
        except (InputError, IntegrityError):
            return None

    return looked.once(f"manifest {version}", look)


def _members(looked: Looked, name: str) -> Members | None:
    try:
        campaign = load_campaign(looked.home, name)
    except (InputError, IntegrityError):
        return None
    rounds: list[Member] = []
    policy: str | None = None
    records = known_policies(looked.home).records
    for record in campaign.rounds:
        manifest = manifest_at_hand(looked, record.version)
        trained = policy
        if trained is None and manifest is not None and manifest.relation == "on-policy":
            trained = manifest.policy
        if trained is None and record.next_policy in records:
            trained = records[record.next_policy].parent
        rounds.append(Member(record, manifest, trained))
        policy = record.next_policy
    return Members(campaign, tuple(rounds))
