"""The artifacts of a round in Prefect's pages: ``round-report`` (Markdown) and ``round-funnel`` (table)."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from storage.digests import short
from storage.manifests import Manifest
from tasks.rounds.funnel import FUNNEL, TOKENS


def round_markdown(manifest: Manifest, version: str, links: Sequence[str] = ()) -> str:
    """The report of a round for people: origin, counts, tokens, figures, where to look (lines of Markdown), and how to
    audit it.
    """
    lines = [
        f"# Round {manifest.round}: dataset version `{short(version)}`",
        "",
        f"Recipe `{manifest.recipe}`, screened by policy `{short(manifest.policy)}`"
        + (f", trained on `{short(manifest.parent_version)}`." if manifest.parent_version else " (base model)."),
        "",
        "| from roots to samples | |",
        "|---|---:|",
        *(f"| {meaning} | {manifest.funnel[name]:,} |" for name, meaning in FUNNEL.items() if name in manifest.funnel),
        "",
        "| tokens | |",
        "|---|---:|",
        *(f"| {meaning} | {manifest.tokens.get(name, 0):,} |" for name, meaning in TOKENS.items()),
        "",
        "| figure | |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in sorted(manifest.figures.items())),
        *(part for link in links for part in ("", link)),
        "",
        f"Prove it: `policylong audit {short(version)}`",
    ]
    return "\n".join(lines)


def report_round(manifest: Manifest, version: str, links: Sequence[str] = ()) -> None:
    """Writes both artifacts into the current flow run."""
    create_markdown_artifact(
        round_markdown(manifest, version, links),
        key="round-report",
        description=f"Round {manifest.round}, {short(version)}",
    )
    counts = manifest.funnel
    create_table_artifact(
        [{"step": meaning, "count": counts[name]} for name, meaning in FUNNEL.items() if name in counts],
        key="round-funnel",
        description=f"Round {manifest.round}, {short(version)}",
    )
