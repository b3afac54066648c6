"""A comparison for people: its tables as rows of text, what they do not show, and the whole as a page of Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from storage.digests import short
from tasks.comparison.result import KINDS, Comparison, Spread

DASH = "–"


@dataclass(frozen=True, slots=True)
class Section:
    """One table: a row per recipe, the recipe's name in the first column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sections(found: Comparison) -> list[Section]:
    """The tables, in order: gain, gain by round, origin of the tokens, data and cost."""
    return [_gains(found), _by_round(found), _origins(found), _costs(found)]


def _gains(found: Comparison) -> Section:
    base = found.base
    first = ("base model", _nats(base.gain), _nats(base.standard_error), _nats(base.loss_long))
    rows = [
        (
            recipe,
            _spread(figures["context_gain"], found.seeds),
            _mean(figures["standard_error"], _nats),
            _mean(figures["heldout_loss"], _nats),
        )
        for recipe, figures in _recipes(found)
    ]
    how = {1: "one seed", 2: "mean (min … max) of 2 seeds"}.get(
        found.seeds, f"mean ± standard deviation of {found.seeds} seeds"
    )
    return Section(
        f"Context gain on held-out text, nats a token: {how}",
        ("recipe", "context gain", "std. error", "held-out loss"),
        (first, *rows),
    )


def _by_round(found: Comparison) -> Section:
    numbers = range(1, found.rounds + 1)
    rows = tuple(
        (recipe, _nats(found.base.gain), *(_mean(figures[f"context_gain_round_{n}"], _nats) for n in numbers))
        for recipe, figures in _recipes(found)
    )
    return Section("Context gain after each round, means", ("recipe", "base", *(f"round {n}" for n in numbers)), rows)


def _origins(found: Comparison) -> Section:
    names = [*(f"share_{kind}" for kind in (*KINDS, "other")), "share_unique"]
    rows = tuple(
        (recipe, *(_mean(figures[name], lambda share: f"{100 * share:.1f}") for name in names))
        for recipe, figures in _recipes(found)
    )
    return Section("Where the tokens come from, %", ("recipe", *KINDS, "other", "unique"), rows)


def _costs(found: Comparison) -> Section:
    names = ("data_tokens", "training_tokens", "positives", "screening_seconds", "training_seconds")
    rows = tuple(
        (recipe, *(_mean(figures[name], lambda count: f"{count:,.0f}") for name in names))
        for recipe, figures in _recipes(found)
    )
    columns = ("recipe", "data", "trained on", "positives", "screening", "training")
    return Section("Tokens, verified positives and seconds of an arm, means", columns, rows)


def _recipes(found: Comparison) -> list[tuple[str, dict[str, Spread | None]]]:
    return [(recipe, found.summary[recipe]) for recipe in found.recipes]


def _nats(value: float | None) -> str:
    return DASH if value is None else f"{value:.4f}"


def _mean(spread: Spread | None, form: Callable[[float], str]) -> str:
    return DASH if spread is None else form(spread.mean)


def _spread(spread: Spread | None, seeds: int) -> str:
    if spread is None or seeds == 1:
        return _mean(spread, _nats)
    if spread.deviation is None:
        return f"{spread.mean:.4f} ({spread.low:.4f} … {spread.high:.4f})"
    return f"{spread.mean:.4f} ± {spread.deviation:.4f}"


def notes(found: Comparison) -> list[str]:
    """What a reader has to know before believing the tables, one sentence or two each."""
    said = [_on_seeds(found), *_on_equal_seeds(found), *_on_error(found), *_on_difference(found)]
    said.append(
        "The held-out text is of the same corpus as the training data: other tasks, model sizes and budgets are not"
        " measured here."
    )
    said.append(
        "other: separators and the tags a recipe adds. unique: the share of the tokens with an origin that stand in the"
        " arm's data for the first time, by origin and place in it."
        " Seconds of a step that several arms share count for each."
    )
    if found.added:
        said.append(f"Not asked for, but needed to screen another recipe: {', '.join(found.added)}.")
    if found.base.note:
        said.append(f"The base model: {found.base.note}.")
    return said


