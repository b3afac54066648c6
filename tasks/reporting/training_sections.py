"""The parts of a round's page about what came after its data: training, context gain, benchmarks, cost."""

from __future__ import annotations

from collections.abc import Sequence

from storage.campaigns import RoundRecord
from tasks.reporting.blocks import Block, Command, Heading, Plot, Plots, Section, Table, code, prose
from tasks.reporting.charts import Points, bars_chart, lines_chart
from tasks.reporting.measured import LengthGain, benchmarks, number_of
from tasks.reporting.round_view import RoundView
from tasks.reporting.wording import count, decimal, difference, share, significant

GAIN_COLUMNS = ("Policy", "Long", "Short", "Context gain", "Standard error", "Loss, long", "Loss, short", "Windows")
_PARTS = ("entropy", "verification", "placebo", "negatives")


def training(view: RoundView) -> Section:
    """Losses, context gain by length, benchmark scores."""
    record = view.record
    blocks: list[Block] = []
    first, last = number_of(record, "first_loss"), number_of(record, "last_loss")
    if record is None or record.next_policy is None:
        blocks.append(prose("This home has no record of a training on this round.", note=True))
        blocks.append(Command((f"policylong train {view.version}",)))
    elif first is not None and last is not None:
        blocks.append(
            prose(
                f"Training on {count(number_of(record, 'training_tokens'))} tokens took the loss on the round's own"
                f" samples from {decimal(first, 3)} at the first step to {decimal(last, 3)} at the last. It gave"
                " policy ",
                code(record.next_policy[:12]),
                ".",
            )
        )
    blocks += context_gain(view.gains, names(view))
    blocks += scores([view.record], [f"After round {view.number}"])
    return Section("training", "What the training on it brought", tuple(blocks))


def names(view: RoundView) -> dict[str, str]:
    """The policies of a round's page in words: by what they were trained on."""
    found = {
        ancestor.digest: "base model"
        if ancestor.known and ancestor.parent is None
        else f"after {view.round_of(ancestor.trained_on)}"
        for ancestor in view.figures.policies
    }
    if view.record and view.record.next_policy:
        found[view.record.next_policy] = f"after round {view.number}"
    return found


def context_gain(gains: Sequence[LengthGain], named: dict[str, str]) -> list[Block]:
    """Context gain of each policy at each length, with its standard error."""
    blocks: list[Block] = [
        Heading("Context gain by round and by length"),
        prose(
            "On text held out from everything: loss of the same tokens with a short context minus their loss with a"
            " long one. Above 0 the policy uses what stands far back. It is no benchmark score."
        ),
    ]
    known = [one for one in gains if one.gain is not None]
    if not known:
        return [*blocks, prose("It was not measured, or the held-out text gave no window long enough.", note=True)]
    policies = [policy for policy in named if any(one.policy == policy for one in known)]
    ordered = sorted(policies, key=lambda policy: _stage(named[policy]))
    lengths = sorted({(one.long, one.short) for one in known})
    by_place = {(one.policy, one.long, one.short): one for one in known}
    series = []
    for long, short in lengths:
        found = [by_place.get((policy, long, short)) for policy in ordered]
        values = tuple(one.gain if one else None for one in found)
        errors = tuple(one.standard_error if one else None for one in found)
        series.append(Points(f"{count(long)} tokens against {count(short)}", values, errors))
    chart = lines_chart(
        "chart-context-gain",
        "Context gain of the policies",
        "Points with error bars of one standard error: "
        + "; ".join(f"{named[one.policy]}, {count(one.long)} tokens: {decimal(one.gain, 3)}" for one in known)
        + ".",
        [named[policy] for policy in ordered],
        "nats a token",
        series,
    )
    rows = [
        (
            f"{named[policy]} ({policy[:8]})",
            count(one.long),
            count(one.short),
            difference(one.gain),
            decimal(one.standard_error, 3),
            decimal(one.loss_long, 3),
            decimal(one.loss_short, 3),
            count(one.windows),
        )
        for long, short in lengths
        for policy in ordered
        if (one := by_place.get((policy, long, short))) is not None
    ]
    blocks.append(
        Plots((Plot(chart, Table("Context gain, nats a token; lengths in tokens", GAIN_COLUMNS, tuple(rows))),))
    )
    notes = {one.note for one in known if one.note}
    blocks += [
        prose(f"{', '.join(named[one.policy] for one in known if one.note == note)}: {note}.", note=True)
        for note in sorted(notes)
    ]
    if len(lengths) == 1:
        text = "Measured at one length only. Other lengths: "
        blocks.append(
            prose(text, code("policylong evaluate POLICY --set evaluation.long=TOKENS"), ", then the report again.")
        )
    return blocks


