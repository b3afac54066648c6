"""What a campaign has to show: a row per round from its record and manifests, and one worked example of the last
round.
"""

from __future__ import annotations

from dataclasses import asdict

from flows.views.console import RoundRow, WorkedExample
from models.policy import load_tokenizer
from storage.campaigns import Campaign
from storage.corpora import open_corpus
from storage.home import Home
from storage.policies import policy_folder
from storage.versions import load_manifest
from tasks.rounds.example import pick_example


def round_rows(home: Home, campaign: Campaign) -> list[RoundRow]:
    """One row per finished round, in order."""
    rows = []
    for record in campaign.rounds:
        manifest = load_manifest(home, record.version)
        values = {
            **manifest.funnel,
            **record.figures,
            "round": record.round,
            "version": record.version,
            "policy": record.policy,
            "next_policy": record.next_policy,
            "mean_gain": manifest.figures.get("mean_gain"),
            "probe_overlap": manifest.figures.get("probe_overlap_positives"),
            "tokens": manifest.tokens["total"],
        }
        rows.append(RoundRow.of(values))
    return rows


def worked_example(home: Home, campaign: Campaign) -> WorkedExample | None:
    """The example of the campaign's last round; None while there is none."""
    if not campaign.rounds:
        return None
    record = campaign.rounds[-1]
    manifest = load_manifest(home, record.version)
    found = pick_example(
        home,
        record.version,
        manifest,
        open_corpus(home, manifest.corpus),
        load_tokenizer(policy_folder(home, record.policy, weights=False)),
        int(manifest.config["roots"]["probe_roots"]),
    )
    return WorkedExample(**asdict(found)) if found else None
