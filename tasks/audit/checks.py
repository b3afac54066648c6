"""Audit of a dataset version: recomputes every digest of its chain and every row's claim, one line per check."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, computed_field

from storage.errors import InputError, IntegrityError, PolicyError
from storage.findings import Finding, failures, not_checkable
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import policy_folder
from storage.versions import load_manifest, resolve_version, verify_version, version_bytes
from tasks.audit.chain import (
    audit_ancestors,
    audit_campaigns,
    audit_config,
    audit_corpus,
    audit_policies,
    audit_tracking,
    corpus_at_hand,
)
from tasks.audit.samples import audit_samples
from tasks.audit.subject import Subject
from tasks.audit.tables import audit_counts, audit_tables
from tasks.audit.tokens import Tokenise, audit_tokens
from tasks.progress import progress, track


class AuditReport(BaseModel):
    """Every check of a version with its result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    round: int | None = Field(description="Round of the version; null when the manifest can't be read.")
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> list[Finding]:
        """The checks that failed."""
        return failures(self.findings)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 when nothing failed, else 1."""
        return IntegrityError.exit_code if self.failures else 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """The counts in one line."""
        count = {
            status: sum(f.status == status for f in self.findings) for status in ("passed", "failed", "not-checkable")
        }
        return f"{count['passed']} checks passed, {count['failed']} failed, {count['not-checkable']} not checkable"


def audit_version(home: Home, version: str) -> AuditReport:
    """Audits a version given as ``resolve_version`` takes it.

    Order: manifest and files, configuration, counts, tables, samples, tokens, corpus, policies, parents, campaign,
    MLflow. What damaged files would have to prove is *not-checkable*, and the damage itself is the failure. Raises
    ``InputError`` for a version that is not there; what is wrong with one that is there is in the report.
    """
    known = resolve_version(home, version)
    with progress("hashing files", total=version_bytes(home, known), unit="bytes") as advance:
        findings = verify_version(home, known, advance=advance)
    try:
        manifest = load_manifest(home, known)
    except (IntegrityError, InputError):  # changed, or a recorded round whose manifest is gone
        rest = not_checkable("tables, corpus, policies and parents", "the manifest can't be trusted")
        return AuditReport(version=known, round=None, findings=(*findings, rest))
    findings += audit_config(home, known, manifest)
    corpus = list(audit_corpus(home, manifest))
    content = _content(home, known, manifest, damaged=bool(failures(findings)), corpus_is_whole=not failures(corpus))
    findings += track(content, None, "following rows to their origins", "checks")
    findings += corpus
    for check in (audit_policies, audit_ancestors, audit_campaigns, audit_tracking):
        findings += check(home, known, manifest)
    return AuditReport(version=known, round=manifest.round, findings=tuple(findings))


def _content(
    home: Home, version: str, manifest: Manifest, *, damaged: bool, corpus_is_whole: bool
) -> Iterator[Finding]:
    if damaged:
        yield not_checkable("counts, tables and samples", "files of the version are damaged, see above")
        return
    corpus = corpus_at_hand(home, manifest.corpus) if corpus_is_whole else None
    subject = Subject(home, version, manifest, corpus)
    yield from audit_counts(subject)
    yield from audit_tables(subject)
    yield from audit_samples(subject)
    tokenise, bos = _tokeniser(home, manifest.policy)
    yield from audit_tokens(subject, tokenise, bos)


def _tokeniser(home: Home, policy: str) -> tuple[Tokenise | None, tuple[int, ...]]:
    """The policy's tokenizer as a function, and its BOS; ``None`` when the policy is not at hand or damaged."""
    from models.policy import load_tokenizer  # torch is imported only when there is something to tokenise
    from tasks.resources import bos_ids

    try:
        tokenizer = load_tokenizer(policy_folder(home, policy))
    except (PolicyError, IntegrityError):
        return None, ()

    def tokenise(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tokenise, bos_ids(tokenizer)
