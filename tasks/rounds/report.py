"""The artifacts of a round in Prefect's pages: ``round-report`` (Markdown) and ``round-funnel`` (table)."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from storage.digests import short
from storage.manifests import Manifest
from tasks.rounds.funnel import FUNNEL, TOKENS


def round_markdown(manifest: Manifest, version: str) -> str:
    """The report of a round for people: origin, counts, tokens, figures, and how to audit it."""
    lines = [
        f"# Round {manifest.round}: dataset version `{short(version)}`",
        "",
        f"Recipe `{manifest.recipe}`, screened by policy `{short(manifest.policy)}`"
        + (f", trained on `{short(manifest.parent_version)}`." if manifest.parent_version else " (base model)."),
        "",
        "| from roots to samples | |",
        "|---|---:|",
        *(f"| {meaning} | {manifest.funnel.get(name, 0):,} |" for name, meaning in FUNNEL.items()),
        "",
        "| tokens | |",
        "|---|---:|",
        *(f"| {meaning} | {manifest.tokens.get(name, 0):,} |" for name, meaning in TOKENS.items()),
        "",
        "| figure | |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {value:.4g} |" for name, value in sorted(manifest.figures.items())),
        "",
        f"Prove it: `policylong audit {short(version)}`",
    ]
    return "\n".join(lines)


def report_round(manifest: Manifest, version: str) -> None:
    """Writes both artifacts into the current flow run."""
    create_markdown_artifact(
        round_markdown(manifest, version), key="round-report", description=f"Round {manifest.round}, {short(version)}"
    )
    create_table_artifact(
        [{"step": meaning, "count": manifest.funnel.get(name, 0)} for name, meaning in FUNNEL.items()],
        key="round-funnel",
        description=f"Round {manifest.round}, {short(version)}",
    )
