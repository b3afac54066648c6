"""Exports in the tokens of another tokenizer, against a literal reading of the version's tables and the texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from storage.digests import digest_json
from storage.errors import InputError, PolicyError
from storage.home import Home
from storage.schemas import SAMPLES
from tasks.exporting.audit import audit_export
from tasks.exporting.exporting import TOKENIZER, export_version, not_carried_file
from tasks.exporting.record import RECORD, Repacked, read_record
from tasks.exporting.repacking import token_at
from tasks.exporting.texts import piece
from tests.document_rounds import build_document_round, put_engines
from tests.published_world import PublishedWorld, publish_world
from tests.rounds import build_round, build_rounds
from tests.tiny_policies import tiny_tokenizer
from tests.world import make_world
from tests.world_by_hand import SEPARATOR, documents

Row = dict[str, Any]
SHARD = "samples/samples-00000.jsonl.zst"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedWorld]:
    folder = tmp_path_factory.mktemp("repacked")
    with pytest.MonkeyPatch.context() as patch:
        yield publish_world(make_world(Home.open(folder / "home"), folder / "scratch", patch))


def lines(path: Path) -> list[Row]:
    with pa.input_stream(str(path), compression="zstd") as file:
        return [json.loads(line) for line in file.read().decode().splitlines()]


def characters(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[tuple[int, int]]:
    """Characters of each token by the lengths of what they decode to; for texts of one byte a character."""
    spans, at = [], 0
    for token in ids:
        length = len(tokenizer.decode([token]))
        spans.append((at, at + length))
        at += length
    return spans


def saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(folder)
    return str(folder)


def letters(folder: Path) -> str:
    """A tokenizer with a token a byte, and a BOS in front of every text."""
    tokenizer = tiny_tokenizer(258)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    number = tokenizer.convert_tokens_to_ids("<s>")
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    return saved(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"), folder)


def repacked(folder: Path) -> Repacked:
    found = read_record(folder).repacked
    assert found is not None
    return found


def text_of(published: PublishedWorld, segment: Row) -> tuple[int, str]:
    """First character and text of a chunk or root, by plain loops over the rows."""
    world = published.world
    if segment["kind"] == "root":
        (root,) = [row for row in published.rows("roots") if row["root_id"] == segment["root_id"]]
        return root["char_start"], world.documents[root["doc"]]["text"][root["char_start"] : root["char_end"]]
    (chunk,) = [row for row in world.chunks if row["chunk_id"] == segment["chunk_id"]]
    return chunk["char_start"], world.documents[chunk["doc"]]["text"][chunk["char_start"] : chunk["char_end"]]


def expected(published: PublishedWorld, sample: Row, other: PreTrainedTokenizerFast, bos: list[int]) -> Row:
    """A sample in the other tokens, slowly: texts by loops, characters by what tokens decode to."""
    own = tiny_tokenizer()
    between = other(SEPARATOR, add_special_tokens=False)["input_ids"]
    ids, segments, roots, ends = list(bos), [], {}, {}
    for number, segment in enumerate(sample["segments"]):
        first, text = text_of(published, segment)
        whole = own(text)["input_ids"]
        skipped = len(own.decode(whole[: segment["source_start"]]))
        held = sample["input_ids"][segment["start"] : segment["end"]]
        part = own.decode(held)
        assert text[skipped : skipped + len(part)] == part
        new = other(part, add_special_tokens=False)["input_ids"]
        ids += between if number else []
        if segment["kind"] == "root":
            roots[segment["root_id"]] = (len(ids), first, held, new, part)
        else:
            ends[segment["chunk_id"]] = len(ids) + len(new)
        origin = {name: segment[name] for name in ("kind", "root_id", "chunk_id", "doc_id")}
        place = {"char_start": first + skipped, "char_end": first + skipped + len(part), "part": None}
        segments.append({**origin, "start": len(ids), "end": len(ids) + len(new), **place})
        ids += new
    dependencies = []
    for dependency in sample["dependencies"]:
        start, first, held, new, part = roots[dependency["root_id"]]
        begin, end = characters(own, held)[dependency["t"]]
        char = next((place for place in range(begin, end) if part[place] != " "), begin)
        at = next(n for n, (left, right) in enumerate(characters(other, new)) if left <= char < right)
        moved = {"position": start + at, "distance": start + at - ends[dependency["chunk_id"]], "char": first + char}
        dependencies.append({**dependency, **moved})
    dependencies.sort(key=lambda row: (row["position"], row["chunk_id"]))
    named = {"sample_id": digest_json([ids, segments]), "source_sample": sample["sample_id"]}
    return {**named, "input_ids": ids, "length": len(ids), "segments": segments, "dependencies": dependencies}


def test_letters_hold_the_same_texts_and_dependencies_as_a_literal_reading(
    published: PublishedWorld, tmp_path: Path
) -> None:
    home = published.world.home
    folder = letters(tmp_path / "letters")
    other = PreTrainedTokenizerFast.from_pretrained(folder)
    record = export_version(home, published.version, tmp_path / "out", "jsonl", tokenizer=folder)
    samples = published.rows("samples")
    found = lines(tmp_path / "out" / SHARD)
    for row, sample in zip(found, samples, strict=True):
        literal = expected(published, sample, other, [other.bos_token_id])
        for name, value in literal.items():
            assert row[name] == value, name
    assert any(sample["dependencies"] for sample in samples)
    lengths = [row["length"] for row in found]
    assert len(set(lengths)) > 1
    assert record.lengths is not None
    assert (record.lengths.least, record.lengths.most) == (min(lengths), max(lengths))
    assert (record.rows, record.tokens) == (len(samples), sum(lengths))
    assert record.lengths.quantiles["p50"] == sorted(lengths)[(len(lengths) + 1) // 2 - 1]
    told = repacked(tmp_path / "out")
    assert told.carried == told.dependencies == sum(len(sample["dependencies"]) for sample in samples)
    assert told.segments == sum(len(sample["segments"]) for sample in samples)
    assert lines(tmp_path / "out" / not_carried_file(0)) == []
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / TOKENIZER / name).read_bytes() == (Path(folder) / name).read_bytes()
    assert not audit_export(tmp_path / "out", home).failures
    assert [finding.status for finding in audit_export(tmp_path / "out", None).findings][-1] == "not-checkable"


def test_every_format_holds_the_same_samples(published: PublishedWorld, tmp_path: Path) -> None:
    from pyarrow import parquet

    home, folder = published.world.home, letters(tmp_path / "letters")
    for format in ("jsonl", "parquet", "datasets"):
        export_version(home, published.version, tmp_path / format, format, tokenizer=folder)  # type: ignore[arg-type]
        report = audit_export(tmp_path / format, home)
        assert {finding.status for finding in report.findings} == {"passed"}
    found = lines(tmp_path / "jsonl" / SHARD)
    assert parquet.read_table(tmp_path / "parquet/samples/samples-00000.parquet").to_pylist() == found
    assert list(load_from_disk(tmp_path / "datasets")) == found


def test_the_versions_own_tokenizer_gives_the_versions_tokens(published: PublishedWorld, tmp_path: Path) -> None:
    """Where nothing was cut; what was cut begins anew, and its first tokens may differ."""
    home = published.world.home
    export_version(home, published.version, tmp_path / "out", "jsonl", tokenizer=str(published.world.folder))
    whole = 0
    for row, sample in zip(lines(tmp_path / "out" / SHARD), published.rows("samples"), strict=True):
        if any(segment["source_start"] for segment in sample["segments"]):
            continue
        whole += 1
        assert row["input_ids"] == sample["input_ids"]
        names = [column for column in sample["dependencies"][0] if column != "char"] if sample["dependencies"] else []
        assert [{n: d[n] for n in names} for d in row["dependencies"]] == sample["dependencies"]
    assert whole


def test_documents_parts_and_tags_are_tokenised_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_engines(monkeypatch)
    folder = letters(tmp_path / "letters")
    other = PreTrainedTokenizerFast.from_pretrained(folder)
    texts = {row["doc_id"]: row["text"] for row in documents()}
    for recipe in ("untie-the-knots", "standard"):
        built = build_document_round(Home.open(tmp_path / recipe), recipe)
        export_version(built.home, built.version, tmp_path / f"{recipe}-out", "jsonl", tokenizer=folder)
        covered: dict[str, list[tuple[int, int]]] = {}
        for row, sample in zip(lines(tmp_path / f"{recipe}-out" / SHARD), built.tables["samples"][0], strict=True):
            assert [s["kind"] for s in row["segments"]] == [s["kind"] for s in sample["segments"]]
            for segment, old in zip(row["segments"], sample["segments"], strict=True):
                text = other.decode(row["input_ids"][segment["start"] : segment["end"]])
                if segment["kind"] == "tag":
                    assert text == f"[document {old['doc_id'][:8]}, part {old['source_start'] + 1}]"
                    assert (segment["part"], segment["char_start"]) == (old["source_start"], None)
                    continue
                assert text == texts[segment["doc_id"]][segment["char_start"] : segment["char_end"]]
                words = [f"w{token - 1}" for token in sample["input_ids"][old["start"] : old["end"]]]
                assert text.split() == words
                covered.setdefault(segment["doc_id"], []).append((segment["char_start"], segment["char_end"]))
            gaps = pairwise(row["segments"])
            assert {other.decode(row["input_ids"][a["end"] : b["start"]]) for a, b in gaps} <= {SEPARATOR}
        assert covered
        for parts in covered.values():
            ordered = sorted(parts)
            assert all(end <= start for (_, end), (start, _) in pairwise(ordered))
        assert not audit_export(tmp_path / f"{recipe}-out", built.home).failures


def test_what_meets_in_one_token_or_in_none_is_counted_and_listed(published: PublishedWorld, tmp_path: Path) -> None:
    """A tokenizer that takes a paragraph for one unknown word, and one that drops what it does not know."""
    home = published.world.home
    total = [d for sample in published.rows("samples") for d in sample["dependencies"]]
    by_paragraph = Tokenizer(models.WordLevel({"<u>": 0}, unk_token="<u>"))
    by_paragraph.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n"), "removed")
    words = saved(PreTrainedTokenizerFast(tokenizer_object=by_paragraph, unk_token="<u>"), tmp_path / "words")
    export_version(home, published.version, tmp_path / "one", "jsonl", tokenizer=words)
    told, found = repacked(tmp_path / "one"), lines(tmp_path / "one" / SHARD)
    listed = lines(tmp_path / "one" / not_carried_file(0))
    assert told.unknown_tokens == read_record(tmp_path / "one").tokens
    assert told.carried + sum(told.not_carried.values()) == told.dependencies == len(total)
    assert told.not_carried["same-token"] > 0
    assert [row["reason"] for row in listed].count("same-token") == told.not_carried["same-token"]
    for row in found:
        kept = [(d["position"], d["chunk_id"]) for d in row["dependencies"]]
        assert len(set(kept)) == len(kept)
    best = {(d["root_id"], d["chunk_id"]): d["gain"] for row in found for d in row["dependencies"]}
    for row in listed:
        near = [d for r in found for d in r["dependencies"] if d["root_id"] == row["root_id"]]
        assert any(d["chunk_id"] == row["chunk_id"] and d["gain"] >= row["gain"] for d in near)
    assert best
    assert not audit_export(tmp_path / "one", home).failures

    vowels = Tokenizer(models.BPE({"a": 0, "e": 1}, []))
    export_version(
        home, published.version, tmp_path / "few", "jsonl",
        tokenizer=saved(PreTrainedTokenizerFast(tokenizer_object=vowels), tmp_path / "vowels"),
    )  # fmt: skip
    told = repacked(tmp_path / "few")
    assert told.not_carried["no-token"] > 0
    assert told.carried + sum(told.not_carried.values()) == len(total)
    assert len(lines(tmp_path / "few" / not_carried_file(0))) == told.segments_empty + sum(told.not_carried.values())
    assert not audit_export(tmp_path / "few", home).failures


def test_a_forged_packing_is_found(published: PublishedWorld, tmp_path: Path) -> None:
    home, folder = published.world.home, tmp_path / "out"
    export_version(home, published.version, folder, "jsonl", tokenizer=letters(tmp_path / "letters"))
    record = json.loads((folder / RECORD).read_text())
    record["repacked"]["carried"] += 1
    (folder / RECORD).write_text(json.dumps(record))
    assert [finding.detail for finding in audit_export(folder, home).failures] == [
        "what was carried over is not what the record says"
    ]


def test_what_it_needs_and_does_not_have_is_said_in_one_line(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    (built,) = build_rounds(home, 1)
    alone = build_round(Home.open(tmp_path / "alone"))
    folder = letters(tmp_path / "letters")
    with pytest.raises(InputError, match="its corpus cccccccccccc is not in this home"):
        export_version(alone.home, alone.version, tmp_path / "a", "jsonl", tokenizer=folder)
    with pytest.raises(PolicyError, match="does not exist"):
        export_version(home, built.version, tmp_path / "b", "jsonl", tokenizer=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolicyError, match="has no tokenizer files"):
        export_version(home, built.version, tmp_path / "c", "jsonl", tokenizer=str(tmp_path / "empty"))
    with pytest.raises(PolicyError, match="neither a folder here nor to be had from the hub"):
        export_version(home, built.version, tmp_path / "d", "jsonl", tokenizer="owner/name")
    assert not any((tmp_path / name).exists() for name in "bcd")
    assert export_version(home, built.version, tmp_path / "e", "jsonl", tokenizer=folder).rows == 1
    assert SAMPLES.name == "samples"


@settings(deadline=None)
@given(text=st.text(max_size=40), cuts=st.sets(st.integers(1, 60)))
def test_the_pieces_of_a_text_cut_between_tokens_are_the_text(text: str, cuts: set[int]) -> None:
    found = tiny_tokenizer().backend_tokenizer.encode(text, add_special_tokens=False)
    borders = [0, *sorted(cut for cut in cuts if cut < len(found.ids)), len(found.ids)]
    pairs = [(a, b) for a, b in pairwise(borders) if a < b]
    spans = [piece(found.offsets, first, stop, len(text)) for first, stop in pairs]
    assert "".join(text[start:end] for start, end in spans) == text


@settings(deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=12), char=st.integers(0, 60))
def test_a_character_is_in_the_token_that_a_linear_search_finds(lengths: list[tuple[int, int]], char: int) -> None:
    offsets, at = [], 0
    for gap, length in lengths:
        offsets.append((at + gap, at + gap + length))
        at += gap + length
    assert token_at(offsets, char) == next((n for n, (a, b) in enumerate(offsets) if a <= char < b), None)
