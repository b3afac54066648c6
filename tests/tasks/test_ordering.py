"""The order of verification and where it stops, against a walk of each root on its own, one pass at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from storage.digests import digest_json
from tasks.checkpointed import identity
from tasks.rounds.building import BuildConfig
from tasks.screening.ordering import Pass, PassKey, Walk, learning_shards, walk
from tasks.screening.verification import VerificationConfig


@dataclass(frozen=True)
class Limits:
    quota: int | None = None
    passes_per_root: int | None = None
    floor: float | None = None
    wave: int = 1


def literal(passes: Sequence[Pass], limits: Limits, positive: set[PassKey]) -> tuple[list[int], list[int], str | None]:
    """(chunks made, chunks left out, reason) of one root: sorted by hand, walked pass by pass."""
    left = list(passes)
    order: list[Pass] = []
    while left:
        best = left[0]
        for one in left[1:]:
            mine = (one.expected or 0.0) / one.tokens
            its = (best.expected or 0.0) / best.tokens
            if mine > its or (mine == its and (one.rank, one.chunk) < (best.rank, best.chunk)):
                best = one
        left.remove(best)
        order.append(best)
    made: list[int] = []
    found = 0
    reason: str | None = None
    for one in order:
        if len(made) % limits.wave == 0 and limits.quota is not None and found >= limits.quota:
            reason = "quota"
        elif one.expected is not None and limits.floor is not None and one.expected * 1000 < limits.floor * one.tokens:
            reason = "quota" if limits.quota is not None and found >= limits.quota else "floor"
        elif limits.passes_per_root is not None and len(made) == limits.passes_per_root:
            reason = "quota" if limits.quota is not None and found >= limits.quota else "budget"
        if reason:
            break
        made.append(one.chunk)
        found += one.key in positive
    return made, [one.chunk for one in order[len(made) :]], reason


def run(passes: Sequence[Pass], limits: Limits, positive: set[PassKey]) -> tuple[dict[int, Walk], list[list[PassKey]]]:
    waves: list[list[PassKey]] = []

    def measure(asked: Sequence[Pass]) -> set[PassKey]:
        waves.append([one.key for one in asked])
        return {one.key for one in asked} & positive

    return {done.passes[0].root: done for done in walk(passes, limits, measure)}, waves


@st.composite
def shards(draw: Callable[..., object]) -> tuple[list[Pass], Limits, set[PassKey]]:
    learned = draw(st.booleans())
    passes = []
    for root in range(draw(st.integers(0, 4))):  # type: ignore[call-overload]
        for chunk in draw(st.lists(st.integers(0, 30), max_size=12, unique=True)):  # type: ignore[attr-defined]
            expected = draw(st.sampled_from([0.0, 0.01, 0.2, 0.5, 1.5])) if learned else None
            rank, tokens = draw(st.integers(0, 5)), draw(st.sampled_from([10, 40, 100]))
            passes.append(Pass(root, chunk, (7,), rank, tokens, expected))  # type: ignore[arg-type]
    limits = Limits(
        quota=draw(st.none() | st.integers(1, 4)),  # type: ignore[arg-type]
        passes_per_root=draw(st.none() | st.integers(1, 9)),  # type: ignore[arg-type]
        floor=draw(st.none() | st.sampled_from([0.5, 5.0, 20.0])),  # type: ignore[arg-type]
        wave=draw(st.integers(1, 5)),  # type: ignore[arg-type]
    )
    keys = [one.key for one in passes]
    positive = draw(st.sets(st.sampled_from(keys))) if keys else set()
    return passes, limits, positive  # type: ignore[return-value]


@given(shards())
def test_a_walk_is_the_literal_one_and_keeps_to_its_budget(case: tuple[list[Pass], Limits, set[PassKey]]) -> None:
    passes, limits, positive = case
    walks, waves = run(passes, limits, positive)
    assert sorted(walks) == sorted({one.root for one in passes})
    for root, done in walks.items():
        of_root = [one for one in passes if one.root == root]
        made, left, reason = literal(of_root, limits, positive)
        assert [one.chunk for one in done.passes] == made + left
        assert (done.made, done.reason) == (len(made), reason)
        found = sum((root, chunk) in positive for chunk in made)
        if limits.quota is not None:
            assert found < limits.quota + limits.wave
        if limits.passes_per_root is not None:
            assert done.made <= limits.passes_per_root
        alone, _ = run(of_root, limits, positive)
        assert alone[root] == done, "what other roots are in the shard changes nothing"
        rows = done.rows()
        assert [row["place"] for row in rows] == list(range(len(rows)))
        assert all((row["reason"] is None) == row["verified"] for row in rows)
    asked = [key for wave in waves for key in wave]
    assert len(asked) == len(set(asked)), "no pass is made twice"
    if limits.quota is None:
        assert len(waves) <= 1, "without a quota there is nothing to look at in between"


def test_a_wave_holds_passes_of_every_root_that_goes_on() -> None:
    passes = [Pass(root, chunk, (3,), chunk, 10) for root in (0, 1) for chunk in range(5)]
    walks, waves = run(passes, Limits(quota=1, wave=2), {(0, 1)})
    assert waves == [[(0, 0), (0, 1), (1, 0), (1, 1)], [(1, 2), (1, 3)], [(1, 4)]]
    assert [(walks[root].made, walks[root].reason) for root in (0, 1)] == [(2, "quota"), (5, None)]


def test_the_shards_that_are_learned_from() -> None:
    assert [learning_shards(0.25, shards) for shards in (0, 1, 3, 4, 5, 8, 9)] == [0, 1, 1, 1, 2, 2, 3]
    assert learning_shards(1.0, 6) == 6
    assert learning_shards(0.001, 6) == 1


def test_an_exhaustive_verification_has_the_digests_it_always_had() -> None:
    config = VerificationConfig(wave=3)
    before = {"epsilon": 0.4, "separator": "\n\n", "placebo_fraction": 0.1, "copy_characters": 64, "seed": 0}
    assert config.model_dump(mode="json") == before
    assert identity(config) == before
    document = BuildConfig().model_dump(mode="json")
    assert digest_json(document["verification"]) == digest_json(before)


def test_a_budget_is_part_of_every_digest_and_goes_round_trip() -> None:
    config = VerificationConfig(ordering="rank", quota=3)
    document = config.model_dump(mode="json")
    assert {"ordering": "rank", "quota": 3, "wave": 8}.items() <= document.items()
    assert identity(config) == document
    assert VerificationConfig.model_validate(document) == config
    assert config.exhaustive == VerificationConfig()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quota": 3}, "quota needs an order"),
        ({"floor": 1.0}, "floor needs an order"),
        ({"ordering": "expected-yield"}, "needs a budget"),
        ({"ordering": "rank", "floor": 1.0, "quota": 2}, "floor needs ordering expected-yield"),
        ({"ordering": "rank", "quota": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_say_nothing_together_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VerificationConfig.model_validate(options)
