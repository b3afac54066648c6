"""A built round in a few lines for the terminal and the log: how far its funnel went, and where it ended if it did."""

from __future__ import annotations

from storage.digests import short
from storage.manifests import Manifest

_STAGES = ("roots", "positions", "candidates", "positives", "negatives", "samples")
_ENDINGS = {
    "roots": "No root was screened",
    "positions": "The policy is nowhere uncertain enough: lower build.entropy.alpha, or screen with a policy that knows"
    " this kind of text",
    "candidates": "Retrieval found nothing: raise build.retrieval.top_k, or ingest more text",
    "positives": "No candidate lowered the policy's entropy enough: screen more roots (build.roots.roots_per_round),"
    " lower build.entropy.alpha for more positions, or screen with a policy that is helped by context",
}
_TOO_LITTLE = (
    "What was found does not fill a sample: screen more roots (build.roots.roots_per_round) or lower"
    " build.assembly.target_tokens"
)


def round_summary(manifest: Manifest, version: str) -> list[str]:
    """One line with the counts of the funnel; a second where the budget was not filled or there is no sample at all."""
    counts = ", ".join(f"{manifest.funnel[stage]:,} {stage}" for stage in _STAGES if manifest.funnel.get(stage))
    lines = [
        f"round {manifest.round} ({manifest.recipe}): {counts or 'nothing'},"
        f" {manifest.tokens.get('total', 0):,} tokens · {short(version)}"
    ]
    if not manifest.funnel.get("samples"):
        lines.append(f"This round has no samples, so nothing can be trained on it. {_ending(manifest)}.")
    elif missing := int(manifest.figures.get("shortfall_tokens", 0)):
        lines.append(
            f"The budget (build.tokens) asked for {missing:,} tokens more than could be filled; table unplaced says"
            " what found no place."
        )
    return lines


def _ending(manifest: Manifest) -> str:
    """Where the funnel ended; whole-document recipes have no funnel, only too little text for a sample."""
    if not manifest.funnel.get("roots"):
        return _TOO_LITTLE.replace("screen more roots (build.roots.roots_per_round)", "ingest more text")
    return next((_ENDINGS[stage] for stage in _ENDINGS if not manifest.funnel.get(stage)), _TOO_LITTLE)
