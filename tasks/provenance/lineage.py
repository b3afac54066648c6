"""A policy's parents back to the base model, from the home's records and, where those lack one, from manifests."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from storage.errors import InputError, IntegrityError
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import list_policies
from storage.versions import load_manifest


class Ancestor(BaseModel):
    """A policy and what it was trained from; the next of a line is its parent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    parent: str | None = Field(description="Digest of the policy it was trained from; null for a base model.")
    trained_on: str | None = Field(description="Dataset version it was trained on; null for a base model.")
    rounds: int | None = Field(description="Rounds of training behind it; null when it is not in this home.")
    known: bool = Field(description="Whether this home says what it was trained from.")


def lineage(home: Home, manifest: Manifest) -> tuple[Ancestor, ...]:
    """The policy of a version, its parent, … The last one is a base model, or the first this home knows nothing of.

    Raises ``IntegrityError`` naming a damaged policy record.
    """
    records = {record.digest: record for record in list_policies(home)}
    line: list[Ancestor] = []
    digest: str | None = manifest.policy
    source: Manifest | None = manifest
    while digest is not None and all(ancestor.digest != digest for ancestor in line):
        record = records.get(digest)
        parent: str | None = None
        version: str | None = None
        if source is not None and (record is None or (source.parent_policy, source.parent_version) in record.origins):
            parent, version = source.parent_policy, source.parent_version
        elif record is not None:
            parent, version = record.parent, record.trained_on
        line.append(
            Ancestor(
                digest=digest,
                parent=parent,
                trained_on=version,
                rounds=record.round if record else None,
                known=record is not None or source is not None,
            )
        )
        digest, source = parent, _screened_by(home, version, parent)
    return tuple(line)


def _screened_by(home: Home, version: str | None, policy: str | None) -> Manifest | None:
    """The version's manifest when it is here and that policy screened it: it names the policy's own parents."""
    if version is None or policy is None:
        return None
    try:
        manifest = load_manifest(home, version)
    except (InputError, IntegrityError):
        return None
    screened = manifest.policy == policy and manifest.relation != "unscreened"
    return manifest if screened else None
