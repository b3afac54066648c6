"""Independent pieces of torch work side by side on a CPU, each by one torch thread.

A small model's layers are too short to be shared between threads: two pieces at once, a thread each, take less time
than one after the other with two threads each. And since no sum is ever split between threads, a result does not
depend on how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """``count`` threads that run one piece of work each; elsewhere than on a CPU, and for none, the caller's own.

    The caller's number of torch threads stays what it is.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self._ahead = 2 * count
        self._pool = _single_threads(count) if device.type == "cpu" else None

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The results in the order of the items; the first error is raised, and what has not begun by then is left."""
        if self._pool is None:
            yield from map(work, items)
            return
        running: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(running) == self._ahead:
                    yield running.popleft().result()
                running.append(self._pool.submit(work, item))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _single_threads(count: int) -> ThreadPoolExecutor:
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "scoring", initializer=torch.set_num_threads, initargs=(1,))
    begun = Barrier(count + 1)
    for _ in range(count):
        pool.submit(begun.wait)
    begun.wait()
    # What a thread sets is also what threads begin with that come later.
    torch.set_num_threads(before)
    return pool
