"""A campaign of real steps and a real publication that takes a second: what the drills' own tests disturb.

python -m tests.deploy.small_campaign HOME

A step of one table reads the shards of the table before it. Errors and exit codes are the command line's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from flows.failures import report
from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.checkpoints import StepKey, run_step, work_uri
from storage.digests import digest_bytes, digest_json
from storage.errors import PolicylongError
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import write_table
from storage.versions import publish_version
from tests.world_by_hand import CONFIG, round_tables


def worked(home: Home, table: str, shard: int, rows: list[dict[str, object]], read: Sequence[Ref]) -> Ref:
    """One shard of a table as a checkpointed step of a few hundredths of a second."""
    inputs = {"shard": shard, "read": [ref.sha256 for ref in read]}
    key = StepKey(step=table, code_version=1, inputs=inputs, config={})

    def produce() -> dict[str, Ref]:
        data = b"work"
        for _ in range(20_000):
            data = digest_bytes(data).encode()
        return {table: write_table(home.path, work_uri(key, table), TABLES[table], rows)}

    return run_step(home, key, produce, read=read)[table]


def tables_of(home: Home, number: int) -> dict[str, Source]:
    """Every shard of a round's tables, made one after the other."""
    files: dict[str, Source] = {}
    before: list[Ref] = []
    for table, shards in round_tables(number).items():
        made = [worked(home, table, 10 * number + shard, rows, before) for shard, rows in enumerate(shards)]
        files |= {shard_name(table, shard): ref for shard, ref in enumerate(made)}
        before = made
    return files


def campaign(home: Home) -> None:
    """Two rounds."""
    start_campaign(home, "small", CONFIG)
    for number in (1, 2):
        files = tables_of(home, number)
        manifest = Manifest(
            round=number,
            recipe="policylong",
            config=CONFIG,
            config_digest=digest_json(CONFIG),
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
        version = publish_version(home, manifest, files)
        record_round(home, "small", RoundRecord(round=number, version=version, policy="d" * 64))


def main() -> int:
    """Returns the exit code."""
    try:
        home = Home.open(Path(sys.argv[1]))
        with home.lock("campaign-run-small"):
            campaign(home)
    except (PolicylongError, OSError) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
