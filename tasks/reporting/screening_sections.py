"""The parts of a round's page about its data: the model that asked, the funnel, where it was uncertain."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.reporting.answers import who_asked
from tasks.reporting.blocks import Block, Plot, Plots, Section, Table, code, prose
from tasks.reporting.charts import bars_chart, histogram_chart
from tasks.reporting.plot_tables import bins_table, middle
from tasks.reporting.round_figures import Refused
from tasks.reporting.round_view import RoundView
from tasks.reporting.wording import count, share
from tasks.rounds.funnel import FUNNEL, TOKENS

REFUSALS = {
    "candidates": "Passages not verified, by reason",
    "passes": "Passes that the budget of verification left out, by reason",
    "negatives": "Hard negatives not taken, by reason",
    "unplaced": "What found no place in a sample, by reason",
}


def model(view: RoundView) -> Section:
    """The policy that asked and its parents back to the base model."""
    rows = []
    for place, ancestor in enumerate(view.figures.policies):
        base = ancestor.known and ancestor.parent is None
        origin = "base model" if base else view.round_of(ancestor.trained_on) if ancestor.trained_on else "not known"
        rows.append((ancestor.digest[:12], "asked here" if place == 0 else "its parent", origin, ancestor.digest))
    caption = "The line of policies, from the one that asked back to the base model"
    columns = ("Policy", "Place in the line", "Trained on", "Whole digest")
    blocks: list[Block] = [
        who_asked(view),
        Table(caption, columns, tuple(rows), words=frozenset({1, 2}), digests=frozenset({0, 3})),
    ]
    following = view.record.next_policy if view.record else None
    if following:
        blocks.append(prose("Training on this round gave policy ", code(following[:12]), "."))
    return Section("model", "The model that asked", tuple(blocks))


def funnel(view: RoundView) -> Section:
    """From roots to samples, what was refused, and what the tokens of the samples are."""
    manifest = view.figures.manifest
    counts = manifest.funnel
    known = [(name, meaning, counts[name]) for name, meaning in FUNNEL.items() if name in counts]
    table = Table("From roots to samples", ("What", "Count"), tuple((meaning, count(n)) for _, meaning, n in known))
    chart = bars_chart(
        "chart-funnel",
        "From roots to samples",
        "Bars of the counts, in the order in which the round makes one from the other. The table has the numbers.",
        [(_short(meaning), float(n), count(n)) for _, meaning, n in known],
    )
    total = manifest.tokens.get("total", 0)
    kinds = [(TOKENS.get(name, name), n) for name, n in manifest.tokens.items() if name != "total" and n]
    order = list(TOKENS.values())
    kinds.sort(key=lambda kind: order.index(kind[0]) if kind[0] in order else len(order))
    tokens = Table(
        f"Tokens of the samples: {count(total)} in all",
        ("Where", "Tokens", "Share"),
        tuple((_place(meaning), count(n), share(n / total)) for meaning, n in kinds),
    )
    drawn = bars_chart(
        "chart-tokens",
        "Tokens of the samples by origin",
        "Bars of the tokens that stand in roots, positives, hard negatives and other spans.",
        [(_place(meaning), float(n), f"{count(n)} ({share(n / total)})") for meaning, n in kinds],
        full=float(total) or None,
    )
    blocks: list[Block] = [
        prose(
            "Counted when the round was built; the counts are part of the version, and an audit counts them again."
            " Probe roots are counted here too, but never stand in a sample."
        )
    ]
    plots = [Plot(chart, table)] + ([Plot(drawn, tokens)] if kinds else [])
    blocks.append(Plots(tuple(plots)))
    if not counts.get("samples", 0):
        blocks.append(prose("There is no sample, so there are no tokens.", note=True))
    blocks += _refusals(view.figures.refused)
    return Section("funnel", "From documents to samples", tuple(blocks))


def _short(meaning: str) -> str:
    return meaning.replace(" (probe roots included)", "").replace(
        "different pairs of root and chunk among the kept", "different positives"
    )


def _place(meaning: str) -> str:
    return meaning.removeprefix("of these, ")


def _refusals(refused: Sequence[Refused]) -> list[Block]:
    blocks: list[Block] = []
    for table, caption in REFUSALS.items():
        rows = [one for one in refused if one.table == table]
        if not rows:
            continue
        kinds, sized = len({one.kind for one in rows}) > 1, any(one.tokens is not None for one in rows)
        named = [(f"{one.kind}: {one.reason}" if kinds or table == "unplaced" else one.reason) for one in rows]
        cells = [
            (name, count(one.rows), *([count(one.tokens)] if sized else []))
            for name, one in zip(named, rows, strict=True)
        ]
        columns = ("Reason", "Rows", *(["Tokens"] if sized else []))
        blocks.append(Table(caption, columns, tuple(cells), folded=caption))
    return blocks


def uncertainty(view: RoundView) -> Section:
    """Where the policy was uncertain: entropies and thresholds."""
    figures = view.figures
    title = "Where the model was uncertain"
    if not figures.threshold.total:
        return Section(
            "uncertainty", title, (prose("This round screened no root: there are no entropies.", note=True),)
        )
    alpha = f" (α = {figures.alpha:g})" if figures.alpha is not None else ""
    entropy = histogram_chart(
        "chart-entropy",
        "Entropy of uncertain tokens, and mean entropy of the roots",
        f"Histogram. {middle('Uncertain tokens', figures.position_entropy)}"
        f" {middle('Means of the roots', figures.root_entropy)}",
        "entropy, nats",
        [("uncertain tokens", figures.position_entropy), ("mean of a root's tokens", figures.root_entropy)],
    )
    threshold = histogram_chart(
        "chart-threshold",
        "Thresholds of the roots",
        f"Histogram. {middle('Thresholds', figures.threshold)}",
        "threshold, nats",
        [("thresholds", figures.threshold)],
    )
    blocks: tuple[Block, ...] = (
        prose(
            f"Every root has a threshold of its own: mean plus α standard deviations{alpha} of its tokens' entropies."
            " The tokens above it are the positions for which help is looked for. Heights are shares of each group."
        ),
        Plots(
            (
                Plot(
                    entropy,
                    bins_table(
                        "Entropies, counted",
                        "Nats",
                        figures.position_entropy,
                        "Uncertain tokens",
                        figures.root_entropy,
                        "Roots",
                    ),
                ),
                Plot(threshold, bins_table("Thresholds, counted", "Nats", figures.threshold, "Roots")),
            )
        ),
    )
    return Section("uncertainty", title, blocks)
