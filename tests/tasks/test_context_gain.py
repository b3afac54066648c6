"""Context gain: the textbook's numbers on windows that are held out, spread, and the same for every policy."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.extension import ExtensionConfig, extend
from models.policy import load_config, load_policy, load_tokenizer
from storage.corpora import Corpus, name_corpus, open_corpus, publish_corpus
from storage.digests import digest_text
from storage.errors import ConfigError, PolicyError
from storage.home import Home
from storage.policies import policy_folder
from storage.schemas import TABLES
from storage.tables import write_table
from tasks.measurements.context_gain import ContextGainConfig, context_gain, heldout_windows
from tasks.training.handoff import add_base_policy
from tests.tiny_policies import tiny_policy

CONFIG = ContextGainConfig(long=64, short=12, targets=8, windows=6, device="cpu", threads=1)
DOCUMENTS = [
    ("heldout", "a", 180),
    ("screen", "x", 300),
    ("heldout", "b", 60),
    ("heldout", "c", 20),
    ("heldout", "d", 30),
    ("screen", "y", 200),
    ("heldout", "d", 35),
]
WORDS = ("shift", "value", "by", "step", "return", "every", "moves", "function", "list", "for")


def _text(seed: int, words: int) -> str:
    numbers = torch.randint(0, len(WORDS), (words,), generator=torch.Generator().manual_seed(seed)).tolist()
    return " ".join(WORDS[number] for number in numbers)


def _corpus(home: Home, texts: list[tuple[str, str, str]]) -> Corpus:
    """A corpus of (part, group, text)."""
    rows: list[dict[str, Any]] = [
        {
            "doc_id": digest_text(text),
            "text": text,
            "source": f"text#{number}",
            "title": "",
            "group": group,
            "part": part,
            "metadata": "{}",
        }
        for number, (part, group, text) in enumerate(texts)
    ]
    tables = {
        name: write_table(home.path, f"work/{name}.parquet", TABLES[name], rows if name == "documents" else [])
        for name in ("documents", "chunks", "quarantine")
    }
    digest = publish_corpus(home, {"embedder": {"digest": "e" * 64, "dimension": 2}}, tables)
    name_corpus(home, "texts", digest)
    return open_corpus(home, "texts")


@pytest.fixture
def corpus(home: Home) -> Corpus:
    """Held out: a long document (a), a middling one (b), a short one (c) and two short ones that make a group (d)."""
    return _corpus(home, [(part, group, _text(seed, words)) for seed, (part, group, words) in enumerate(DOCUMENTS)])


@pytest.fixture
def policy(home: Home, tmp_path: Path) -> str:
    return add_base_policy(home, tiny_policy(tmp_path / "policy")).digest


def _reference(model: Any, ids: list[int], targets: int) -> float:
    tensor = torch.tensor([ids])
    logits = model(input_ids=tensor).logits[0, -targets - 1 : -1].float()
    return float(cross_entropy(logits, tensor[0, -targets:]))


def test_losses_are_those_of_plain_forward_passes(home: Home, corpus: Corpus, policy: str) -> None:
    result = context_gain(home, policy, corpus, CONFIG)
    loaded = load_policy(policy_folder(home, policy), device="cpu")
    windows = [ids for _, ids in heldout_windows(home, corpus, loaded.tokenizer, CONFIG)]
    with torch.no_grad():
        long = [_reference(loaded.model, ids, 8) for ids in windows]
        short = [_reference(loaded.model, ids[-20:], 8) for ids in windows]
    gains = [s - g for s, g in zip(short, long, strict=True)]
    assert result.loss_long == pytest.approx(mean(long), rel=1e-5)
    assert result.loss_short == pytest.approx(mean(short), rel=1e-5)
    assert result.gain == pytest.approx(mean(gains), abs=1e-5)
    assert result.standard_error == pytest.approx(stdev(gains) / len(gains) ** 0.5, abs=1e-5)
    assert (result.windows, result.tokens, result.native_context, result.note) == (6, 48, 64, "")


def test_windows_are_held_out_apart_and_spread(home: Home, corpus: Corpus, policy: str) -> None:
    tokenizer = load_tokenizer(policy_folder(home, policy))
    windows = heldout_windows(home, corpus, tokenizer, CONFIG)
    assert windows == heldout_windows(home, corpus, tokenizer, CONFIG)
    texts: dict[str, list[str]] = {}
    for seed, (part, group, words) in enumerate(DOCUMENTS):
        if part == "heldout":
            texts.setdefault(group, []).append(_text(seed, words))
    counts = Counter(group for group, _ in windows)
    assert set(counts) == {"a", "b", "d"}
    assert {group for group, _ in windows[:3]} == {"a", "b", "d"}
    for group in counts:
        ids = tokenizer("\n\n".join(texts[group]), add_special_tokens=False)["input_ids"]
        starts = []
        for _, window in (entry for entry in windows if entry[0] == group):
            starts += [s for s in range(len(ids)) if ids[s : s + 64] == window]
        assert len(starts) == counts[group]
        assert all(b - a >= 64 for a, b in pairwise(sorted(starts)))
    fewer = heldout_windows(home, corpus, tokenizer, CONFIG.model_copy(update={"windows": 2}))
    assert fewer == windows[:2]
    assert heldout_windows(home, corpus, tokenizer, CONFIG.model_copy(update={"seed": 1})) != windows


def test_every_policy_is_asked_about_the_same_tokens_and_once(
    home: Home, corpus: Corpus, policy: str, tmp_path: Path
) -> None:
    other = add_base_policy(home, tiny_policy(tmp_path / "other", seed=5)).digest
    first, second = (context_gain(home, digest, corpus, CONFIG) for digest in (policy, other))
    assert first.loss_long != second.loss_long
    assert [(r.windows, r.groups, r.tokens) for r in (first, second)] == [(6, 3, 48)] * 2
    before = (home / "journal.jsonl").read_text()
    assert context_gain(home, policy[:12], corpus, CONFIG) == first
    assert (home / "journal.jsonl").read_text() == before


def test_a_corpus_of_short_documents_gives_a_result_that_says_so(home: Home, policy: str) -> None:
    corpus = _corpus(home, [("heldout", "a", _text(0, 20)), ("screen", "b", _text(1, 300))])
    result = context_gain(home, policy, corpus, CONFIG)
    assert (result.gain, result.loss_long, result.windows, result.tokens) == (None, None, 0, 0)
    assert "0 windows of 64 tokens, 6 were asked for" in result.note


def test_a_shorter_native_context_is_stretched_and_said_so(home: Home, corpus: Corpus, policy: str) -> None:
    longer = CONFIG.model_copy(update={"long": 100, "windows": 2})
    result = context_gain(home, policy, corpus, longer)
    assert "stretched from 64 to 100 tokens, untrained" in result.note
    folder = policy_folder(home, policy)
    model = load_policy(folder, device="cpu", config=extend(load_config(folder), ExtensionConfig(context=100))).model
    with torch.no_grad():
        windows = heldout_windows(home, corpus, load_tokenizer(folder), longer)
        assert result.loss_long == pytest.approx(mean(_reference(model, ids, 8) for _, ids in windows), rel=1e-5)


def test_a_model_whose_positions_end_is_measured_up_to_there(home: Home, corpus: Corpus, tmp_path: Path) -> None:
    learned = add_base_policy(home, tiny_policy(tmp_path / "gpt2", "gpt2")).digest
    assert context_gain(home, learned, corpus, CONFIG).gain is not None
    with pytest.raises(ConfigError, match=r"no rotary positions.*Set evaluation\.long to at most 64"):
        context_gain(home, learned, corpus, CONFIG.model_copy(update={"long": 100}))


def test_a_policy_that_changed_on_disk_is_not_evaluated(home: Home, corpus: Corpus, policy: str) -> None:
    weights = policy_folder(home, policy) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(PolicyError, match=f"expected {policy[:12]}"):
        context_gain(home, policy, corpus, CONFIG)


def test_contexts_that_do_not_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="must be less than long 64"):
        ContextGainConfig(long=64, short=56, targets=8)
