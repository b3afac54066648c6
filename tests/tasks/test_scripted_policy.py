"""Known answers: a language model whose every distribution is written down here, and the numbers worked out by hand.

The next token depends on the last one and on whether the word ``cue`` stood anywhere before. All entropies are
multiples of ln 2 = 0.693147 nats ("bits" below): a choice among two is 1 bit, among four 2 bits, a certain one 0.

    last token    without cue                  with cue
    fork          left right up down   2 bits  left right           1 bit      cue helps: gain (2 - 1) / 2 = 0.5
    trap          left right           1 bit   left right up down   2 bits     cue hurts: gain (1 - 2) / 1 = -1
    left          calm                 0 bits  calm fork            1 bit      nothing to gain: gain 0
    <s>           calm fork left right 2 bits
    any other     calm                 0 bits
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.scoring import Scorer
from storage.home import Home
from storage.tables import read_table
from tasks.resources import PolicyInputs, ReadyPolicy
from tasks.screening.entropy import EntropyConfig, EntropyInputs, screen_entropy, select_positions
from tasks.screening.verification import VerificationConfig, VerificationInputs, relative_gain, verify
from tests.literal_method import LiteralPolicy
from tests.word_world import WordWorld, make_word_world, word_tokenizer

BIT = math.log(2)
WORDS = "calm fork trap left right up down cue".split()
TABLE: dict[str, tuple[str, str]] = {
    "fork": ("left right up down", "left right"),
    "trap": ("left right", "left right up down"),
    "left": ("calm", "calm fork"),
    "<s>": ("calm fork left right", "calm fork left right"),
}
OTHERWISE = ("calm", "calm")
COIN = ("left right", "left right")

#        0    1    2    3    4    5    6    7    8    9    10   11    12   13   14   15
ROOT = "calm calm calm calm calm calm fork left calm calm trap right calm calm calm calm"
CUE, PLAIN, COPY = "calm cue calm", "calm calm calm", "fork left calm"
"""Chunks 1, 2 and 3; chunk 0 is the root's own document."""


class Scripted(torch.nn.Module):
    """Answers from a table of words, one row of logits per token; what is not in the table can't come."""

    def __init__(self, table: dict[str, tuple[str, str]], otherwise: tuple[str, str]) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # where a model's device is looked for
        self.ids = {word: number for number, word in enumerate(("<s>", "\n\n", *WORDS))}
        self.table = {self.ids[word]: choice for word, choice in table.items()}
        self.otherwise = otherwise

    @property
    def base_model(self) -> Scripted:
        return self

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        logits = torch.full((*input_ids.shape, len(self.ids)), -math.inf)
        for row, ids in enumerate(input_ids.tolist()):
            for place, token in enumerate(ids):
                words = self.table.get(token, self.otherwise)[self.ids["cue"] in ids[: place + 1]].split()
                logits[row, place, [self.ids[word] for word in words]] = -math.log(len(words))
        return SimpleNamespace(logits=logits)


