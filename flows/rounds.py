"""One round of a campaign on its own: what it starts from, given what the campaign has so far."""

from __future__ import annotations

from flows.build import BuildInputs
from flows.campaign import campaign_identity
from flows.ingest import ingest
from flows.presets import Preset
from storage.campaigns import start_campaign
from storage.corpora import open_corpus
from storage.errors import PolicyError
from storage.home import Home
from tasks.base_policy import take_base


def round_inputs(home: Home, preset: Preset, number: int, corpus: str | None = None) -> BuildInputs:
    """The inputs of a round: the base model's for the first, the policy trained on the round before for the others.

    ``corpus`` is the name or digest of an ingested corpus to use in place of the preset's. Raises ``PolicyError`` when
    that policy is not there yet.
    """
    campaign = start_campaign(home, preset.campaign.name, campaign_identity(preset))
    digest = open_corpus(home, corpus).digest if corpus else ingest(str(home.path), preset.corpus, preset.index)
    before = campaign.find(number - 1)
    if number == 1:
        policy: str | None = take_base(home, preset.policy)
    else:
        policy = before.next_policy if before else None
    if policy is None:
        raise PolicyError(
            f"round {number} of campaign {campaign.name!r} has no policy yet: round {number - 1} was not trained on.",
            hint=f"policylong train {number - 1}, then policylong run.",
        )
    return BuildInputs(
        campaign=campaign.name,
        round=number,
        corpus=digest,
        policy=policy,
        parent_version=before.version if before else None,
        embedder=preset.corpus.embedder,
        index=preset.index,
    )
