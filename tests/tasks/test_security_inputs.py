"""What comes from outside is data: nothing is unpickled, no code of a model's runs, no path leads out of its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.presets import load_preset, preset_names
from models.embedders import EmbedderConfig, load_embedder
from models.policy import load_policy, load_tokenizer
from storage.checkpoints import StepKey, checkpoint_path, finished, run_step, work_uri
from storage.digests import digest_file
from storage.errors import ConfigError, InputError, PolicyError, PolicylongError
from storage.home import Home
from storage.inside import inside
from storage.refs import Ref
from storage.schemas import UNPLACED
from storage.shared import SharedStorage
from storage.tables import write_table
from tasks.corpus.sources import find_sources
from tasks.exporting.audit import audit_export
from tasks.exporting.exporting import export_version
from tasks.exporting.record import RECORD
from tasks.reporting.writing import write_campaign
from tests.planted import bomb
from tests.rounds import BuiltRound, build_rounds
from tests.tiny_policies import tiny_policy

OUTSIDE = ["../escape", "a/../../escape", "/etc/hostname", "a\\..\\b", "", "..", "a\0b"]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is made when somebody's code ran."""
    return tmp_path / "code-ran"


def test_a_bomb_goes_off_when_it_is_unpickled(marker: Path) -> None:
    import pickle

    pickle.loads(bomb(marker)).close()
    assert marker.exists()


def test_pickles_among_the_files_of_a_corpus_are_left_alone(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("data.pkl", "data.pickle", "data.pt", "data.bin"):
        (folder / name).write_bytes(bomb(marker))
        with pytest.raises(InputError, match="suffix"):
            find_sources([str(folder / name)])
    (folder / "a.txt").write_text("a text")
    found = find_sources([str(folder)])
    assert ([file.name for file in found.files], found.ignored) == (["corpus/a.txt"], 4)
    assert not marker.exists()


def test_weights_that_are_pickles_are_not_opened(tmp_path: Path, marker: Path) -> None:
    folder = tiny_policy(tmp_path / "policy")
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (folder / name).write_bytes(bomb(marker))
    with pytest.raises(PolicyError, match=r"no \*\.safetensors"):
        load_policy(folder, device="cpu")
    assert not marker.exists()


def test_an_embedder_of_pickles_is_not_opened(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "embedder"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (folder / "1_Pooling/config.json").write_text('{"word_embedding_dimension": 16}')
    tiny_policy(folder, "llama")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(bomb(marker))
    with pytest.raises(PolicylongError, match="safetensors"):
        load_embedder(EmbedderConfig(model=str(folder)))
    assert not marker.exists()


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_model_s_folder_is_not_run_unless_the_preset_says_so(
    known: bool, tmp_path: Path, marker: Path
) -> None:
    folder = tiny_policy(tmp_path / "policy")
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    config |= {"auto_map": own, "model_type": config["model_type"] if known else "own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Own: ...\n")
    if known:
        load_policy(folder, device="cpu")  # as the class that transformers has for it
    else:
        with pytest.raises(PolicyError, match="remote_code"):
            load_policy(folder, device="cpu")
    assert not marker.exists()


def test_code_of_a_tokenizer_is_not_run(tmp_path: Path, marker: Path) -> None:
    folder = tiny_policy(tmp_path / "policy")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass OwnTokenizer: ...\n")
    with pytest.raises(PolicyError, match=r"of code of its own.*remote_code"):
        load_tokenizer(folder)
    assert not marker.exists()


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_trusts_code(name: str) -> None:
    def told(value: Any) -> list[Any]:
        if not isinstance(value, dict):
            return []
        own = [value["remote_code"]] if "remote_code" in value else []
        return own + [found for part in value.values() for found in told(part)]

    found = told(load_preset(name).model_dump())
    assert len(found) >= 3
    assert not any(found)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_of_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="leads out of its folder"):
        inside(name)
    with pytest.raises(ValidationError, match="leads out of its folder"):
        Ref(uri=name, sha256="0" * 64, rows=0, table="roots")


def test_names_that_stay_inside_are_kept() -> None:
    assert [inside(name) for name in ("a", "a/b.parquet", "./a", "a..b/..c")] == ["a", "a/b.parquet", "./a", "a..b/..c"]


def test_a_step_s_record_that_leads_out_of_the_home_is_not_believed(home: Home, tmp_path: Path) -> None:
    key = StepKey(step="step", code_version=1, inputs={}, config={})
    made = run_step(home, key, lambda: {"out": write_table(home.path, work_uri(key, "out"), UNPLACED, [])})["out"]
    shutil.copy(home / made.uri, tmp_path / "outside.parquet")
    record = home / checkpoint_path(key)
    value = json.loads(record.read_text())
    value["refs"]["out"]["uri"] = "../outside.parquet"
    record.write_text(json.dumps(value))
    assert digest_file(home.path / "../outside.parquet") == made.sha256, "its bytes would be believed"
    assert finished(home, key) is None
    assert not record.exists()


@pytest.mark.parametrize("name", ["../outside.parquet", "link/outside.parquet", "/outside.parquet"])
def test_a_node_s_answer_brings_no_file_out_of_the_home(home: Home, tmp_path: Path, name: str) -> None:
    storage, file = SharedStorage((tmp_path / "shared").as_uri()), tmp_path / "file"
    file.write_text("a table")
    storage.put(file, digest_file(file))
    (home / "link").symlink_to(tmp_path)
    assert storage.fetch_once(home, "work/inside.parquet", digest_file(file)).read_text() == "a table"
    with pytest.raises(ConfigError, match="leads out of the home folder"):
        storage.fetch_once(home, name, digest_file(file))
    assert not list(tmp_path.glob("outside*"))


@pytest.mark.parametrize("place", ["filename", "split"])
def test_the_listing_of_a_dataset_names_no_file_outside_of_it(tmp_path: Path, place: str) -> None:
    folder, secret = tmp_path / "saved", tmp_path / "secret"
    for path in (folder, secret):
        path.mkdir()
        (path / "data.arrow").write_bytes(b"")
    listing = {"_data_files": [{"filename": "data.arrow" if place == "split" else "../secret/data.arrow"}]}
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps(listing))
    if place == "split":
        (folder / "dataset_dict.json").write_text('{"splits": ["../secret"]}')
        (secret / "state.json").write_text(json.dumps(listing))
    with pytest.raises(InputError, match="names a file outside of it"):
        find_sources([str(folder)])


