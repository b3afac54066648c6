"""The parts of a campaign's page that set its rounds side by side: gain, drift, distance, cost."""

from __future__ import annotations

from tasks.provenance.differences import Distribution
from tasks.reporting.blocks import Block, Command, Heading, Plot, Plots, Section, Table, prose
from tasks.reporting.change_section import OVERLAP_COLUMNS, overlap_row
from tasks.reporting.charts import Points, bars_chart, histogram_chart, lines_chart
from tasks.reporting.drift import RoundDrift
from tasks.reporting.gain_sections import distances
from tasks.reporting.histograms import DistanceBucket, Histogram
from tasks.reporting.measured import number_of
from tasks.reporting.plot_tables import bins_table, middle
from tasks.reporting.round_view import RoundView
from tasks.reporting.wording import EMPTY, count, decimal, share, significant

Rounds = tuple[RoundView, ...]


def uncertainty(rounds: Rounds) -> Section:
    """Entropies and thresholds of the first and the last round over each other."""
    title = "Where the models were uncertain"
    first, last = rounds[0], rounds[-1]
    if not first.figures.threshold.total or not last.figures.threshold.total:
        return Section("uncertainty", title, (prose("These rounds screened no roots to compare.", note=True),))
    ends = [last, first] if last is not first else [last]
    plots = []
    for ident, name, axis, found in (
        ("chart-entropy", "Entropy of uncertain tokens", "entropy, nats", [v.figures.position_entropy for v in ends]),
        ("chart-threshold", "Thresholds of the roots", "threshold, nats", [v.figures.threshold for v in ends]),
    ):
        named = [(f"round {view.number}", one) for view, one in zip(ends, found, strict=True)]
        said = "Histogram. " + " ".join(middle(which.capitalize(), one) for which, one in named)
        table = bins_table(f"{name}, counted", "Nats", named[0][1], named[0][0], *_other(named))
        plots.append(Plot(histogram_chart(ident, name, said, axis, named), table))
    text = "All roots of the first and the last round. Rounds take other roots: this is not the policy's change alone."
    return Section("uncertainty", title, (prose(text), Plots(tuple(plots))))


def _other(named: list[tuple[str, Histogram]]) -> tuple[Histogram, str] | tuple[()]:
    return (named[1][1], named[1][0]) if len(named) > 1 else ()


def gains_by_round(rounds: Rounds) -> Section:
    """Kept share, mean gain, and what tempers them, by round."""
    title = "What the passages did to the uncertainty"
    if all(view.figures.judged is None for view in rounds):
        return Section("gain", title, (prose("No round verified anything.", note=True),))
    places = _places(rounds)
    judged = [view.figures.judged for view in rounds]
    kept = [one.kept / one.verdicts if one and one.verdicts else None for one in judged]
    gain = [one.gain if one else None for one in judged]
    columns = ("Round", "Verified", "Kept", "Kept share", "Mean gain", "Entropy before", "Entropy after", "Literal")
    rows = tuple(
        (
            place,
            count(one.verdicts),
            count(one.kept),
            share(part),
            decimal(one.gain, 3),
            decimal(one.entropy_before),
            decimal(one.entropy_after),
            share(one.literal / one.kept) if one.kept else EMPTY,
        )
        for place, one, part in zip(places, judged, kept, strict=True)
        if one is not None
    )
    caption = "Verified pairs by round; means over the kept ones, entropies in nats"
    table = Table(caption, columns, rows)
    plots = (
        Plot(
            lines_chart(
                "chart-kept-share",
                "Share of the verified pairs that was kept",
                f"Points by round: {_words(places, [share(part) for part in kept])}.",
                places,
                "share",
                [Points("kept", tuple(kept))],
            ),
            None,
        ),
        Plot(
            lines_chart(
                "chart-mean-gain",
                "Mean gain of the kept pairs",
                f"Points by round: {_words(places, [decimal(one, 3) for one in gain])}.",
                places,
                "gain",
                [Points("mean gain", tuple(gain))],
            ),
            None,
        ),
    )
    return Section("gain", title, (Plots(plots), table))


def drift(rounds: Rounds) -> Section:
    """The probe set from round to round."""
    title = "What changed from round to round"
    pairs = [(view, view.drift) for view in rounds if isinstance(view.drift, RoundDrift)]
    if not pairs:
        return Section("change", title, (prose("There are no two rounds to compare.", note=True),))
    places = [f"{view.round_of(found.found.first)} → {view.number}".replace("round ", "") for view, found in pairs]
    rows, series = [], []
    for what, name in (("positions", "uncertain tokens"), ("positives", "positives")):
        overlaps = [found.overlap(what) for _, found in pairs]
        series.append(Points(name, tuple(one.share if one else None for one in overlaps)))
        rows += [overlap_row(f"{name}, {place}", one) for place, one in zip(places, overlaps, strict=True) if one]
    blocks: list[Block] = [
        prose(
            "The probe set is screened in every round and never trained on, so on it the policy is all that differs."
            " Common is the share of those in both rounds among those in either."
        )
    ]
    if rows:
        table = Table("The probe set from one round to the next", OVERLAP_COLUMNS, tuple(rows))
        words = "; ".join(f"{row[0]}: {row[-1]}" for row in rows)
        said = f"Points by pair of rounds: {words}."
        chart = lines_chart("chart-overlap", "What two rounds have in common", said, places, "share", series)
        blocks.append(Plots((Plot(chart, table),)))
    else:
        blocks.append(prose("The rounds have no probe set with uncertain tokens in common.", note=True))
    blocks += [Heading("The probe set's figures side by side"), _figures(pairs)]
    blocks.append(Command(tuple(f"policylong diff {f.found.first[:12]} {f.found.second[:12]}" for _, f in pairs)))
    return Section("change", title, tuple(blocks))


