"""A comparison as people read it: every number where it belongs, and in words what the numbers do not show."""

from __future__ import annotations

import pytest

from tasks.comparison.report import markdown, notes, sections
from tasks.comparison.result import ArmResult, Comparison, summarised, token_shares
from tasks.measurements.context_gain import ContextGain


def compared(gains: dict[str, list[float]], *, error: float | None = 0.01, note: str = "") -> Comparison:
    """A comparison with these final gains, recipe → one per seed."""
    arms = tuple(
        ArmResult(
            recipe=recipe,
            seed=seed,
            campaign=f"c-{recipe}-s{seed}",
            versions=(f"{seed}" * 64,) * 2,
            policies=("a", f"{recipe} {gain}"),
            context_gains=(gain / 2, gain),
            standard_errors=(error, error),
            heldout_losses=(4.0, 3.5),
            data_tokens=2048,
            training_tokens=4096,
            shares=token_shares([{"total": 100, "root": 30, "positive": 60}]),
            unique_share=0.75,
            positives=12,
            screening_seconds=3.0,
            training_seconds=2.0,
        )
        for recipe, values in gains.items()
        for seed, gain in enumerate(values)
    )
    base = ContextGain(
        policy="b" * 64,
        corpus="c" * 64,
        gain=0.05,
        standard_error=error,
        loss_long=4.5,
        loss_short=4.55,
        windows=8,
        groups=3,
        tokens=512,
        native_context=512,
        note=note,
    )
    return Comparison(
        name="trial",
        seeds=len(next(iter(gains.values()))),
        rounds=2,
        tokens=1024,
        recipes=tuple(gains),
        added=(),
        base=base,
        arms=arms,
        summary=summarised(arms),
    )


def test_the_tables_show_mean_spread_and_error_of_every_recipe() -> None:
    found = compared({"policylong": [0.12, 0.16], "standard": [0.10, 0.11]}, note="stretched")
    gains, by_round, origins, costs = sections(found)
    assert gains.rows == (
        ("base model", "0.0500", "0.0100", "4.5000"),
        ("policylong", "0.1400 (0.1200 … 0.1600)", "0.0100", "3.5000"),
        ("standard", "0.1050 (0.1000 … 0.1100)", "0.0100", "3.5000"),
    )
    assert by_round.rows[0] == ("policylong", "0.0500", "0.0700", "0.1400")
    assert origins.rows[0] == ("policylong", "30.0", "60.0", "0.0", "0.0", "0.0", "10.0", "75.0")
    assert costs.rows[0] == ("policylong", "2,048", "4,096", "12", "3", "2")
    three = sections(compared({"policylong": [0.1, 0.2, 0.3]}))[0]
    assert three.rows[1][1] == "0.2000 ± 0.1000"
    assert sections(compared({"policylong": [0.1]}))[0].rows[1][1] == "0.1000"
    page = markdown(found)
    for row in (*gains.rows, *by_round.rows, *origins.rows, *costs.rows):
        assert f"| {' | '.join(row)} |" in page
    assert all(f"- {note}" in page for note in notes(found))
    assert all(f"| {arm.campaign} |" in page for arm in found.arms)
    assert "The base model: stretched." in page


@pytest.mark.parametrize(
    ("gains", "error", "told"),
    [
        ({"a": [0.10, 0.11], "b": [0.11, 0.12]}, 0.02, "0.0100 nats a token apart (a … b); twice the standard error"),
        ({"a": [0.10, 0.11], "b": [0.11, 0.12]}, 0.02, "That does not tell the recipes apart."),
        ({"a": [0.10, 0.30], "b": [0.25, 0.25]}, 0.001, "seeds of one recipe differ by up to 0.2000. That does not"),
        ({"a": [0.10, 0.11], "b": [0.51, 0.52]}, 0.01, "That is more than either; whether it holds for other seeds"),
        ({"a": [0.10], "b": [0.90]}, 0.01, "Too little is known to say whether that is more than chance."),
        ({"a": [0.10, 0.11], "b": [0.51, 0.52]}, None, "Too little is known to say whether that is more than chance."),
        ({"a": [0.10, 0.10], "b": [0.11, 0.12]}, 0.01, "Seeds of a gave the very same policy"),
        ({"a": [0.10], "b": [0.11]}, 0.01, "One seed a recipe: there is no spread"),
        ({"a": [0.10, 0.11], "b": [0.11, 0.12]}, 0.01, "2 seeds a recipe are few"),
        ({"a": [0.10, 0.11], "b": [0.11, 0.12]}, 0.01, "more seeds do not make it smaller"),
    ],
)
def test_the_text_says_what_the_numbers_do_not_show(
    gains: dict[str, list[float]], error: float | None, told: str
) -> None:
    assert told in " ".join(notes(compared(gains, error=error)))
