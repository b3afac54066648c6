"""Audit of what a version comes from: corpus, policies, the versions before it, and the records that point at it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from models.policy_files import policy_digest
from storage.campaigns import list_campaigns, load_campaign
from storage.corpora import Corpus, corpus_folder, open_corpus
from storage.digests import digest_json, short
from storage.errors import ConfigError, InputError, IntegrityError, PolicyError, ServiceError
from storage.files import read_json
from storage.findings import Finding, failed, failures, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import PolicyRecord, damaged_policy_files, list_policies
from storage.refs import Ref
from storage.tables import check_ref
from storage.tracked_runs import POLICY_TAG, ROUND_TAG, VERSION_TAG
from storage.tracking import Tracking
from storage.versions import load_manifest, verify_version, version_uri

CONFIG_FILE = "config.json"


def corpus_at_hand(home: Home, digest: str) -> Corpus | None:
    """The corpus of a digest when it is in this home and its manifest is whole."""
    try:
        return open_corpus(home, digest)
    except (InputError, IntegrityError, KeyError, ValueError):
        return None


def audit_corpus(home: Home, manifest: Manifest) -> Iterator[Finding]:
    """The corpus's manifest against its digest, every one of its files, and the embedder."""
    uri = f"{corpus_folder(manifest.corpus)}/corpus.json"
    if not (home / uri).exists():
        yield not_checkable("corpus", f"corpus {short(manifest.corpus)} is not in this home", uri)
        return
    try:
        corpus = open_corpus(home, manifest.corpus)
    except (InputError, IntegrityError) as error:
        yield failed("corpus", error.message, uri)
        return
    except (KeyError, ValueError) as error:
        yield failed("corpus", f"its manifest can't be understood ({type(error).__name__}: {error})", uri)
        return
    yield passed("corpus", f"its manifest has digest {short(corpus.digest)}", uri)
    for ref in corpus.refs:
        yield _table_file(home, ref)
    same = corpus.embedder_digest == manifest.embedder
    there = f"the corpus was embedded by {short(corpus.embedder_digest)}"
    check = "embedder of corpus and round"
    yield passed(check, there) if same else failed(check, f"{there}, the round by {short(manifest.embedder)}", uri)


def _table_file(home: Home, ref: Ref) -> Finding:
    try:
        check_ref(home.path, ref)
    except IntegrityError as error:
        return failed("corpus file", error.message, ref.uri)
    return passed("corpus file", f"sha256 {short(ref.sha256)}, {ref.rows} rows", ref.uri)


