"""Pretraining: rows are what they say, runs are repeatable and resumable, reserved text stays out."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from models.mixture import MixtureRows
from models.policy import load_policy
from models.pretrain_config import MixtureConfig, PretrainConfig
from models.pretrain_corpus import DuplicateFilter, PretrainCorpus, load_corpus
from models.pretraining import RECORD, pretrain
from models.tokenizer_training import END_OF_TEXT, train_tokenizer
from storage.errors import InputError

CONTEXT = 256
SEPARATOR = [7]


@dataclass(frozen=True)
class Text:
    text: str
    source: str
    group: str


def texts(count: int = 24) -> list[Text]:
    """Documents of four packages; every name stands in two documents of its package."""
    words = np.random.default_rng(3)
    documents = []
    for number in range(count):
        pair = number // 2
        body = "\n".join(
            f"def handle_{pair}_{line}(value): return value + {words.integers(1000)} * factor_{pair}_{line % 5}"
            for line in range(30)
        )
        documents.append(Text(f"Document {number}.\n\n{body}", f"doc{number}", f"package{number // 6}"))
    return documents


def tiny(**changes: object) -> PretrainConfig:
    small = {
        "vocabulary": 320, "hidden": 16, "intermediate": 32, "layers": 2, "heads": 2, "context": 64,
        "rows_per_step": 2, "total_tokens": 12 * 128, "warmup_tokens": 2 * 128, "decay_tokens": 4 * 128,
        "save_tokens": 4 * 128, "threads": 1, "bf16": False, "compiled": False,
    }  # fmt: skip
    return PretrainConfig.model_validate({**small, **changes})


def corpus() -> PretrainCorpus:
    """Forty documents of random tokens; name n stands in documents n and n + 20, fifty tokens from their fronts."""
    random = np.random.default_rng(0)
    starts = np.arange(41, dtype=np.int64) * 600
    ids = random.integers(10, 4_000, size=40 * 600).astype(np.uint16)
    places = np.asarray([[600 * n + 50, 600 * (n + 20) + 50] for n in range(20)], dtype=np.int64).ravel()
    return PretrainCorpus(ids, starts, places, np.arange(21, dtype=np.int64) * 2, characters=0, digest="", refused={})


CORPUS = corpus()


def rows(**changes: object) -> MixtureRows:
    config = MixtureConfig.model_validate({"early_tokens": 1_000 * CONTEXT, **changes})
    return MixtureRows(CORPUS, config, CONTEXT, SEPARATOR, length=10_000, seed=1)


@settings(max_examples=200, deadline=None)
@given(index=st.integers(0, 9_999))
def test_every_row_has_the_context_s_length_and_its_recorded_copies_are_copies(index: int) -> None:
    row = rows().row(index)
    assert row.ids.shape == (CONTEXT,)
    assert np.array_equal(row.ids, rows().row(index).ids)
    assert (row.kind == "repeat") == bool(row.copies)
    for first, second, length in row.copies:
        assert second >= first + length
        assert np.array_equal(row.ids[first : first + length], row.ids[second : second + length])


@settings(max_examples=100, deadline=None)
@given(index=st.integers(0, 9_999))
def test_a_paired_row_is_chunks_and_a_text_that_copies_none_of_them(index: int) -> None:
    row = rows(repeat=0, early_repeat=0, paired=1, unrelated=0, more_chunks=0).row(index)
    assume(row.kind == "paired")  # now and then no two documents are found that name the same thing
    text = row.ids[row.chunks[-1][1] + 1 :].tolist()
    runs = {tuple(text[i : i + 16]) for i in range(len(text) - 15)}
    for start, end in row.chunks:
        assert 60 <= end - start <= 120
        assert row.ids[end] == SEPARATOR[0]
        chunk = row.ids[start:end].tolist()
        assert not any(tuple(chunk[i : i + 16]) in runs for i in range(len(chunk) - 15))


def test_repeats_give_way_to_plain_text_and_their_distances_grow() -> None:
    mixture = rows()
    early = [mixture.row(i) for i in range(400)]
    late = [mixture.row(i) for i in range(2_000, 2_400)]
    share = [sum(row.kind == "repeat" for row in part) / 400 for part in (early, late)]
    assert share[0] > share[1] + 0.1
    distance = [np.mean([b - a - n for row in part for a, b, n in row.copies]) for part in (early, late)]
    assert distance[0] < 0.6 * distance[1]


def test_a_reserved_text_and_near_duplicates_are_refused() -> None:
    lines = [f"this is line number {number} of a text that is long enough" for number in range(20)]
    duplicates = DuplicateFilter()
    duplicates.reserve("\n".join(lines[:10]))
    assert not duplicates.accept("\n".join(lines[5:15]))
    assert duplicates.accept("\n".join(lines[10:]))
    assert not duplicates.accept("\n".join(lines[10:]))
    assert not duplicates.accept("\n".join([*lines[11:], "and one line that is not in any other text at all"]))
    assert duplicates.refused == {"reserved": 1, "duplicate": 1, "near-duplicate": 1}


def test_the_tokenizer_is_lossless_and_gives_a_name_the_same_tokens_everywhere() -> None:
    tokenizer = train_tokenizer([text.text for text in texts()], 400, 64)
    for text in ("\n\n", "def f(x):\n\n        return {'é': 12}  # ✓\n", "\t\tif x :\r\n", texts()[0].text):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    alone = tokenizer.encode("factor", add_special_tokens=False)
    for before in ("(", ".", "_", "\n"):
        assert tokenizer.encode(f"{before}factor", add_special_tokens=False)[-len(alone) :] == alone
    assert tokenizer.bos_token is None
    assert tokenizer.eos_token == END_OF_TEXT


def test_a_run_gives_a_policy_folder_and_its_record(tmp_path: Path) -> None:
    told: list[int] = []
    record = pretrain(
        tiny(), texts(), tmp_path / "out", work=tmp_path / "work", packages={"kitchen": "1.0"},
        report=lambda tokens, loss: told.append(tokens),
    )  # fmt: skip
    policy = load_policy(tmp_path / "out", device="cpu")
    assert policy.context == 64
    assert policy.vocabulary == 320
    saved = json.loads((tmp_path / "out" / RECORD).read_text(encoding="utf-8"))
    assert saved["corpus_digest"] == record.corpus_digest
    assert saved["packages"] == {"kitchen": "1.0"}
    assert saved["trained_tokens"] == 12 * 128 == told[-1]
    assert PretrainConfig.model_validate(saved["config"]) == tiny()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    config = tiny(optimizer=optimizer)
    pretrain(config, texts(), tmp_path / "straight", work=tmp_path / "work")
    for step in (8, 12):
        shutil.rmtree(tmp_path / "work" / f"checkpoint-{step}")
    pretrain(config, [], tmp_path / "resumed", work=tmp_path / "work")
    straight, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "resumed"))
    assert straight.keys() == resumed.keys()
    assert all(straight[name].equal(resumed[name]) for name in straight)


def test_reserved_texts_do_not_reach_the_corpus(tmp_path: Path) -> None:
    documents = texts()
    pretrain(
        tiny(total_tokens=128),
        documents,
        tmp_path / "out",
        work=tmp_path,
        reserved=[documents[0].text, documents[5].text],
    )
    saved = load_corpus(tmp_path)
    assert saved is not None
    assert saved.refused == {"reserved": 2}
    assert len(saved.starts) - 1 == len(documents) - 2


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no document"):
        pretrain(tiny(), [], tmp_path / "out", work=tmp_path / "work")


def test_the_schedule_warms_up_stays_and_decays_to_zero() -> None:
    factors = [tiny().learning_rate_factor(step) for step in range(13)]
    assert factors[0] == 0.5
    assert factors[1:9] == [1.0] * 8
    assert factors[9:] == [0.75, 0.5, 0.25, 0.0]
