"""A training as a page of Markdown: what was trained on what, and how the loss went."""

from __future__ import annotations

from collections.abc import Sequence

from storage.digests import short
from tasks.training.run import TrainingResult

ROWS = 24


def training_report(result: TrainingResult, *, campaign: str = "", links: Sequence[str] = ()) -> str:
    """The page that Prefect shows as artifact ``training-report``: facts, where to look (lines of Markdown), then up to
    24 steps evenly spread.
    """
    rate = result.tokens / result.seconds if result.seconds else 0.0
    facts = {
        "Round": f"{campaign} {result.round}".strip(),
        "Dataset version": f"`{short(result.version)}`",
        "Parent policy": f"`{short(result.parent)}`",
        "Next policy": f"`{short(result.policy)}`",
        "Samples": f"{result.samples:,}",
        "Tokens": f"{result.tokens:,}",
        "Steps": f"{len(result.steps):,}",
        "Seconds": f"{result.seconds:,.1f} ({rate:,.0f} tokens/s)",
        "Loss, first → last": f"{result.first_loss:.4f} → {result.last_loss:.4f} nats a token",
    }
    lines = ["# Training", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    lines += [part for link in links for part in ("", link)]
    if result.resumed_from:
        lines += ["", f"The run was interrupted and went on from step {result.resumed_from}."]
    lines += ["", "| step | loss | learning rate | gradient norm |", "|---:|---:|---:|---:|"]
    lines += [f"| {step} | {loss:.4f} | {rate:.2e} | {norm:.3f} |" for step, loss, rate, norm in _some(result.steps)]
    return "\n".join(lines) + "\n"


def _some(
    steps: tuple[tuple[int, float, float, float], ...],
) -> list[tuple[int, float, float, float]]:
    if len(steps) <= ROWS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (ROWS - 1))] for place in range(ROWS)]