def _on_seeds(found: Comparison) -> str:
    if found.seeds == 1:
        return "One seed a recipe: there is no spread, so nothing says how far another seed would fall."
    return (
        f"{found.seeds} seeds a recipe{' are few' if found.seeds < 5 else ''}: the spread says how far these fell"
        " apart, not how far the next one would. A seed changes the order within samples, a recipe's own draws and what"
        " is random in training; base model, roots and schedule are the same."
    )


def _on_equal_seeds(found: Comparison) -> list[str]:
    if found.seeds == 1:
        return []
    last = {
        recipe: {arm.policies[-1] for arm in found.arms if arm.recipe == recipe and arm.policies}
        for recipe in found.recipes
    }
    equal = [recipe for recipe, policies in last.items() if len(policies) < found.seeds]
    if not equal:
        return []
    return [f"Seeds of {', '.join(equal)} gave the very same policy: there the spread says nothing."]


def _on_error(found: Comparison) -> list[str]:
    base = found.base
    if base.standard_error is None:
        return []
    return [
        f"The standard error is that of one measurement, over {base.windows} windows from {base.groups} groups of"
        " held-out text. All arms are measured on the same windows: more seeds do not make it smaller, and the errors"
        " of two arms are partly the same. The error of their difference is not computed."
    ]


def _on_difference(found: Comparison) -> list[str]:
    gains = {recipe: figures["context_gain"] for recipe, figures in _recipes(found)}
    known = {recipe: spread for recipe, spread in gains.items() if spread is not None}
    if len(known) < len(gains):
        return ["The context gain of a recipe could not be measured; nothing is said about differences."]
    if len(known) < 2:
        return []
    best, worst = (pick(known, key=lambda recipe: known[recipe].mean) for pick in (max, min))
    difference = known[best].mean - known[worst].mean
    errors = [figures["standard_error"] for _, figures in _recipes(found)]
    noise = 2 * max((error.mean for error in errors if error is not None), default=0.0)
    apart = max(spread.high - spread.low for spread in known.values())
    measured = f"twice the standard error is {noise:.4f}" if noise else "there is no standard error"
    seeds = f", seeds of one recipe differ by up to {apart:.4f}" if found.seeds > 1 else ""
    verdict = (
        "That does not tell the recipes apart."
        if difference <= max(noise, apart)
        else "That is more than either; whether it holds for other seeds is not shown."
        if noise and found.seeds > 1
        else "Too little is known to say whether that is more than chance."
    )
    return [f"The means lie up to {difference:.4f} nats a token apart ({worst} … {best}); {measured}{seeds}. {verdict}"]


def markdown(found: Comparison) -> str:
    """The page ``reports/compare-NAME.md`` and the artifact ``comparison``."""
    lines = [
        f"# Comparison {found.name}",
        "",
        f"{found.rounds} rounds of {found.tokens:,} tokens, {found.seeds} seed{'s' if found.seeds > 1 else ''}, from"
        f" policy `{short(found.base.policy)}` on corpus `{short(found.base.corpus)}`.",
    ]
    for section in sections(found):
        lines += ["", f"## {section.title}", "", *_table(section)]
    lines += ["", "## What this does not show", "", *(f"- {note}" for note in notes(found))]
    arms = tuple(
        (arm.campaign, " ".join(map(_nats, arm.context_gains)), " ".join(f"`{short(v)}`" for v in arm.versions))
        for arm in found.arms
    )
    every = Section("Every arm", ("campaign", "context gain by round", "dataset versions"), arms)
    lines += ["", f"## {every.title}", "", *_table(every)]
    lines += ["", f"Prove a round: `policylong audit {found.arms[0].campaign}:1`."]
    return "\n".join(lines) + "\n"


def _table(section: Section) -> list[str]:
    ruler = "|".join(["---", *["---:"] * (len(section.columns) - 1)])
    rows = (f"| {' | '.join(row)} |" for row in section.rows)
    return [f"| {' | '.join(section.columns)} |", f"|{ruler}|", *rows]
