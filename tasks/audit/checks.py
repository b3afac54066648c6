"""Audit of a dataset version: recomputes every digest of its chain and every row's claim, one line per check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field, computed_field

from storage.errors import InputError, IntegrityError, PolicyError
from storage.findings import Finding, failures, not_checkable
from storage.home import Home
from storage.manifests import Manifest
from storage.policies import policy_folder
from storage.tombstones import explained
from storage.versions import load_manifest, resolve_version
from tasks.audit.campaign_record import audit_campaigns
from tasks.audit.chain import audit_ancestors, audit_config, audit_corpus, corpus_at_hand
from tasks.audit.expectations import audit_expectations
from tasks.audit.flow_runs import audit_flow_runs
from tasks.audit.looked import Looked
from tasks.audit.policies import audit_policies
from tasks.audit.samples import audit_samples
from tasks.audit.subject import Subject
from tasks.audit.tables import audit_counts, audit_tables
from tasks.audit.tokens import Tokenise, audit_tokens
from tasks.audit.tracked import audit_tracking
from tasks.audit.trainings import audit_trainings
from tasks.progress import track


class Deeper(BaseModel):
    """What an audit does beyond reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdicts: int = Field(0, ge=0, description="Verdicts drawn and scored again (tasks.audit.rescoring). [ours]")
    seed: int = Field(0, description="Seed of the draw.")
    rebuild: bool = Field(False, description="Build the round again and compare (tasks.audit.rebuilding). [ours]")


def counted(findings: Iterable[Finding]) -> str:
    """How many findings of each status, in a few words."""
    count = Counter(finding.status for finding in findings)
    return f"{count['passed']} checks passed, {count['failed']} failed, {count['not-checkable']} not checkable"


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
        return counted(self.findings)


def audit_version(home: Home, version: str, *, deeper: Deeper = Deeper(), looked: Looked | None = None) -> AuditReport:
    """Audits a version given as ``resolve_version`` takes it.

    Order: manifest and files, configuration, counts, tables, samples, tokens, corpus, policies, parents, trainings,
    campaign, MLflow, Prefect, and what ``deeper`` asks for. What damaged files would have to prove is
    *not-checkable*, and the damage itself is the failure. ``looked`` is given by an audit of several versions. Raises
    ``InputError`` for a version that is not there; what is wrong with one that is there is in the report.
    """
    known = version if looked is not None else resolve_version(home, version)
    looked = looked or Looked(home)
    findings = list(looked.version(known))
    try:
        manifest = load_manifest(home, known)
    except (IntegrityError, InputError):  # changed, or a recorded round whose manifest is gone
        rest = not_checkable("tables, corpus, policies and parents", "the manifest can't be trusted")
        findings = [explained(home, finding) for finding in findings]
        return AuditReport(version=known, round=None, findings=(*findings, rest))
    findings += audit_config(home, known, manifest)
    corpus = list(audit_corpus(looked, manifest))
    whole = all(finding.status == "passed" for finding in findings)
    content = _content(home, known, manifest, damaged=not whole, corpus_is_whole=not failures(corpus))
    findings += track(content, None, "following rows to their origins", "checks")
    findings += corpus
    for check in (
        audit_policies,
        audit_ancestors,
        audit_trainings,
        audit_campaigns,
        audit_tracking,
        audit_flow_runs,
    ):
        findings += check(looked, known, manifest)
    findings += _deeper(home, known, manifest, deeper, whole=whole)
    findings = [explained(home, finding) for finding in findings]
    return AuditReport(version=known, round=manifest.round, findings=tuple(findings))


def _deeper(home: Home, version: str, manifest: Manifest, deeper: Deeper, *, whole: bool) -> Iterator[Finding]:
    if deeper.verdicts or deeper.rebuild:
        if not whole:
            yield not_checkable("what was asked beyond reading", "files of the version are damaged or gone, see above")
            return
        # Imported on need: both load a policy and torch with it.
        from tasks.audit.rebuilding import rebuild
        from tasks.audit.rescoring import rescore

        if deeper.verdicts:
            yield from rescore(home, version, manifest, deeper.verdicts, deeper.seed)
        if deeper.rebuild:
            yield from rebuild(home, version, manifest)


def _content(
    home: Home, version: str, manifest: Manifest, *, damaged: bool, corpus_is_whole: bool
) -> Iterator[Finding]:
    if damaged:
        yield not_checkable("counts, tables and samples", "files of the version are damaged or gone, see above")
        return
    corpus = corpus_at_hand(home, manifest.corpus) if corpus_is_whole else None
    subject = Subject(home, version, manifest, corpus)
    yield from audit_counts(subject)
    yield from audit_tables(subject)
    yield from audit_samples(subject)
    tokenise, bos = _tokeniser(home, manifest.policy)
    yield from audit_tokens(subject, tokenise, bos)
    yield from audit_expectations(subject, tokenise, bos)


def _tokeniser(home: Home, policy: str) -> tuple[Tokenise | None, tuple[int, ...]]:
    """The policy's tokenizer as a function, and its BOS; ``None`` when the policy is not at hand or damaged."""
    from models.policy import load_tokenizer  # torch is imported only when there is something to tokenise
    from tasks.resources import bos_ids

    try:
        tokenizer = load_tokenizer(policy_folder(home, policy, weights=False))
    except (PolicyError, IntegrityError):
        return None, ()

    def tokenise(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return tokenise, bos_ids(tokenizer)
