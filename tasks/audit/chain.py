"""Audit of what a version comes from: its corpus, its configuration and the versions before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.chunk_tokens import are_chunk_tokens
from storage.corpora import Corpus, corpus_folder, open_corpus
from storage.digests import digest_json, short
from storage.errors import InputError, IntegrityError
from storage.files import read_json
from storage.findings import Finding, failed, failures, not_checkable, passed
from storage.home import Home
from storage.manifests import Manifest
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import check_ref
from storage.versions import load_manifest, version_uri
from tasks.audit.looked import Looked, form_problem, strangers
from tasks.progress import progress

CONFIG_FILE = "config.json"
CORPUS_FILE = "corpus.json"


def corpus_at_hand(home: Home, digest: str) -> Corpus | None:
    """The corpus of a digest when it is in this home and its manifest is whole."""
    try:
        return open_corpus(home, digest)
    except (InputError, IntegrityError, KeyError, TypeError, ValueError):
        return None


def audit_corpus(looked: Looked, manifest: Manifest) -> Iterator[Finding]:
    """The corpus's manifest against its digest, every one of its files, and the embedder."""
    yield from looked.once(f"corpus {manifest.corpus}", lambda: list(_corpus(looked.home, manifest)))
    corpus = corpus_at_hand(looked.home, manifest.corpus)
    if corpus is not None:
        same = corpus.embedder_digest == manifest.embedder
        there = f"the corpus was embedded by {short(corpus.embedder_digest)}"
        check, uri = "embedder of corpus and round", f"{corpus.folder}/{CORPUS_FILE}"
        yield passed(check, there) if same else failed(check, f"{there}, the round by {short(manifest.embedder)}", uri)


def _corpus(home: Home, manifest: Manifest) -> Iterator[Finding]:
    folder = corpus_folder(manifest.corpus)
    uri = f"{folder}/{CORPUS_FILE}"
    if not (home / folder).is_dir():
        yield not_checkable("corpus", f"corpus {short(manifest.corpus)} is not in this home", uri)
        return
    if not (home / uri).exists():
        yield failed("corpus", "is missing: a folder without it is not a corpus", uri)
        yield from _without_manifest(home, folder)
        return
    try:
        corpus = open_corpus(home, manifest.corpus)
    except (InputError, IntegrityError) as error:
        yield failed("corpus", error.message.replace(f"{home.path}/", ""), uri)
        yield from _without_manifest(home, folder)
        return
    except (KeyError, TypeError, ValueError) as error:
        yield failed("corpus", f"its manifest can't be understood ({type(error).__name__}: {error})", uri)
        yield from _without_manifest(home, folder)
        return
    edited = form_problem(home / uri)
    sound = f"its manifest has digest {short(corpus.digest)}"
    yield failed("corpus", edited, uri) if edited else passed("corpus", sound, uri)
    size = sum(path.stat().st_size for path in (home / folder).iterdir() if path.is_file())
    with progress("hashing the corpus", total=size, unit="bytes") as advance:
        for ref in corpus.refs:
            yield _table_file(home, ref)
            advance((home / ref.uri).stat().st_size if (home / ref.uri).exists() else 0)
    known = [CORPUS_FILE, *(Path(ref.uri).name for ref in corpus.refs)]
    for name in strangers(home / folder, known):
        yield failed("corpus file", "is not in the corpus's manifest", f"{folder}/{name}")


def _without_manifest(home: Home, folder: str) -> Iterator[Finding]:
    """The digests stood in the manifest that is damaged: what is left to see is whether a file is a table at all."""
    for path in sorted([*(home / folder).glob("*.parquet"), *(home / folder).glob("*.arrow")]):
        uri = f"{folder}/{path.name}"
        if are_chunk_tokens(path) if path.suffix == ".arrow" else _is_table(path):
            yield not_checkable("corpus file", "its digest stood in the corpus's manifest", uri)
        else:
            yield failed("corpus file", "is not a table of this name", uri)


def _is_table(path: Path) -> bool:
    table = TABLES.get(path.stem.partition("-")[0])
    try:
        with pq.ParquetFile(path) as file:
            return table is not None and file.schema_arrow.equals(table.arrow)
    except (OSError, pa.ArrowInvalid):
        return False


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


def audit_ancestors(looked: Looked, version: str, manifest: Manifest) -> Iterator[Finding]:
    """Parent by parent back to round 1: each parent is there, whole, of the same corpus, and of the policy before.

    A parent's own tables are compared with each other when it is audited itself.
    """
    home = looked.home
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
        files = looked.version(parent_version)
        damaged = failures(files)
        gone = [finding for finding in files if finding.status == "not-checkable"]
        yield from (finding.model_copy(update={"check": check}) for finding in (*damaged, *gone))
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
        if not damaged and not gone:
            yield passed(
                check, f"round {parent.round}, version {short(parent_version)}, {len(parent.files)} files", uri
            )
        child = parent
