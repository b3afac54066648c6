"""One round of a campaign on its own: what it starts from, given what the campaign has so far, and who is trained."""

from __future__ import annotations

from flows.build import BuildInputs
from flows.campaign import campaign_identity
from flows.checks import check_start
from flows.ingest import ingest
from flows.presets import Preset
from storage.campaigns import list_campaigns, load_campaign, start_campaign
from storage.corpora import open_corpus
from storage.digests import short
from storage.errors import PolicyError
from storage.home import Home
from storage.policies import policy_record
from storage.versions import load_manifest
from tasks.recipes import recipe_named
from tasks.rounds.screeners import screener_of
from tasks.training.base_policy import take_base


def round_inputs(
    home: Home, preset: Preset, number: int, corpus: str | None = None, screener: str | None = None
) -> BuildInputs:
    """The inputs of a round: the base model's for the first, the policy trained on the round before for the others.

    ``corpus`` is the name or digest of an ingested corpus to use in place of the preset's, ``screener`` a policy for a
    recipe that wants one given. Raises ``PolicyError`` when a policy is not there yet.
    """
    check_start(home, preset, corpus, screener)
    campaign = start_campaign(home, preset.campaign.name, campaign_identity(preset))
    digest = open_corpus(home, corpus).digest if corpus else ingest(str(home.path), preset.corpus, preset.index)
    before = campaign.find(number - 1)
    policies: list[str | None] = [take_base(home, preset.policy)]
    policies += [record.next_policy for record in campaign.rounds if record.round < number]
    known = [policy for policy in policies if policy is not None]
    if len(known) < number:
        raise PolicyError(
            f"round {number} of campaign {campaign.name!r} has no policy yet: round {number - 1} was not trained on.",
            hint=f"policylong train {number - 1}, then policylong run.",
        )
    given = (policy_record(home, screener).digest,) if screener else preset.campaign.screeners
    return BuildInputs(
        campaign=campaign.name,
        round=number,
        corpus=digest,
        policy=known[number - 1],
        screener=screener_of(recipe_named(preset.build.recipe), known, number, preset.build.lag, given),
        previous_version=before.version if before else None,
        embedder=preset.corpus.embedder,
        index=preset.index,
        engine=preset.engine,
    )


def policy_to_train(home: Home, version: str, given: str | None) -> str:
    """The digest of the policy that a version was built for: the given one, or the one whose turn it is.

    Raises ``PolicyError`` when no campaign of the home says whose turn it is.
    """
    if given:
        return policy_record(home, given).digest
    manifest = load_manifest(home, version)
    if manifest.relation == "on-policy":
        return manifest.policy
    for name in list_campaigns(home):
        campaign = load_campaign(home, name)
        own = campaign.find(manifest.round)
        before = campaign.find(manifest.round - 1)
        if own is not None and own.version == version and before is not None and before.next_policy:
            return before.next_policy
    raise PolicyError(
        f"version {short(version)} was not screened by the policy that is to be trained ({manifest.relation}).",
        hint="Give --policy; policylong policy list shows them.",
    )
