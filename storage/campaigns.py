"""Campaigns: which rounds belong together, with which policies and what came out.

    campaigns/<name>.json   one record per campaign, replaced as a whole
    campaigns/current       the name of the campaign that a bare round number refers to

The record is an index for people and for carrying on; the truth about a round is its manifest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from storage.digests import digest_json, short
from storage.errors import ConfigError, InputError, IntegrityError
from storage.files import read_json, write_bytes, write_json
from storage.home import Home

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}")
_ABSENT = "nothing"


class RoundRecord(BaseModel):
    """One round of a campaign, filled in as it goes on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    version: str = Field(description="Dataset version.", pattern=r"^[0-9a-f]{64}$")
    policy: str = Field(description="Digest of the policy that screened it.")
    next_policy: str | None = Field(
        None, description="Digest of the policy trained on it; null until training is done."
    )
    figures: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Numbers for the final table: counts, seconds, gains (tasks.rounds.publishing).",
    )


class Campaign(BaseModel):
    """A campaign's record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    config_digest: str = Field(description="SHA-256 of the canonical JSON of ``config``.")
    config: dict[str, Any] = Field(description="The resolved configuration it was started with.")
    rounds: tuple[RoundRecord, ...] = ()

    def find(self, number: int) -> RoundRecord | None:
        """The record of a round, or ``None`` when there is none yet."""
        return next((record for record in self.rounds if record.round == number), None)


def start_campaign(home: Home, name: str, config: Mapping[str, Any], *, current: bool = True) -> Campaign:
    """Makes a campaign, or opens the one of this name, and makes it the current one (unless ``current`` is false).

    ``config`` is JSON. Raises ``ConfigError`` naming the differing keys when the campaign was started with another one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} can't name a campaign: letters, digits, dots, dashes, at most 64.")
    with home.lock(f"campaign-{name}", wait_seconds=30):
        if _path(home, name).exists():
            campaign = load_campaign(home, name)
            differing = differing_keys(campaign.config, config)
            if differing:
                raise ConfigError(
                    f"campaign {name!r} was started with another configuration: {'; '.join(differing)}.",
                    hint="Give the changed campaign another --name.",
                )
        else:
            campaign = Campaign(name=name, config_digest=digest_json(dict(config)), config=dict(config))
            _write(home, campaign)
        if current:
            write_bytes(home / "campaigns/current", f"{name}\n".encode())
    return campaign


def record_round(home: Home, name: str, record: RoundRecord) -> Campaign:
    """Adds a round, or adds to what is recorded of it: figures are merged, ``next_policy`` is kept unless given anew.

    Raises ``IntegrityError`` when the round is recorded with another version or policy: rounds do not change.
    """
    with home.lock(f"campaign-{name}", wait_seconds=30):
        campaign = load_campaign(home, name)
        old = campaign.find(record.round)
        if old is not None:
            if (old.version, old.policy) != (record.version, record.policy):
                raise IntegrityError(
                    f"round {record.round} of campaign {name!r} is version {short(old.version)} of policy"
                    f" {short(old.policy)}, not {short(record.version)} of {short(record.policy)}.",
                    hint="Give the new campaign another --name.",
                )
            record = record.model_copy(
                update={
                    "next_policy": record.next_policy or old.next_policy,
                    "figures": {**old.figures, **record.figures},
                }
            )
        others = [r for r in campaign.rounds if r.round != record.round]
        campaign = campaign.model_copy(update={"rounds": tuple(sorted([*others, record], key=lambda r: r.round))})
        _write(home, campaign)
    return campaign


def load_campaign(home: Home, name: str | None = None) -> Campaign:
    """The record of a campaign, by default the current one; raises ``InputError`` when there is none."""
    name = name or current_name(home)
    if name is None:
        raise InputError(f"there is no campaign in {home.path} yet.", hint="policylong run starts one.")
    path = _path(home, name)
    if not _NAME.fullmatch(name) or not path.exists():
        known = ", ".join(list_campaigns(home)) or "none"
        raise InputError(f"there is no campaign {name!r} in {home.path} (known: {known}).")
    try:
        return Campaign.model_validate(read_json(path))
    except ValidationError as error:
        raise IntegrityError(
            f"campaigns/{name}.json is not a campaign's record: {error.errors()[0]['msg']}."
        ) from error


def current_name(home: Home) -> str | None:
    """The name of the current campaign."""
    path = home / "campaigns/current"
    return path.read_text(encoding="utf-8").strip() or None if path.exists() else None


def list_campaigns(home: Home) -> list[str]:
    """Names of all campaigns, sorted."""
    return sorted(path.stem for path in (home / "campaigns").glob("[!.]*.json"))


def round_version(home: Home, number: int, name: str | None = None) -> str:
    """The version of a campaign's round (by default the current campaign's); raises ``InputError`` when it has none."""
    campaign = load_campaign(home, name)
    record = campaign.find(number)
    if record is None:
        rounds = ", ".join(str(r.round) for r in campaign.rounds) or "none"
        raise InputError(
            f"campaign {campaign.name!r} has no round {number} (finished: {rounds}).",
            hint="policylong status lists the rounds.",
        )
    return record.version


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: old → new`` for every value in which two configurations differ, keys dotted and sorted."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differing_keys(before, after, f"{prefix}{key}.")
        elif digest_json(before) != digest_json(after):
            lines.append(f"{prefix}{key}: {before} → {after}")
    return lines


def _path(home: Home, name: str) -> Path:
    return home / f"campaigns/{name}.json"


def _write(home: Home, campaign: Campaign) -> None:
    write_json(_path(home, campaign.name), campaign.model_dump(mode="json"))
