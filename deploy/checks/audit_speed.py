"""How fast the audit hashes a version, beside SHA-256 itself over the same files, both in one run.

    python deploy/checks/audit_speed.py --megabytes 2000

A version of random tables is made in a temporary folder, read once so that both sides find it in memory, and then
hashed alternately: by ``storage.versions.verify_version`` (digest, size, rows, schema, strange files) and by
``hashlib`` alone. The exit code is 1 when the audit reaches less than 80 % of SHA-256's own speed.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from storage.digests import digest_json
from storage.findings import failures
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.schemas import SAMPLES
from storage.tables import write_table
from storage.versions import publish_version, verify_version, version_uri

SHARE = 0.8
_TOKENS, _SHARD = 131_072, 128
"""Tokens of a sample, as in the papers; samples of a shard, some 50 MB."""


def make_version(home: Home, megabytes: int) -> str:
    """Publishes a version of at least so many megabytes of samples with random tokens."""
    draw, size = np.random.default_rng(0), 0
    files: dict[str, Source] = {}
    while size < megabytes * 1_000_000:
        rows = (
            {
                "sample_id": f"{len(files)}-{number}",
                "input_ids": draw.integers(0, 150_000, _TOKENS, dtype=np.int32),
                "length": _TOKENS,
                "segments": [],
                "dependencies": [],
            }
            for number in range(_SHARD)
        )
        name = shard_name("samples", len(files))
        ref = write_table(home.path, f"work/{len(files)}.parquet", SAMPLES, rows)
        files[name] = ref
        size += (home / ref.uri).stat().st_size
    manifest = Manifest(
        round=1,
        recipe="speed",
        config={},
        config_digest=digest_json({}),
        corpus="c" * 64,
        embedder="e" * 64,
        policy="d" * 64,
        parent_policy=None,
        parent_version=None,
        files=entries_of(home, files),
        numeric=NumericEnvironment(device="cpu", dtype="float32", threads=1, versions={}),
        funnel={},
        tokens={},
        seeds={},
        code_versions={},
        figures={},
    )
    return publish_version(home, manifest, files)


def sha256_seconds(folder: Path) -> float:
    """Seconds that SHA-256 of every file takes, read as fast as Python reads."""
    began = time.perf_counter()
    for path in sorted(folder.rglob("*.parquet")):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()
    return time.perf_counter() - began


def audit_seconds(home: Home, version: str) -> float:
    """Seconds that the audit's look at every file takes; raises ``SystemExit`` when it finds something wrong."""
    began = time.perf_counter()
    wrong = failures(verify_version(home, version))
    seconds = time.perf_counter() - began
    if wrong:
        raise SystemExit(f"the version is damaged: {wrong[0].line}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 0 when the audit is fast enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the version (1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each side is measured (5)")
    parser.add_argument("--scratch", type=Path, help="folder for the version (the system's temporary folder)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.scratch, prefix="audit-speed-") as folder:
        home = Home.open(Path(folder) / "home")
        version = make_version(home, chosen.megabytes)
        where = home / version_uri(version)
        size = sum(path.stat().st_size for path in where.rglob("*.parquet")) / 1e6
        sha256_seconds(where)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pairs = [(sha256_seconds(where), audit_seconds(home, version)) for _ in range(chosen.repeats)]
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    plain, audit = (statistics.median(side) for side in zip(*pairs, strict=True))
    share = plain / audit
    print(f"{size:,.0f} MB: SHA-256 {size / plain:,.0f} MB/s, audit {size / audit:,.0f} MB/s, {share:.1%} of it")
    print(f"medians of {chosen.repeats}; the audit's peak memory grew by {grown:,.0f} MiB")
    return 0 if share >= SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