@pytest.fixture
def built(tmp_path: Path) -> BuiltRound:
    return build_rounds(Home.open(tmp_path / "home"), 1)[0]


def test_an_export_s_record_names_no_file_outside_of_it(built: BuiltRound, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export_version(built.home, built.version, folder, "parquet")
    assert audit_export(folder, built.home).exit_code == 0
    record = json.loads((folder / RECORD).read_text())
    stranger = tmp_path / "thesis.txt"
    stranger.write_text("mine")
    changed = record["files"] | {"../thesis.txt": {"sha256": digest_file(stranger), "bytes": 4}}
    (folder / RECORD).write_text(json.dumps(record | {"files": changed}))
    (finding,) = audit_export(folder, built.home).findings
    assert "leads out of its folder" in finding.detail


def test_a_link_in_an_export_is_not_followed(built: BuiltRound, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export_version(built.home, built.version, folder, "parquet")
    shutil.move(folder / "config.json", tmp_path / "config.json")
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    report = audit_export(folder, built.home)
    assert [finding.file for finding in report.findings if finding.status == "failed"] == ["config.json"]


def test_rows_of_a_corpus_that_look_like_paths_write_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.rounds as made

    rows = [
        row | {"source": f"../../escape-{n}#0", "title": f"/tmp/../{tmp_path}/escape-{n}", "group": "../.."}
        for n, row in enumerate(made.documents())
    ]
    monkeypatch.setattr(made, "documents", lambda: rows)
    (one,) = build_rounds(Home.open(tmp_path / "home"), 1)
    write_campaign(one.home, "world")
    export_version(one.home, one.version, tmp_path / "export", "jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"home", "export"}
    assert not list(tmp_path.rglob("*escape*"))
