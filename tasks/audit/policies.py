"""Audit of the policies behind a version: weights on disk, records, and who was trained from whom on what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from models.policy_files import policy_files
from storage.digests import digest_listing, short
from storage.errors import InputError, IntegrityError, PolicyError
from storage.files import read_json
from storage.findings import Finding, failed, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import RECORD, PolicyRecord, damaged_policy_files
from storage.tombstones import explained
from storage.versions import load_manifest
from tasks.audit.looked import Looked, form_problem, strangers

TRAINED = "policy trained on this version"
ORIGIN = "screening policy was trained from the parent on the parent version"


@dataclass(frozen=True, slots=True)
class KnownPolicies:
    """The policy records of a home that can be read, by digest, and what is wrong with the others."""

    records: dict[str, PolicyRecord]
    damaged: tuple[Finding, ...]

    def trained_on(self, version: str) -> list[PolicyRecord]:
        """The policies that name a version as one they were trained on."""
        return [r for r in self.records.values() if version in (r.trained_on, *r.also_trained_on)]


def known_policies(home: Home) -> KnownPolicies:
    """Every policy record of the home; one that can't be read is a failed finding and hides no other."""
    records: dict[str, PolicyRecord] = {}
    damaged: list[Finding] = []
    for path in sorted((home / "policies").glob(f"*/{RECORD}")):
        uri = path.relative_to(home.path).as_posix()
        try:
            record = PolicyRecord.model_validate(read_json(path))
        except (IntegrityError, ValidationError) as error:
            what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not JSON"
            damaged.append(failed("policy record", f"is not a policy's record: {what}", uri))
            continue
        if record.digest.startswith(path.parent.name):
            records[record.digest] = record
        else:
            says = f"says that it is policy {short(record.digest)}, its folder is that of {short(path.parent.name)}"
            damaged.append(failed("policy record", says, uri))
    return KnownPolicies(records, tuple(damaged))


def audit_policies(looked: Looked, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The weights on disk of the policy that screened, its parent, and the policies trained on this version."""
    known = known_policies(looked.home)
    yield from known.damaged
    roles = [("screening policy", manifest.policy)]
    if manifest.parent_policy:
        roles.append(("parent policy", manifest.parent_policy))
    roles += [(TRAINED, record.digest) for record in known.trained_on(version)]
    for role, digest in roles:
        yield from policy_findings(looked, known, role, digest)
    record = known.records.get(manifest.policy)
    if record is not None and manifest.parent_version is not None:
        if (manifest.parent_policy, manifest.parent_version) in record.origins:
            yield passed(ORIGIN)
        else:
            parts = " on ".join(short(part) if part else "nothing" for part in (record.parent, record.trained_on))
            yield failed(ORIGIN, f"its record says {parts}", record_uri(record.digest))


def policy_findings(looked: Looked, known: KnownPolicies, role: str, digest: str) -> Iterator[Finding]:
    """A policy's record and its files, under the name of the part it plays."""
    record = known.records.get(digest)
    if record is not None:
        found = looked.once(f"policy {digest}", lambda: _files(looked.home, record))
        yield from (finding.model_copy(update={"check": role}) for finding in found)
        return
    uri = record_uri(digest)
    if any(finding.file == uri for finding in known.damaged):
        yield not_checkable(role, f"the record of {short(digest)} is damaged, see above", uri)
    elif (looked.home / uri).parent.is_dir():
        yield failed(role, f"the record of {short(digest)} is missing", uri)
    else:
        yield not_checkable(role, f"{short(digest)} is not registered in this home")


def record_uri(digest: str) -> str:
    """Where a policy's record lies, relative to the home."""
    return f"policies/{short(digest, 16)}/{RECORD}"


def _files(home: Home, record: PolicyRecord) -> list[Finding]:
    found = [explained(home, finding) for finding in (*_record(home, record), *_weights(home, record))]
    return found or [passed("policy", f"{short(record.digest)}, {len(record.files)} files", record.folder)]


def _record(home: Home, record: PolicyRecord) -> Iterator[Finding]:
    uri = record_uri(record.digest)
    edited = form_problem(home / uri)
    if edited:
        yield failed("policy", edited, uri)
    if (record.parent is None) != (record.trained_on is None):
        yield failed("policy", "its record names only one of parent and version trained on", uri)
    rounds = {0} if record.trained_on is None else set()
    for version in (record.trained_on, *record.also_trained_on):
        try:
            rounds |= {load_manifest(home, version).round} if version else set()
        except (InputError, IntegrityError):
            continue  # not in this home, or damaged: that version's own audit says so
    if rounds and record.round not in rounds:
        expected = " or ".join(map(str, sorted(rounds)))
        yield failed("policy", f"its record says round {record.round}, expected {expected}", uri)


def _weights(home: Home, record: PolicyRecord) -> Iterator[Finding]:
    folder, uri = home / record.folder, record_uri(record.digest)
    if not folder.is_dir():
        yield failed("policy", f"the folder {record.folder} of {short(record.digest)} is gone", uri)
        return
    damaged = damaged_policy_files(home, record)
    for problem in damaged:
        yield failed("policy", problem.replace(f"{home.path}/", ""), _file_of(home, record, problem))
    names = [*record.files, RECORD] if Path(uri).parent == Path(record.folder) else None
    for name in strangers(folder, names) if names else []:
        yield failed("policy", "is not in the policy's record", f"{record.folder}/{name}")
    if not all((folder / name).is_file() for name in record.files):
        return
    try:
        listing = {name: record.files.get(name, "") for name in policy_files(folder)}
    except PolicyError as error:
        yield failed("policy", error.message.replace(f"{home.path}/", ""), record.folder)
        return
    # The digest is over the listing: one that does not give it was edited, whatever the files are.
    if digest_listing(listing) != record.digest:
        yield failed("policy", f"its files have digest {short(digest_listing(listing))}, not the policy's", uri)


def _file_of(home: Home, record: PolicyRecord, problem: str) -> str:
    names = [name for name in record.files if problem.startswith(f"{home / record.folder / name} ")]
    return f"{record.folder}/{names[0]}" if names else record.folder