def audit_config(home: Home, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The published configuration is the manifest's."""
    if CONFIG_FILE not in manifest.files:
        return
    uri = f"{version_uri(version)}/{CONFIG_FILE}"
    try:
        same = digest_json(read_json(home / uri)) == manifest.config_digest
    except IntegrityError as error:
        yield failed("configuration", error.message, uri)
        return
    yield passed("configuration") if same else failed("configuration", "is not the manifest's", uri)


def audit_ancestors(home: Home, version: str, manifest: Manifest) -> Iterator[Finding]:
    """Parent by parent back to round 1: each parent is there, whole, of the same corpus, and of the policy before.

    A parent's own tables are compared with each other when it is audited itself.
    """
    child, uri = manifest, f"{version_uri(version)}/manifest.json"
    while True:
        if child.relation == "unscreened":
            yield passed(f"round {child.round} asks no policy", "it has no parents")
            return
        if (child.parent_version is None) != (child.parent_policy is None):
            yield failed("parents", f"round {child.round} names only one of parent policy and parent version", uri)
            return
        if child.parent_version is None or child.parent_policy is None:
            first = child.round <= child.lag + 1 or child.relation == "given"
            check = f"round {child.round} starts from a base model"
            yield passed(check) if first else failed(check, "a later round has a parent version", uri)
            return
        parent_version = child.parent_version
        expected = child.round - 1 - child.lag
        check = f"parent of round {child.round}"
        uri = f"{version_uri(parent_version)}/manifest.json"
        if not (home / uri).exists():
            yield not_checkable(check, f"version {short(parent_version)} is not in this home", uri)
            return
        damaged = failures(verify_version(home, parent_version))
        yield from (failed(check, finding.detail, finding.file) for finding in damaged)
        if any(finding.file == uri for finding in damaged):
            return
        parent = load_manifest(home, parent_version)
        problems = [
            text
            for text, wrong in (
                (
                    f"is round {parent.round}, expected {expected}",
                    parent.round != expected and child.relation != "given",
                ),
                (
                    f"was screened by {short(parent.policy)}, not by the parent policy",
                    parent.policy != child.parent_policy and parent.relation == "on-policy",
                ),
                ("is of another corpus", parent.corpus != child.corpus),
            )
            if wrong
        ]
        if problems:
            yield failed(check, "; ".join(problems), uri)
            return
        if not damaged:
            yield passed(
                check, f"round {parent.round}, version {short(parent_version)}, {len(parent.files)} files", uri
            )
        child = parent


def audit_policies(home: Home, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The weights on disk of the policy that screened, its parent, and the policies trained on this version."""
    try:
        records = {record.digest: record for record in list_policies(home)}
    except IntegrityError as error:
        yield failed("policies", error.message)
        return
    roles = [("screening policy", manifest.policy)]
    if manifest.parent_policy:
        roles.append(("parent policy", manifest.parent_policy))
    trained = [r.digest for r in records.values() if version in (r.trained_on, *r.also_trained_on)]
    roles += [("policy trained on this version", digest) for digest in trained]
    for role, digest in roles:
        if digest in records:
            yield _weights(home, role, records[digest])
        else:
            yield not_checkable(role, f"{short(digest)} is not registered in this home")
    if manifest.policy in records and manifest.parent_version is not None:
        record = records[manifest.policy]
        known = (record.parent, record.trained_on)
        check = "screening policy was trained from the parent on the parent version"
        if (manifest.parent_policy, manifest.parent_version) in record.origins:
            yield passed(check)
        else:
            parts = " on ".join(short(part) if part else "nothing" for part in known)
            yield failed(check, f"its record says {parts}", f"policies/{short(record.digest, 16)}/policy.json")


def _weights(home: Home, role: str, record: PolicyRecord) -> Finding:
    folder = home / record.folder
    where = record.folder
    if not folder.is_dir():
        return failed(role, f"the folder of {short(record.digest)} is gone", where)
    damaged = damaged_policy_files(home, record)
    if damaged:
        return failed(role, "; ".join(damaged).replace(f"{home.path}/", ""), _first_file(home, record, damaged[0]))
    try:
        found = policy_digest(folder)
    except PolicyError as error:
        return failed(role, error.message, where)
    if found != record.digest:
        return failed(role, f"the files have digest {short(found)}, expected {short(record.digest)}", where)
    return passed(role, f"{short(record.digest)}, {len(record.files)} files", where)


def _first_file(home: Home, record: PolicyRecord, problem: str) -> str:
    names = [name for name in record.files if problem.startswith(f"{home / record.folder / name} ")]
    return f"{record.folder}/{names[0]}" if names else record.folder


def audit_campaigns(home: Home, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The campaigns that name this version give it its round and policy."""
    named = False
    for name in list_campaigns(home):
        uri = f"campaigns/{name}.json"
        try:
            records = [record for record in load_campaign(home, name).rounds if record.version == version]
        except (IntegrityError, InputError) as error:
            yield failed("campaign record", error.message, uri)
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


def audit_tracking(home: Home, version: str, manifest: Manifest) -> Iterator[Finding]:
    """The round's MLflow run has this version, policy and round in its tags, and the version as its dataset."""
    check, database = "MLflow run", "mlflow/mlflow.db"
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home / database).exists():
        yield not_checkable(check, "this home has no MLflow database", database)
        return
    try:
        run = Tracking(home, attempts=1).find_version(version)
    except (ServiceError, ConfigError) as error:
        yield not_checkable(check, error.message)
        return
    if run is None:
        yield not_checkable(check, "MLflow has no run of this version")
        return
    expected = {VERSION_TAG: version, POLICY_TAG: manifest.policy, ROUND_TAG: str(manifest.round)}
    wrong = [
        f"tag {tag} is {run.tags.get(tag)}, expected {value}"
        for tag, value in expected.items()
        if run.tags.get(tag) != value
    ]
    if version not in {dataset.digest for dataset in run.datasets}:
        wrong.append("its dataset is not this version")
    for name, number in manifest.funnel.items():
        if name in run.metrics and run.metrics[name] != number:
            wrong.append(f"metric {name} is {run.metrics[name]:g}, expected {number}")
    where = f"run {run.run_id} of experiment {run.experiment}"
    yield failed(check, f"{where}: {'; '.join(wrong)}") if wrong else passed(check, where)
