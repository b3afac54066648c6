"""``policylong status``: what a home holds, what is running in it, how far a campaign is, and the next command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from flows.journal import running_steps
from flows.standing.overview import overview
from storage.campaigns import Campaign, current_name, list_campaigns, load_campaign
from storage.corpora import Corpus, list_corpora
from storage.digests import short
from storage.home import Home
from storage.policies import list_policies
from storage.versions import list_versions


def show_status(console: Console, path: Path) -> None:
    """Prints the status of a home; makes nothing."""
    for line in status_lines(path):
        heading = not line.startswith(" ")
        console.print(Text(line, style="bold" if heading else ""), soft_wrap=True)


def status_lines(path: Path) -> Iterator[str]:
    """The status as lines; headings are not indented, and the last line names the next command."""
    if not (path / "home.json").is_file():
        yield f"no home in {path} yet"
        yield "  next: policylong run"
        return
    home = Home.open(path)
    installation = overview(home)
    yield f"home {home.path}"
    if installation is not None:
        yield from _section("installation", iter(installation.services))
        yield from _section("flow runs", iter(installation.runs))
    yield from _section("corpora", _corpora(home))
    yield from _section("policies", _policies(home))
    campaigns = [load_campaign(home, name) for name in list_campaigns(home)]
    current = current_name(home)
    for campaign in campaigns:
        marker = " (current)" if campaign.name == current else ""
        yield from _section(f"campaign {campaign.name}{marker}", _rounds(campaign))
    yield from _section("dataset versions of no campaign", _strays(home, campaigns))
    running = list(_running(home))
    yield from _section("running", running)
    yield "next"
    if installation is not None and installation.next:
        yield f"  {installation.next}"
        return
    yield f"  {_next(next((c for c in campaigns if c.name == current), None), bool(running))}"


def _section(heading: str, lines: Iterator[str] | list[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield heading
        yield from (f"  {line}" for line in found)


def _corpora(home: Home) -> Iterator[str]:
    yield from map(corpus_line, list_corpora(home))


def corpus_line(corpus: Corpus) -> str:
    """Name, digest and counts of a corpus."""
    counts = f"{corpus.documents.rows:,} documents, {corpus.chunks.rows:,} chunks"
    return f"{corpus.name or '–'}  {short(corpus.digest)}  {counts}, {corpus.quarantine.rows:,} rows refused"


def _policies(home: Home) -> Iterator[str]:
    for record in list_policies(home):
        origin = f"trained on {short(record.trained_on)}" if record.trained_on else "base model"
        yield f"{short(record.digest)}  {origin}"


def _rounds(campaign: Campaign) -> Iterator[str]:
    for record in campaign.rounds:
        following = f"policy {short(record.next_policy)}" if record.next_policy else "not trained on yet"
        yield f"round {record.round}  version {short(record.version)}  {following}"
    yield f"{_finished(campaign)} of {_planned(campaign)} rounds finished"


def _strays(home: Home, campaigns: list[Campaign]) -> Iterator[str]:
    known = {record.version for campaign in campaigns for record in campaign.rounds}
    yield from (short(version) for version in list_versions(home) if version not in known)


def _running(home: Home) -> Iterator[str]:
    for running in running_steps(home):
        yield f"{running.step} for {time.time() - running.since:.0f} s in process {running.pid}"


def _planned(campaign: Campaign) -> int:
    return int(campaign.config.get("build", {}).get("rounds", 0))


def _finished(campaign: Campaign) -> int:
    return sum(record.next_policy is not None for record in campaign.rounds)


def _next(campaign: Campaign | None, running: bool) -> str:
    if running:
        return "wait; this command shows how far it is"
    if campaign is None:
        return "policylong run"
    if _finished(campaign) < _planned(campaign):
        waiting = next((record for record in campaign.rounds if record.next_policy is None), None)
        elsewhere = not campaign.config.get("campaign", {}).get("train", True)
        if waiting is not None and elsewhere:
            return f"policylong policy add PATH --trained-on {short(waiting.version)}, then the run command again"
        return "the same policylong run command as before carries on"
    return f"policylong audit {campaign.rounds[-1].round}" if campaign.rounds else "policylong run"
