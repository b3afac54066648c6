"""The last parts of a page: the verdict of the audit, and how the round was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from storage.manifests import Manifest
from tasks.reporting.blocks import Block, Command, Section, Table, code, prose, strong
from tasks.reporting.round_view import RoundView
from tasks.reporting.visible import visible_line
from tasks.reporting.wording import EMPTY, count, significant

if TYPE_CHECKING:
    from tasks.audit.checks import AuditReport

WORDS = {"passed": "Passed", "failed": "FAILED", "not-checkable": "Not checkable"}


def audit(view: RoundView) -> Section:
    """The verdict, where an audit was run for this page."""
    if view.audit is None:
        blocks: tuple[Block, ...] = (
            prose(
                "No audit was run for this page. An audit recomputes every digest and count and follows every row to"
                " its origin:",
                note=True,
            ),
            Command((f"policylong audit {view.version}", f"policylong report {view.version} --audit")),
        )
        return Section("audit", "Verdict of the audit", blocks)
    return Section(
        "audit", "Verdict of the audit", (*verdict(view.audit), Command((f"policylong audit {view.version}",)))
    )


def verdict(report: AuditReport, of: str = "") -> list[Block]:
    """A report's summary, and what did not pass; ``of`` names what was audited, where a page has several."""
    where = f", {of}" if of else ""
    holds = "Nothing failed: " if not report.failures else "This version does not hold: "
    blocks: list[Block] = [
        prose(
            strong(holds),
            f"{report.summary}. The audit was run when this page was written; it speaks of that moment.",
            note=bool(report.failures),
        )
    ]
    tally: dict[str, Counter[str]] = {}
    for finding in report.findings:
        tally.setdefault(finding.check, Counter())[finding.status] += 1
    rows = tuple(
        (visible_line(check), *(count(found[status]) if found[status] else EMPTY for status in WORDS))
        for check, found in tally.items()
    )
    rest = [finding for finding in report.findings if finding.status != "passed"]
    if rest:
        lines = tuple(
            (WORDS[f.status], visible_line(f.check), visible_line(f.file or EMPTY), visible_line(f.detail))
            for f in rest
        )
        blocks.append(
            Table(f"What did not pass{where}", ("Result", "Check", "File", "Found"), lines, words=frozenset({1, 2, 3}))
        )
    blocks.append(Table(f"Every check{where}", ("Check", *WORDS.values()), rows, folded="Every check, counted"))
    return blocks


def made(view: RoundView) -> Section:
    """Identity, environment and settings of the version, and how to work with it."""
    manifest, found = view.figures.manifest, view.figures.version
    identity = Table(
        "What the version names",
        ("What", "Which"),
        tuple((name, value) for name, value in _identity(manifest, found) if value),
        words=frozenset({1}),
    )
    numeric = manifest.numeric
    threads = f"{numeric.threads} thread{'s' if numeric.threads != 1 else ''}"
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(numeric.versions.items()))
    figures = tuple((name.replace("_", " "), significant(value, 6)) for name, value in sorted(manifest.figures.items()))
    blocks: list[Block] = [
        prose(
            "The version is the SHA-256 of its manifest, which names every file with its own. The same inputs give the"
            f" same version bit for bit in the same environment: {numeric.device}, {numeric.dtype}, {threads} a task"
            + numeric.ways
            + (f"; {libraries}." if libraries else ".")
        ),
        identity,
        Table(
            "Settings of the round",
            ("Setting", "Value"),
            tuple(settings(manifest.config)),
            words=frozenset({1}),
            folded="Every setting",
        ),
    ]
    if figures:
        caption = "Figures that the manifest records"
        blocks.append(Table(caption, ("Figure", "Value"), figures, folded=caption))
    blocks.append(prose("Ask further: a sample's origin token by token, a text's places, a document's reach."))
    blocks.append(
        Command(
            (
                f"policylong trace {view.version} 0",
                f'policylong search {view.version} "some text"',
                "policylong takedown DOCUMENT",
            )
        )
    )
    blocks.append(prose("What each figure means and where it comes from: ", code("docs/method.md"), "."))
    return Section("made", "How it was made", tuple(blocks))


def _identity(manifest: Manifest, version: str) -> Sequence[tuple[str, str | None]]:
    return (
        ("dataset version", version),
        ("recipe", manifest.recipe),
        ("round", str(manifest.round)),
        ("policy that screened", manifest.policy),
        ("its parent", manifest.parent_policy),
        ("version its parent was trained on to give it", manifest.parent_version),
        ("version of the round before", manifest.previous_version),
        ("corpus", manifest.corpus),
        ("embedder", manifest.embedder),
        ("configuration", manifest.config_digest),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in sorted(manifest.seeds.items()))),
        ("versions of the steps' code", ", ".join(f"{name} {n}" for name, n in sorted(manifest.code_versions.items()))),
    )


def settings(config: dict[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """A configuration's values in rows, keys dotted."""
    rows: list[tuple[str, str]] = []
    for key, value in sorted(config.items()):
        if isinstance(value, dict):
            rows += settings(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, visible_line(repr(value) if isinstance(value, str) else str(value))))
    return rows
