"""Which versions and policies are kept, and for what.

Without options every version is kept, with every policy that a version's chain or a campaign names. ``--keep`` keeps
the campaigns named, with the whole chain behind their versions. ``--keep-rounds`` asks for less: of each finished
campaign the last rounds, with the policies that built them and that came out, not those before. A campaign that goes on
keeps all its rounds. Policies that were brought in (base models) always stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from storage.campaigns import Campaign, RoundRecord, list_campaigns, load_campaign
from storage.digests import short
from storage.home import Home
from storage.manifests import MANIFEST, Manifest
from storage.policies import PolicyRecord, list_policies
from storage.tombstones import tombstone_of
from storage.versions import list_versions, load_manifest, version_uri
from tasks.retention.plan import Keep, Removal, sized

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Kept:
    """Versions by digest, kept and not; digests of the policies that are kept; what is to be said about it."""

    versions: dict[str, Manifest]
    others: dict[str, Manifest]
    policies: frozenset[str]
    going_on: tuple[str, ...]
    """Names of kept campaigns that are not finished."""
    stays: tuple[str, ...]


def what_is_kept(home: Home, keep: Keep) -> Kept:
    """Raises ``InputError`` for an unknown campaign and ``IntegrityError`` for a damaged manifest or record."""
    manifests = {version: load_manifest(home, version) for version in list_versions(home)}
    records = {record.digest: record for record in list_policies(home)}
    campaigns = [load_campaign(home, name) for name in keep.campaigns or list_campaigns(home)]
    stays: list[str] = []
    rounds = [record for campaign in campaigns for record in _rounds(campaign, keep, stays)]
    named = {record.version for record in rounds}
    if keep.everything:
        named |= manifests.keys()
    elif not keep.campaigns:
        of_campaigns = {record.version for campaign in campaigns for record in campaign.rounds}
        named |= manifests.keys() - of_campaigns
    if keep.rounds is None:
        named |= set(_ancestors(manifests, named))
    kept = {version: manifest for version, manifest in manifests.items() if version in named}
    others = {version: manifest for version, manifest in manifests.items() if version not in named}
    policies = frozenset(_policies(kept, rounds, records, chain=keep.rounds is None))
    going_on = tuple(campaign.name for campaign in campaigns if not is_finished(campaign))
    return Kept(kept, others, policies, going_on, tuple(stays))


def is_finished(campaign: Campaign) -> bool:
    """Whether every planned round of a campaign was built and trained on."""
    planned = int(campaign.config.get("build", {}).get("rounds", len(campaign.rounds)))
    return len(campaign.rounds) >= planned and all(record.next_policy for record in campaign.rounds)


def _rounds(campaign: Campaign, keep: Keep, stays: list[str]) -> tuple[RoundRecord, ...]:
    if keep.rounds is None or len(campaign.rounds) <= keep.rounds:
        return campaign.rounds
    if not is_finished(campaign) and not keep.unfinished:
        stays.append(f"all rounds of campaign {campaign.name}: it is not finished (--unfinished takes it as it is)")
        return campaign.rounds
    return campaign.rounds[-keep.rounds :]


def _ancestors(manifests: dict[str, Manifest], named: set[str]) -> Iterator[str]:
    """Versions that some versions come from, step by step."""
    todo, seen = list(named), set(named)
    while todo:
        manifest = manifests.get(todo.pop())
        for version in (manifest.parent_version, manifest.previous_version) if manifest else ():
            if version is not None and version not in seen:
                seen.add(version)
                todo.append(version)
                yield version


def _policies(
    kept: dict[str, Manifest], rounds: list[RoundRecord], records: dict[str, PolicyRecord], *, chain: bool
) -> Iterator[str]:
    named = {manifest.policy for manifest in kept.values()}
    named |= {digest for record in rounds for digest in (record.policy, record.next_policy) if digest}
    trained_on = {record.version for record in rounds if record.next_policy}
    for record in records.values():
        versions = {record.trained_on, *record.also_trained_on}
        if record.trained_on is None or versions & (kept.keys() - trained_on):
            named.add(record.digest)  # brought in, or what comes next where no campaign says so yet
    if chain:
        named |= {manifest.parent_policy for manifest in kept.values() if manifest.parent_policy}
        for digest in list(named):
            parent = records[digest].parent if digest in records else None
            while parent is not None and parent not in named:
                named.add(parent)
                parent = records[parent].parent if parent in records else None
    yield from named


def unneeded_policies(home: Home, kept: Kept) -> Iterator[Removal]:
    """Weights of policies that nothing kept names; records, configuration and tokenizers stay for traces and audits."""
    for record in list_policies(home):
        if record.digest in kept.policies or record.folder.startswith("/"):
            continue
        files = {
            uri: sized(home / uri, sha256)
            for name, sha256 in record.files.items()
            if name.endswith(WEIGHTS) and (home / (uri := f"{record.folder}/{name}")).exists()
        }
        reason = f"no kept campaign or version names policy {short(record.digest)}"
        yield Removal(kind="policy weights", uri=record.folder, files=files, reason=reason)


def unneeded_versions(home: Home, kept: Kept) -> Iterator[Removal]:
    """The versions that are not kept, whole."""
    for version, manifest in kept.others.items():
        uri = version_uri(version)
        known = {f"{uri}/{name}": entry.sha256 for name, entry in manifest.files.items()}
        known[f"{uri}/{MANIFEST}"] = version
        found = [path for path in (home / uri).rglob("*") if path.is_file()]
        names = [path.relative_to(home.path).as_posix() for path in found]
        files = {name: sized(home / name, known.get(name)) for name in sorted(names)}
        reason = f"round {manifest.round} of recipe {manifest.recipe} is not kept"
        yield Removal(kind="version", uri=uri, files=files, reason=reason)
    for folder in sorted((home / "versions").glob("*")):
        uri = f"versions/{folder.name}"
        if (folder / MANIFEST).exists() or tombstone_of(home, f"{uri}/{MANIFEST}") is None:
            continue
        rest = sorted(path.relative_to(home.path).as_posix() for path in folder.rglob("*") if path.is_file())
        reason = "rest of a version whose removal was interrupted"
        yield Removal(kind="version", uri=uri, files={name: sized(home / name) for name in rest}, reason=reason)
