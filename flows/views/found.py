"""What ``search`` and ``takedown`` print."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from flows.views.trace import tokens
from storage.digests import short
from tasks.provenance.searching import TEXT, Hit, SearchResult
from tasks.provenance.takedown import ExportReach, Takedown, VersionReach
from tasks.provenance.unfinished import UnfinishedReach
from tasks.reporting.visible import visible_line

ROWS = 12
"""Samples of a version that a takedown lists; ``--json`` has all."""


def search_lines(result: SearchResult) -> Iterator[Text]:
    """Hits, each with its sample, tokens and an excerpt."""
    for hit in result.hits:
        yield from _hit(hit)
    count = len(result.hits)
    what = f"'{visible_line(result.asked)}'"
    if not count:
        yield Text(f"no sample of version {short(result.version)} holds {what}")
    elif result.more:
        yield Text(f"{count} shown, there are more: --limit {2 * count} shows more", style="dim")
    for note in result.unknown:
        yield Text(f"not known here: {note}", style="yellow")


def _hit(hit: Hit) -> Iterator[Text]:
    names = " · ".join(dict.fromkeys(name for name in (hit.source, hit.title) if name)) or short(hit.doc_id)
    times = f", {hit.times} times" if hit.times > 1 else ""
    why = "" if hit.matched == TEXT else f" by its {hit.matched}"
    unsure = "" if hit.exact else " (the part of its origin that is left out may be where it stands)"
    head = f"sample {hit.row} ({short(hit.sample_id)}) {tokens(hit.start, hit.end)}"
    yield Text.assemble(
        (head, "bold"), f" · {hit.kind}, segment {hit.segment}{times}{why}{unsure} · {visible_line(names)}"
    )
    parts = [visible_line(part) for part in (hit.before, hit.found, hit.after)]
    if any(parts):
        yield Text.assemble("    ", (parts[0], "dim"), (parts[1], "bold green"), (parts[2], "dim"))


def takedown_lines(report: Takedown) -> Iterator[Text]:
    """What the document reached, or the one line that it reached nothing."""
    asked = f"'{visible_line(report.asked)}'"
    for doc_id in report.documents:
        yield Text(f"document {doc_id}", style="bold")
    for corpus in report.corpora:
        names = visible_line(" · ".join(dict.fromkeys(n for n in (corpus.source, corpus.title) if n)))
        held = f"row {corpus.row}, part {corpus.part}, {corpus.chunks} chunks in the index"
        yield Text(f"  in corpus {corpus.name} ({short(corpus.digest)}): {held} · {names}")
    for version in report.versions:
        yield from _version(version)
    for policy in report.policies:
        how = "trained on" if policy.direct else "descends from one trained on it; itself trained on"
        record = "" if policy.registered else " (no record in this home)"
        yield Text.assemble(
            (f"policy {short(policy.digest)}", "bold"), f": {how} version {short(policy.trained_on)}{record}"
        )
    yield from map(_unfinished, report.unfinished)
    yield from map(_export, report.exports)
    if not report.documents:
        yield Text(f"no corpus and none of the {report.looked_at} versions of this home has a document {asked}")
    elif not report.reached:
        yield Text(f"it reached none of the {report.looked_at} versions of this home, and no policy")
    for problem in report.unread:
        yield Text(f"not read, so this report is incomplete: {problem}", style="bold red")
    if report.unfollowed:
        names = ", ".join(map(short, report.unfollowed))
        yield Text(f"not followed: versions that were exported and are no longer in this home: {names}", style="yellow")
    if report.documents:
        rest = "other homes, copies, exports that this home did not note, and what a base model was made of"
        yield Text(f"not covered: {rest}", style="dim")


def _unfinished(found: UnfinishedReach) -> Text:
    held = f"{_count(found.tokens, 'token')} in {_count(found.samples, 'sample')}"
    if found.roots:
        held = f"{_count(found.roots, 'root')} of it screened"
    return Text.assemble((f"not part of a finished version: {found.uri}", "bold"), f": {held}")


def _export(found: ExportReach) -> Text:
    now = {True: "", False: ", not there any more or not on this machine", None: ", and in its history"}[found.there]
    where = visible_line(found.where)
    return Text.assemble((f"exported to {where}", "bold"), f": version {short(found.version)} as {found.format}{now}")


def _version(version: VersionReach) -> Iterator[Text]:
    named = f", {', '.join(version.campaigns)}" if version.campaigns else ""
    head = f"version {short(version.version)}"
    yield Text.assemble((head, "bold"), f" (round {version.round} of {version.recipe}{named})")
    for role in version.roles:
        yield Text(
            f"  {role.role}: {_count(role.tokens, 'token')} in {_count(role.segments, 'segment')} of"
            f" {_count(role.samples, 'sample')}"
        )
    if version.samples:
        rows = ", ".join(str(sample.row) for sample in version.samples[:ROWS])
        more = f" and {len(version.samples) - ROWS} more (--json has all)" if len(version.samples) > ROWS else ""
        yield Text(f"  samples {rows}{more}")
    if version.screened_roots:
        yield Text(f"  {_count(version.screened_roots, 'root')} of it screened: tokens and queries in the tables")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
