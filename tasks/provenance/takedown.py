"""``policylong takedown``: every version, sample and policy that a document reached. It reports and removes nothing.

A version is read through its samples, whose segments name documents by digest, so this needs no corpus; corpora say
what the document is called and which roots were cut from it. Beside the versions it names what unfinished rounds hold,
and where the home knows that versions were exported to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, computed_field

from storage.campaigns import Campaign, list_campaigns, load_campaign
from storage.corpora import Corpus, list_corpora
from storage.digests import short
from storage.errors import InputError, IntegrityError
from storage.home import Home
from storage.policies import PolicyRecord, list_policies
from storage.versions import list_versions
from tasks.audit.subject import Subject
from tasks.exporting.noted import ExportNote, list_exports
from tasks.progress import track
from tasks.provenance.lookup import is_there, open_subject, readable
from tasks.provenance.searching import spans_of
from tasks.provenance.unfinished import UnfinishedReach, unfinished

SHORTEST_ID = 8
_HEX = re.compile(r"[0-9a-f]{1,64}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusReach(_Part):
    """A corpus that holds the document."""

    name: str
    digest: str
    doc_id: str
    row: int = Field(description="The document's number in the corpus.")
    source: str
    title: str
    part: str = Field(description="pretrain, screen, probe or heldout.")
    chunks: int = Field(description="Its chunks in the index.")


class RoleReach(_Part):
    """What the document is in a version's samples."""

    role: str = Field(description="Kind of segment: root, positive, negative, filler, document or tag.")
    samples: int
    segments: int
    tokens: int


class SampleReach(_Part):
    """A sample that holds tokens of the document."""

    row: int
    sample_id: str
    tokens: dict[str, int] = Field(description="Role → tokens.")


class VersionReach(_Part):
    """A dataset version that the document reached."""

    version: str
    round: int
    recipe: str
    campaigns: tuple[str, ...] = Field(description="CAMPAIGN:ROUND of every campaign that names it.")
    roles: tuple[RoleReach, ...]
    samples: tuple[SampleReach, ...]
    screened_roots: int | None = Field(
        description="Roots of the document that were screened: their tokens and queries stand in the version's tables"
        " even when no sample has them; null when the corpus is not in this home."
    )


class PolicyReach(_Part):
    """A policy that was trained on tokens of the document."""

    digest: str
    trained_on: str = Field(description="The version it was trained on itself.")
    direct: bool = Field(description="Whether that version holds the document; else one of its ancestors' does.")
    registered: bool = Field(description="Whether its record is in this home; else a campaign's record names it.")


class ExportReach(_Part):
    """A place outside of the home that a version which the document reached was written to."""

    version: str
    kind: str = Field(description="folder or repository.")
    where: str
    format: str
    there: bool | None = Field(description="Whether the folder holds it now, here; null for a repository.")