def _stage(name: str) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, name)) if name.startswith("after round") else ""
    return (0, name) if name == "base model" else (1 + int(digits or 0), name)


def scores(records: Sequence[RoundRecord | None], places: Sequence[str]) -> list[Block]:
    """Benchmark scores where the home has any; ``places`` names the records."""
    found = benchmarks(records)
    heading = Heading("Benchmark scores")
    if not found:
        return [heading, prose("This home has no benchmark score of these policies.", note=True)]
    rows = tuple((name, *(significant(value) for value in values)) for name, values in found)
    return [heading, Table("Benchmark scores", ("Benchmark", *places), rows)]


def cost(view: RoundView) -> Section:
    """Screening beside training: seconds, tokens, FLOPs."""
    figures, record = view.figures.manifest.figures, view.record
    title = "What it cost"
    once, screening, literal = (figures.get(name) for name in ("training_flops", "screening_flops", "literal_flops"))
    seconds = tuple(number_of(record, f"{what}_seconds") for what in ("screening", "training"))
    tokens = (figures.get("screening_tokens"), number_of(record, "training_tokens"))
    rows = [
        ("Seconds on this machine", decimal(seconds[0], 1), decimal(seconds[1], 1)),
        ("Tokens read", count(tokens[0]), count(tokens[1])),
        (
            "Floating-point operations",
            significant(screening),
            f"{significant(once)} for one pass" if once else significant(once),
        ),
    ]
    if not any(value is not None for value in (*seconds, *tokens, once, screening)):
        return Section("cost", title, (prose("No cost is recorded for this round.", note=True),))
    blocks: list[Block] = [
        Table("Screening beside training", ("What", "Screening", "Training"), tuple(rows)),
    ]
    ratio = figures.get("screening_flops_per_training_flop")
    if once and screening:
        shown = [("training, one pass over the samples", once), ("screening, as it was run", screening)]
        shown += [("screening, every pair by itself", literal)] if literal else []
        chart = bars_chart(
            "chart-cost",
            "Floating-point operations",
            "Bars of the operations of one training pass and of the screening.",
            [(name, value, significant(value)) for name, value in shown],
        )
        table = Table(
            "Floating-point operations",
            ("What", "Operations", "Per operation of one training pass"),
            tuple((name, significant(value), decimal(value / once)) for name, value in shown),
        )
        blocks.insert(0, Plots((Plot(chart, table),)))
        times = decimal(ratio if ratio is not None else screening / once)
        blocks.insert(0, prose(f"Screening took {times} times the operations of one training pass over the samples."))
    total = sum(figures.get(f"screening_tokens_{part}", 0.0) for part in _PARTS)
    if total:
        parts = [
            (part, figures[f"screening_tokens_{part}"]) for part in _PARTS if f"screening_tokens_{part}" in figures
        ]
        cells = tuple((part, count(value), share(value / total)) for part, value in parts)
        blocks.append(
            Table(
                "Tokens that the screening read",
                ("For", "Tokens", "Share"),
                cells,
                folded="Tokens that the screening read, by step",
            )
        )
    return Section("cost", title, tuple(blocks))
