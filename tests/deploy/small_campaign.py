"""A campaign of real steps and a real publication that takes a second: what the kill drill's own test kills.

python -m tests.deploy.small_campaign HOME
"""

from __future__ import annotations

import sys
from pathlib import Path

from storage.campaigns import RoundRecord, record_round, start_campaign
from storage.checkpoints import StepKey, run_step, work_uri
from storage.digests import digest_bytes, digest_json
from storage.home import Home
from storage.manifests import Manifest, NumericEnvironment, Source, entries_of, shard_name
from storage.refs import Ref
from storage.schemas import TABLES
from storage.tables import write_table
from storage.versions import publish_version
from tests.world_by_hand import CONFIG, round_tables


def worked(home: Home, table: str, shard: int, rows: list[dict[str, object]]) -> Ref:
    """One shard of a table as a checkpointed step of a few hundredths of a second."""
    key = StepKey(step=table, code_version=1, inputs={"shard": shard}, config={})

    def produce() -> dict[str, Ref]:
        data = b"work"
        for _ in range(20_000):
            data = digest_bytes(data).encode()
        return {table: write_table(home.path, work_uri(key, table), TABLES[table], rows)}

    return run_step(home, key, produce)[table]


def main() -> None:
    home = Home.open(Path(sys.argv[1]))
    start_campaign(home, "small", CONFIG)
    for number in (1, 2):
        files: dict[str, Source] = {
            shard_name(table, shard): worked(home, table, 10 * number + shard, rows)
            for table, shards in round_tables(number).items()
            for shard, rows in enumerate(shards)
        }
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


if __name__ == "__main__":
    main()
