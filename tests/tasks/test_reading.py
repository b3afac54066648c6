"""The reading step where there is no room, and its memory."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.errors import ResourceError
from storage.home import Home
from tasks.corpus.ingestion import IngestConfig
from tasks.corpus.reading import ReadInputs, read_documents

CONFIG = IngestConfig(paths=("rows.jsonl",)).reading


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes meanwhile; the system then says what a full disk says."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("broken", [False, True])
def test_a_full_disk_is_one_clear_error_and_the_same_call_carries_on(home: Home, tmp_path: Path, broken: bool) -> None:
    path = tmp_path / "rows.jsonl"
    texts = [" ".join(str(hash((n, i))) for i in range(60)) for n in range(1_500)]
    lines = [f"broken {text}" if broken and n % 2 else json.dumps({"text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    inputs = ReadInputs(files=(("rows.jsonl", "0" * 64),), paths=(str(path),))
    config = CONFIG.model_copy(update={"quarantine": CONFIG.quarantine.model_copy(update={"limit": 1.0})})
    with files_up_to(100_000), pytest.raises(ResourceError, match="the disk is full"):
        read_documents.run(home, inputs, config)
    assert read_documents.run(home, inputs, config)["documents"].rows == (750 if broken else 1_500)
