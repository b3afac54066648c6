"""Assembly beside the mere writing of its tables by pyarrow and by datasets, per second of processor."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.policy import load_tokenizer
from storage.errors import InputError
from storage.schemas import SAMPLES
from storage.tables import open_table, read_table
from tasks.benchmarks.contexts import drawn_chunks, negatives_table, verdicts_table
from tasks.benchmarks.measurement import Measurement, Target
from tasks.benchmarks.scene import Scene
from tasks.benchmarks.sizes import Size
from tasks.benchmarks.timing import in_turns
from tasks.corpus.tokenizing import tokenizer_digest
from tasks.samples.assembly import AssemblyConfig, AssemblyInputs, assemble

POSITIVES = 24


def assembling(scene: Scene, size: Size) -> Measurement:
    """Tokens assembled and written per second of one core, beside writing the finished table."""
    inputs, config = assembly_work(scene, size.assembled_roots, size.sample_tokens)
    ref = assemble.produce(scene.home, inputs, config)["samples"]
    with open_table(scene.home.path, ref) as file:
        table = file.read()
    rows = table.to_pylist()
    tokens = sum(row["length"] for row in rows)
    if not tokens:
        raise InputError(f"{size.assembled_roots} roots fill no sample of {size.sample_tokens} tokens.")
    tokenizer, texts = load_tokenizer(Path(scene.policy.folder)), _texts(scene, rows)
    with tempfile.TemporaryDirectory(prefix="policylong-bench-") as folder:
        target = Path(folder) / "samples.parquet"
        times = in_turns(
            {
                "ours": lambda: assemble.produce(scene.home, inputs, config),
                "pyarrow": lambda: _write(table, target),
                "pyarrow, rows": lambda: _write(pa.Table.from_pylist(rows, schema=SAMPLES.arrow), target),
                "datasets": lambda: _by_datasets(rows, target),
                "tokenizer": lambda: [tokenizer(text, add_special_tokens=False) for text in texts],
            },
            repeats=size.repeats,
            clock=time.process_time,
        )
    return Measurement(
        name="tokens assembled and written per second and core",
        unit="tokens/s",
        ours=times.figure("ours", "tables of verdicts to samples, written and hashed", amount=tokens),
        alternatives=(
            times.figure("pyarrow", "pyarrow writes the finished Arrow table", amount=tokens),
            times.figure("pyarrow, rows", "pyarrow makes the table of rows and writes it", amount=tokens),
            times.figure("datasets", "datasets does the same, with its own settings", amount=tokens),
            times.figure("tokenizer", "the tokenizer alone, every different chunk once", amount=tokens),
        ),
        ratio=times.ratio("pyarrow", "ours"),
        ratio_of="ours over pyarrow",
        target=Target(sense="at least", value=0.5),
        conditions={
            "samples": len(rows),
            "tokens": tokens,
            "tokens a sample": config.target_tokens,
            "roots": size.assembled_roots,
            "different chunks": len(texts),
            "positives a root": POSITIVES,
            "verdicts": "made up over real roots and chunks",
            "seconds": "of processor, all threads",
            "settings": "Parquet, zstd 3, no dictionaries",
            "ratio to pyarrow from rows": round(times.ratio("pyarrow, rows", "ours"), 3),
            "ratio to datasets": round(times.ratio("datasets", "ours"), 3),
        },
    )


def assembly_work(scene: Scene, count: int, target_tokens: int) -> tuple[AssemblyInputs, AssemblyConfig]:
    """The inputs of an assembly of ``count`` roots with ``POSITIVES`` contexts and as many negatives each."""
    roots, rows = scene.roots(), scene.rows(count)
    drawn = drawn_chunks(scene.home, roots, scene.corpus.chunks, rows, 2 * POSITIVES)
    chosen = {root: chunks[:POSITIVES] for root, chunks in drawn.items()}
    inputs = AssemblyInputs(
        shards=((rows.start, rows.stop),),
        verdicts=(verdicts_table(scene.home, roots, chosen),),
        negatives=(negatives_table(scene.home, chosen, {r: chunks[POSITIVES:] for r, chunks in drawn.items()}),),
        roots=roots,
        corpus=scene.corpus.digest,
        tokenizer=tokenizer_digest(Path(scene.policy.folder)),
        separator=scene.build.verification.separator,
        negatives_per_positive=1,
        policy=scene.policy,
    )
    return inputs, AssemblyConfig(target_tokens=target_tokens, reuse_cap=1000)


def _texts(scene: Scene, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of the different chunks of samples."""
    ids = {segment["chunk_id"] for row in rows for segment in row["segments"] if segment["chunk_id"]}
    chunks = read_table(scene.home.path, scene.corpus.chunks, ["chunk_id", "text"])
    return [text for chunk, text in chunks.iter_rows() if chunk in ids]


def _write(table: pa.Table, target: Path) -> None:
    pq.write_table(table, target, compression="zstd", compression_level=3, use_dictionary=False)


def _by_datasets(rows: list[dict[str, Any]], target: Path) -> None:
    from datasets import Dataset, Features

    features = Features.from_arrow_schema(SAMPLES.arrow)
    Dataset.from_list(rows, features=features).to_parquet(target)