@pytest.fixture
def screen(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """screen(config, bos=…, table=…) → (world, policy inputs, rows of screened, rows of positions)."""

    def screened(
        config: EntropyConfig,
        *,
        bos: bool = False,
        table: dict[str, tuple[str, str]] = TABLE,
        otherwise: tuple[str, str] = OTHERWISE,
    ) -> tuple[WordWorld, PolicyInputs, list[dict[str, Any]], list[dict[str, Any]]]:
        tokenizer = word_tokenizer(WORDS, bos=bos)
        world = make_word_world(home, tokenizer, [[ROOT], [CUE, PLAIN, COPY]], [(0, 0, 1)])
        scorer = Scorer(Scripted(table, otherwise))
        policy = PolicyInputs(digest=f"scripted {bos} {otherwise}", threads=1, folder="nowhere")
        ready = ReadyPolicy(tokenizer=tokenizer, bos=(0,) if bos else (), context=64, scorer=scorer)
        monkeypatch.setattr("tasks.resources._policy", (policy, ready))
        shard = EntropyInputs(roots=world.roots, first_root=0, stop_root=1, policy=policy)
        refs = screen_entropy.run(home, shard, config)
        return world, policy, *(read_table(home.path, refs[name]).to_dicts() for name in ("screened", "positions"))

    return screened


def in_bits(nats: float) -> Any:
    return pytest.approx(nats / BIT, abs=1e-6)


def test_without_a_bos(screen: Callable[..., Any]) -> None:
    """t = 7 follows fork (2 bits), t = 11 follows trap (1 bit), 13 others are certain: 15 predictions.

    mean = 3/15 = 0.2; mean square = (4 + 1)/15 = 1/3; variance = 1/3 - 0.04 = 0.293333; std = 0.541603.
    tau(2) = 0.2 + 2 * 0.541603 = 1.283205: only 2 bits are over it. tau(1) = 0.741603: 1 bit as well.
    """
    _, _, screened, positions = screen(EntropyConfig(alpha=2.0, min_context=0, query_radius=2))
    assert screened[0]["scored"] == 15
    assert in_bits(screened[0]["mean"]) == 0.2
    assert pytest.approx((screened[0]["std"] / BIT) ** 2, abs=1e-6) == 0.2933333
    assert in_bits(screened[0]["threshold"]) == 1.283205
    assert [row["t"] for row in positions] == [7], "the entropy belongs to the token after the fork, not to the fork"
    assert positions[0]["token_id"] == 2 + WORDS.index("left")
    assert in_bits(positions[0]["entropy"]) == 2.0
    assert in_bits(positions[0]["nll"]) == 2.0  # left came, one of four
    assert positions[0]["query"] == "calm fork left calm calm"
    _, _, screened, positions = screen(EntropyConfig(alpha=1.0, min_context=0))
    assert in_bits(screened[0]["threshold"]) == 0.741603
    assert [(row["t"], round(row["entropy"] / BIT, 6)) for row in positions] == [(7, 2.0), (11, 1.0)]


def test_with_a_bos_the_first_token_has_a_prediction_too(screen: Callable[..., Any]) -> None:
    """t = 0 follows <s> (2 bits): 16 predictions, 2 + 2 + 1 bits among them.

    mean = 5/16 = 0.3125; mean square = 9/16 = 0.5625; variance = 0.464844; std = 0.681795.
    tau(2) = 1.676090; tau(1) = 0.994295, and 1 bit is just over that.
    """
    _, _, screened, positions = screen(EntropyConfig(alpha=2.0, min_context=0), bos=True)
    assert screened[0]["scored"] == 16
    assert in_bits(screened[0]["threshold"]) == 1.676090
    assert [row["t"] for row in positions] == [0, 7]
    assert in_bits(positions[0]["entropy"]) == 2.0
    _, _, screened, positions = screen(EntropyConfig(alpha=1.0, min_context=0), bos=True)
    assert in_bits(screened[0]["threshold"]) == 0.994295
    assert [row["t"] for row in positions] == [0, 7, 11]


def test_what_min_context_skips_counts_in_neither_statistics_nor_selection(screen: Callable[..., Any]) -> None:
    """Of t = 8 … 15 only t = 11 is uncertain: mean 1/8, variance 1/8 - 1/64 = 0.109375, std 0.330719, tau 0.786438."""
    for bos in (False, True):
        _, _, screened, positions = screen(EntropyConfig(alpha=2.0, min_context=8), bos=bos)
        assert screened[0]["scored"] == 8
        assert in_bits(screened[0]["threshold"]) == 0.786438
        assert [row["t"] for row in positions] == [11]


def test_an_entropy_at_the_threshold_is_not_over_it(screen: Callable[..., Any]) -> None:
    """Every prediction is one bit: std 0, tau = mean = 1 bit for every alpha, and nothing is strictly over it.

    0 0 0 0 5: mean 1, variance (4 * 1 + 16) / 5 = 4, std 2, and tau(2) = 1 + 2 * 2 = 5 exactly.
    """
    for alpha in (0.0, 2.0):
        _, _, screened, positions = screen(EntropyConfig(alpha=alpha, min_context=8), table={}, otherwise=COIN)
        assert screened[0]["selected"] == 0
        assert in_bits(screened[0]["threshold"]) == 1.0
        assert positions == []
    values = np.array([0.0, 0, 0, 0, 5])
    assert select_positions(values, 0, EntropyConfig(alpha=2.0, min_context=0)).positions == ()
    assert select_positions(values, 0, EntropyConfig(alpha=1.999999, min_context=0)).positions == (4,)


@pytest.fixture
def judge(home: Home, screen: Callable[..., Any]) -> Callable[..., dict[tuple[int, int], dict[str, Any]]]:
    """judge(epsilon, bos=…) → verdict by (t, chunk), for t = 7, 8 and 11 and the chunks 1, 2 and 3."""

    def judged(epsilon: float, *, bos: bool = False) -> dict[tuple[int, int], dict[str, Any]]:
        world, policy, _, positions = screen(EntropyConfig(alpha=1.0, min_context=1), bos=bos)
        assert [row["t"] for row in positions] == [7, 11]
        certain = {**positions[0], "t": 8, "token_id": 2, "entropy": 0.0, "nll": 0.0}
        wanted = [{"root": 0, "t": t, "chunk": c, "rank": c, "score": 0.5, "excluded": None} for t in (7, 8, 11)
                  for c in (1, 2, 3)]  # fmt: skip
        place = f"{epsilon!r}-{bos}"
        inputs = VerificationInputs(
            positions=world.table("positions", [positions[0], certain, positions[1]], place),
            candidates=world.table("candidates", wanted, place),
            roots=world.roots,
            corpus=world.corpus.digest,
            policy=policy,
        )
        config = VerificationConfig(epsilon=epsilon, placebo_fraction=0)
        rows = read_table(home.path, verify.run(home, inputs, config)["verdicts"]).to_dicts()
        return {(row["t"], row["chunk"]): row for row in rows}

    return judged


@pytest.mark.parametrize("bos", [False, True])
def test_gains_and_what_is_kept(judge: Callable[..., Any], bos: bool) -> None:
    verdicts = judge(0.4, bos=bos)
    assert len(verdicts) == 9
    bits = {
        #  t, chunk:  before, after, gain
        (7, 1): (2, 1, 0.5),  # the cue halves the fork's uncertainty
        (7, 2): (2, 2, 0.0),
        (7, 3): (2, 2, 0.0),
        (8, 1): (0, 1, 0.0),  # certain without the chunk: there is nothing to gain, whatever the chunk does
        (8, 2): (0, 0, 0.0),
        (8, 3): (0, 0, 0.0),
        (11, 1): (1, 2, -1.0),  # the cue doubles the trap's
        (11, 2): (1, 1, 0.0),
        (11, 3): (1, 1, 0.0),
    }
    for key, (before, after, gain) in bits.items():
        row = verdicts[key]
        assert before == in_bits(row["entropy_before"])
        assert after == in_bits(row["entropy_after"])
        assert row["gain"] == pytest.approx(gain, abs=1e-6)
        assert row["kept"] == (key == (7, 1))
        assert (row["reason"] is None) == row["kept"]
        assert row["literal"] == (key in ((7, 3), (8, 3)))  # "fork left" and "left calm" stand in chunk 3
    assert in_bits(verdicts[7, 1]["nll_after"]) == 1  # left is one of two now
    assert in_bits(verdicts[11, 1]["nll_after"]) == 2


def test_a_gain_of_epsilon_is_not_over_it(judge: Callable[..., Any]) -> None:
    row = judge(0.4)[7, 1]
    gain = relative_gain(row["entropy_before"], row["entropy_after"])
    assert not judge(gain)[7, 1]["kept"]
    assert judge(math.nextafter(gain, 0))[7, 1]["kept"]
    assert not judge(0.0)[7, 2]["kept"], "no gain is not kept, whatever epsilon is"


def test_the_literal_method_gives_the_same_numbers() -> None:
    """The reference that the product is compared with elsewhere is held to the same hand-made answers."""
    for bos in (False, True):
        literal = LiteralPolicy(Scripted(TABLE, OTHERWISE), word_tokenizer(WORDS, bos=bos))
        ids = literal.tokens(ROOT)
        predictions = literal.root_predictions(ids)
        expected = {7: 2, 11: 1, **({0: 2} if bos else {})}
        assert {t: round(p.entropy / BIT, 9) for t, p in predictions.items() if p.entropy} == expected
        assert sorted(predictions) == list(range(0 if bos else 1, 16))
        assert literal.verdict(CUE, ids, 7, predictions[7]).gain == pytest.approx(0.5)
        assert literal.verdict(CUE, ids, 11, predictions[11]).gain == pytest.approx(-1.0)
        assert literal.verdict(CUE, ids, 8, predictions[8]).gain == 0.0


def test_a_context_is_chunk_separator_root_each_tokenised_alone(
    judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """<s> calm cue calm \\n\\n and the root, read up to the token before the last position that is judged."""
    read: list[list[int]] = []
    real = Scripted.forward

    def noted(self: Scripted, input_ids: Tensor, use_cache: bool = False) -> Any:
        read.extend(input_ids.tolist())
        return real(self, input_ids, use_cache)

    monkeypatch.setattr(Scripted, "forward", noted)
    judge(0.4, bos=True)
    ids = {word: number for number, word in enumerate(("<s>", "\n\n", *WORDS))}
    expected = [ids[word] for word in ["<s>", *CUE.split(), "\n\n", *ROOT.split()[:11]]]
    assert expected in read
