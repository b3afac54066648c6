"""What can't work is one clear line with value, limit and option, and nothing has been done by then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from flows import server
from flows.cli import main
from models.embedders import EmbedderConfig, embedder_digest, load_embedder
from storage.errors import ConfigError
from storage.home import Home
from tests.tiny_policies import tiny_policy
from tests.world import World, make_world


@pytest.fixture
def world(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The small world, and no server: whoever needs one has begun to work."""

    @contextmanager
    def no_server(_: Home) -> Iterator[str]:
        yield "http://127.0.0.1:9/api"

    monkeypatch.setattr(server, "prefect_server", no_server)
    return make_world(home, tmp_path / "scratch", monkeypatch)


def preset(world: World, folder: Path, base: Path | None = None) -> Path:
    """A preset of the world's round, as a file."""
    values: dict[str, Any] = {
        "campaign": {"name": "trial"},
        "corpus": "world",
        "policy": {"base": str(base or world.folder)},
        "build": world.config.model_dump(mode="json"),
        "training": {"extension": {"context": 128}},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def files(home: Home) -> set[str]:
    """Everything in the home but the locks."""
    return {str(path.relative_to(home.path)) for path in home.path.rglob("*") if path.suffix != ".lock"}


def refused(world: World, path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and the one line of a build that must be refused before anything is done."""
    before = files(world.home)
    code = main(["--home", str(world.home.path), "build", "--preset", str(path), *words])
    shown = capsys.readouterr()
    told = [line for line in shown.err.splitlines() if not line.startswith("home ")]
    assert shown.out == ""
    assert len(told) == 1, shown.err
    assert told[0].startswith("error: ")
    assert {name for name in files(world.home) - before if not name.startswith(("locks", "prefect", "mlflow"))} == set()
    return code, told[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["build.recipe=alchemy"], ["unknown recipe 'alchemy' (build.recipe)", "Recipes: entropylong"]),
        (["build.options={width: 3}"], ["build.options.width of recipe policylong", "Its options: none"]),
        (["build.tokens=100"], ["100 tokens (build.tokens)", "one sample of 128 (build.assembly.target_tokens)"]),
        (
            ["build.tokens=12800"],
            ["12800 tokens (build.tokens) is 100 samples", "7 roots (build.roots.roots_per_round)"],
        ),
        (
            ["build.tokens=14336", "build.assembly.target_tokens=2048", "build.assembly.reuse_cap=1"],
            ["14336 tokens (build.tokens)", "corpus world gives a round at most", "at most 1 samples (build.assembly"],
        ),
        (
            ["build.recipe=knn", "build.tokens=12800000"],
            [
                "corpus world has at most",
                "20 neighbours each (build.options.neighbours)",
                "100000 samples of 128 tokens",
            ],
        ),
        (
            ["build.recipe=knn", "build.assembly.target_tokens=99999", "campaign.train=false"],
            ["corpus world has at most", "too few for 1 sample of 99999 tokens (build.assembly.target_tokens)"],
        ),
        (
            ["build.recipe=untie-the-knots", "build.tokens=128000000"],
            ["corpus world has at most", "tags included: too few for 1000000 samples of 128 tokens (build.tokens, "],
        ),
        (
            ["build.recipe=untie-the-knots", "build.assembly.target_tokens=99999", "campaign.train=false"],
            ["corpus world has at most", "too few for 1 sample of 99999 tokens (build.assembly.target_tokens)"],
        ),
        (["build.recipe=standard", "build.tokens=128000"], ["corpus world has at most", "too few for 1000 samples"]),
        (
            ["build.recipe=nextlong", "build.tokens=128000"],
            ["16 samples a document (build.options.stretches)", "too few for 1000 samples"],
        ),
        (["build.assembly.target_tokens=9999"], ["one sample needs 9999 tokens", "corpus world gives a round at most"]),
        (
            ["build.roots.root_tokens=96"],
            ["a root of 96 tokens (build.roots.root_tokens)", "screening context is 96 (build.screening_tokens)"],
        ),
        (
            ["build.screening_tokens=60"],
            ["a chunk of 40 tokens (corpus.chunking.max_tokens) is larger than its share, 22", "context is 60"],
        ),
        (
            ["build.screening_tokens=97"],
            ["screening context of 97 tokens (build.screening_tokens)", "the policy's own, 96"],
        ),
        (
            ["build.assembly.target_tokens=256"],
            ["a sample has 256 tokens (build.assembly.target_tokens)", "reaches 128 (training.extension.context)"],
        ),
        (["build.entropy.alpha=11"], ["build.entropy.alpha", "less than or equal to 10, not 11"]),
        (["build.entropy.alpha=-0.5"], ["build.entropy.alpha", "greater than or equal to 0, not -0.5"]),
        (["build.entropy.alpha=.nan"], ["build.entropy.alpha", "not nan"]),
        (["build.verification.epsilon=1.0"], ["build.verification.epsilon", "less than 1, not 1.0"]),
        (["build.verification.epsilon=-0.1"], ["build.verification.epsilon", "or equal to 0, not -0.1"]),
        (["build.recipe=static-late"], ["recipe static-late is screened by a policy", "campaign.screeners"]),
        (["corpus=gone"], ["corpus 'gone' is not in this home (there: world)"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_does_not_fit_names_value_limit_and_option(
    changes: list[str], told: list[str], world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    code, line = refused(world, preset(world, tmp_path), capsys, *words)
    assert code == 2
    for part in told:
        assert part in line, line


def test_the_limits_stand_in_the_lines_that_name_them(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bound on what a corpus gives, counted here from the world itself."""
    tokens = sum(chunk["tokens"] for chunk in world.chunks)
    _, line = refused(world, preset(world, tmp_path), capsys, "--set", "build.assembly.target_tokens=9999")
    assert f"at most {7 * 36 + tokens}: 7 roots of 36" in line
    assert f"{len(world.chunks)} chunks of {tokens} tokens" in line


def test_a_tokenizer_without_the_separator(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_policy(tmp_path / "wordy", max_position_embeddings=96)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "value": 1, "step": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    code, line = refused(world, preset(world, tmp_path, folder), capsys)
    assert code == 2
    assert r"can't encode the separator '\n\n' (build.verification.separator): it gives back ''" in line


def test_a_vocabulary_that_is_smaller_than_the_tokenizers(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_policy(tmp_path / "small", vocab_size=280, max_position_embeddings=96)
    code, line = refused(world, preset(world, tmp_path, folder), capsys)
    assert code == 3
    ids = max(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"].values())
    assert f"the tokenizer in {folder} (policy.base) has ids up to {ids}, the model's vocabulary ends at 279" in line


def test_an_unknown_recipe_stops_a_campaign_before_its_home_is_made(
    home_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(home_path), "run", "--set", "build.recipe=alchemy"]) == 2
    assert "unknown recipe 'alchemy'" in capsys.readouterr().err
    assert not home_path.exists()


def test_an_embedders_own_code_is_not_run_unless_the_preset_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "own_code.Own"}]))
    (folder / "own_code.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w').close()\nclass Own: ...\n")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"brings code of its own, and corpus.embedder.remote_code is false"):
        load_embedder(EmbedderConfig(model=str(folder)))
    assert not (tmp_path / "was-run").exists()
    trusted = embedder_digest(EmbedderConfig(model=str(folder), remote_code=True))
    (folder / "own_code.py").write_text("class Own: ...\n")
    assert embedder_digest(EmbedderConfig(model=str(folder), remote_code=True)) != trusted
