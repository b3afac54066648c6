"""The parts of a round's page about what the passages did: gains, and how far away the help stands."""

from __future__ import annotations

from tasks.reporting.blocks import Block, Plot, Plots, Section, Table, prose
from tasks.reporting.charts import bars_chart, histogram_chart
from tasks.reporting.histograms import DistanceBucket
from tasks.reporting.measured import attributable
from tasks.reporting.plot_tables import bins_table, middle
from tasks.reporting.round_view import RoundView
from tasks.reporting.wording import EMPTY, count, decimal, share


def gain(view: RoundView) -> Section:
    """The gains of all verified pairs beside those of random passages."""
    figures, judged = view.figures, view.figures.judged
    title = "What the passages did to the uncertainty"
    if judged is None or not judged.verdicts:
        why = "This recipe verifies no pairs." if judged is None else "No pair of a token and a passage was verified."
        return Section("gain", title, (prose(why, note=True),))
    epsilon = figures.epsilon
    series = [("retrieved passages", figures.gain)]
    if figures.placebo_gain.total:
        series.append(("random passages of the same length", figures.placebo_gain))
    chart = histogram_chart(
        "chart-gain",
        "Gain of the verified pairs",
        f"Histogram. {middle('Retrieved passages', figures.gain)} Right of the line stand"
        f" the {count(judged.kept)} pairs that were kept.",
        "gain (share of the entropy that goes)",
        series,
        [(epsilon, f"kept above {epsilon:g}")] if epsilon is not None else [],
    )
    numbers = bins_table(
        "Gains, counted; the first bin holds all below it too",
        "Gain",
        figures.gain,
        "Retrieved",
        figures.placebo_gain if len(series) > 1 else None,
        "Random",
    )
    facts = Table(
        "Kept pairs, means before and after",
        ("Of the uncertain token", "Without the passage", "With it in front"),
        (
            ("Entropy, nats", decimal(judged.entropy_before), decimal(judged.entropy_after)),
            ("Negative log-likelihood, nats", decimal(judged.nll_before), decimal(judged.nll_after)),
        ),
    )
    impossible = "kept pairs whose token the model can't produce (left out of the likelihoods)"
    masked = ((impossible, count(judged.impossible), _part(judged.impossible, judged.kept)),)
    checks = Table(
        "What tempers these numbers",
        ("Check", "Pairs", "Share"),
        (
            *(masked if judged.impossible else ()),
            ("kept pairs that are literal (copying)", count(judged.literal), _part(judged.literal, judged.kept)),
            (
                "kept pairs after which the token is less likely",
                count(judged.less_right),
                _part(judged.less_right, judged.kept),
            ),
            (
                "random passages that would have been kept",
                count(judged.placebos_kept),
                _part(judged.placebos_kept, judged.placebos),
            ),
        ),
    )
    plots = [Plot(chart, numbers)]
    if judged.kept:
        name = "Gain of the kept pairs alone"
        summary = f"Histogram. {middle('Kept pairs', figures.kept_gain)}"
        kept = histogram_chart("chart-kept", name, summary, "gain", [("kept pairs", figures.kept_gain)])
        plots.append(Plot(kept, bins_table("Gains of the kept pairs, counted", "Gain", figures.kept_gain, "Kept")))
    said = prose("Most passages change little. The few that take away more than the limit are the round's positives.")
    return Section("gain", title, (said, Plots(tuple(plots)), facts, checks))


def _part(some: int, whole: int) -> str:
    return share(some / whole) if whole else EMPTY


def distance(view: RoundView) -> Section:
    """The dependencies of the samples by distance: how many, and their gain."""
    title, buckets = "How far away the help stands", view.figures.distances
    if not buckets:
        why = "No sample records a dependency, so there is no distance."
        return Section("distance", title, (prose(why, note=True),))
    total = sum(bucket.count for bucket in buckets)
    names = [distances(bucket) for bucket in buckets]
    table = Table(
        f"Dependencies by distance, in tokens: {count(total)} in all",
        ("Distance", "Dependencies", "Share", "Mean gain", "Entropy before", "Entropy after"),
        tuple(
            (
                name,
                count(bucket.count),
                share(bucket.count / total),
                decimal(bucket.gain, 3),
                decimal(bucket.entropy_before),
                decimal(bucket.entropy_after),
            )
            for name, bucket in zip(names, buckets, strict=True)
        ),
    )
    many = bars_chart(
        "chart-distance",
        "Dependencies by distance",
        f"Bars. Distances from {names[0]} to {names[-1]} tokens; the table has the numbers.",
        [(f"{name} tokens", float(b.count), count(b.count)) for name, b in zip(names, buckets, strict=True)],
    )
    strength = bars_chart(
        "chart-gain-distance",
        "Mean gain by distance",
        "Bars. Mean recorded gain of the dependencies of each range of distances; a full bar is a gain of 1.",
        [(f"{name} tokens", max(b.gain, 0.0), decimal(b.gain, 3)) for name, b in zip(names, buckets, strict=True)],
        full=1.0,
    )
    blocks: list[Block] = [
        prose(
            "Distance is counted in the finished sample, from the end of the passage to the token it helps. The gain is"
            " that of the verdict, where the passage stood right in front of the root."
        ),
        Plots((Plot(many, None), Plot(strength, None))),
        table,
        *_attributable(view),
    ]
    return Section("distance", title, tuple(blocks))


def distances(bucket: DistanceBucket) -> str:
    """A bucket's distances in words."""
    return f"under {count(bucket.high)}" if not bucket.low else f"{count(bucket.low)} to {count(bucket.high - 1)}"


def _attributable(view: RoundView) -> list[Block]:
    found = attributable(view.record)
    if not found:
        return [
            prose(
                "Whether the help survives at that distance was not measured (attributable gain: measures.attribution"
                " in the preset).",
                note=True,
            )
        ]
    rows = tuple((f"from {count(low)}", decimal(before, 3), decimal(after, 3)) for low, before, after in found)
    caption = "Attributable gain: what is lost when the passage is replaced by a random one in the finished sample"
    return [Table(caption, ("Distance, tokens", "Before the training", "After it"), rows)]
