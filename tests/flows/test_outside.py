"""Flow runs on a Prefect server of others: a killed command's are marked by the next one of its home, no others."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from flows import outside
from flows.outside import TAG, Command, mark_dead, on_a_server_of_others
from flows.standing.processes import Identity
from storage.digests import digest_text
from storage.errors import ServiceError
from storage.files import write_json
from storage.home import Home
from tests.http_peer import peer
from tests.standing_fakes import free_port


class Runs(dict[str, Any]):
    """The part of a Prefect server that is asked: runs by tag, and their states."""

    def __init__(self, runs: dict[str, str]) -> None:
        self.runs, self.states = runs, dict.fromkeys(runs, "RUNNING")
        self.asked: list[dict[str, Any]] = []

    def get(self, path: str, default: Any = None) -> Any:
        if path == "/api/flow_runs/filter":
            return self._under_way
        run = path.removeprefix("/api/flow_runs/").removesuffix("/set_state")
        return (lambda body: self._set(run, body)) if run in self.runs else (404, {})

    def _under_way(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        self.asked.append(body["flow_runs"])
        (wanted,) = body["flow_runs"]["tags"]["all_"]
        return [{"id": run} for run, tag in self.runs.items() if tag == wanted and self.states[run] == "RUNNING"]

    def _set(self, run: str, body: dict[str, Any]) -> dict[str, Any]:
        assert body["force"]
        self.states[run] = body["state"]["type"]
        return {"status": "ACCEPT"}


def note(home: Home, address: str, word: str, process: Identity) -> None:
    path = home.folder(outside.FOLDER) / f"{word}.json"
    write_json(path, Command(word=word, server=digest_text(address), process=process).model_dump(mode="json"))


@pytest.fixture
def killed() -> Identity:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = Identity.of(process.pid)
    assert found is not None
    process.kill()
    process.communicate()
    return found


def test_runs_of_a_killed_command_are_marked_and_no_others(home: Home, killed: Identity) -> None:
    mine = Identity.of(os.getpid())
    assert mine is not None
    runs = Runs({"a": f"{TAG}dead", "b": f"{TAG}dead", "c": f"{TAG}living", "d": f"{TAG}far", "e": f"{TAG}other"})
    far = killed.model_copy(update={"place": "the boot of another machine"})
    with peer(runs) as server:
        address = f"{server}/api"
        for word, process in {"dead": killed, "living": mine, "far": far}.items():
            note(home, address, word, process)
        note(home, "http://another/api", "other", killed)
        assert mark_dead(home, address) == 2
        assert mark_dead(home, address) == 0
    assert runs.states == {"a": "CRASHED", "b": "CRASHED", "c": "RUNNING", "d": "RUNNING", "e": "RUNNING"}
    assert all(asked["deployment_id"] == {"is_null_": True} for asked in runs.asked), "workers look after theirs"
    assert all("RUNNING" in asked["state"]["type"]["any_"] for asked in runs.asked)
    assert {path.stem for path in (home / outside.FOLDER).iterdir()} == {"living", "far", "other"}


def test_a_server_that_is_away_is_asked_by_the_next_command(home: Home, killed: Identity) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    note(home, address, "dead", killed)
    assert mark_dead(home, address) == 0
    assert (home / outside.FOLDER / "dead.json").is_file()


def test_a_command_notes_and_tags_its_runs_while_it_goes_on(home: Home) -> None:
    from prefect.context import TagsContext

    address = "http://user:a-secret@prefect.example/api"
    with on_a_server_of_others(home, address):
        (path,) = (home / outside.FOLDER).iterdir()
        command = Command.model_validate_json(path.read_text())
        assert TagsContext.get().current_tags == {f"{TAG}{command.word}"}
        assert command.process.lives
        assert "a-secret" not in path.read_text()
    assert list((home / outside.FOLDER).iterdir()) == []
    assert TagsContext.get().current_tags == set()


def test_a_command_that_ends_with_an_error_leaves_its_note_to_the_next_one(home: Home) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    with pytest.raises(ServiceError), on_a_server_of_others(home, address):
        raise ServiceError("the server is away")
    (path,) = (home / outside.FOLDER).iterdir()
    with on_a_server_of_others(home, address):
        assert path.is_file(), "its process lives"


def test_a_server_that_does_not_take_the_state_is_not_asked_for_ever(home: Home, killed: Identity) -> None:
    runs = Runs({"a": f"{TAG}dead"})
    runs._set = lambda run, body: {"status": "REJECT"}  # type: ignore[method-assign]
    with peer(runs) as address:
        note(home, f"{address}/api", "dead", killed)
        assert mark_dead(home, f"{address}/api") == 1
    assert runs.states == {"a": "RUNNING"}
