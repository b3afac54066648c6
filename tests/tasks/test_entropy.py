"""Which tokens count as uncertain, and the query made of them: known answers and the rules that hold for all inputs."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.screening.entropy import EntropyConfig, query_window, select_positions

entropies = st.lists(st.floats(0, 12, width=32), max_size=120)


def test_a_known_answer_by_hand() -> None:
    """Ten positions of 1 nat and one of 12: mean 2, population variance (10 * 1 + 100) / 11 = 10, tau = 2 + 2
    sqrt(10).
    """
    values = np.array([99.0] + [1.0] * 10 + [12.0])
    chosen = select_positions(values, 1, EntropyConfig(alpha=2.0, min_context=0))
    assert chosen.scored == 11
    assert chosen.mean == pytest.approx(2.0)
    assert chosen.std == pytest.approx(10**0.5)
    assert chosen.threshold == pytest.approx(2 + 2 * 10**0.5)
    assert chosen.positions == (11,)


@given(values=entropies, first=st.integers(0, 1), start=st.integers(0, 20), alpha=st.floats(0, 4))
def test_selection_is_the_literal_rule(values: list[float], first: int, start: int, alpha: float) -> None:
    chosen = select_positions(np.array(values, np.float32), first, EntropyConfig(alpha=alpha, min_context=start))
    used = {t: float(np.float32(v)) for t, v in enumerate(values) if t >= max(first, start)}
    assert chosen.scored == len(used)
    if not used:
        assert chosen.positions == ()
        return
    mean, std = statistics.fmean(used.values()), statistics.pstdev(used.values())
    assert chosen.threshold == pytest.approx(mean + alpha * std, abs=1e-6)
    for t, value in used.items():
        if abs(value - chosen.threshold) > 1e-6:
            assert (t in chosen.positions) == (value > mean + alpha * std)
    if alpha >= 1 and std > 1e-6:  # Cantelli
        assert len(chosen.positions) <= len(used) / (1 + alpha**2) + 1e-9


@given(length=st.integers(1, 80), data=st.data(), radius=st.integers(0, 20))
def test_the_query_holds_the_token_and_its_neighbours(length: int, data: st.DataObject, radius: int) -> None:
    ids = list(range(1000, 1000 + length))
    t = data.draw(st.integers(0, length - 1))
    window = list(query_window(ids, t, radius))
    assert window == [i for i in ids if abs(i - ids[t]) <= radius]
    assert len(window) <= 2 * radius + 1
