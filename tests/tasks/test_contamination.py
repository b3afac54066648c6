"""Benchmark texts are found in documents wherever they stand in their file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import InputError
from tasks.corpus.contamination import Benchmarks, benchmark_files

QUESTION = "Which of the two functions of the module moves every value by a step, and which one by a word?"


@pytest.fixture(params=["json", "jsonl", "csv", "parquet", "txt"])
def benchmark(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"bench.{request.param}"
    if request.param == "json":
        path.write_text(json.dumps({"data": [{"paragraphs": [{"context": [1, None, QUESTION]}]}]}))
    elif request.param == "jsonl":
        path.write_text(json.dumps({"q": "short"}) + "\n" + json.dumps({"q": QUESTION}) + "\n")
    elif request.param == "csv":
        path.write_text(f'text,label\n"{QUESTION}",a\n')
    elif request.param == "parquet":
        pq.write_table(pa.table({"n": [1], "q": [QUESTION]}), path)
    else:
        path.write_text(f"before\n{QUESTION}\nafter\n")
    return path


def test_a_document_with_a_run_of_the_benchmark_is_refused(benchmark: Path) -> None:
    runs = Benchmarks(benchmark_files([str(benchmark)]), 64)
    folded = QUESTION[:70].replace(" ", "\n  ")
    refusal = runs.refuse(f"A document that quotes: {folded} and goes on.")
    assert refusal is not None
    assert refusal.reason == "contaminated"
    assert runs.refuse(f"A document that quotes less: {QUESTION[:60]} and goes on with other words.") is None
    assert runs.texts > 0


def test_benchmark_texts_shorter_than_a_run_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text(json.dumps({"q": "short"}) + "\n" + json.dumps({"q": QUESTION}) + "\n")
    runs = Benchmarks(benchmark_files([str(tmp_path)]), 64)
    assert (runs.texts, runs.too_short) == (2, 1)


def test_a_benchmark_that_is_missing_or_broken_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{")
    with pytest.raises(InputError, match="benchmark /nowhere is missing"):
        benchmark_files(["/nowhere"])
    with pytest.raises(InputError, match=r"benchmark bench.json can't be read"):
        Benchmarks(benchmark_files([str(tmp_path / "bench.json")]), 64)
