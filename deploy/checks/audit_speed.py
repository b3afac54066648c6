"""How fast the audit hashes a version, beside SHA-256 itself over the same files, both in one run.

    python deploy/checks/audit_speed.py --megabytes 2000
    python deploy/checks/audit_speed.py --home .policylong 3          a version of a home, and its corpus

A version of random tables is made in a temporary folder, or a home's is taken with the corpus behind it; the files are
read once so that both sides find them in memory, and then hashed alternately: by the audit's own functions (digest,
size, rows, schema, strange files) and by ``hashlib`` alone. The exit code is 1 when the audit reaches less than 80 % of
SHA-256's own speed.
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

from storage.corpora import corpus_folder
from storage.digests import digest_json
from storage.errors import PolicylongError
from storage.findings import failures
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.schemas import SAMPLES
from storage.tables import write_table
from storage.versions import load_manifest, publish_version, resolve_version, verify_version, version_uri
from tasks.audit.chain import audit_corpus
from tasks.audit.looked import Looked

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


def files_of(home: Home, version: str, *, corpus: bool) -> list[Path]:
    """Every file of a version, and with ``corpus`` of the corpus behind it."""
    folders = [home / version_uri(version)]
    if corpus:
        folders.append(home / corpus_folder(load_manifest(home, version).corpus))
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def sha256_seconds(files: Sequence[Path]) -> float:
    """Seconds that SHA-256 of every file takes, read as fast as Python reads."""
    began = time.perf_counter()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()
    return time.perf_counter() - began


def audit_seconds(home: Home, version: str, *, corpus: bool) -> float:
    """Seconds that the audit's look at every file takes; raises ``SystemExit`` when it finds something wrong."""
    began = time.perf_counter()
    findings = verify_version(home, version)
    if corpus:
        findings += audit_corpus(Looked(home), load_manifest(home, version))
    seconds = time.perf_counter() - began
    wrong = failures(findings)
    if wrong:
        raise SystemExit(f"a file is damaged: {wrong[0].line}")
    return seconds


def measure(home: Home, version: str, repeats: int, *, corpus: bool) -> float:
    """Measures, prints, and returns the audit's share of SHA-256's own speed."""
    files = files_of(home, version, corpus=corpus)
    size = sum(path.stat().st_size for path in files) / 1e6
    sha256_seconds(files)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pairs = [(sha256_seconds(files), audit_seconds(home, version, corpus=corpus)) for _ in range(repeats)]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    plain, audit = (statistics.median(side) for side in zip(*pairs, strict=True))
    share = plain / audit
    print(f"{size:,.0f} MB in {len(files):,} files", end=": ")
    print(f"SHA-256 {size / plain:,.0f} MB/s, audit {size / audit:,.0f} MB/s, {share:.1%} of it")
    print(f"medians of {repeats}; the audit's peak memory grew by {grown:,.0f} MiB")
    return share


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 0 when the audit is fast enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the version that is made (1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each side is measured (5)")
    parser.add_argument("--scratch", type=Path, help="folder for the version (the system's temporary folder)")
    parser.add_argument("--home", type=Path, help="measure on a version of this home, and on its corpus")
    parser.add_argument(
        "version", nargs="?", default="1", help="that version: a round, CAMPAIGN:ROUND, a beginning (1)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.home is not None:
        home = Home(chosen.home)
        try:
            version = resolve_version(home, chosen.version)
        except PolicylongError as error:
            parser.error(str(error))
        return 0 if measure(home, version, chosen.repeats, corpus=True) >= SHARE else 1
    with tempfile.TemporaryDirectory(dir=chosen.scratch, prefix="audit-speed-") as folder:
        home = Home.open(Path(folder) / "home")
        version = make_version(home, chosen.megabytes)
        return 0 if measure(home, version, chosen.repeats, corpus=False) >= SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
