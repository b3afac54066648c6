"""The hand-over from data to training and back: who may train on which version, and what comes back from elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.policy import load_config, load_policy, load_tokenizer, stored_dtype
from models.policy_files import policy_listing
from storage.digests import digest_listing, short
from storage.errors import IntegrityError, PolicyError
from storage.findings import failures
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import PolicyRecord, add_policy, damaged_policy_files, list_policies, policy_folder, policy_record
from storage.versions import load_manifest, resolve_version, table_refs, verify_version

# What two checkpoints of one family share; positions and their base may differ, the context grows.
_SAME_SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


@dataclass(frozen=True, slots=True)
class HandOff:
    """A verified version and the policy that may be trained on it."""

    version: str
    manifest: Manifest
    policy: str
    folder: Path
    samples: tuple[Path, ...]
    """Parquet files, in order."""
    rows: int
    """Samples in them."""


def hand_off(home: Home, version: str, policy: str) -> HandOff:
    """Checks that ``policy`` may be trained on ``version`` (full or prefix): every file against its digest.

    Raises ``IntegrityError`` naming the file when the version or the policy is not what its digest says, and
    ``PolicyError`` when the policy does not stand to the one that screened as the manifest's ``relation`` says.
    """
    full = resolve_version(home, version)
    wrong = failures(verify_version(home, full))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise IntegrityError(
            f"dataset version {short(full)} is damaged, nothing is trained on it:"
            f" {wrong[0].file or wrong[0].check} {wrong[0].detail}{more}.",
            hint=f"policylong audit {short(full)} names every damaged file; policylong build makes them anew.",
        )
    manifest = load_manifest(home, full)
    record = policy_record(home, policy)
    folder = policy_folder(home, record.digest)
    _check_relation(home, full, manifest, record, folder)
    damaged = damaged_policy_files(home, record)
    if damaged:
        raise IntegrityError(f"{damaged[0]}.", hint="Put the file back, or add the policy again.")
    refs = table_refs(full, manifest, "samples")
    paths = tuple(home / ref.uri for ref in refs)
    return HandOff(full, manifest, record.digest, folder, paths, sum(ref.rows for ref in refs))


def _check_relation(home: Home, version: str, manifest: Manifest, record: PolicyRecord, folder: Path) -> None:
    """Raises ``PolicyError`` unless a policy stands to a version's screener as the manifest says."""
    if manifest.relation in ("given", "unscreened"):
        if tokenizer_of(folder) != tokenizer_of(policy_folder(home, manifest.policy, weights=False)):
            raise PolicyError(
                f"dataset version {short(version)} has the tokens of policy {short(manifest.policy)}'s tokenizer,"
                f" {short(record.digest)} has another.",
                hint="Train a policy of the same family.",
            )
        return
    distance = trainings_between(home, manifest.policy, record.digest)
    # Several policies may be as many trainings later (other seeds, other recipes); the campaign's own came last.
    elsewhere = bool(manifest.lag) and manifest.previous_version not in (
        None,
        record.trained_on,
        *record.also_trained_on,
    )
    if distance == manifest.lag and not elsewhere:
        return
    if manifest.lag:
        found = "is no descendant of it" if distance is None else f"is {distance} trainings behind it"
        if distance == manifest.lag:
            found += f", but not trained on {short(manifest.previous_version or '')}, the round before"
        raise PolicyError(
            f"dataset version {short(version)} (round {manifest.round}) was screened by {short(manifest.policy)} for a"
            f" policy {manifest.lag} trainings later; {short(record.digest)} {found}.",
            hint="policylong policy list shows which policy came from which.",
        )
    raise PolicyError(
        f"dataset version {short(version)} (round {manifest.round}) was built with policy {short(manifest.policy)},"
        f" not with {short(record.digest)}: training it would be off-policy.",
        hint=f"Train {short(manifest.policy)}, or build a round with {short(record.digest)}.",
    )


def trainings_between(home: Home, ancestor: str, policy: str) -> int | None:
    """How many trainings lead from ``ancestor`` to ``policy``; 0 for the same, None when they are not related so."""
    steps, at = 0, policy_record(home, policy)
    while at.digest != ancestor:
        if at.parent is None:
            return None
        steps, at = steps + 1, policy_record(home, at.parent)
    return steps


