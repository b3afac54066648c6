"""Assembly as a step: whatever the verdicts are, every sample keeps every rule, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from storage.home import Home
from storage.refs import Ref
from storage.tables import read_table
from tasks.resources import PolicyInputs
from tasks.samples.assembly import AssemblyConfig, AssemblyInputs, assemble
from tasks.samples.bundles import Bundle, Context, Dependencies
from tasks.samples.packing import Measures, Packer
from tests.sample_rules import Round, check_round
from tests.word_world import BOS, SEPARATOR, WordWorld, make_word_world, negative, verdict, word_tokenizer

WORDS = [f"w{number}" for number in range(200)]
_numbers = count()


@dataclass(frozen=True)
class Bench:
    """A word world, with the tokenizer that its policy would have."""

    world: WordWorld
    tokenizer: PreTrainedTokenizerFast
    folder: Path
    bos: tuple[int, ...]
    chunk_ids: list[list[int]]

    def inputs(self, verdicts: list[dict[str, Any]], negatives: list[dict[str, Any]], **more: Any) -> AssemblyInputs:
        """The step's inputs for one shard with all roots."""
        place = f"{next(_numbers):05d}"
        return AssemblyInputs(
            shards=((0, len(self.world.root_rows)),),
            verdicts=(self.world.table("verdicts", verdicts, place),),
            negatives=(self.world.table("negatives", negatives, place),),
            roots=self.world.roots,
            corpus=self.world.corpus.digest,
            tokenizer=f"words {self.bos}",
            separator=SEPARATOR,
            policy=PolicyInputs(digest="none", threads=1, folder=str(self.folder)),
            **{"negatives_per_positive": 1, **more},
        )

    def made(self, refs: dict[str, Ref], inputs: AssemblyInputs, config: AssemblyConfig) -> Round:
        """The round that the step made, read back from its tables."""
        home, world = self.world.home.path, self.world
        rows = {name: read_table(home, ref).to_dicts() for name, ref in refs.items()}
        return Round(
            doc_ids=read_table(home, world.corpus.documents)["doc_id"].to_list(),
            chunks=world.chunk_rows,
            chunk_ids=self.chunk_ids,
            roots=world.root_rows,
            screened=range(len(world.root_rows)),
            verdicts=read_table(home, inputs.verdicts[0]).to_dicts(),
            negatives=read_table(home, inputs.negatives[0]).to_dicts(),
            samples=rows["samples"],
            unplaced=rows["unplaced"],
            target=config.target_tokens,
            layout=config.layout,
            reuse_cap=config.reuse_cap,
            bos=self.bos,
            separator=tuple(self.tokenizer(SEPARATOR, add_special_tokens=False)["input_ids"]),
            fill=inputs.fill,
        )

    def assembled(self, inputs: AssemblyInputs, config: AssemblyConfig) -> Round:
        """Runs the step."""
        return self.made(assemble.run(self.world.home, inputs, config), inputs, config)


def make_bench(
    folder: Path, lengths: Sequence[Sequence[int]], roots: Sequence[tuple[int, int, int]], *, bos: bool
) -> Bench:
    """A bench whose document d has paragraphs of ``lengths[d]`` random words."""
    draw = random.Random(7)
    tokenizer = word_tokenizer(WORDS, bos=bos)
    documents = [[" ".join(draw.choices(WORDS, k=length)) for length in own] for own in lengths]
    world = make_word_world(Home.open(folder / "home"), tokenizer, documents, roots)
    tokenizer.save_pretrained(folder / "policy")
    chunk_ids = tokenizer([row["text"] for row in world.chunk_rows], add_special_tokens=False)["input_ids"]
    return Bench(world, tokenizer, folder / "policy", (tokenizer.convert_tokens_to_ids(BOS),) if bos else (), chunk_ids)