def _figures(pairs: list[tuple[RoundView, RoundDrift]]) -> Table:
    rows = []
    for what, unit in (("entropy", "nats"), ("threshold", "nats"), ("gain", "")):
        seen: dict[str, Distribution] = {}
        for view, found in pairs:
            one = next(drifted for drifted in found.drifts("probe") if drifted.what == what)
            seen.setdefault(view.round_of(found.found.first), one.first)
            seen[f"round {view.number}"] = one.second
        for place, side in seen.items():
            values = (side.mean, side.lower, side.median, side.upper)
            name = f"{what} ({unit})" if unit else what
            rows.append((f"{name}, {place}", count(side.count), *(decimal(value, 3) for value in values)))
    columns = ("Figure", "Count", "Mean", "Lower quarter", "Median", "Upper quarter")
    return Table("Uncertain tokens, thresholds and kept pairs of the probe set", columns, tuple(rows))


def by_distance(rounds: Rounds) -> Section:
    """Mean gain and number of dependencies by distance and round."""
    title = "How far away the help stands"
    buckets: dict[int, DistanceBucket] = {}
    for view in rounds:
        buckets |= {bucket.low: bucket for bucket in view.figures.distances}
    if not buckets:
        return Section("distance", title, (prose("No sample records a dependency.", note=True),))
    order = [buckets[low] for low in sorted(buckets)]
    by_round = [{bucket.low: bucket for bucket in view.figures.distances} for view in rounds]
    rows = []
    for bucket in order:
        cells: list[str] = []
        for known in by_round:
            one = known.get(bucket.low)
            cells += [count(one.count if one else 0), decimal(one.gain if one else None, 3)]
        rows.append((distances(bucket), *cells))
    columns = [name for view in rounds for name in (f"Round {view.number}: number", "mean gain")]
    table = Table("Dependencies of the samples by distance in tokens", ("Distance", *columns), tuple(rows))
    ends = sorted({0, len(rounds) - 1})
    chart = lines_chart(
        "chart-gain-distance",
        "Mean gain by distance" + (", first and last round" if len(ends) > 1 else ""),
        "Points by range of distances, in tokens: the smallest of each range is named. The table has the numbers.",
        [f"from {count(bucket.low)}" for bucket in order],
        "gain",
        [
            Points(
                f"round {rounds[place].number}",
                tuple(one.gain if (one := by_round[place].get(bucket.low)) else None for bucket in order),
            )
            for place in ends
        ],
    )
    text = "Distance in the finished sample, from the end of the passage to the token it helps; gain as in the verdict."
    return Section("distance", title, (prose(text), Plots((Plot(chart, table),))))


def costs(rounds: Rounds) -> Section:
    """Screening beside training, by round."""
    rows, bars = [], []
    for view in rounds:
        figures = view.figures.manifest.figures
        seconds = [number_of(view.record, f"{what}_seconds") for what in ("screening", "training")]
        flops = [figures.get(f"{what}_flops") for what in ("screening", "training")]
        ratio = figures.get("screening_flops_per_training_flop")
        cells = (*(decimal(value, 1) for value in seconds), *(significant(value) for value in flops), decimal(ratio))
        rows.append((f"Round {view.number}", *cells))
        for what, value in zip(("screening", "training"), seconds, strict=True):
            if value is not None:
                bars.append((f"Round {view.number}, {what}", value, f"{decimal(value, 1)} s"))
    columns = ("Round", "Screening, s", "Training, s", "Screening, FLOPs", "One training pass, FLOPs", "Ratio of FLOPs")
    table = Table("Screening beside training, by round; seconds are of this machine", columns, tuple(rows))
    if not bars:
        return Section("cost", "What it cost", (table,))
    chart = bars_chart("chart-cost", "Seconds by round", "Bars of the seconds of screening and training.", bars)
    return Section("cost", "What it cost", (Plots((Plot(chart, None),)), table))


def _places(rounds: Rounds) -> list[str]:
    return [f"Round {view.number}" for view in rounds]


def _words(places: list[str], values: list[str]) -> str:
    return "; ".join(f"{place}: {value}" for place, value in zip(places, values, strict=True))