def add_base_policy(home: Home, path: Path, *, remote_code: bool = False) -> PolicyRecord:
    """Registers a base model (no parent) from a folder; raises ``PolicyError`` when it can't be used."""
    listing = policy_listing(path)
    digest = digest_listing(listing)
    if not any(record.digest == digest for record in list_policies(home)):
        _check_loads(path, remote_code)
    return add_policy(home, path, digest, parent=None, trained_on=None, round=0, files=listing)


def add_external_policy(
    home: Home, path: Path, trained_on: str, *, parent: str | None = None, remote_code: bool = False
) -> PolicyRecord:
    """Brings in a checkpoint that was trained elsewhere on a version (round number, prefix or full) and registers it.

    ``parent`` is the policy it was trained from; on-policy that is the one the version was built with. It must load, be
    of its parent's shape and have its tokenizer. Raises ``PolicyError`` otherwise, also when it is that policy itself.
    """
    version = resolve_version(home, trained_on)
    manifest = load_manifest(home, version)
    origin = _parent_of(home, version, manifest, parent)
    listing = policy_listing(path)
    digest = digest_listing(listing)
    if digest in (origin, manifest.policy):
        raise PolicyError(
            f"{path} is policy {short(digest)} itself, the one round {manifest.round} was built with.",
            hint="Give the folder of the checkpoint that training wrote.",
        )
    check_compatible(path, policy_folder(home, origin, weights=False), remote_code=remote_code)
    _check_loads(path, remote_code)
    return add_policy(home, path, digest, parent=origin, trained_on=version, round=manifest.round, files=listing)


def _parent_of(home: Home, version: str, manifest: Manifest, parent: str | None) -> str:
    """The policy that was trained on a version: the given one, where it fits, or the one the version names."""
    if parent is None:
        if manifest.relation == "on-policy":
            return manifest.policy
        raise PolicyError(
            f"dataset version {short(version)} was not screened by the policy that is trained on it"
            f" ({manifest.relation}), so it does not say from which policy the checkpoint comes.",
            hint="Give --parent POLICY.",
        )
    record = policy_record(home, parent)
    _check_relation(home, version, manifest, record, policy_folder(home, record.digest, weights=False))
    return record.digest


def check_compatible(folder: Path, parent: Path, *, remote_code: bool = False) -> None:
    """Raises ``PolicyError`` unless a checkpoint has the architecture and the tokenizer of ``parent``."""
    config, expected = (load_config(path, remote_code=remote_code).get_text_config() for path in (folder, parent))
    for name in _SAME_SHAPE:
        found, wanted = getattr(config, name, None), getattr(expected, name, None)
        if found != wanted:
            raise PolicyError(
                f"the checkpoint in {folder} has {name} {found}, its parent has {wanted}.",
                hint="Give the checkpoint that was trained from this policy.",
            )
    if tokenizer_of(folder, remote_code) != tokenizer_of(parent, remote_code):
        raise PolicyError(
            f"the tokenizer in {folder} differs from its parent's: the token ids would mean other texts.",
            hint="Copy the parent's tokenizer files beside the weights.",
        )


def policy_trained_on(home: Home, version: str, parent: str) -> str | None:
    """The digest of the policy trained from ``parent`` on a version, or ``None`` while there is none.

    Raises ``PolicyError`` when several were brought in.
    """
    found = [r.digest for r in list_policies(home) if (parent, version) in r.origins]
    if len(found) > 1:
        raise PolicyError(
            f"{len(found)} policies were trained on version {short(version)}: {', '.join(map(short, found))}.",
            hint="Name the one to go on with.",
        )
    return found[0] if found else None


def _check_loads(folder: Path, remote_code: bool) -> None:
    """Loads a checkpoint once, so that a damaged one or one with NaN is refused now and not in the next round."""
    dtype = stored_dtype(load_config(folder, remote_code=remote_code))
    load_policy(folder, device="cpu", dtype=dtype, remote_code=remote_code)


def tokenizer_of(folder: Path, remote_code: bool = False) -> Any:
    """What makes two tokenizers the same: entries, merges, normaliser and pre-tokenizer, not the file's layout."""
    tokenizer = load_tokenizer(folder, remote_code=remote_code)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.get_vocab()
    whole = json.loads(backend.to_str())
    return {
        part: whole.get(part) for part in ("model", "normalizer", "pre_tokenizer", "added_tokens", "post_processor")
    }
