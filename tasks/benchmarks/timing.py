"""Times of several ways to do the same, taken in turns: other work on the machine falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from tasks.benchmarks.measurement import Figure

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each way, repeat by repeat."""

    seconds: Mapping[str, tuple[float, ...]]

    def figure(self, way: str, label: str = "", *, amount: float | None = None) -> Figure:
        """The seconds of a way; with ``amount``, that amount per second."""
        values = self.seconds[way]
        return Figure.of(label or way, values if amount is None else [amount / seconds for seconds in values])

    def per(self, way: str, count: float, label: str = "") -> Figure:
        """Seconds for each of ``count`` things."""
        return Figure.of(label or way, [seconds / count for seconds in self.seconds[way]])

    def ratio(self, slow: str, fast: str) -> float:
        """How many times as long ``slow`` takes: the median over the repeats, each way beside the other in time."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return median(one / other for one, other in pairs)


def in_turns(
    ways: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: bool = True, clock: Clock = time.perf_counter
) -> Times:
    """Runs every way ``repeats`` times, one after the other, in an order that turns by one place each time.

    ``warm_up`` runs each once before, untimed. ``clock`` may be ``time.process_time`` for seconds of processor.
    """
    names = list(ways)
    if warm_up:
        for way in ways.values():
            way()
    taken: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            start = clock()
            ways[name]()
            taken[name].append(max(clock() - start, 1e-9))
    return Times({name: tuple(seconds) for name, seconds in taken.items()})
