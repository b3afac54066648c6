"""All that a round's page shows, put together from a home; and that of a campaign's page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.campaigns import Campaign, RoundRecord
from storage.digests import digest_json, short
from storage.errors import IntegrityError, PolicyError
from storage.home import Home
from tasks.audit.subject import Subject
from tasks.provenance.lookup import open_subject
from tasks.provenance.token_origins import Tokens, tokens_of
from tasks.reporting.drift import RoundDrift, round_drift
from tasks.reporting.examples import Example, pick, read_examples
from tasks.reporting.measured import LengthGain, length_gains
from tasks.reporting.round_figures import RoundFigures, round_figures

if TYPE_CHECKING:
    from tasks.audit.checks import AuditReport

PAGE_VERSION = 2
"""Raised when the pages change, so that those of finished rounds are written anew."""


@dataclass(frozen=True, slots=True)
class RoundView:
    """A round as its page shows it."""

    figures: RoundFigures
    campaign: Campaign | None
    record: RoundRecord | None
    drift: RoundDrift | str
    """The comparison with the round before, or why there is none."""
    examples: tuple[Example, ...]
    gains: tuple[LengthGain, ...]
    """Context gain of the policies behind this round and of the one trained on it."""
    audit: AuditReport | None
    missing: tuple[str, ...]
    """What is not in this home, in sentences."""

    @property
    def number(self) -> int:
        """The round."""
        return self.figures.manifest.round

    @property
    def version(self) -> str:
        """The dataset version in short."""
        return short(self.figures.version)

    def round_of(self, version: str | None) -> str:
        """A version in words: the campaign's round where it is one."""
        for record in self.campaign.rounds if self.campaign else ():
            if record.version == version:
                return f"round {record.round}"
        return f"version {short(version)}" if version else "nothing"


def round_view(
    home: Home, version: str, found: tuple[Campaign, RoundRecord] | None, audit: AuditReport | None = None
) -> RoundView:
    """Counts, compares and reads what a round's page shows; ``found`` is the campaign's record of it.

    Raises ``InputError`` and ``IntegrityError`` as ``tasks.provenance.lookup.open_subject`` does, ``IntegrityError``
    for a table that can't be read. What is not in this home is said on the page.
    """
    subject = open_subject(home, version)
    campaign, record = found or (None, None)
    figures = round_figures(subject)
    missing: list[str] = []
    examples = _examples(subject, figures, missing)
    policies = [ancestor.digest for ancestor in reversed(figures.policies)]
    following = [record.next_policy] if record and record.next_policy else []
    return RoundView(
        figures=figures,
        campaign=campaign,
        record=record,
        drift=round_drift(subject, _previous(subject, campaign)),
        examples=tuple(examples),
        gains=tuple(length_gains(home, subject.manifest.corpus, [*policies, *following])),
        audit=audit,
        missing=tuple(missing),
    )


def page_key(version: str, campaign: Campaign | None) -> str:
    """What a page depends on beside the version's own tables: a page with this key need not be written again."""
    record = campaign.model_dump(mode="json") if campaign else None
    return digest_json([PAGE_VERSION, version, record])[:16]


def _previous(subject: Subject, campaign: Campaign | None) -> str | None:
    """The round before, from the manifest or, for one that does not say, the campaign."""
    if subject.manifest.previous_version is not None or campaign is None:
        return subject.manifest.previous_version
    before = campaign.find(subject.manifest.round - 1)
    return before.version if before else None


def _examples(subject: Subject, figures: RoundFigures, missing: list[str]) -> list[Example]:
    if subject.corpus is None:
        missing.append(
            f"Corpus {short(subject.manifest.corpus)} is not in this home, or is damaged: titles and passages are not"
            " shown."
        )
    if not subject.has("verdicts") or figures.judged is None or figures.judged.gain is None:
        return []
    return read_examples(subject, pick(subject, figures.judged.gain), _tokens(subject, missing))


def _tokens(subject: Subject, missing: list[str]) -> Tokens | None:
    try:
        return tokens_of(subject.home, subject.manifest.policy)
    except (PolicyError, IntegrityError) as error:
        missing.append(f"Without the policy's tokenizer the texts of roots are not shown: {error.message}")
        return None
