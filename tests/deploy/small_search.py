"""A campaign of a second that needs a Qdrant server in each round, for the services drill's own test.

python -m tests.deploy.small_search HOME ADDRESS PATIENCE        PATIENCE in seconds
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.failures import report
from storage.errors import PolicylongError
from storage.home import Home
from storage.refs import Ref
from storage.vectors_server import ServerIndex, ServerSettings, open_server_index
from tests.deploy import small_campaign

VECTORS: NDArray[np.float32] = np.eye(8, dtype=np.float32)
NEEDS = "candidates"


def main(home: str, address: str, patience: str) -> int:
    """Returns the exit code."""
    settings = ServerSettings(address, attempts=2, longest_pause_seconds=0.1, patience_seconds=float(patience))
    worked = small_campaign.worked

    def searched(home: Home, table: str, shard: int, rows: list[dict[str, object]], read: Sequence[Ref]) -> Ref:
        if table == NEEDS:
            index = open_server_index(settings, "chunks", "current", VECTORS.shape, _fill, exact=True)
            assert [hits[0].chunk for hits in index.search(VECTORS, 1)] == list(range(len(VECTORS)))
            assert np.array_equal(index.vectors_of([3, 1]), VECTORS[[3, 1]])
        return worked(home, table, shard, rows, read)

    small_campaign.worked = searched
    try:
        small_campaign.campaign(Home.open(Path(home)))
    except PolicylongError as error:
        return report(error)
    return 0


def _fill(index: ServerIndex) -> None:
    index.load(np.arange(len(VECTORS)), VECTORS)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