class Takedown(_Part):
    """Everything in this home that documents reached."""

    asked: str
    documents: tuple[str, ...] = Field(description="Digests of the documents that were meant.")
    corpora: tuple[CorpusReach, ...]
    versions: tuple[VersionReach, ...]
    policies: tuple[PolicyReach, ...]
    unfinished: tuple[UnfinishedReach, ...] = Field(description="What belongs to no finished version.")
    exports: tuple[ExportReach, ...] = Field(description="Of the versions above, as far as this home noted them.")
    unfollowed: tuple[str, ...] = Field(description="Versions that were exported and are not in this home any more.")
    looked_at: int = Field(description="Versions that were read.")
    unread: tuple[str, ...] = Field(description="What could not be read: the report is incomplete.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0, or 1 when something could not be read."""
        return IntegrityError.exit_code if self.unread else 0

    @property
    def reached(self) -> bool:
        """Whether a version, a policy or unfinished work was reached."""
        return bool(self.versions or self.policies or self.unfinished)


def takedown(home: Home, document: str) -> Takedown:
    """Follows a document, given by its digest (8 digits or more) or by its source as the corpus names it.

    A source may name several documents; they are followed together. Raises ``InputError`` when a beginning of a digest
    is too short or fits several documents.
    """
    asked = document.strip()
    word = asked.lower() if _HEX.fullmatch(asked.lower()) else None
    unread: list[str] = []
    corpora = _corpora(home, unread)
    subjects = list(_subjects(home, unread))
    meant = _by_source(home, corpora, asked)
    if not meant and word is not None:
        if len(word) < SHORTEST_ID:
            raise InputError(
                f"{asked!r} is no document's source, and too short for a digest.",
                hint=f"Give at least {SHORTEST_ID} digits.",
            )
        meant = _by_digest(home, corpora, subjects, word)
        if len(meant) > 1:
            some = ", ".join(short(doc_id, 2 * SHORTEST_ID) for doc_id in sorted(meant)[:3])
            raise InputError(f"{asked} fits {len(meant)} documents: {some}.", hint="Give more digits.")
    documents = sorted(meant)
    held = [reach for corpus in corpora for reach in _held(home, corpus, documents)] if documents else []
    campaigns = [load_campaign(home, name) for name in list_campaigns(home)]
    reaches = (_version(subject, documents, campaigns) for subject in (subjects if documents else ()))
    versions = [reach for reach in track(reaches, len(subjects), "reading samples", "versions") if reach is not None]
    holding = {reach.version for reach in versions if reach.roles}
    published = {entry.sha256 for subject in subjects for entry in subject.manifest.files.values()}
    rest = list(unfinished(home, documents, corpora, published, unread)) if documents else []
    notes = _notes(home, unread)
    reached = {reach.version for reach in versions}
    return Takedown(
        asked=document,
        documents=tuple(documents),
        corpora=tuple(held),
        versions=tuple(sorted(versions, key=lambda reach: (reach.round, reach.version))),
        policies=tuple(_policies(home, holding, campaigns)),
        unfinished=tuple(rest),
        exports=tuple(
            ExportReach(**note.model_dump(), there=note.is_there()) for note in notes if note.version in reached
        ),
        unfollowed=tuple(sorted({note.version for note in notes} - set(list_versions(home)))),
        looked_at=len(subjects),
        unread=tuple(unread),
    )


def _corpora(home: Home, unread: list[str]) -> list[Corpus]:
    try:
        corpora = list_corpora(home)
    except IntegrityError as error:
        unread.append(error.message)
        return []
    whole = [corpus for corpus in corpora if is_there(home, corpus)]
    unread += [f"a table of corpus {short(corpus.digest)} is missing." for corpus in corpora if corpus not in whole]
    return whole


def _subjects(home: Home, unread: list[str]) -> Iterator[Subject]:
    for version in list_versions(home):
        try:
            yield open_subject(home, version)
        except (IntegrityError, InputError) as error:
            unread.append(error.message)


def _notes(home: Home, unread: list[str]) -> list[ExportNote]:
    try:
        return list_exports(home)
    except IntegrityError as error:
        unread.append(error.message)
        return []


def _documents(home: Home, corpus: Corpus) -> pl.LazyFrame:
    scanned = pl.scan_parquet(home / corpus.documents.uri, row_index_name="doc")
    return scanned.select("doc_id", pl.col("doc").cast(pl.Int32), "source", "title", "part")


def _by_source(home: Home, corpora: Iterable[Corpus], source: str) -> set[str]:
    named = [_documents(home, corpus).filter(pl.col("source") == source).select("doc_id") for corpus in corpora]
    return {key for frame in named for key in frame.collect(engine="streaming")["doc_id"]}


def _by_digest(home: Home, corpora: Iterable[Corpus], subjects: Iterable[Subject], word: str) -> set[str]:
    begins = pl.col("doc_id").str.starts_with(word)
    frames = [_documents(home, corpus).filter(begins) for corpus in corpora]
    frames += [spans_of(subject).filter(begins) for subject in subjects]
    return {key for frame in frames for key in frame.select("doc_id").unique().collect(engine="streaming")["doc_id"]}


def _held(home: Home, corpus: Corpus, documents: list[str]) -> Iterator[CorpusReach]:
    rows = _documents(home, corpus).filter(pl.col("doc_id").is_in(documents)).collect(engine="streaming").to_dicts()
    chunks = pl.scan_parquet(home / corpus.chunks.uri).filter(pl.col("doc").is_in([row["doc"] for row in rows]))
    counts = dict(chunks.group_by("doc").agg(pl.len()).collect(engine="streaming").iter_rows())
    for row in rows:
        number = row.pop("doc")
        yield CorpusReach(name=corpus.name, digest=corpus.digest, row=number, chunks=counts.get(number, 0), **row)


def _version(subject: Subject, documents: list[str], campaigns: Iterable[Campaign]) -> VersionReach | None:
    with readable(subject):
        spans = spans_of(subject).filter(pl.col("doc_id").is_in(documents))
        tokens = (pl.col("end") - pl.col("start")).cast(pl.Int64).sum().alias("tokens")
        here = spans.group_by("row", "sample_id", "kind").agg(pl.len().alias("segments"), tokens).sort("row", "kind")
        rows = here.collect(engine="streaming").to_dicts()
        screened = _screened_roots(subject, documents)
    if not rows and not screened:
        return None
    samples: dict[int, SampleReach] = {}
    roles: dict[str, RoleReach] = {}
    for row in rows:
        sample = samples.setdefault(row["row"], SampleReach(row=row["row"], sample_id=row["sample_id"], tokens={}))
        sample.tokens[row["kind"]] = row["tokens"]
        known = roles.get(row["kind"], RoleReach(role=row["kind"], samples=0, segments=0, tokens=0))
        roles[row["kind"]] = RoleReach(
            role=known.role,
            samples=known.samples + 1,
            segments=known.segments + row["segments"],
            tokens=known.tokens + row["tokens"],
        )
    named = [f"{c.name}:{r.round}" for c in campaigns for r in c.rounds if r.version == subject.version]
    return VersionReach(
        version=subject.version,
        round=subject.manifest.round,
        recipe=subject.manifest.recipe,
        campaigns=tuple(named),
        roles=tuple(roles.values()),
        samples=tuple(samples.values()),
        screened_roots=screened,
    )


def _screened_roots(subject: Subject, documents: list[str]) -> int | None:
    if subject.corpus is None:
        return None
    own = subject.documents().filter(pl.col("doc_id").is_in(documents)).select("doc")
    roots = subject.table("roots").join(own, on="doc", how="semi").select("root")
    return len(roots.join(subject.table("screened"), on="root", how="semi").collect(engine="streaming"))


def _on(record: PolicyRecord, versions: set[str]) -> str | None:
    """The first of these versions that gave the policy."""
    return next((version for _, version in record.origins if version in versions), None)


def _policies(home: Home, versions: set[str], campaigns: Iterable[Campaign]) -> Iterator[PolicyReach]:
    """Policies trained on these versions, and whatever was trained from those, in the order of their rounds."""
    reached: set[str] = set()
    records = list_policies(home)
    waiting = list(records)
    while found := [r for r in waiting if _on(r, versions) or r.parent in reached]:
        reached |= {record.digest for record in found}
        waiting = [record for record in waiting if record.digest not in reached]
    for record in records:
        if record.digest in reached:
            yield PolicyReach(
                digest=record.digest,
                trained_on=_on(record, versions) or record.trained_on or "",
                direct=_on(record, versions) is not None,
                registered=True,
            )
    known = {record.digest for record in records}
    for campaign in campaigns:
        for found_round in campaign.rounds:
            following = found_round.next_policy
            direct = found_round.version in versions
            if following and following not in known and (direct or found_round.policy in reached):
                known.add(following)
                reached.add(following)
                yield PolicyReach(digest=following, trained_on=found_round.version, direct=direct, registered=False)