@pytest.fixture(scope="module", params=[False, True], ids=["no BOS", "BOS"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Ten documents of four chunks of 3 to 12 words; a root in nine of them, a second one in two."""
    draw = random.Random(3)
    lengths = [[draw.randint(3, 12) for _ in range(4)] for _ in range(10)]
    roots = [(doc, 0, 2) for doc in range(9)] + [(0, 2, 2), (1, 2, 2)]
    return make_bench(tmp_path_factory.mktemp("small"), lengths, roots, bos=request.param)


@st.composite
def judged(draw: st.DrawFn, chunks: int, roots: Sequence[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Verdicts and negatives as the steps before could have written them; ``roots[r]`` is root r's document.

    A chunk of the root's own document never gets a verdict or a place among the kept negatives, nor does a root's own
    positive; other roots' positives and documents do.
    """
    verdicts, negatives = [], []
    for root, doc in enumerate(roots):
        eligible = [chunk for chunk in range(chunks) if chunk // 4 != doc]
        tried = draw(st.lists(st.sampled_from(eligible), max_size=5, unique=True))
        kept = [chunk for chunk in tried if draw(st.integers(0, 3))]
        for chunk in tried:
            gains = draw(st.lists(st.sampled_from([0.5, 0.625, 0.75, 0.875]), min_size=1, max_size=3))
            for t, gain in enumerate(gains, start=2):
                verdicts.append(verdict(root, t, chunk, gain if chunk in kept else 0.25, kept=chunk in kept))
        others = [chunk for chunk in eligible if chunk not in kept]
        for seed in kept:
            near = draw(st.lists(st.sampled_from(others), max_size=7, unique=True))
            for rank, chunk in enumerate(near):
                negatives.append(negative(root, seed, chunk, rank, kept=draw(st.integers(0, 4)) > 0))
    return verdicts, negatives


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_every_round_keeps_every_rule(small: Bench, data: st.DataObject) -> None:
    documents = [row["doc"] for row in small.world.root_rows]
    verdicts, negatives = data.draw(judged(len(small.world.chunk_rows), documents))
    fill: Literal["negative", "filler"] = data.draw(st.sampled_from(["negative", "filler"]))
    most = data.draw(st.sampled_from([None, None, 1]))
    config = AssemblyConfig(
        target_tokens=data.draw(st.integers(128, 200)),
        layout=data.draw(st.sampled_from(["global", "grouped"])),
        reuse_cap=data.draw(st.integers(1, 3)),
        seed=data.draw(st.integers(0, 3)),
    )
    per = data.draw(st.integers(0, 2))
    inputs = small.inputs(verdicts, negatives, negatives_per_positive=per, fill=fill, samples=most)
    made = small.assembled(inputs, config)
    check_round(made)
    assert most is None or len(made.samples) <= most


def test_rounds_of_this_test_fill_samples(small: Bench) -> None:
    """The property above is not about empty tables: a plain round gives several samples in both layouts."""
    verdicts, negatives = full_round(small, positives=5, per=4, own=4)
    for layout in ("global", "grouped"):
        made = small.assembled(
            small.inputs(verdicts, negatives), AssemblyConfig(target_tokens=160, layout=layout, reuse_cap=4)
        )
        assert len(check_round(made)) >= 10
        assert len(made.samples) >= 2
        assert any(sum(s["kind"] == "root" for s in sample["segments"]) > 1 for sample in made.samples)
        assert any(s["source_start"] for sample in made.samples for s in sample["segments"])


def full_round(
    bench: Bench, *, positives: int, per: int, own: int, documents: tuple[range, range] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Verdicts and negatives of a round in which every root has as many.

    ``documents``: those whose chunks are positives and those whose chunks are negatives; None: all, for both.
    """
    draw, verdicts, negatives = random.Random(11), [], []
    everything = range(1 + max(row["doc"] for row in bench.world.chunk_rows))
    for root, row in enumerate(bench.world.root_rows):
        helpful, near = documents or (everything, everything)
        foreign = [(n, c["doc"]) for n, c in enumerate(bench.world.chunk_rows) if c["doc"] != row["doc"]]
        chosen = sorted(draw.sample([number for number, doc in foreign if doc in helpful], positives))
        others = [number for number, doc in foreign if doc in near and number not in chosen]
        for chunk in chosen:
            for t in sorted(draw.sample(range(1, len(row["input_ids"])), 1 + chunk % own)):
                verdicts.append(verdict(root, t, chunk, draw.choice([0.5, 0.625, 0.75])))
            negatives += [negative(root, chunk, c, rank) for rank, c in enumerate(draw.sample(others, per))]
    return verdicts, negatives


def test_the_same_seed_gives_the_same_samples_and_another_one_another_order(small: Bench) -> None:
    verdicts, negatives = full_round(small, positives=5, per=4, own=3)
    for layout in ("global", "grouped"):
        config = AssemblyConfig(target_tokens=160, layout=layout, seed=1)
        first = small.inputs(verdicts, negatives)
        refs = assemble.run(small.world.home, first, config)
        again = assemble.produce(small.world.home, first, config)  # computed anew, not found finished
        assert {name: ref.sha256 for name, ref in refs.items()} == {name: ref.sha256 for name, ref in again.items()}
        other = small.assembled(first, config.model_copy(update={"seed": 2}))
        check_round(other)
        made = small.made(refs, first, config)
        assert [s["sample_id"] for s in made.samples] != [s["sample_id"] for s in other.samples]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Sixty documents of ten chunks of about 450 words; a root of three paragraphs in each of the first twelve."""
    draw = random.Random(5)
    lengths = [[draw.randint(400, 500) for _ in range(10)] for _ in range(60)]
    return make_bench(tmp_path_factory.mktemp("large"), lengths, [(doc, 0, 3) for doc in range(12)], bos=False)


APART = (range(12, 36), range(36, 60))
"""Positives and negatives of the large world; the roots' documents are the first twelve."""


@pytest.mark.parametrize("layout", ["global", "grouped"])
def test_a_sample_of_131072_tokens(large: Bench, layout: Literal["global", "grouped"]) -> None:
    """The paper's length: several roots, some 270 chunks, and dependencies over more than 100,000 tokens."""
    verdicts, negatives = full_round(large, positives=25, per=6, own=4, documents=APART)
    config = AssemblyConfig(target_tokens=131_072, layout=layout)
    made = large.assembled(large.inputs(verdicts, negatives), config)
    placed = check_round(made)
    sample = made.samples[0]
    assert len(sample["input_ids"]) == 131_072
    assert sum(segment["kind"] == "root" for segment in sample["segments"]) >= 4
    assert len(placed) >= 100
    farthest = max(dependency["distance"] for dependency in sample["dependencies"])
    assert farthest > 100_000 or layout == "grouped"


@pytest.mark.parametrize("target", [4_096, 32_768])
def test_other_lengths_are_exact_too(large: Bench, target: int) -> None:
    verdicts, negatives = full_round(large, positives=6, per=6, own=2, documents=APART)
    made = large.assembled(large.inputs(verdicts, negatives), AssemblyConfig(target_tokens=target))
    check_round(made)
    assert made.samples
    assert {sample["length"] for sample in made.samples} == {target}


def test_what_can_not_be_filled_is_reported_and_not_padded(small: Bench) -> None:
    verdicts, negatives = full_round(small, positives=2, per=1, own=1)
    made = small.assembled(small.inputs(verdicts, negatives), AssemblyConfig(target_tokens=5_000))
    assert made.samples == []
    assert check_round(made) == set()
    assert {row["reason"] for row in made.unplaced} == {"sample-not-filled"}


def test_a_budget_ends_the_round_and_the_rest_is_reported(small: Bench) -> None:
    verdicts, negatives = full_round(small, positives=5, per=4, own=2)
    config = AssemblyConfig(target_tokens=160, reuse_cap=8)
    whole = small.assembled(small.inputs(verdicts, negatives), config)
    assert len(whole.samples) >= 2
    made = small.assembled(small.inputs(verdicts, negatives, samples=1), config)
    check_round(made)
    assert [sample["sample_id"] for sample in made.samples] == [whole.samples[0]["sample_id"]]
    assert "budget" in {row["reason"] for row in made.unplaced}


def test_a_positive_that_found_no_room_is_no_negative_of_another_root() -> None:
    """Everything has ten tokens, target 45: roots 0 and 1 with chunks 1 and 2 make 40, and chunk 9 no longer fits.

    Root 0's nearest spare is that chunk 9, a positive of root 1; so the next one, 8, fills the rest and loses five.
    """
    tens, docs, size = dict.fromkeys(range(10), 10), {c: 100 + c for c in range(10)}, 45
    ten, nothing = Measures(tens, tens, {0: 0, 1: 1}, docs, bos=0, separator=0), Dependencies([], [], [], [])
    first = Bundle(0, (Context(0, 1, 0.9, range(0), (9, 8)),), nothing)
    second = Bundle(1, tuple(Context(1, c, g, range(0), ()) for c, g in ((2, 0.8), (9, 0.5))), nothing)
    packer = Packer(size, 0, ten, ())
    draft = packer.pack_one([first, second])
    assert draft is not None
    assert (list(draft.positives), draft.negatives, draft.room) == ([1, 2], {8: 0}, -5)
    assert [(u.root, u.chunk, u.reason) for u in packer.unplaced] == [(1, 9, "sample-full")]
