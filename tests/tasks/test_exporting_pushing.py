"""Pushing to a hub: a fake of its client; what is pushed, and the one line that each refusal gives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

from storage.digests import digest_file
from storage.errors import ConfigError, InputError, PolicylongError, ServiceError
from storage.home import Home
from tasks.exporting.pushing import push_version
from tasks.exporting.record import RECORD
from tests.rounds import BuiltRound, build_round, version_folder

TOKEN = "hf_secret"


class FakeHub:
    """Repositories as {file name: sha256}; raises ``error`` at its first call when there is one."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, str]] = {}
        self.private: dict[str, bool | None] = {}
        self.messages: list[str] = []
        self.tokens: set[Any] = set()
        self.error: Exception | None = None

    def __call__(self, *, token: str, **_: Any) -> FakeHub:
        self.tokens.add(token)
        return self

    def create_repo(self, repo: str, *, repo_type: str, private: bool | None, exist_ok: bool) -> None:
        assert (repo_type, exist_ok) == ("dataset", True)
        if self.error is not None:
            raise self.error
        self.private.setdefault(repo, private)
        self.repos.setdefault(repo, {".gitattributes": "0" * 64})

    def list_repo_files(self, repo: str, *, repo_type: str) -> list[str]:
        return list(self.repos[repo])

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: Path, commit_message: str, delete_patterns: str
    ) -> Any:
        assert (repo_type, delete_patterns) == ("dataset", "*")
        files = {p.relative_to(folder_path).as_posix(): digest_file(p) for p in folder_path.rglob("*") if p.is_file()}
        self.repos[repo_id] = {".gitattributes": "0" * 64, **files}
        self.messages.append(commit_message)
        return SimpleNamespace(commit_url=f"https://hub.invalid/datasets/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr("huggingface_hub.HfApi", fake)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return fake


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRound:
    return build_round(Home.open(tmp_path_factory.mktemp("pushed") / "home"))


def refusal(error: type[PolicylongError], home: Home, version: str, repo: str) -> str:
    with pytest.raises(error) as raised:
        push_version(home, version, repo)
    line = str(raised.value)
    assert "\n" not in line
    assert TOKEN not in line
    return line


def test_a_repository_holds_the_version_with_its_card_and_record(hub: FakeHub, built: BuiltRound) -> None:
    address = push_version(built.home, built.version[:8], "owner/name", private=True)
    assert address == "https://hub.invalid/datasets/owner/name/commit/1"
    folder = version_folder(built)
    expected = {p.relative_to(folder).as_posix(): digest_file(p) for p in folder.rglob("*") if p.is_file()}
    pushed = hub.repos["owner/name"]
    assert pushed.keys() == expected.keys() | {RECORD, ".gitattributes"}
    assert {name: pushed[name] for name in expected} == expected
    assert "README.md" in pushed
    assert hub.private == {"owner/name": True}
    assert hub.messages == [f"Dataset version {built.version}"]
    assert hub.tokens == {TOKEN}
    assert not list((built.home / "work").glob("push/*"))


def test_an_earlier_version_is_replaced_and_anything_else_is_left_alone(hub: FakeHub, built: BuiltRound) -> None:
    push_version(built.home, built.version, "owner/name")
    hub.repos["owner/name"]["samples/samples-00007.parquet"] = "0" * 64
    push_version(built.home, built.version, "owner/name")
    assert "samples/samples-00007.parquet" not in hub.repos["owner/name"]
    hub.repos["owner/other"] = {".gitattributes": "", "README.md": "", "thesis.pdf": ""}
    line = refusal(InputError, built.home, built.version, "owner/other")
    assert "owner/other holds other files (thesis.pdf)" in line
    assert "thesis.pdf" in hub.repos["owner/other"]


def test_without_a_token_nothing_is_asked(hub: FakeHub, built: BuiltRound, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  ", None):
        monkeypatch.setenv("HF_TOKEN", value) if value is not None else monkeypatch.delenv("HF_TOKEN")
        assert "HF_TOKEN is not set" in refusal(ConfigError, built.home, built.version, "owner/name")
    assert not hub.tokens
    assert not hub.repos


@pytest.mark.parametrize("repo", ["name", "a/b/c", "/name", "owner/", "https://hub.invalid/owner/name", "o w/n", ""])
def test_what_names_no_repository(hub: FakeHub, built: BuiltRound, repo: str) -> None:
    assert "names no repository (--repo)" in refusal(ConfigError, built.home, built.version, repo)
    assert not hub.tokens


def test_what_the_hub_refuses_is_one_line_and_the_same_push_works_later(hub: FakeHub, built: BuiltRound) -> None:
    response: Any = SimpleNamespace(status_code=403, headers={}, request=None)
    for error, told in (
        (HfHubHTTPError(f"403 Forbidden for {TOKEN}:\nno rights", response=response), "HF_TOKEN needs write access"),
        (RepositoryNotFoundError("nothing there", response=response), "refused to take owner/name"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set"),
        (ConnectionError("refused"), "does not answer (ConnectionError: refused)"),
        (HfHubHTTPError.__bases__[0]("no route"), "does not answer"),
    ):
        hub.error = error  # type: ignore[assignment]
        assert told in refusal(ServiceError, built.home, built.version, "owner/name")
        assert "owner/name" not in hub.repos
    hub.error = None
    assert push_version(built.home, built.version, "owner/name")


def test_an_unknown_version(hub: FakeHub, built: BuiltRound) -> None:
    assert "no dataset version begins with" in refusal(InputError, built.home, "0123456789", "owner/name")
