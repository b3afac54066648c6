"""What changed since the round before: both rounds' sets and distributions side by side, above all on the probe set.

The probe set's roots are screened in every round, so on it the policy is all that differs; over all roots the rounds
took other documents.
"""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel, ConfigDict

from storage.digests import short
from storage.errors import InputError, IntegrityError
from storage.home import Home
from tasks.audit.subject import Subject
from tasks.provenance.differences import Change, Differences, Drift, Overlap, differences
from tasks.provenance.lookup import open_subject, readable
from tasks.reporting.histograms import Histogram, entropies, gains

CONFIGURED = ("config", "numeric", "code_versions", "seeds")
"""Sections of a manifest that say how a round was made, not what came out."""
IDENTITY = ("recipe", "corpus", "embedder", "relation", "lag")


class RoundDrift(BaseModel):
    """A round beside the one before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: Differences
    probe_entropy: tuple[Histogram, Histogram]
    """Of the probe set's positions: of the round before, of this one."""
    kept_gain: tuple[Histogram, Histogram]
    """Of kept verdicts of all roots."""

    @property
    def settings(self) -> list[Change]:
        """What differs in how the rounds were made."""
        return [
            change
            for change in self.found.changes
            if change.section in CONFIGURED or (change.section == "identity" and change.key in IDENTITY)
        ]

    def overlaps(self, scope: str) -> list[Overlap]:
        """The sets of all roots, or of the probe set."""
        return [overlap for overlap in self.found.overlaps if overlap.scope == scope]

    def overlap(self, what: str) -> Overlap | None:
        """A set of the probe set, None when it can't be compared or both rounds have none."""
        return next((one for one in self.overlaps("probe") if one.what == what and one.first + one.second), None)

    def drifts(self, scope: str) -> list[Drift]:
        """The distributions of all roots, or of the probe set."""
        return [drift for drift in self.found.drifts if drift.scope == scope]

    def drift(self, what: str) -> Drift | None:
        """A distribution on the probe set, None when a round has none."""
        found = (one for one in self.drifts("probe") if one.what == what)
        return next((one for one in found if one.first.count and one.second.count), None)


def round_drift(subject: Subject, previous: str | None) -> RoundDrift | str:
    """Compares a round with the one before; a sentence that says why not where that can't be done."""
    if previous is None:
        return "This is the first round: there is none before it to compare with."
    try:
        other = open_subject(subject.home, previous)
    except (InputError, IntegrityError) as error:
        return f"The round before, version {short(previous)}, can't be compared with: {error.message}"
    return _drift(subject.home, other, subject)


def _drift(home: Home, before: Subject, now: Subject) -> RoundDrift:
    with readable(before), readable(now):
        return RoundDrift(
            found=differences(home, before.version, now.version),
            probe_entropy=(_probe(before), _probe(now)),
            kept_gain=(_kept(before), _kept(now)),
        )


def _probe(subject: Subject) -> Histogram:
    roots = subject.table("roots").filter(pl.col("role") == "probe").select("root")
    return entropies(subject.table("positions").join(roots, on="root", how="semi"), "entropy")


def _kept(subject: Subject) -> Histogram:
    return gains(subject.table("verdicts").filter(pl.col("kept")), "gain")
