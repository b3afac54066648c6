"""Flow runs of a home on a Prefect server that others have as well.

A command that is killed there, or that ends because the server is away, leaves flow runs that stay *Running* for ever.
Whether a run is dead can't be seen on the server, so each command tags its runs with a word of its own and notes the
word in the home, with what names its process; one that ends well takes the note away. The next command in the home
marks the runs of such a word *Crashed* once that process has certainly ended: it was one of this machine, since its
last start. What ran elsewhere is left alone, and so are runs of deployments, which a worker looks after.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.standing.api import PrefectApi
from flows.standing.lost import UNDER_WAY
from flows.standing.processes import Identity
from storage.digests import digest_text
from storage.errors import PolicylongError
from storage.files import write_json
from storage.home import Home

FOLDER = "prefect/elsewhere"
TAG = "policylong-command-"
_PAGE = 200


class Command(BaseModel):
    """A command that runs flows on a server of others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    word: str
    server: str
    """SHA-256 of the server's address, which may hold a password."""
    process: Identity


@contextmanager
def on_a_server_of_others(home: Home, address: str) -> Iterator[None]:
    """Notes and tags the flow runs of this process, and marks those of dead ones before it, while the block runs.

    The note of a block that raises is kept: whether the server was told of it is seen by the next command.
    """
    from prefect import tags

    process = Identity.of(os.getpid())
    assert process is not None
    mine = Command(word=uuid.uuid4().hex[:12], server=digest_text(address), process=process)
    mark_dead(home, address)
    path = home.folder(FOLDER) / f"{mine.word}.json"
    write_json(path, mine.model_dump(mode="json"))
    with tags(f"{TAG}{mine.word}"):
        yield
    path.unlink(missing_ok=True)


def mark_dead(home: Home, address: str) -> int:
    """Marks the runs that dead commands of this home left on the server as crashed; gives how many.

    A server that does not answer or refuses is asked again by the next command.
    """
    marked = 0
    for path in sorted(home.folder(FOLDER).glob("*.json")):
        command = _read(path)
        if command is None or command.server != digest_text(address) or not command.process.is_gone:
            continue
        with suppress(PolicylongError):
            marked += _mark(PrefectApi(address), f"{TAG}{command.word}")
            path.unlink(missing_ok=True)
    return marked


def _mark(api: PrefectApi, tag: str) -> int:
    wanted = {**UNDER_WAY, "tags": {"all_": [tag]}, "deployment_id": {"is_null_": True}}
    marked: set[str] = set()
    while runs := api.post("/flow_runs/filter", {"flow_runs": wanted, "limit": _PAGE}):
        found = {str(run["id"]) for run in runs}
        if found <= marked:  # the server does not take it: no use in asking for ever
            break
        for run in found - marked:
            state = {
                "type": "CRASHED",
                "message": "It ended without a word to the server; the same command carries on.",
            }
            api.post(f"/flow_runs/{run}/set_state", {"state": state, "force": True})
        marked |= found
    return len(marked)


def _read(path: Path) -> Command | None:
    try:
        return Command.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None
