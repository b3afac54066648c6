"""What an order by expected yield saves, read off the verdicts of a round that verified everything."""

from __future__ import annotations

from storage.home import Home
from tasks.benchmarks.measurement import Figure, Measurement, Target
from tasks.measurements.yield_curves import YieldArm, YieldPoint, YieldReport, yield_report

SHARE = 0.8


def yields(home: Home, version: str) -> list[Measurement]:
    """A row for each order: passes spent to find ``SHARE`` of the positives of a published round."""
    return yield_measurements(yield_report(home, version))


def yield_measurements(report: YieldReport) -> list[Measurement]:
    """The rows of a report; the order by rank stands beside as an alternative of its own."""
    points = {(arm.ordering, arm.budget): point for arm in report.arms if (point := _at(arm)) is not None}
    found = []
    for budget in ("floor", "passes_per_root"):
        ours = points.get(("expected-yield", budget))
        if ours is None:
            continue
        others = [(name, point) for name, point in points.items() if name[0] != "expected-yield"]
        sets = [_set_of(_called(name), point) for name, point in others]
        found.append(
            Measurement(
                name=f"passes for {SHARE:.0%} of the positives, expected-yield with {budget}",
                unit="share of passes",
                ours=Figure.of("expected-yield", [ours.passes]),
                alternatives=tuple(Figure.of(_called(name), [point.passes]) for name, point in others),
                ratio=ours.of_exhaustive,
                ratio_of="ours over any order, for as many positives",
                target=Target(sense="at most", value=1 / 3),
                conditions={
                    "passes": report.passes,
                    "positives": report.positives,
                    "learned from pairs, of earlier shards": report.learned_pairs,
                    "of these kept": report.learned_kept,
                    **_set_of("expected-yield", ours),
                    **{key: value for one in sets for key, value in one.items()},
                },
            )
        )
    return found


def _at(arm: YieldArm) -> YieldPoint | None:
    return next((point for point in arm.points if point.positives >= SHARE - 1e-9), None)


def _called(name: tuple[str, str]) -> str:
    ordering, budget = name
    return ordering if budget == "none" else f"{ordering} with {budget}"


def _set_of(ordering: str, point: YieldPoint) -> dict[str, float]:
    """What the set is like that an order finds: a cheaper set may be another set."""
    return {
        f"literal share of the kept pairs, {ordering}": round(point.literal_share, 3),
        f"mean gain of the kept pairs, {ordering}": round(point.mean_gain, 3),
    }
