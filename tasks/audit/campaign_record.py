"""Audit of a campaign's record: what it says of each round, and whether the rounds make one chain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from storage.campaigns import list_campaigns, load_campaign
from storage.digests import digest_json, short
from storage.errors import ConfigError, InputError, IntegrityError
from storage.findings import Finding, failed, not_checkable, passed
from storage.manifests import Manifest
from tasks.audit.looked import Looked, form_problem
from tasks.audit.memberships import Member, Members
from tasks.audit.policies import known_policies, policy_findings
from tasks.recipes import resolved
from tasks.rounds.building import BuildConfig

CHAIN = "chain of rounds"
FINISHED = "rounds of the campaign"
_SAME = ("corpus", "embedder", "recipe", "config_digest", "format")


def record_uri(name: str) -> str:
    """Where a campaign's record lies, relative to the home."""
    return f"campaigns/{name}.json"


def audit_campaigns(looked: Looked, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The campaigns that name this version give it its round and policy."""
    home, named = looked.home, False
    for name in list_campaigns(home):
        uri = record_uri(name)
        try:
            records = [record for record in load_campaign(home, name).rounds if record.version == version]
        except (IntegrityError, InputError) as error:
            yield failed("campaign record", error.message.replace(f"{home.path}/", ""), uri)
            continue
        for record in records:
            named = True
            same = (record.round, record.policy) == (manifest.round, manifest.policy)
            says = f"{name}: round {record.round} by {short(record.policy)}"
            expected = f"the manifest says round {manifest.round} by {short(manifest.policy)}"
            yield (
                passed("campaign record", says, uri) if same else failed("campaign record", f"{says}, {expected}", uri)
            )
    if not named:
        yield not_checkable("campaign record", "no campaign of this home names this version")


def audit_record(looked: Looked, members: Members) -> Iterator[Finding]:
    """The record itself, how far the campaign is, and every next policy's weights."""
    campaign, check = members.campaign, "campaign record"
    uri = record_uri(campaign.name)
    numbers = [member.record.round for member in members.rounds]
    problems = [
        text
        for text, holds in (
            (form_problem(looked.home / uri) or "", form_problem(looked.home / uri) is None),
            ("config_digest is not the digest of config", digest_json(campaign.config) == campaign.config_digest),
            (
                f"its rounds are {numbers}, expected one after the other from 1",
                numbers == [*range(1, len(numbers) + 1)],
            ),
        )
        if not holds
    ]
    yield failed(check, "; ".join(problems), uri) if problems else passed(check, f"{len(numbers)} rounds", uri)
    yield _progress(members, uri)
    known = known_policies(looked.home)
    for member in members.rounds:
        if member.record.next_policy is not None:
            role = f"policy after round {member.record.round}"
            yield from policy_findings(looked, known, role, member.record.next_policy)


def _progress(members: Members, uri: str) -> Finding:
    """A campaign that still goes on is not checkable beyond what it has."""
    wanted = members.campaign.config.get("build", {}).get("rounds")
    finished = sum(member.record.next_policy is not None for member in members.rounds)
    built = [str(member.record.round) for member in members.rounds if member.record.next_policy is None]
    of = f" of {wanted}" if isinstance(wanted, int) else ""
    said = f"{finished}{of} finished"
    if built:
        said += f"; round {', '.join(built)} is built and no policy was trained on it yet"
    whole = not built and (not isinstance(wanted, int) or finished >= wanted) and finished
    return passed(FINISHED, said, uri) if whole else not_checkable(FINISHED, said, uri)


def audit_chain(looked: Looked, members: Members) -> Iterator[Finding]:
    """Each round is of the campaign's configuration, screened by the policy whose turn it was, and follows the one
    before it.
    """
    uri = record_uri(members.campaign.name)
    for member in members.rounds:
        yield from _configured(members, member)
        yield from _screened(members, member, uri)
        yield from _trained(looked, member, uri)
    for before, after in pairwise(members.rounds):
        yield _followed(before, after, uri)


def _configured(members: Members, member: Member) -> Iterator[Finding]:
    config: dict[str, Any] = members.campaign.config
    if member.manifest is None or "build" not in config:
        return
    check = f"configuration of round {member.record.round}"
    try:
        build, _ = resolved(BuildConfig.model_validate(config["build"]))
        built = BuildConfig.model_validate(member.manifest.config)
    except (ValidationError, ConfigError):
        yield not_checkable(check, "this version of policylong has other settings")
        return
    detail = "the manifest's is not the campaign's"
    yield passed(check) if built == build else failed(check, detail, record_uri(members.campaign.name))


def _screened(members: Members, member: Member, uri: str) -> Iterator[Finding]:
    """``relation`` and ``lag`` of the manifest name one policy of the campaign: that one screened."""
    manifest, number = member.manifest, member.record.round
    if manifest is None or manifest.relation in ("given", "unscreened"):
        return
    check = f"policy that screened round {number}"
    policies = [other.trained for other in members.rounds]
    place = number - 1 - manifest.lag
    wanted = policies[place] if 0 <= place < len(policies) else None
    if wanted is None:
        yield not_checkable(check, f"the campaign does not say which policy was trained in round {place + 1}", uri)
    elif wanted != manifest.policy:
        yield failed(check, f"is {short(manifest.policy)}, the campaign's was {short(wanted)}", uri)
    else:
        yield passed(check, short(wanted))


def _trained(looked: Looked, member: Member, uri: str) -> Iterator[Finding]:
    """The next policy of a round names this version, and the policy it was trained from."""
    record = known_policies(looked.home).records.get(member.record.next_policy or "")
    if record is None:
        return
    check = f"policy after round {member.record.round} was trained on it"
    wanted = (member.trained or record.parent, member.record.version)
    if wanted in record.origins:
        yield passed(check, short(record.digest))
        return
    says = " on ".join(short(part) if part else "nothing" for part in (record.parent, record.trained_on))
    expected = " on ".join(short(part) if part else "nothing" for part in wanted)
    yield failed(check, f"policies/{short(record.digest, 16)}/policy.json says {says}, expected {expected}", uri)


def _followed(before: Member, after: Member, uri: str) -> Finding:
    """Round k+1 has round k behind it, in every respect that its manifest records."""
    check = f"{CHAIN} {before.record.round} → {after.record.round}"
    if before.record.next_policy is None:
        return failed(
            check, f"round {after.record.round} is there, and round {before.record.round} gave no policy", uri
        )
    if before.manifest is None or after.manifest is None:
        return not_checkable(check, "a manifest can't be read, see above", uri)
    old, new = before.manifest, after.manifest
    pairs: list[tuple[str, object, object]] = [
        ("previous version", new.previous_version or before.record.version, before.record.version),
        *((name, getattr(new, name), getattr(old, name)) for name in _SAME),
    ]
    if new.relation == "on-policy":
        pairs += [
            ("policy", new.policy, before.record.next_policy),
            ("parent version", new.parent_version, before.record.version),
            ("parent policy", new.parent_policy, before.trained),
        ]
    wrong = [
        f"{name} is {_brief(found)}, expected {_brief(wanted)}" for name, found, wanted in pairs if found != wanted
    ]
    said = f"{short(before.record.version)} → {short(before.record.next_policy)} → {short(after.record.version)}"
    return failed(check, "; ".join(wrong), uri) if wrong else passed(check, said)


def _brief(value: object) -> str:
    return short(value) if isinstance(value, str) else str(value)
