"""What each order of verification would have found in finished rounds, and what it would have cost.

    python deploy/checks/yield.py --home .policylong 1 2 3

Reads the verdicts of rounds that verified everything; nothing is written. The exit code is 1 when an order by expected
yield takes more than a third of the passes that any order takes for 80 % of the positives, over all rounds together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage.errors import PolicylongError

if TYPE_CHECKING:
    from tasks.measurements.yield_curves import YieldReport

SHARE = 0.8
LIMIT = 1 / 3


def rows(report: YieldReport) -> Iterable[tuple[str, ...]]:
    """A line for each order, budget and share of the positives."""
    for arm in report.arms:
        for point in arm.points:
            yield (
                arm.ordering,
                arm.budget,
                f"{point.positives:.0%}",
                f"{point.passes:.1%}",
                f"{point.tokens:.1%}",
                f"{point.of_exhaustive:.2f}",
                f"{point.literal_share:.1%}",
                f"{point.mean_gain:.3f}",
                f"{point.density:.3g}" if arm.budget == "floor" else "",
            )


def show(reports: Sequence[YieldReport]) -> None:
    """Prints a table for each round."""
    heads = ("order", "budget", "positives", "passes", "tokens", "of exhaustive", "literal", "mean gain", "floor")
    for report in reports:
        title = (
            f"round {report.round}: {report.passes:,} passes, {report.positives} positives; learned from"
            f" {report.learned_pairs:,} pairs, {report.learned_kept} kept"
        )
        table = Table(*heads, title=title)
        for row in rows(report):
            table.add_row(*row)
        Console(width=120).print(table)


def of_exhaustive(reports: Sequence[YieldReport], budget: str, *, whole: bool = False) -> float:
    """Passes of the expected yield for ``SHARE`` of the positives over those of any order for as many, all rounds
    together; ``whole`` counts the shards that were learned from too.
    """
    spent = wanted = 0.0
    for report in reports:
        arm = next(arm for arm in report.arms if (arm.ordering, arm.budget) == ("expected-yield", budget))
        for point in [point for point in arm.points if point.positives >= SHARE - 1e-9][:1]:
            made, found = point.passes * report.passes, point.positives * report.positives
            passes, positives = report.passes, report.positives
            if whole:
                made, found = made + report.learned_passes, found + report.learned_positives
                passes, positives = passes + report.learned_passes, positives + report.learned_positives
            spent += made
            wanted += passes * found / positives
    return spent / wanted if wanted else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; 0 when the order by expected yield is as cheap as it has to be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("rounds", nargs="+", help="rounds or versions, as policylong audit takes them")
    parser.add_argument("--home", type=Path, default=Path(".policylong"), help="home that has them (.policylong)")
    parser.add_argument("--learning-share", type=float, default=0.125, help="share of the shards learned from (0.125)")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON lines")
    chosen = parser.parse_args(arguments)
    from storage.home import Home
    from tasks.measurements.yield_curves import YieldConfig, yield_report

    config = YieldConfig(learning_share=chosen.learning_share)
    try:
        reports = [yield_report(Home.open(chosen.home), name, config) for name in chosen.rounds]
    except PolicylongError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if chosen.json:
        print("\n".join(report.model_dump_json() for report in reports))
    else:
        show(reports)
    for budget in ("floor", "passes_per_root"):
        after, whole = of_exhaustive(reports, budget), of_exhaustive(reports, budget, whole=True)
        print(
            f"expected yield with {budget}, {SHARE:.0%} of the positives: {after:.2f} of an exhaustive verification's"
            f" passes, {whole:.2f} with the shards that were learned from",
            file=sys.stderr,
        )
    return 0 if of_exhaustive(reports, "floor") <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
